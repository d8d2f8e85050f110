"""Judgements out of a label store and into it.

Knows: which answers are labels, and how a judgement from elsewhere becomes events. Does not know: files; the judgements
module reads and writes every form.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.annotator import Question
from lm_gym.reward_models.judgements.record import Choice, Judgement, Vote, Votes, require_judgements
from lm_gym.tools.digests import digest_json
from lm_gym.tools.settings import shown

from ..store.event_store import LabelStore, Transaction
from ..store.events import Event
from ..store.items import Item, ItemKind, judgement_of, said_row
from ..store.replay import Answer, AnsweredAlreadyError, LabelState
from .asking import NAMESPACE, item_id

__all__ = ["Imported", "import_judgements", "judgements_of"]

ANONYMOUS = "anonymous-"
"""Begins the pseudonym of whoever gave a judgement that names nobody."""


class Imported(NamedTuple):
    """Judgements that were read into a store."""

    stored: int
    """Judgements that are new in it; each vote counts as one."""
    known: int
    """Judgements that were in it already, by an earlier import."""
    left_out: list[str]
    """Why others could not be stored: votes on two equal texts, or another judgement of the same annotator."""


def judgements_of(
    state: LabelState, *, batch: str | None = None, items: Iterable[str] | None = None, votes: bool = False
) -> list[Judgement]:
    """The labels of a store, in the order in which they were given.

    What was shown again on purpose, attention checks, and what was undone or retracted are no labels.

    Args:
        state: of the store.
        batch: of this batch alone; None for all.
        items: of these items alone; None for all.
        votes: give the choices on one item, even a single one, as one judgement that holds all votes, at the place of
            the first; choices with a margin, which a vote has no room for, stay apart.
    """
    wanted = None if items is None else set(items)
    labels = sorted(
        (
            answer
            for one in state.items.values()
            if one.item.known is None
            and (batch is None or one.item.batch == batch)
            and (wanted is None or one.item.id in wanted)
            for answer in one.labels
        ),
        key=lambda answer: answer.sequence,
    )
    return list(_as_votes(labels) if votes else map(_judgement, labels))


def _judgement(answer: Answer) -> Judgement:
    assert answer.judgement is not None
    named = not answer.showing.annotator.startswith(ANONYMOUS)
    return answer.judgement if named else replace(answer.judgement, annotator=None)


def _as_votes(labels: Iterable[Answer]) -> Iterator[Judgement]:
    by_item: dict[str, list[Judgement]] = {}
    for answer in labels:
        by_item.setdefault(answer.showing.item, []).append(_judgement(answer))
    for found in by_item.values():
        cast = [
            Vote(
                winner=one.verdict.winner,
                comment=one.comment,
                annotator=one.annotator,
                overall_rating=one.overall_rating,
            )
            for one in found
            if isinstance(one.verdict, Choice)
        ]
        if len(cast) == len(found) and all(one.margin is None for one in found):
            first = found[0]
            yield Judgement(
                prompt=first.prompt,
                responses=first.responses,
                verdict=Votes(tuple(cast)),
                origin=first.origin,
                columns=first.columns,
            )
        else:
            yield from found


def import_judgements(store: LabelStore, judgements: Iterable[Judgement], *, batch: str = "imported") -> Imported:
    """Read judgements into a store, all or none; importing the same again changes nothing.

    Names become pseudonyms, unless they are some of this store's. The order of showing is unknown and stands as the
    item's own.

    Args:
        store: that keeps them.
        judgements: of any kind.
        batch: what they belong to.

    Raises:
        DataError: they are no judgements.
    """
    seen: Counter[tuple[str, str]] = Counter()
    stored = known = 0
    left_out: list[str] = []
    with store.transaction() as transaction:
        for one in _single(require_judgements("import_judgements", judgements), left_out):
            kind: ItemKind = one.verdict.kind  # type: ignore[assignment]  # every kind but votes, which are taken apart
            question = Question(prompt=one.prompt, responses=one.responses)
            plain = item_id(question, kind, batch)
            if one.annotator is None:
                seen[plain, ""] += 1
                who, copy = f"{ANONYMOUS}{seen[plain, '']}", 1
            else:
                who = store.pseudonym(one.annotator)
                seen[plain, who] += 1
                copy = seen[plain, who]  # a person's second judgement of one question is about an item of its own
            id = plain if copy == 1 else str(uuid.uuid5(NAMESPACE, f"{plain} {copy}"))
            item = Item(id=id, kind=kind, question=question, batch=batch)
            try:
                new = _store(transaction, item, who, one, store.clock())
                stored, known = stored + new, known + (not new)
            except AnsweredAlreadyError as error:
                left_out.append(str(error))
    return Imported(stored, known, left_out)


def _single(judgements: Iterable[Judgement], left_out: list[str]) -> Iterator[Judgement]:
    """Judgements of one person each."""
    for one in judgements:
        if not isinstance(one.verdict, Votes):
            yield one
            continue
        for vote in one.verdict.votes:
            try:
                verdict, rating = Choice(vote.winner), vote.overall_rating
                yield replace(
                    one, verdict=verdict, comment=vote.comment, annotator=vote.annotator, overall_rating=rating
                )
            except DataError as error:
                left_out.append(str(error))


def _store(transaction: Transaction, item: Item, who: str, judgement: Judgement, now: float) -> bool:
    state = transaction.state
    showing = str(uuid.uuid5(NAMESPACE, f"{item.id} shown to {who}"))
    answer = str(uuid.uuid5(NAMESPACE, digest_json([item.id, who, "judged", said_row(judgement)])))
    if showing in state.answer_of:
        if state.answer_of[showing].judgement == judgement_of(item, said_row(judgement), who):
            return False
        raise AnsweredAlreadyError(
            f"judgement of {shown(judgement.prompt[:60])}: the store holds another one of the same annotator on the "
            "same question, which stays; undo that one first, or import under another batch"
        )
    if item.id not in state.items:
        asked = str(uuid.uuid5(NAMESPACE, f"{item.id} asked"))
        transaction.append(Event(id=asked, kind="asked", at=now, item=item.id, body=item.to_row()))
    if showing not in state.showings:
        order = list(range(len(item.question.responses)))
        body: dict[str, Any] = {"order": order, "seed": None, "repeat_of": None, "guideline": None}
        transaction.append(Event(id=showing, kind="shown", at=now, item=item.id, annotator=who, body=body))
    body = {"said": said_row(judgement)}
    event = Event(id=answer, kind="judged", at=now, item=item.id, annotator=who, target=showing, body=body)
    return transaction.append(event)
