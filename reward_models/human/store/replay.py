"""The state of a label store: a pure replay of its events, in their order, and of nothing else.

Knows: what each event does, and when it does not fit what was before. Does not know: databases, clocks, leases.
Two replays of one log give equal states, and so the same labels and, to the bit, the same rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.record import Judgement
from lm_gym.tools.json_values import is_finite
from lm_gym.tools.settings import shown

from .events import Event
from .items import Item, judgement_of
from .rules import LabelRules

__all__ = ["Answer", "AnsweredAlreadyError", "Fit", "Guideline", "ItemState", "LabelState", "Payment", "Showing"]


class AnsweredAlreadyError(DataError):
    """What was shown has an answer already, under another id."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """One item, shown to one annotator."""

    id: str
    """Id of the event."""
    item: str
    """Id of the item."""
    annotator: str
    """Pseudonym."""
    order: tuple[int, ...]
    """The item's own places in the order in which they were shown. Shape: (K,)."""
    seed: int | None
    """Seed of that order; None where the sides of an earlier one were swapped."""
    repeat_of: str | None
    """Id of the annotator's earlier showing of the item, if it is shown again on purpose."""
    guideline: str | None
    """Version of the guideline that stood beside it."""
    at: float
    """Seconds since 1970 UTC."""
    sequence: int
    """Place in the log."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an annotator answered to a showing."""

    id: str
    """Id of the event."""
    showing: Showing
    """What it answers."""
    judgement: Judgement | None
    """The judgement, in the item's own places; None if the item was skipped."""
    seconds: float | None
    """Time that the annotator took, by the page's clock and without pauses; None if unknown."""
    at: float
    """Seconds since 1970 UTC."""
    sequence: int
    """Place in the log."""

    @property
    def is_label(self) -> bool:
        """True for a judgement of something that was not shown again on purpose."""
        return self.judgement is not None and self.showing.repeat_of is None


@dataclass(frozen=True, kw_only=True)
class Guideline:
    """What annotators are told to look for."""

    text: str
    """The guideline."""
    version: str
    """Its version."""


@dataclass(frozen=True, kw_only=True)
class Payment:
    """A live reward that was used, with everything that an audit asks for."""

    item: str
    """Id of the item."""
    value: float | None
    """The reward; None for an abstention."""
    source: str
    """``"people"``, or the fallback that stood in for them."""
    answers: tuple[str, ...]
    """Ids of the answers that it was made of."""
    delay_seconds: float
    """From the question to the payment."""
    policy_version: int | None
    """Updates of the policy when it was paid."""
    at: float
    """Seconds since 1970 UTC."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A reward model that was fitted on the labels so far."""

    version: str
    """Its version."""
    labels: int
    """Judgements that it was fitted on."""
    accuracy: float
    """Share of held-out comparisons that it orders as people did."""
    pairs: int
    """Number of these comparisons."""
    at: float
    """Seconds since 1970 UTC."""


