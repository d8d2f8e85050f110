"""The finding of a run in sentences: what RL gained, what the KL penalty was worth, and the best model.

Knows: the rows of a report and their standard errors. Does not know: pages or terminals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .figures import finite
from .report_data import ModelRow, Report, Role
from .words import number

__all__ = ["Finding", "best_row", "finding_of"]

TWO_SIDED_95 = 1.959964


class Finding(NamedTuple):
    """Sentences about a run."""

    headline: str
    """What RL with the penalty gained."""
    verdict: str
    """What the KL penalty was worth, from the same RL without it; empty where that was not run."""
    best: str
    """Name of the best model; empty where nothing can tell."""
    best_by: str
    """How it was chosen."""


def finding_of(report: Report) -> Finding | None:
    """The finding of a run; None for one without a model before and a model after RL."""
    start, trained = _one(report.rows, "start"), [row for row in report.rows if row.role == "rl"]
    if start is None or not trained:
        return None
    best, best_by = best_row(report.rows)
    without = _one(report.rows, "rl_without_kl")
    return Finding(
        headline=_gain(start, trained[-1]),
        verdict="" if without is None else _verdict(trained[0], without),
        best=best,
        best_by=best_by,
    )


def best_row(rows: Sequence[ModelRow]) -> tuple[str, str]:
    """Name of the best model and the rule that chose it; empty names where nothing can tell.

    By the true score, where there is one. The reward model's score cannot choose among models that were trained to
    raise it and one that nothing held back, so that one is left out of the choice.
    """
    known = [row for row in rows if finite(row.true_score) is not None]
    if known:
        return max(known, key=lambda row: row.true_score or 0.0).name, "highest true score"
    scored = [row for row in rows if finite(row.score) is not None and row.role != "rl_without_kl"]
    if not scored:
        return "", ""
    best = max(scored, key=lambda row: row.score or 0.0)
    return best.name, "highest reward-model score among the models that a KL penalty held, or that had no RL"


def _one(rows: Sequence[ModelRow], role: Role) -> ModelRow | None:
    return next((row for row in rows if row.role == role), None)


def _gain(start: ModelRow, trained: ModelRow) -> str:
    """What RL with the penalty did, on the true score where there is one."""
    at = f"at a KL of {_nats(trained)} per response"
    difference = _difference(start, trained)
    if difference is None:
        rate = finite(trained.win_rate)
        wins = "" if rate is None else f"; its answers outscore the reference's on {rate:.0%} of held-out prompts"
        return (
            f"PPO with a KL penalty took the reward-model score from {_score(start)} to {_score(trained)}, {at}{wins}. "
            "There is no true score in this run, so this is the reward model's own opinion: read its answers."
        )
    word = ("did not measurably change", "raised", "lowered")[difference]
    numbers = f"{_truth(start)} before RL, {_truth(trained)} after it ({trained.name}, {at})"
    return f"PPO with a KL penalty {word} the true score: {numbers}."


def _verdict(kept: ModelRow, free: ModelRow) -> str:
    """The same RL with and without the penalty."""
    difference = _difference(kept, free)
    if difference is None:
        return (
            f"Without the penalty the same PPO ended at a score of {_score(free)} and a KL of {_nats(free)}, against "
            f"{_score(kept)} and {_nats(kept)} with it. A higher score far from the reference is also what an "
            "exploited reward model looks like, and no true score tells the two apart here: compare the samples."
        )
    told = (
        f"Without the penalty the same PPO ended at a true score of {_truth(free)} and a KL of {_nats(free)}, against "
        f"{_truth(kept)} and {_nats(kept)} with it ({kept.name}). "
    )
    if difference == 0:
        return told + "The difference in true score is within its 95% interval: this run cannot tell them apart."
    if difference == 1:
        return told + "Here the penalty cost true score: the reward model was good enough to be followed further."
    if (finite(free.score) or 0.0) > (finite(kept.score) or 0.0):
        return told + (
            f"Its reward-model score is higher ({_score(free)} against {_score(kept)}) and its answers are worse: "
            "without the penalty PPO learned to exploit the reward model."
        )
    return told + "Further from the reference its answers are worse, and the reward model says so too."


def _difference(first: ModelRow, second: ModelRow) -> int | None:
    """Sign of the change in true score; 0 if its 95 % interval holds 0, None if there is no true score."""
    before, after = finite(first.true_score), finite(second.true_score)
    if before is None or after is None:
        return None
    errors = (finite(row.true_score_standard_error) or 0.0 for row in (first, second))
    if abs(after - before) <= TWO_SIDED_95 * math.hypot(*errors):
        return 0
    return 1 if after > before else -1


def _truth(row: ModelRow) -> str:
    return f"{row.true_score or 0.0:.2f}"


def _score(row: ModelRow) -> str:
    value = finite(row.score)
    return "none" if value is None else number(value, 2)


def _nats(row: ModelRow) -> str:
    value = finite(row.kl)
    if value is None:
        return "unknown size"
    return f"{number(value, 1 if abs(value) < 100 else 0)} nats"
