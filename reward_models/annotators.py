"""How far people agree with each other, and a model with them.

Knows: choices and votes on pairs. Does not know: models; it is given their margins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lm_gym.errors import DataError
from lm_gym.extras import require

from .judgements import POINTS_OF_A, Choice, Judgement, Vote, Votes

__all__ = ["AnnotatorAgreement", "annotator_agreement", "votes_of"]

SIDES = ("a", "tie", "b")


@dataclass(frozen=True, kw_only=True)
class AnnotatorAgreement:
    """Agreement on pairs that several people judged."""

    pairs: int
    """Pairs with two votes or more."""
    votes: int
    """Votes on them."""
    alpha: float | None
    """Krippendorff's alpha, ordinal over (b wins, tie, a wins): 1 is perfect, 0 is chance; None where all say one."""
    people_with_majority: float | None
    """Share of votes that agree with what most of the other voters said; a split among the others counts half."""
    model_with_majority: float | None
    """The same for a model in the place of each voter: does it agree with the others as often as a person does?"""


def votes_of(judgement: Judgement) -> tuple[Vote, ...]:
    """The votes in a choice or in votes; none in any other kind."""
    if isinstance(judgement.verdict, Votes):
        return judgement.verdict.votes
    if isinstance(judgement.verdict, Choice):
        return (Vote(judgement.verdict.winner, judgement.comment, judgement.annotator),)
    return ()


def annotator_agreement(
    judgements: Iterable[Judgement], margins: Sequence[float] | np.ndarray | None = None
) -> AnnotatorAgreement:
    """Agreement of people with each other, and of a model with them.

    Args:
        judgements: any; those without two votes on two different texts are left out.
        margins: a model's score of "a" minus that of "b", one for each judgement; None measures people alone.

    Raises:
        DataError: not one margin per judgement, or no pair with two votes.
        MissingExtraError: the package krippendorff is not installed.
    """
    judgements = list(judgements)
    if margins is not None and len(margins) != len(judgements):
        raise DataError(f"annotator_agreement: needs one margin per judgement, got {len(margins)}, {len(judgements)}")
    counts, people, model = [], [], []
    for row, one in enumerate(judgements):
        points = [POINTS_OF_A[vote.winner] for vote in votes_of(one)]
        if len(points) < 2 or one.texts[0] == one.texts[1]:
            continue
        counts.append([sum(point == value for point in points) for value in (0.0, 0.5, 1.0)])
        for place, point in enumerate(points):
            others = np.sign(sum(points[:place] + points[place + 1 :]) - (len(points) - 1) / 2)
            people.append(_points(np.sign(point - 0.5), others))
            if margins is not None:
                model.append(_points(np.sign(margins[row]), others))
    if not counts:
        raise DataError("annotator_agreement: needs at least one pair with two votes, got none")
    return AnnotatorAgreement(
        pairs=len(counts),
        votes=len(people),
        alpha=_alpha(np.array(counts)),
        people_with_majority=float(np.mean(people)),
        model_with_majority=float(np.mean(model)) if model else None,
    )


def _points(said: float, majority: float) -> float:
    return 1.0 if said == majority else 0.5 if 0 in (said, majority) else 0.0


def _alpha(counts: np.ndarray) -> float | None:
    library = require("krippendorff", extra="evaluation", purpose="agreement of annotators")
    if (counts.sum(axis=0) > 0).sum() < 2:
        return None
    return float(library.alpha(value_counts=counts, value_domain=[0.0, 0.5, 1.0], level_of_measurement="ordinal"))
