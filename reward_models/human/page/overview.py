"""Numbers of the overview page that the log alone gives: counts, people, times, and the newest labels."""

from __future__ import annotations

from statistics import median
from typing import Any

from ..collecting.assignment import people_wanted
from ..store.event_store import LabelStore
from ..store.links import links_of
from ..store.replay import Answer, LabelState

__all__ = ["overview_numbers"]

NEWEST = 20
"""Labels in the stream."""
SHOWN_CHARACTERS = 140


def overview_numbers(store: LabelStore) -> dict[str, Any]:
    """Numbers of a store, plain JSON values.

    Returns: ``now``; ``counts`` of items, settled ones, labels, skips and people; ``annotators``, each with name,
        labels, skips and median seconds; ``stream``, the newest labels first.
    """
    names = {link.annotator: link.name for link in links_of(store)}
    with store.reading() as state:
        answers = [one for one in state.answers() if state.items[one.showing.item].item.known is None]
        labels = [one for one in answers if one.is_label]
        newest = sorted(labels, key=lambda one: -one.sequence)[:NEWEST]
        return {
            "now": store.clock(),
            "counts": _counts(state, answers, labels),
            "annotators": [_person(names.get(who, who), history) for who, history in state.history.items() if history],
            "stream": [_label(state, names, one) for one in newest],
            "reward_models": [],
        }


def _counts(state: LabelState, answers: list[Answer], labels: list[Answer]) -> dict[str, int]:
    items = [one for one in state.items.values() if one.item.known is None]
    return {
        "items": len(items),
        "settled": sum(people_wanted(state, one) == 0 for one in items),
        "labels": len(labels),
        "skips": sum(one.judgement is None for one in answers),
        "undone": len(state.undone),
        "retracted": len(state.retracted),
        "annotators": sum(bool(history) for history in state.history.values()),
    }


def _person(name: str, history: list[Answer]) -> dict[str, Any]:
    seconds = [one.seconds for one in history if one.seconds is not None and one.judgement is not None]
    return {
        "name": name,
        "labels": sum(one.is_label for one in history),
        "skips": sum(one.judgement is None for one in history),
        "seconds": median(seconds) if seconds else None,
        "last": history[-1].at,
    }


def _label(state: LabelState, names: dict[str, str], answer: Answer) -> dict[str, Any]:
    item = state.items[answer.showing.item].item
    return {
        "id": answer.id,
        "at": answer.at,
        "name": names.get(answer.showing.annotator, answer.showing.annotator),
        "kind": item.kind,
        "prompt": item.question.prompt.strip()[:SHOWN_CHARACTERS],
        "seconds": answer.seconds,
    }
