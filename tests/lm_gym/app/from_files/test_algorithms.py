"""lm-gym train --agent: every algorithm by its name, and settings that it does not have."""

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from lm_gym.agents.algorithms.names import ALGORITHMS
from lm_gym.app.cli import main
from lm_gym.app.from_files.algorithm import algorithm_of
from lm_gym.app.options import AgentName, UpdateOptions
from lm_gym.errors import ConfigError
from lm_gym.testing import tiny_language_model


def test_the_command_knows_every_algorithm() -> None:
    assert get_args(AgentName) == tuple(ALGORITHMS)


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_what_is_not_given_is_the_agents_own(name: str) -> None:
    kind, config = algorithm_of(UpdateOptions(agent=name, episodes=64, learning_rate=3e-4), seed=3)
    assert (kind, type(config)) == (ALGORITHMS[name], kind.config_type)
    assert config == kind.config_type(episodes_per_iteration=64, learning_rate=3e-4, seed=3)


def test_what_is_given_reaches_the_config() -> None:
    given = UpdateOptions(agent="grpo", episodes=12, samples_per_prompt=6, epochs=2, minibatches=3, clip=0.1)
    _, config = algorithm_of(given, seed=0)
    assert (config.samples_per_prompt, config.epochs, config.minibatches) == (6, 2, 3)
    assert config.clip == 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("agent", "option", "value"), [("rloo", "gae_lambda", 0.9), ("a2c", "clip", 0.1), ("grpo", "gamma", 0.9)]
)
def test_a_setting_that_an_agent_lacks_is_refused(agent: str, option: str, value: float) -> None:
    words = f"--{option.replace('_', '-')}: must be a setting of the agent, and {agent} has none of the name, got"
    with pytest.raises(ConfigError, match=words):
        algorithm_of(UpdateOptions(agent=agent, **{option: value}), seed=0)


def test_a_run_of_another_agent_is_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_language_model("gpt2").model.save_pretrained(tmp_path / "model")
    tiny_language_model("gpt2").tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("a b", "c")))
    (tmp_path / "mine.py").write_text("def score(completions):\n    return [len(text) / 10 for text in completions]\n")
    given = ["train", "--model", str(tmp_path / "model"), "--reward-model", f"{tmp_path}/mine.py:score"]
    given += ["--data", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "run"), "--episodes", "16"]
    given += ["--iterations", "1", "--max-new-tokens", "4", "--device", "cpu", "--tracker", "none"]
    assert main([*given, "--agent", "rloo"]) == 0
    assert "RLOO" in capsys.readouterr().err
    assert main([*given, "--agent", "grpo", "--resume"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "agent" in said
    assert "GRPO" in said
    assert main([*given, "--agent", "rloo", "--pairs", "pairs.jsonl"]) == 2
    assert "--pairs: must go with --agent dpo" in " ".join(capsys.readouterr().err.split())
    rows = [{"prompt": "a b", "chosen": "d", "rejected": "e f"}, {"prompt": "c", "chosen": "a", "rejected": "b"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    offline = [*given, "--agent", "dpo", "--pairs", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "pairs")]
    assert main(offline) == 0
    told = json.loads((tmp_path / "pairs" / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(told["policy_loss"] - math.log(2)) < 1e-4
    charged = [*given, "--agent", "rloo", "--missing-eos-penalty", "2", "--out", str(tmp_path / "charged")]
    assert main(charged) == 0
    free, less = (
        json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[0]) for run in ("run", "charged")
    )
    assert 0 < free["eos_share"] < 1
    assert math.isclose(free["episode_return"] - less["episode_return"], 2 * (1 - free["eos_share"]), rel_tol=1e-5)
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "trained by RLOO" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
