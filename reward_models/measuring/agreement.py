"""Agreement of people with each other, and of a model with them.

Knows: choices and votes on pairs. Does not know: models; it is given their margins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lm_gym.errors import DataError
from lm_gym.reward_models.human.consensus.agreement import krippendorff_alpha
from lm_gym.reward_models.judgements.record import Choice, Judgement, Vote, Votes, require_judgements
from lm_gym.reward_models.judgements.verdicts import POINTS_OF_A
from lm_gym.tools.settings import finite_array

__all__ = ["AnnotatorAgreement", "OneAnnotator", "annotator_agreement", "votes_of"]

SHOWN = 50


@dataclass(frozen=True, kw_only=True)
class OneAnnotator:
    """One person, on pairs that others voted on as well."""

    annotator: str
    """Name of the annotator."""
    votes: int
    """Number of their votes."""
    with_majority: float
    """Share of these that agree with what most of the others said; a split among the others counts half."""
    with_model: float | None
    """Share of these that the model agrees with, a tie counting half; None without margins."""


@dataclass(frozen=True, kw_only=True)
class AnnotatorAgreement:
    """Agreement on pairs that several people voted on."""

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
    named: int
    """People whose votes carry a name."""
    annotators: tuple[OneAnnotator, ...]
    """The 50 of them with the most votes, most first."""


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
    judgements = require_judgements("annotator_agreement", judgements)
    margins = None if margins is None else finite_array("annotator_agreement: margins", margins, dimensions=1)
    if margins is not None and len(margins) != len(judgements):
        raise DataError(f"annotator_agreement: needs one margin per judgement, got {len(margins)}, {len(judgements)}")
    counts, people, model = [], [], []
    records: dict[str, list[tuple[float, float]]] = {}
    for row, one in enumerate(judgements):
        votes = votes_of(one)
        points = [POINTS_OF_A[vote.winner] for vote in votes]
        if len(points) < 2 or one.texts[0] == one.texts[1]:
            continue
        counts.append([sum(point == value for point in points) for value in (0.0, 0.5, 1.0)])
        for place, point in enumerate(points):
            others = np.sign(sum(points[:place] + points[place + 1 :]) - (len(points) - 1) / 2)
            said = np.sign(point - 0.5)
            people.append(_points(said, others))
            verdict = math.nan if margins is None else float(np.sign(margins[row]))
            model.append(_points(verdict, others))
            if (name := votes[place].annotator) is not None:
                records.setdefault(name, []).append((people[-1], _points(verdict, said)))
    if not counts:
        raise DataError("annotator_agreement: needs at least one pair with two votes, got none")
    return AnnotatorAgreement(
        pairs=len(counts),
        votes=len(people),
        alpha=krippendorff_alpha(np.array(counts), level="ordinal", values=(0.0, 0.5, 1.0)),
        people_with_majority=float(np.mean(people)),
        model_with_majority=None if margins is None else float(np.mean(model)),
        named=len(records),
        annotators=_most_active(records),
    )


def _most_active(records: dict[str, list[tuple[float, float]]]) -> tuple[OneAnnotator, ...]:
    names = sorted(records, key=lambda name: (-len(records[name]), name))[:SHOWN]
    means = {name: np.mean(records[name], axis=0).tolist() for name in names}
    return tuple(
        OneAnnotator(
            annotator=name,
            votes=len(records[name]),
            with_majority=means[name][0],
            with_model=None if math.isnan(means[name][1]) else means[name][1],
        )
        for name in names
    )


def _points(said: float, majority: float) -> float:
    if math.isnan(said):
        return math.nan
    return 1.0 if said == majority else 0.5 if 0 in (said, majority) else 0.0