@dataclass
class ItemState:
    """An item and its answers so far."""

    item: Item
    """The item."""
    at: float
    """When it was asked, in seconds since 1970 UTC."""
    sequence: int
    """Place in the log."""
    showings: list[Showing] = field(default_factory=list)
    """To whom it was shown, oldest first."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """Answers that stand, repeated ones and skips included, by id, oldest first."""
    retracted: set[str] = field(default_factory=set)
    """Annotators that took their judgement back; they are not asked again."""
    closed: str | None = None
    """Why it needs nobody any more; None while it is open."""

    @property
    def labels(self) -> list[Answer]:
        """The judgements that stand, one per annotator."""
        return [answer for answer in self.answers.values() if answer.is_label]

    @property
    def people(self) -> set[str]:
        """Annotators that answered it, skipped it or took their answer back."""
        return {answer.showing.annotator for answer in self.answers.values()} | self.retracted


@dataclass
class LabelState:
    """Everything that a log says; change it by :meth:`take` alone."""

    items: dict[str, ItemState] = field(default_factory=dict)
    """By id, oldest first."""
    showings: dict[str, Showing] = field(default_factory=dict)
    """By id, oldest first."""
    answer_of: dict[str, Answer] = field(default_factory=dict)
    """The answer that stands, by the id of its showing."""
    history: dict[str, list[Answer]] = field(default_factory=dict)
    """Answers that stand, by annotator, oldest first."""
    shown_to: dict[str, int] = field(default_factory=dict)
    """Number of showings, by annotator."""
    undone: dict[str, Answer] = field(default_factory=dict)
    """Answers that their annotator took back to answer anew, by id."""
    retracted: dict[str, Answer] = field(default_factory=dict)
    """Judgements that were taken back for good, by id."""
    payments: list[Payment] = field(default_factory=list)
    """Live rewards that were used, oldest first."""
    fits: list[Fit] = field(default_factory=list)
    """Reward models that were fitted, oldest first."""
    guideline: Guideline | None = None
    """The guideline of now."""
    rules: LabelRules = field(default_factory=LabelRules)
    """The rules of now."""
    sequence: int = 0
    """Number of events taken."""
    labels_changed: int = 0
    """Place in the log of the last event that changed an answer."""
    derived: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Room for what others worked out from the state and would work out again; no part of it."""

    @classmethod
    def replay(cls, events: Iterable[Event]) -> LabelState:
        """The state after some events, in their order. Raises: DataError: one does not fit those before it."""
        state = cls()
        for event in events:
            state.take(event)
        return state

    def take(self, event: Event) -> None:
        """Add the next event of the log; one that does not fit changes nothing.

        Raises:
            AnsweredAlreadyError: it answers what has an answer.
            DataError: it refers to something that is not there or is another annotator's, or its body is incomplete.
        """
        try:
            _TAKE[event.kind](self, event)
        except (KeyError, TypeError) as error:
            raise DataError(f"event {event.kind!r}: its body lacks a key or has one too many: {error!r}") from error
        self.sequence += 1
        if event.kind in ("judged", "skipped", "undone", "retracted"):
            self.labels_changed = self.sequence

    def answers(self) -> Iterator[Answer]:
        """Every answer that stands, by item."""
        for state in self.items.values():
            yield from state.answers.values()

    def find_item(self, event: Event) -> ItemState:
        """The item of an event. Raises: DataError: there is none."""
        if event.item not in self.items:
            raise DataError(f"event {event.kind!r}: must be about an item that was asked, got {event.item!r}")
        return self.items[event.item]

    def find_answer(self, event: Event) -> Answer:
        """The answer that an event takes back. Raises: DataError: none stands, or it is another annotator's."""
        found = next((each for each in self._own_answers(event) if each.id == event.target), None)
        if found is None:
            raise DataError(
                f"event {event.kind!r}: must name an answer that stands{' and is their own' * bool(event.annotator)}, "
                f"got {event.target!r}"
            )
        return found

    def _own_answers(self, event: Event) -> Iterator[Answer]:
        if event.annotator is None:
            yield from self.answers()
        else:
            yield from reversed(self.history.get(event.annotator, ()))

    def forget(self, answer: Answer) -> None:
        """Let an answer stand no longer."""
        del self.items[answer.showing.item].answers[answer.id]
        self.history[answer.showing.annotator].remove(answer)


def _asked(state: LabelState, event: Event) -> None:
    if event.item in state.items:
        raise DataError(f"event 'asked': must be about a new item, and {event.item} was asked before")
    item = Item.from_row(str(event.item), event.body)
    state.items[item.id] = ItemState(item=item, at=event.at, sequence=state.sequence + 1)


