"""The demo over three seeds: RLHF must beat where it started, and its text must stay sound."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from lm_gym.app.pipeline.demo import demo_plan
from lm_gym.app.pipeline.loop import run_loop
from lm_gym.app.pipeline.workspace import Workspace


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_round_two_beats_the_base_and_stays_grammatical(seed: int, tmp_path: Path) -> None:
    plan = demo_plan(seed=seed)
    with Workspace(tmp_path / "run", plan.identity(), console=Console(quiet=True)) as workspace:
        report = run_loop(plan, workspace, command="test")
    rows = {row.name: row for row in report.rows}
    for row in report.rows:
        print(seed, row.name, row.true_score, row.grammatical, row.kl)
    assert rows["round 2"].true_score > rows["base"].true_score + 0.1
    assert rows["round 2"].true_score > rows["before RL (SFT)"].true_score + 0.05
    assert rows["round 2"].grammatical >= 0.8
    # What the KL penalty is for: without it the reward model is pleased and the text is not.
    assert rows["without KL"].score > rows["before RL (SFT)"].score
    assert rows["without KL"].true_score < rows["before RL (SFT)"].true_score
