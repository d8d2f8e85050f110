"""The finding of a run: the right sentence for what was measured, and no claim that the numbers do not bear."""

from __future__ import annotations

from typing import Any

from lm_gym.app.report.finding import best_row, finding_of
from lm_gym.app.report.report_data import ModelRow, Report, Role

Numbers = tuple[float | None, float, float]
"""True score, reward-model score, KL."""


def row(role: Role, name: str, numbers: Numbers, error: float = 0.02) -> ModelRow:
    truth, score, kl = numbers
    rest: dict[str, Any] = {"win_rate": 0.8, "win_rate_low": 0.7, "win_rate_high": 0.9}
    return ModelRow(
        name=name,
        description="",
        role=role,
        true_score=truth,
        true_score_standard_error=None if truth is None else error,
        score=score,
        kl=kl,
        response_length=10.0,
        eos_share=1.0,
        **rest,
    )


def report(start: Numbers, kept: Numbers, free: Numbers | None) -> Report:
    rows = [row("start", "before", start), row("rl", "round 1", kept)]
    if free is not None:
        rows.append(row("rl_without_kl", "without KL", free))
    return Report(
        title="t", summary="", command="", machine="", seconds=1.0, rows=tuple(rows), curves=(), reward_models=()
    )


def told(start: Numbers, kept: Numbers, free: Numbers | None = None) -> tuple[str, str]:
    found = finding_of(report(start, kept, free))
    assert found is not None
    return found.headline, found.verdict


def test_a_gain_is_claimed_only_outside_its_interval() -> None:
    start: Numbers = (0.5, 0.0, 0.0)
    assert told(start, (0.66, 1.0, 4.0))[0] == (
        "PPO with a KL penalty raised the true score: 0.50 before RL, 0.66 after it (round 1, at a KL of 4.0 nats per "
        "response)."
    )
    # two standard errors of .02 each: the 95 % interval of the difference is .055 to either side
    assert "did not measurably change the true score: 0.50" in told(start, (0.55, 1.0, 4.0))[0]
    assert "lowered the true score" in told(start, (0.4, 1.0, 4.0))[0]


def test_the_verdict_on_the_penalty_follows_the_true_score() -> None:
    start: Numbers = (0.5, 0.0, 0.0)
    kept: Numbers = (0.66, 1.0, 4.0)
    exploited = told(start, kept, (0.01, 1.5, 317.0))[1]
    assert "a true score of 0.01 and a KL of 317 nats, against 0.66 and 4.0 nats with it (round 1)" in exploited
    assert "(1.50 against 1.00)" in exploited
    assert exploited.endswith("PPO learned to exploit the reward model.")
    assert told(start, kept, (0.3, 0.9, 9.0))[1].endswith("and the reward model says so too.")
    assert "cannot tell them apart" in told(start, kept, (0.63, 1.5, 9.0))[1]
    assert "the penalty cost true score" in told(start, kept, (0.8, 1.5, 9.0))[1]
    assert told(start, kept)[1] == ""


def test_without_a_truth_the_reward_model_is_not_believed() -> None:
    headline, verdict = told((None, 0.1, 0.0), (None, 1.0, 4.0), (None, 3.0, 60.0))
    assert "from 0.10 to 1.00, at a KL of 4.0 nats per response" in headline
    assert "outscore the reference's on 80% of held-out prompts" in headline
    assert "the reward model's own opinion" in headline
    assert "no true score tells the two apart" in verdict


def test_the_best_row() -> None:
    rows = report((0.5, 0.0, 0.0), (0.66, 1.0, 4.0), (0.7, 3.0, 60.0)).rows
    assert best_row(rows) == ("without KL", "highest true score")
    rows = report((None, 0.0, 0.0), (None, 1.0, 4.0), (None, 3.0, 60.0)).rows
    assert best_row(rows)[0] == "round 1"  # its score says nothing against one that nothing held back
    assert best_row(()) == ("", "")


def test_rows_without_a_part_in_the_story_give_no_finding() -> None:
    found = report((0.5, 0.0, 0.0), (0.66, 1.0, 4.0), None)
    bare = [ModelRow(**{**vars(one), "role": None}) for one in found.rows]
    assert finding_of(Report(**{**vars(found), "rows": tuple(bare)})) is None


def test_a_score_below_zero_has_the_minus_of_the_tables() -> None:
    headline, _ = told((None, -0.16, 0.0), (None, -0.001, 0.04))
    assert "took the reward-model score from \u22120.16 to 0.00, at a KL of 0.0 nats" in headline
