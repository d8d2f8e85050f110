"""People behind a label store as an ``Annotator``: questions go into the store, answers come out of it.

Knows: how to ask and to wait. Does not know: where people answer (a page, a terminal, a script).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lm_gym.reward_models.judgements.annotator import Annotator, Question
from lm_gym.reward_models.judgements.record import Judgement
from lm_gym.tools.settings import Positive, checked

from ..store.event_store import LabelStore
from ..store.items import ItemKind
from .asking import ask_questions
from .assignment import people_wanted
from .exchange import judgements_of

__all__ = ["StoreAnnotator", "Waiting"]


class Waiting(NamedTuple):
    """How far people are."""

    settled: int
    """Items that want nobody any more."""
    asked: int
    """All items of the question."""
    answers: int
    """Labels on them so far."""


class StoreAnnotator(Annotator):
    """Asks people through a label store, and waits for them.

    Without a state of its own: everything is in the store, and a run that is taken up again finds there what was
    answered, and asks for the rest alone.
    """

    def __init__(
        self,
        store: LabelStore,
        *,
        kind: ItemKind,
        batch: str = "",
        poll_seconds: float = 1.0,
        on_wait: Callable[[Waiting], None] | None = None,
    ) -> None:
        """Args:
        store: that people answer in.
        kind: of the verdict that is wanted.
        batch: what the questions belong to.
        poll_seconds: time between two looks into the store.
        on_wait: called after each look.
        """
        self.store = store
        self.kind = kind
        self.batch = batch
        self._poll_seconds = checked("StoreAnnotator: poll_seconds", poll_seconds, Positive)
        self._on_wait = on_wait

    def ask(self, items: Sequence[Question]) -> list[Judgement]:
        """Ask, and wait until each item has its answers; see :class:`Annotator`. An interruption loses no answer.

        Judgements stand in the order of the items, with the responses in the places in which they were asked.
        """
        ids = ask_questions(self.store, items, kind=self.kind, batch=self.batch)
        while True:
            with self.store.reading() as state:
                settled = sum(people_wanted(state, state.items[one]) == 0 for one in ids)
                found = [judgements_of(state, items=[one]) for one in ids] if settled == len(ids) else []
                now = Waiting(settled, len(ids), sum(len(state.items[one].labels) for one in ids))
            if self._on_wait is not None:
                self._on_wait(now)
            if settled == len(ids):
                return [one for each in found for one in each]
            time.sleep(self._poll_seconds)
