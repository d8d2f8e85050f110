"""train() tells of its iterations unless it is told not to."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from lm_gym import TextGenerationVectorEnv
from lm_gym.agents import PPO, ProgressDisplay, train
from lm_gym.agents.callbacks import more_of, told_of


def test_told_of_an_iteration() -> None:
    metrics = {"score": 0.25, "kl": 1.5, "entropy": 0.5}
    assert told_of(metrics) == "score 0.250, KL 1.500, entropy 0.500"
    # 100 tokens take 1 s to sample, 1/2 s to score, 1/2 s to learn from: 50 tokens/s
    speeds = {"tokens_per_second_rollout": 100.0, "tokens_per_second_score": 200.0, "tokens_per_second_update": 200.0}
    assert told_of(metrics | speeds) == told_of(metrics)
    assert more_of(metrics | speeds) == "50 tokens/s"
    assert more_of({"eval_score": 2.0, "eval_kl": 4.0}) == "held-out score 2.000 at KL 4.000"
    assert more_of(metrics) == ""
    assert told_of({"kl": -1e-5}) == "KL 0.000"


@pytest.mark.parametrize("progress", [True, False])
def test_train_shows_progress_by_default_and_has_a_switch(
    progress: bool, start: Callable[[], tuple[PPO, TextGenerationVectorEnv]], capsys: pytest.CaptureFixture[str]
) -> None:
    switch: dict[str, Any] = {} if progress else {"progress": False}
    train(*start(), iterations=2, **switch)
    told = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[0] for line in told] == (
        ["PPO: iteration 1 of 2", "PPO: iteration 2 of 2"] if progress else []
    )
    assert all("tokens/s" in line for line in told)


def test_a_display_among_the_callbacks_takes_the_place_of_the_default(
    start: Callable[[], tuple[PPO, TextGenerationVectorEnv]], capsys: pytest.CaptureFixture[str]
) -> None:
    file = io.StringIO()
    train(*start(), iterations=1, callbacks=[ProgressDisplay("mine", console=Console(file=file, width=200))])
    assert file.getvalue().startswith("mine: iteration 1 of 1, score ")
    assert capsys.readouterr().err == ""
