"""Statistics of a store's labels: agreement, position bias, consistency, attention, pace, and what is disputed.

Knows: which answers each measurement is about. Does not know: the formulas (``consensus``), or how they are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Any

import numpy as np

from lm_gym.reward_models.judgements.record import Judgement

from ..consensus.agreement import Agreement, Level, agreement_of_counts
from ..consensus.bias import PositionBias, SwapConsistency, position_bias, swap_consistency
from ..store.replay import Answer, LabelState
from .sureness import CLASSES, classes_of, labels_by_kind

__all__ = ["AnnotatorRecord", "Disputed", "LabelStatistics", "label_statistics"]

LEVELS: dict[str, Level] = {"rating": "ordinal", "ranks": "ordinal", "best_of": "ordinal"}
ORDER: dict[str, tuple[int, ...]] = {"ranks": (0, 2, 1), "best_of": (0, 2, 1)}
"""Columns in the order of their values, where the classes stand in another: a tie lies between the two wins."""
DISPUTED = 10
CACHE = "statistics"


@dataclass(frozen=True, kw_only=True)
class AnnotatorRecord:
    """One annotator's answers."""

    annotator: str
    """Pseudonym."""
    labels: int
    """Labels that stand."""
    skipped: int
    """Items that they passed."""
    seconds: float | None
    """Median time of an answer; None without times."""
    slowing: float | None
    """Median time of the last third of their answers divided by that of the first third; None with fewer than nine."""
    with_others: float | None
    """Share of the others' labels on the same items that are theirs too; None without any."""
    checks: int
    """Attention checks that they answered."""
    checks_passed: int
    """Of these, answered as is known to be right."""
    repeats: int
    """Items that they answered a second time, with the sides swapped."""
    repeats_same: int
    """Of these, answered alike."""
    last: float
    """Time of their last answer, in seconds since 1970 UTC."""


@dataclass(frozen=True, kw_only=True)
class Disputed:
    """An item, or a pair of a ranking, that people disagree on."""

    item: str
    """Id of the item."""
    pair: tuple[int, int] | None
    """The two places of a ranking; None for other kinds."""
    votes: dict[str, int]
    """How many said what."""
    entropy: float
    """Of the votes, in nats: 0 where all agree."""


@dataclass(frozen=True, kw_only=True)
class LabelStatistics:
    """Statistics of the labels of a store."""

    agreement: dict[str, Agreement]
    """By kind of item; rankings pair by pair."""
    bias: PositionBias
    """Of comparisons of two."""
    consistency: SwapConsistency
    """Of comparisons of two that were shown again with the sides swapped."""
    drift: float | None
    """Mean rating (0 to 5) of items shown again minus that of the first time; None without any."""
    seconds: tuple[float, float, float] | None
    """Quartiles of the time of an answer; None with fewer than two times."""
    annotators: tuple[AnnotatorRecord, ...]
    """Everybody who answered, most labels first."""
    disputed: tuple[Disputed, ...]
    """At most ten items, the most disputed first."""


def label_statistics(state: LabelState) -> LabelStatistics:
    """Statistics of a store, kept until an answer changes.

    Raises:
        MissingExtraError: the package krippendorff is not installed.
    """
    held = state.derived.get(CACHE)
    if held is None or held[0] != state.labels_changed:
        held = state.derived[CACHE] = (state.labels_changed, _statistics(state))
    found: LabelStatistics = held[1]
    return found


def _statistics(state: LabelState) -> LabelStatistics:
    counts = {kind: _counts(state, kind) for kind in labels_by_kind(state)}
    labels = [answer for one in state.items.values() if one.item.known is None for answer in one.labels]
    sides = [side for answer in labels if (side := _side(answer)) is not None]
    times = [answer.seconds for answer in labels if answer.seconds is not None]
    twice = list(_twice(state))
    stars = [_stars(again) - _stars(first) for first, again in twice if _stars(first) is not None]
    compared = [(_side(first), _side(again)) for first, again in twice if len(first.showing.order) == 2]
    return LabelStatistics(
        agreement={kind: _agreement(kind, table) for kind, (_, table) in counts.items()},
        bias=position_bias(sum(side == 0 for side in sides), len(sides)),
        consistency=swap_consistency(compared),
        drift=float(np.mean(stars)) if stars else None,
        seconds=_quartiles(times),
        annotators=_annotators(state, counts, twice),
        disputed=tuple(_disputed(counts)),
    )


def _counts(state: LabelState, kind: str) -> tuple[list[Any], np.ndarray]:
    """The keys of the items of a kind that are no checks, and how often each class was said. Shape: (I, C)."""
    rows = labels_by_kind(state)[kind]
    classes = len(CLASSES[kind])
    place = rows.labels.items * classes + rows.labels.labels
    table = np.bincount(place, minlength=len(rows.keys) * classes).reshape(-1, classes)
    kept = [number for number, (item, _) in enumerate(rows.keys) if state.items[item].item.known is None]
    return [rows.keys[number] for number in kept], table[kept]


