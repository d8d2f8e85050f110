"""How sure the answer of each item is, and so whether it consumes further annotators.

Knows: which classes the answers of each kind of item have. Does not know: the statistics (``consensus``).

Choices, thumbs and ratings are classes. A ranking is read as all its pairs, each won by the first, by the second or by
neither. Other kinds have no classes: their items are never sure.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from lm_gym.reward_models.judgements.record import Choice, Judgement, Rating, Thumb

from ..consensus.posterior import Labels, label_posterior, label_probabilities, labels_of
from ..store.replay import ItemState, LabelState

__all__ = ["ItemPosterior", "classes_of", "is_sure", "label_posteriors", "labels_by_kind", "posterior_rows"]

CHOICE = ("a", "b", "tie", "both_bad")
PAIR = ("first", "second", "tie")
CLASSES: dict[str, tuple[str, ...]] = {
    "choice": CHOICE,
    "thumb": ("down", "up"),
    "rating": ("0", "1", "2", "3", "4", "5"),
    "ranks": PAIR,
    "best_of": PAIR,
}
"""Classes of each kind of item, in the item's own places; of a ranking, those of each of its pairs."""
CACHE, ROWS = "sureness", "labels by kind"


class ItemPosterior(NamedTuple):
    """What the labels of an item, or of one pair of a ranking, say together."""

    item: str
    """Id of the item."""
    pair: tuple[int, int] | None
    """The two places of a ranking; None for other kinds."""
    labels: int
    """Labels that it rests on."""
    answer: str
    """The most probable class, one of :data:`CLASSES`."""
    probability: float
    """Of that class."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of it."""


class _Rows(NamedTuple):
    keys: list[tuple[str, tuple[int, int] | None]]
    counts: np.ndarray
    labels: Labels
    people: list[str]


def labels_by_kind(state: LabelState) -> dict[str, _Rows]:
    """The labels of a store as classes, by kind of item; attention checks are among them, as items like others."""
    held = state.derived.get(ROWS)
    if held is None or held[0] != state.labels_changed:
        held = state.derived[ROWS] = (state.labels_changed, _labels_by_kind(state))
    found: dict[str, _Rows] = held[1]
    return found


def _labels_by_kind(state: LabelState) -> dict[str, _Rows]:
    rows: dict[str, list[tuple[tuple[str, tuple[int, int] | None], str, int]]] = {}
    for one in state.items.values():
        if one.item.kind in CLASSES:
            for answer in one.labels:
                assert answer.judgement is not None
                for pair, label in classes_of(answer.judgement):
                    rows.setdefault(one.item.kind, []).append(((one.item.id, pair), answer.showing.annotator, label))
    found = {}
    for kind, each in rows.items():
        labels = labels_of(each, class_count=len(CLASSES[kind]), ordered=kind == "rating")
        keys = list(dict.fromkeys(key for key, _, _ in each))
        people = list(dict.fromkeys(who for _, who, _ in each))
        found[kind] = _Rows(keys, np.bincount(labels.items, minlength=len(keys)), labels, people)
    return found


def label_posteriors(state: LabelState, *, samples: int = 400, seed: int = 0) -> list[ItemPosterior]:
    """The posterior of every item that has labels, with its interval; see ``consensus.posterior``."""
    found = []
    for kind, rows in labels_by_kind(state).items():
        posterior = label_posterior(rows.labels, samples=samples, seed=seed)
        for place, (item, pair) in enumerate(rows.keys):
            top = int(posterior.leading[place])
            numbers = [float(each[place, top]) for each in (posterior.probability, posterior.low, posterior.high)]
            found.append(ItemPosterior(item, pair, int(rows.counts[place]), CLASSES[kind][top], *numbers))
    return found


def posterior_rows(state: LabelState, *, samples: int = 400, seed: int = 0) -> list[dict[str, Any]]:
    """The posteriors of a store as rows of a file; of a ranking, one for each pair.

    Returns: ``item``, ``kind``, ``prompt``, ``responses``, the ``pair`` of places of a ranking, and the other fields of
        :class:`ItemPosterior`. Attention checks are left out.
    """
    rows = []
    for one in label_posteriors(state, samples=samples, seed=seed):
        item = state.items[one.item].item
        if item.known is None:
            asked = {"kind": item.kind, "prompt": item.question.prompt, "responses": list(item.question.texts)}
            rows.append({"item": item.id, **asked, **{**one._asdict(), "pair": one.pair and list(one.pair)}})
    return rows


def is_sure(state: LabelState, item: ItemState) -> bool:
    """True if the answer of an item is as probable as the rules ask for; of a ranking, that of each pair."""
    if state.rules.sure >= 1 or len(item.labels) < 2:
        return False
    return _probability(state).get(item.item.id, 0.0) >= state.rules.sure


def _probability(state: LabelState) -> dict[str, float]:
    """The probability of the leading answer of each item; of a ranking, the least of its pairs'."""
    held = state.derived.get(CACHE)
    if held is None or held[0] != state.labels_changed:
        least: dict[str, float] = {}
        for rows in labels_by_kind(state).values():
            top = label_probabilities(rows.labels).max(axis=1)
            for (item, _), probability in zip(rows.keys, top, strict=True):
                least[item] = min(least.get(item, 1.0), float(probability))
        held = state.derived[CACHE] = (state.labels_changed, least)
    found: dict[str, float] = held[1]
    return found


def classes_of(judgement: Judgement) -> Iterator[tuple[tuple[int, int] | None, int]]:
    """What a judgement says as classes: for each pair of a ranking, or None, the place of its class in
    :data:`CLASSES`."""
    verdict = judgement.verdict
    if isinstance(verdict, Choice):
        yield None, CHOICE.index(verdict.winner)
    elif isinstance(verdict, Thumb):
        yield None, int(verdict.up)
    elif isinstance(verdict, Rating):
        yield None, verdict.stars
    elif (places := judgement.places) is not None:
        for one, other in combinations(range(len(places)), 2):
            if verdict.kind == "ranks" or 1 in (places[one], places[other]):  # a pick says nothing of the rest
                yield (one, other), 2 if places[one] == places[other] else int(places[one] > places[other])