def _shown(state: LabelState, event: Event) -> None:
    item_state = state.find_item(event)
    item = item_state.item
    order = tuple(event.body["order"])
    if any(type(place) is not int for place in order) or sorted(order) != list(range(len(item.question.responses))):
        raise DataError(
            f"event 'shown': order must hold each place from 0 to {len(item.question.responses) - 1} once, "
            f"got {list(order)}"
        )
    before = event.body.get("repeat_of")
    if before is not None:
        earlier = state.showings.get(before)
        if earlier is None or (earlier.item, earlier.annotator) != (event.item, event.annotator):
            raise DataError(f"event 'shown': repeat_of must name their own earlier showing of it, got {before!r}")
    who = str(event.annotator)
    showing = Showing(
        id=event.id,
        item=item.id,
        annotator=who,
        order=order,
        seed=event.body.get("seed"),
        repeat_of=before,
        guideline=event.body.get("guideline"),
        at=event.at,
        sequence=state.sequence + 1,
    )
    state.showings[showing.id] = showing
    item_state.showings.append(showing)
    state.shown_to[who] = state.shown_to.get(who, 0) + 1


def _answered(state: LabelState, event: Event) -> None:
    item_state = state.find_item(event)
    showing = state.showings.get(str(event.target))
    if showing is None or (showing.item, showing.annotator) != (event.item, event.annotator):
        raise DataError(f"event {event.kind!r}: must answer what they were shown of this item, got {event.target!r}")
    if showing.id in state.answer_of:
        raise AnsweredAlreadyError(f"event {event.kind!r}: what was shown ({showing.id}) has an answer already")
    if showing.repeat_of is None and showing.annotator in item_state.people:
        raise AnsweredAlreadyError(f"event {event.kind!r}: this annotator answered the item ({event.item}) already")
    seconds = event.body.get("seconds")
    if seconds is not None and not (is_finite(seconds) and seconds >= 0):
        raise DataError(f"event {event.kind!r}: seconds must be a finite number >= 0, got {shown(seconds)}")
    judged = event.kind == "judged"
    answer = Answer(
        id=event.id,
        showing=showing,
        judgement=judgement_of(item_state.item, event.body["said"], event.annotator) if judged else None,
        seconds=seconds,
        at=event.at,
        sequence=state.sequence + 1,
    )
    item_state.answers[answer.id] = answer
    state.answer_of[showing.id] = answer
    state.history.setdefault(showing.annotator, []).append(answer)


def _undone(state: LabelState, event: Event) -> None:
    answer = state.find_answer(event)
    state.forget(answer)
    del state.answer_of[answer.showing.id]
    state.undone[answer.id] = answer


def _retracted(state: LabelState, event: Event) -> None:
    answer = state.find_answer(event)
    if answer.judgement is None:
        raise DataError(f"event 'retracted': must name a judgement, and {answer.id} is a skip; undo it instead")
    state.forget(answer)  # its showing stays answered: they are not asked again
    state.items[answer.showing.item].retracted.add(answer.showing.annotator)
    state.retracted[answer.id] = answer


def _closed(state: LabelState, event: Event) -> None:
    item = state.find_item(event)
    item.closed = item.closed or str(event.body.get("reason", "closed"))


def _guideline(state: LabelState, event: Event) -> None:
    state.guideline = Guideline(text=str(event.body["text"]), version=str(event.body["version"]))


def _rules(state: LabelState, event: Event) -> None:
    state.rules = LabelRules(**event.body)


def _paid(state: LabelState, event: Event) -> None:
    state.find_item(event)
    body = dict(event.body)
    state.payments.append(Payment(item=str(event.item), answers=tuple(body.pop("answers", ())), at=event.at, **body))


def _fitted(state: LabelState, event: Event) -> None:
    state.fits.append(Fit(at=event.at, **event.body))


_TAKE: dict[str, Callable[[LabelState, Event], None]] = {
    "asked": _asked,
    "shown": _shown,
    "judged": _answered,
    "skipped": _answered,
    "undone": _undone,
    "retracted": _retracted,
    "closed": _closed,
    "guideline": _guideline,
    "rules": _rules,
    "paid": _paid,
    "fitted": _fitted,
}
