"""Numbers of the overview page, made ready for JSON.

Knows: what the page shows, and that making it must not hold up answers. Does not know: the statistics themselves
(``collecting.statistics``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from lm_gym.errors import MissingExtraError
from lm_gym.tools.intervals import wilson_interval

from ..collecting.assignment import people_wanted
from ..collecting.statistics import Disputed, LabelStatistics, label_statistics
from ..store.event_store import LabelStore
from ..store.links import links_of
from ..store.replay import Answer, Fit, LabelState

__all__ = ["Overview"]

NEWEST = 20
"""Labels in the stream."""
SHOWN_CHARACTERS = 160
RECENT_SECONDS = 600
LARGEST_SHARE = 0.05
"""Share of the time that the store may be busy with the overview, while answers wait."""


class Overview:
    """The overview of a store, made anew as often as that leaves the store to its annotators; threads share it."""

    def __init__(self, store: LabelStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: store: of the labels. clock: gives seconds."""
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers: dict[str, Any] = {}
        self._until = float("-inf")

    def numbers(self) -> dict[str, Any]:
        """Plain JSON values: ``counts``, ``annotators``, ``stream``, ``statistics`` and ``reward_models``."""
        with self._lock:
            start = self._clock()
            if start >= self._until:
                self._numbers = _numbers(self._store)
                end = self._clock()
                self._until = end + (end - start) / LARGEST_SHARE
            return self._numbers


def _numbers(store: LabelStore) -> dict[str, Any]:
    names = {link.annotator: link.name for link in links_of(store)}
    now = store.clock()
    with store.reading() as state:
        answers = [one for one in state.answers() if state.items[one.showing.item].item.known is None]
        labels = sorted((one for one in answers if one.is_label), key=lambda one: one.sequence)
        try:
            found, lacking = label_statistics(state), None
        except MissingExtraError as error:
            found, lacking = None, str(error)
        return {
            "now": now,
            "counts": _counts(state, answers, labels, now),
            "annotators": [] if found is None else _people(found, names),
            "stream": [_label(state, names, one) for one in reversed(labels[-NEWEST:])],
            "statistics": None if found is None else _statistics(state, found),
            "lacking": lacking,
            "reward_models": [_fit(fit) for fit in state.fits],
        }


def _counts(state: LabelState, answers: list[Answer], labels: list[Answer], now: float) -> dict[str, int]:
    items = [one for one in state.items.values() if one.item.known is None]
    return {
        "items": len(items),
        "settled": sum(people_wanted(state, one) == 0 for one in items),
        "labels": len(labels),
        "recent": sum(one.at > now - RECENT_SECONDS for one in labels),
        "skips": sum(one.judgement is None for one in answers),
        "taken_back": len(state.undone) + len(state.retracted),
        "annotators": sum(bool(history) for history in state.history.values()),
    }


def _people(found: LabelStatistics, names: dict[str, str]) -> list[dict[str, Any]]:
    return [{**asdict(one), "name": names.get(one.annotator, one.annotator)} for one in found.annotators]


def _statistics(state: LabelState, found: LabelStatistics) -> dict[str, Any]:
    return {
        "agreement": {kind: asdict(one) for kind, one in found.agreement.items()},
        "bias": asdict(found.bias),
        "consistency": asdict(found.consistency),
        "drift": found.drift,
        "seconds": found.seconds,
        "disputed": [_disputed(state, one) for one in found.disputed],
    }


def _disputed(state: LabelState, one: Disputed) -> dict[str, Any]:
    question = state.items[one.item].item.question
    places = one.pair or range(len(question.texts))
    return {
        "prompt": _short(question.prompt),
        "responses": [_short(question.texts[place]) for place in places],
        "votes": one.votes,
        "entropy": one.entropy,
    }


def _label(state: LabelState, names: dict[str, str], answer: Answer) -> dict[str, Any]:
    item = state.items[answer.showing.item].item
    return {
        "id": answer.id,
        "at": answer.at,
        "name": names.get(answer.showing.annotator, answer.showing.annotator),
        "kind": item.kind,
        "prompt": _short(item.question.prompt),
        "seconds": answer.seconds,
    }


def _fit(fit: Fit) -> dict[str, Any]:
    low, high = wilson_interval(fit.accuracy, fit.pairs) if fit.pairs else (0.0, 1.0)
    return {**asdict(fit), "low": low, "high": high}


def _short(text: str) -> str:
    plain = text.strip()
    return plain if len(plain) <= SHOWN_CHARACTERS else plain[: SHOWN_CHARACTERS - 1] + "…"
