"""The glossary of metrics: nothing that is logged lacks a line in it, and a missing line is an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium
import pytest

from lm_gym import reviews
from lm_gym.agents import METRICS, PPO, LanguageModelPolicy, PPOConfig, train
from lm_gym.agents.metrics import HELD_OUT
from lm_gym.assets import REVIEWS_LM
from scripts import metric_glossary
from scripts.metric_glossary import field_descriptions, glossary, write_glossary


def test_every_metric_of_a_run_is_described() -> None:
    env = gymnasium.make_vec("lm_gym/Reviews-v0", num_envs=1, action_mode="token_and_log_prob", max_new_tokens=4)
    config = PPOConfig(episodes_per_iteration=4, epochs=1, minibatches=1)
    agent = PPO(LanguageModelPolicy.from_pretrained(REVIEWS_LM), config)
    result = train(agent, env.unwrapped, iterations=1, eval_prompts=reviews.prompts("held_out")[:2])
    assert result.history[0].keys() == METRICS.keys() | HELD_OUT.keys()


def test_tables_are_written(tmp_path: Path) -> None:
    write_glossary(tmp_path)
    text = (tmp_path / "training.md").read_text(encoding="utf-8")
    assert text.count("\n") == len(METRICS) + 2
    assert "\\|pi / pi_old - 1\\|" in text


def test_a_metric_without_a_note_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_glossary, "METRICS", {**METRICS, "new_one": "a formula"})
    with pytest.raises(ValueError, match="apart: new_one"):
        glossary()


@dataclass
class Bare:
    """Fields of which one has no docstring."""

    said: int
    """Described."""
    unsaid: int


def test_a_field_without_a_docstring_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Bare\.unsaid: needs a docstring"):
        field_descriptions(Bare)