def _agreement(kind: str, table: np.ndarray) -> Agreement:
    columns = ORDER.get(kind)
    return agreement_of_counts(table if columns is None else table[:, columns], level=LEVELS.get(kind, "nominal"))


def _disputed(counts: dict[str, tuple[list[Any], np.ndarray]]) -> Iterator[Disputed]:
    found = []
    for kind, (keys, table) in counts.items():
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
        for (item, pair), row, one in zip(keys, table, entropy, strict=True):
            if one > 0:
                votes = {name: int(number) for name, number in zip(CLASSES[kind], row, strict=True) if number}
                found.append(Disputed(item=item, pair=pair, votes=votes, entropy=float(one)))
    yield from sorted(found, key=lambda one: (-one.entropy, -sum(one.votes.values())))[:DISPUTED]


def _twice(state: LabelState) -> Iterator[tuple[Answer, Answer]]:
    """Judgements of what was shown again, with the first one of the same annotator."""
    for one in state.items.values():
        first = {answer.showing.annotator: answer for answer in one.labels}
        for answer in one.answers.values():
            if answer.judgement is not None and answer.showing.repeat_of is not None:
                before = first.get(answer.showing.annotator)
                if before is not None:
                    yield before, answer


def _side(answer: Answer) -> int | None:
    """The side that won a comparison of two, 0 the left one as shown; None for none, or more than two."""
    assert answer.judgement is not None
    places = answer.judgement.places
    if places is None or len(places) != 2 or places[0] == places[1]:
        return None
    return answer.showing.order.index(places.index(1))


def _stars(answer: Answer) -> Any:
    assert answer.judgement is not None
    return getattr(answer.judgement.verdict, "stars", None)


def _same(first: Answer, again: Answer) -> bool:
    assert first.judgement is not None
    assert again.judgement is not None
    return _alike(first.judgement, again.judgement)


def _alike(one: Judgement, other: Judgement) -> bool:
    """True if two judgements of the same responses say the same, wherever both say something.

    A ranking 1, 1, 2 is also written 1, 1, 3, and a pick of the best says nothing of the rest.
    """
    mine, theirs = dict(classes_of(one)), dict(classes_of(other))
    both = mine.keys() & theirs.keys()
    return all(mine[key] == theirs[key] for key in both) if both else one.verdict == other.verdict


def _annotators(
    state: LabelState, counts: dict[str, tuple[list[Any], np.ndarray]], twice: Sequence[tuple[Answer, Answer]]
) -> tuple[AnnotatorRecord, ...]:
    table = {key: row for keys, rows in counts.values() for key, row in zip(keys, rows, strict=True)}
    with_others = _with_others(state, table)
    found = []
    for who, history in state.history.items():
        if not history:
            continue
        checks = [one for one in history if one.judgement is not None and state.items[one.showing.item].item.known]
        mine = [pair for pair in twice if pair[0].showing.annotator == who]
        times = [one.seconds for one in history if one.seconds is not None and one.judgement is not None]
        third = len(times) // 3
        found.append(
            AnnotatorRecord(
                annotator=who,
                labels=sum(one.is_label for one in history) - len(checks),
                skipped=sum(one.judgement is None for one in history),
                seconds=median(times) if times else None,
                slowing=_ratio(median(times[-third:]), median(times[:third])) if third >= 3 else None,
                with_others=with_others.get(who),
                checks=len(checks),
                checks_passed=sum(_passed(state, one) for one in checks),
                repeats=len(mine),
                repeats_same=sum(_same(*pair) for pair in mine),
                last=history[-1].at,
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.labels, one.annotator)))


def _passed(state: LabelState, answer: Answer) -> bool:
    assert answer.judgement is not None
    known = state.items[answer.showing.item].item.known
    assert known is not None
    return _alike(answer.judgement, replace(answer.judgement, verdict=known, overall_rating=None, margin=None))


def _with_others(state: LabelState, table: dict[Any, np.ndarray]) -> dict[str, float]:
    """Share of the others' labels on the same items that equal an annotator's, the mean over these items."""
    said: dict[str, list[float]] = {}
    for rows in labels_by_kind(state).values():
        names = list(rows.people)
        for item, who, label in zip(rows.labels.items, rows.labels.annotators, rows.labels.labels, strict=True):
            votes = table.get(rows.keys[item])
            if votes is not None and votes.sum() > 1:
                said.setdefault(names[who], []).append(float((votes[label] - 1) / (votes.sum() - 1)))
    return {who: float(np.mean(each)) for who, each in said.items()}


def _quartiles(times: Sequence[float]) -> tuple[float, float, float] | None:
    if len(times) < 2:
        return None
    low, middle, high = quantiles(times, n=4)
    return low, middle, high


def _ratio(one: float, other: float) -> float | None:
    return one / other if other > 0 else None
