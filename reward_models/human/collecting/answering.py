"""Answers of annotators, as the events that they become: the one way in for a page, a terminal and a script.

Knows: that an answer is given in the places in which the responses were shown, and kept in the item's own.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from lm_gym.errors import DataError
from lm_gym.tools.settings import shown

from ..store.event_store import LabelStore
from ..store.events import Event
from ..store.replay import LabelState, Showing
from .assignment import hold
from .leases import end_leases

__all__ = ["in_own_places", "judge", "retract", "skip", "undo"]

SIDES = "ab"


def in_own_places(said: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """What was said of responses in the order in which they were shown, said of the item's own places.

    Args:
        said: see :func:`~lm_gym.reward_models.human.store.items.said_row`, in the places shown.
        order: the item's own places as they were shown. Shape: (K,).

    Raises:
        DataError: it names a place that was not shown.
    """
    found = dict(said)
    try:
        if found.get("winner") in (*SIDES,):
            found["winner"] = SIDES[order[SIDES.index(found["winner"])]]
        if "best" in found:
            _require_place(found["best"], len(order))
            found["best"] = order[found["best"]]
        if "ranks" in found:
            ranks = list(found["ranks"])
            found["ranks"] = [rank for _, rank in sorted(zip(order, ranks, strict=True))]
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"answer: must be about the {len(order)} responses shown, got {shown(said)}") from error
    return found


def judge(
    store: LabelStore,
    annotator: str,
    showing: str,
    said: Mapping[str, Any],
    *,
    id: str | None = None,
    seconds: float | None = None,
) -> bool:
    """Store a judgement.

    Args:
        store: of the item.
        annotator: pseudonym.
        showing: id of what they were shown.
        said: see :func:`~lm_gym.reward_models.human.store.items.said_row`, in the places shown.
        id: UUID of the answer, so that it is stored once however often it is sent; None makes one.
        seconds: time that they took.

    Returns: False if it was stored already.

    Raises:
        AnsweredAlreadyError: what was shown has another answer.
        DataError: it is no answer to that, or they were not shown it.
    """
    return _answer(store, "judged", annotator, showing, {"said": said}, id, seconds)


def skip(
    store: LabelStore,
    annotator: str,
    showing: str,
    *,
    reason: str | None = None,
    id: str | None = None,
    seconds: float | None = None,
) -> bool:
    """Store that an annotator passes an item; they are not asked again. Arguments, result, errors: :func:`judge`."""
    return _answer(store, "skipped", annotator, showing, {} if reason is None else {"reason": reason}, id, seconds)


def undo(store: LabelStore, annotator: str, answer: str | None = None, *, id: str | None = None) -> Showing | None:
    """Take an answer back and put what it answered before the annotator again.

    Args:
        store: of the item.
        annotator: pseudonym.
        answer: id of the answer; None for their last one.
        id: UUID of this act.

    Returns: what they answer next; None if there was nothing to take back.

    Raises:
        DataError: it is no answer of theirs that stands.
    """
    with store.transaction() as transaction:
        history = transaction.state.history.get(annotator, [])
        if answer is None and not history:
            return None
        target = history[-1].id if answer is None else answer
        event = Event(id=id or _new(), kind="undone", at=store.clock(), annotator=annotator, target=target)
        transaction.append(event)
        showing = transaction.state.undone[target].showing
        if showing.id not in transaction.state.answer_of:
            hold(transaction, showing, store.clock())
        return showing


def retract(store: LabelStore, answer: str, *, annotator: str | None = None, id: str | None = None) -> bool:
    """Take a judgement back for good.

    Args:
        store: of the item.
        answer: id of the judgement.
        annotator: pseudonym, if they do it themselves; None for the owner of the store.
        id: UUID of this act.

    Returns: False if it was stored already.

    Raises:
        DataError: no such judgement stands.
    """
    by = "owner" if annotator is None else "annotator"
    return store.append(
        Event(id=id or _new(), kind="retracted", at=store.clock(), annotator=annotator, target=answer, body={"by": by})
    )[0]


def _answer(
    store: LabelStore,
    kind: Any,
    annotator: str,
    showing: str,
    body: dict[str, Any],
    id: str | None,
    seconds: float | None,
) -> bool:
    with store.transaction() as transaction:
        found = _shown_to(transaction.state, annotator, showing)
        if "said" in body:
            body = {"said": in_own_places(body["said"], found.order)}
        if seconds is not None:
            body["seconds"] = seconds
        event = Event(
            id=id or _new(),
            kind=kind,
            at=store.clock(),
            item=found.item,
            annotator=annotator,
            target=showing,
            body=body,
        )
        new = transaction.append(event)
        end_leases(transaction.connection, annotator, found.item)
        return new


def _shown_to(state: LabelState, annotator: str, showing: str) -> Showing:
    found = state.showings.get(showing)
    if found is None or found.annotator != annotator:
        raise DataError(f"answer: must be to something that they were shown, got {shown(showing)}")
    return found


def _require_place(value: Any, count: int) -> None:
    if type(value) is not int or not 0 <= value < count:
        raise IndexError(value)


def _new() -> str:
    return str(uuid.uuid4())
