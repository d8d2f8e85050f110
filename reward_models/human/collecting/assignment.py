"""Assignment: what an annotator is shown next, in which order.

Knows: overlap, leases, the share that is shown again with its sides swapped, and attention checks. Does not know: how
it is shown.

Every draw is a function of the rules' seed, the annotator and how much they were shown before: no generator's state is
kept, and a server that starts anew goes on as the old one would have.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lm_gym.tools.digests import digest_json

from ..store.event_store import LabelStore, Transaction
from ..store.events import Event
from ..store.items import Item
from ..store.replay import ItemState, LabelState, Showing
from .leases import Lease, end_leases, grant_lease, leases_of, others_leases
from .sureness import is_sure

__all__ = ["next_showing", "people_wanted", "release"]


class _Chosen(NamedTuple):
    item: Item
    repeat_of: Showing | None = None


def people_wanted(state: LabelState, item: ItemState, *, annotator: str | None = None) -> int:
    """How many annotators an item still wants; 0 for one that is settled.

    Args: annotator: someone who asks for work, and may not be known to the store yet.
    """
    left = (item.item.overlap or state.rules.overlap) - len(item.labels)
    if left <= 0 or item.closed is not None:
        return 0
    if not item.answers:  # as most are, and every item is looked at for every question
        return left
    skips = sum(answer.judgement is None for answer in item.answers.values())
    if skips >= state.rules.skips or is_sure(state, item):
        return 0
    if skips:
        everyone = {*state.shown_to} if annotator is None else {*state.shown_to, annotator}
        return 0 if everyone <= item.people else left
    return left


def next_showing(store: LabelStore, annotator: str) -> Showing | None:
    """What an annotator is to answer now: what they have before them, or the next item, which becomes theirs.

    Args:
        store: of the items.
        annotator: pseudonym.

    Returns: None if no item wants them at the moment.
    """
    now = store.clock()
    with store.transaction() as transaction:
        state = transaction.state
        open_showing = _open_showing(transaction, annotator, now)
        if open_showing is None:
            taken = others_leases(transaction.connection, annotator, now)
            chosen = _choose(state, annotator, taken)
            if chosen is None:
                return None
            open_showing = _left_open(state, annotator, chosen)
            if open_showing is None:
                event = _shown(state, annotator, chosen, now)
                transaction.append(event)
                open_showing = state.showings[event.id]
        hold(transaction, open_showing, now)
        return open_showing


def hold(transaction: Transaction, showing: Showing, now: float) -> None:
    """Make what was shown its annotator's for the time that the rules say."""
    expires = now + transaction.state.rules.lease_seconds
    lease = Lease(item=showing.item, annotator=showing.annotator, showing=showing.id, expires=expires)
    grant_lease(transaction.connection, lease)


def release(store: LabelStore, annotator: str) -> None:
    """Take everything out of an annotator's hands, for instance while they pause."""
    with store.transaction() as transaction:
        end_leases(transaction.connection, annotator)


def _open_showing(transaction: Transaction, annotator: str, now: float) -> Showing | None:
    """What is theirs and unanswered; the oldest first, which is what they went back to if they took an answer back."""
    state = transaction.state
    leased = (state.showings[lease.showing] for lease in leases_of(transaction.connection, annotator, now))
    waiting = [one for one in leased if one.id not in state.answer_of and state.items[one.item].closed is None]
    return min(waiting, key=lambda one: one.sequence, default=None)


def _left_open(state: LabelState, annotator: str, chosen: _Chosen) -> Showing | None:
    """What they were shown of the item before and did not answer in time: a page may still show it."""
    if chosen.repeat_of is not None:
        return None
    mine = (one for one in state.items[chosen.item.id].showings if one.annotator == annotator)
    return next((one for one in mine if one.id not in state.answer_of), None)


def _choose(state: LabelState, annotator: str, taken: Mapping[str, int]) -> _Chosen | None:
    again, check = _draws(state, annotator)
    if again < state.rules.repeat_share and (before := _repeatable(state, annotator)) is not None:
        return _Chosen(state.items[before.item].item, before)
    fresh = [one for one in state.items.values() if one.closed is None and annotator not in one.people]
    if check < state.rules.check_share:
        known = next((one for one in fresh if one.item.known is not None), None)
        if known is not None:
            return _Chosen(known.item)
    wanting = [
        one
        for one in fresh
        if one.item.known is None and people_wanted(state, one, annotator=annotator) > taken.get(one.item.id, 0)
    ]
    if not wanting:
        return None
    return _Chosen(min(wanting, key=lambda one: (-one.item.priority, -len(one.labels), one.sequence)).item)


def _draws(state: LabelState, annotator: str) -> tuple[float, float]:
    rng = np.random.default_rng(_seed(state, annotator, str(state.shown_to.get(annotator, 0))))
    return float(rng.random()), float(rng.random())


def _repeatable(state: LabelState, annotator: str) -> Showing | None:
    """The oldest judgement of theirs that is far enough back and was not shown again yet."""
    history = state.history.get(annotator, [])
    again = {answer.showing.item for answer in history if answer.showing.repeat_of is not None}
    for answer in history[: max(0, len(history) - state.rules.repeat_gap)]:
        item = state.items[answer.showing.item]
        if answer.is_label and item.item.known is None and answer.showing.item not in again:
            return answer.showing
    return None


def _shown(state: LabelState, annotator: str, chosen: _Chosen, now: float) -> Event:
    if chosen.repeat_of is None:
        seed = _seed(state, annotator, chosen.item.id)
        count = len(chosen.item.question.responses)
        order = [int(place) for place in np.random.default_rng(seed).permutation(count)]
    else:
        seed, order = None, list(reversed(chosen.repeat_of.order))
    body = {
        "order": order,
        "seed": seed,
        "repeat_of": None if chosen.repeat_of is None else chosen.repeat_of.id,
        "guideline": None if state.guideline is None else state.guideline.version,
    }
    return Event(id=str(uuid.uuid4()), kind="shown", at=now, item=chosen.item.id, annotator=annotator, body=body)


def _seed(state: LabelState, *parts: str) -> int:
    return int(digest_json([state.rules.seed, *parts])[:12], 16)
