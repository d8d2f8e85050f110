"""The learning curve: held-out accuracy of models fitted to growing parts of the judgements.

Knows: judgements, and a function that fits a model. Does not know: models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.record import Judgement, require_judgements
from lm_gym.reward_models.judgements.splits import prompt_itself
from lm_gym.scoring.protocol import RewardModel
from lm_gym.tools.settings import Bounds, Whole, checked

from .evaluation import evaluate_reward_model

__all__ = ["CurvePoint", "learning_curve"]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One model of the curve."""

    judgements: int
    """Number of judgements that it was fitted to."""
    accuracy: float
    """Accuracy on the held-out judgements, the same for every point."""
    accuracy_standard_error: float | None
    """Standard error of the accuracy, groups taken as dependent; see ``RewardEvaluation``."""


def learning_curve(
    fit: Callable[[list[Judgement]], RewardModel],
    judgements: Sequence[Judgement],
    held_out: Sequence[Judgement],
    *,
    shares: Sequence[float] = (0.125, 0.25, 0.5),
    group_of: Callable[[str], str] = prompt_itself,
    seed: int = 0,
) -> Iterator[CurvePoint]:
    """Fit to parts of the judgements, each part within the next, and measure each model.

    Args:
        fit: makes a model of some judgements.
        judgements: to learn from.
        held_out: to measure on.
        shares: of the judgements, each in (0, 1].
        group_of: maps a prompt to the group that the standard error clusters on.
        seed: of the order in which judgements are taken.

    Yields: a point for each share, smallest first, as soon as it is measured. A part that can teach nothing (all of
        one class, say) has none.

    Raises:
        ConfigError: a share outside (0, 1].
        DataError: nothing held out compares two responses.
    """
    shares = checked("learning_curve: shares", shares, tuple[Annotated[float, Bounds(above=0, most=1)], ...])
    fit = checked("learning_curve: fit", fit, Callable)
    seed = checked("learning_curve: seed", seed, Whole)
    judgements = require_judgements("learning_curve", judgements)
    if not judgements:
        raise DataError("learning_curve: must be given at least one judgement to learn from, got none")
    order = random.Random(seed).sample(range(len(judgements)), len(judgements))
    for share in sorted(shares):
        part = [judgements[row] for row in sorted(order[: max(1, round(share * len(order)))])]
        try:
            model = fit(part)
        except DataError:
            continue
        found = evaluate_reward_model(model, held_out, group_of=group_of)
        del model  # the next one needs its memory
        yield CurvePoint(
            judgements=len(part), accuracy=found.accuracy, accuracy_standard_error=found.accuracy_standard_error
        )
