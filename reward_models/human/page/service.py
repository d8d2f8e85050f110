"""The page's only way to the label store: what is next, what was answered, how far people are.

Knows: how a showing is laid out for its annotator, without the names of models. Does not know: HTTP.
Every call may wait for the database; a server runs them in threads.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any, NamedTuple

from lm_gym.errors import DataError
from lm_gym.sources.transcripts import is_transcript, messages_of

from ..collecting.answering import judge, skip, undo
from ..collecting.assignment import next_showing, people_wanted, release
from ..store.event_store import LabelStore
from ..store.links import Link, find_link
from ..store.replay import LabelState, Showing
from .bodies import AnswerBody, GuidelineBody, ItemBody, NextBody, Progress, Turn, UndoBody

__all__ = ["PageService"]


COUNTING_SHARE = 0.005
"""Share of the time in which the items that one annotator has left are counted."""


class _Left(NamedTuple):
    wanting: int
    answered: int
    until: float


class PageService:
    """What a page does with a store."""

    def __init__(self, store: LabelStore) -> None:
        """Args: store: open; whoever opened it closes it."""
        self.store = store
        self.store_id = store.sign("page", "store")[:8]
        """Tells the cookies and the unsent answers of several stores on one address apart."""
        self._left: dict[str, _Left] = {}

    def find(self, token: str) -> Link | None:
        """The link of a token, revoked or not; None for a token that never was one."""
        try:
            return find_link(self.store, token)
        except DataError:
            return None

    def csrf(self, token: str) -> str:
        """The second token of a link, which a page knows and another site does not."""
        return self.store.sign("page-csrf", hashlib.sha256(token.encode()).hexdigest())

    def is_csrf(self, token: str, given: str) -> bool:
        """True if it is the link's; in constant time."""
        return hmac.compare_digest(self.csrf(token).encode(), given.encode("utf-8", "surrogatepass"))

    def next(self, annotator: str) -> NextBody:
        """What an annotator is to answer now."""
        showing = next_showing(self.store, annotator)
        with self.store.reading() as state:
            guideline = state.guideline
            shown = {} if showing is None else _layout(state, showing)
            return NextBody(
                waiting=showing is None,
                guideline=None if guideline is None else GuidelineBody(text=guideline.text, version=guideline.version),
                progress=self._progress(state, annotator),
                **{"item": None, **shown},
            )

    def answer(self, annotator: str, body: AnswerBody) -> bool:
        """Store an answer. Returns: False if it was stored already.

        Raises:
            AnsweredAlreadyError: what was shown has another answer.
            DataError: it does not fit what was shown, or they were not shown it.
        """
        if body.kind == "skipped":
            reason = body.comment or None
            return skip(self.store, annotator, body.showing, reason=reason, id=body.id, seconds=body.seconds)
        if body.verdict is None:
            raise DataError("answer: must hold a verdict unless the item is skipped, got none")
        said: dict[str, Any] = body.verdict.model_dump()
        if body.comment:
            said["comment"] = body.comment
        if body.overall_rating is not None:
            said["overall_rating"] = body.overall_rating
        return judge(self.store, annotator, body.showing, said, id=body.id, seconds=body.seconds)

    def undo(self, annotator: str, body: UndoBody) -> None:
        """Take an answer back. Raises: DataError: it is no answer of theirs that stands."""
        undo(self.store, annotator, body.target, id=body.id)

    def release(self, annotator: str) -> None:
        """Let others have what an annotator has before them, while they pause."""
        release(self.store, annotator)

    def progress(self, annotator: str) -> Progress:
        """How far an annotator is."""
        with self.store.reading() as state:
            return self._progress(state, annotator)

    def _progress(self, state: LabelState, annotator: str) -> Progress:
        history = state.history.get(annotator, [])
        skipped = sum(answer.judgement is None for answer in history)
        last = history[-1].id if history else None
        left = self._count_left(state, annotator, len(history))
        return Progress(done=len(history) - skipped, skipped=skipped, left=left, last_answer=last)

    def _count_left(self, state: LabelState, annotator: str, answered: int) -> int:
        """Items that want an annotator: counted now and then, since that looks at every item, and taken off between."""
        held = self._left.get(annotator)
        start = time.monotonic()
        if held is None or start >= held.until or answered < held.answered:
            wanting = _count_wanting(state, annotator)
            end = time.monotonic()
            held = self._left[annotator] = _Left(wanting, answered, end + (end - start) / COUNTING_SHARE)
        return max(0, held.wanting - (answered - held.answered))


def _layout(state: LabelState, showing: Showing) -> dict[str, Any]:
    item = state.items[showing.item].item
    prompt, texts = item.question.prompt, item.question.texts
    turns = (
        [Turn(role=one["role"], text=one["content"]) for one in messages_of(prompt)] if is_transcript(prompt) else None
    )
    return {
        "item": ItemBody(kind=item.kind, count=len(texts)),
        "showing": showing.id,
        "kind": item.kind,
        "prompt": prompt,
        "conversation": turns,
        "responses": [texts[place] for place in showing.order],
    }


def _count_wanting(state: LabelState, annotator: str) -> int:
    return sum(
        one.item.known is None
        and one.closed is None
        and annotator not in one.people
        and people_wanted(state, one, annotator=annotator) > 0
        for one in state.items.values()
    )
