"""Questions to people about single responses: asked now, answered when somebody does, paid by whoever trains.

Knows: tickets, what became of them, and the audit trail of what was paid. Does not know: how long somebody waits.

A question is one item for ever: the same prompt and response are never asked twice, in a run that is taken up again
neither, and an answer that was given serves whoever asks.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lm_gym.errors import ConfigError
from lm_gym.reward_models.judgements.annotator import Question
from lm_gym.tools.settings import Count, Positive, Text, Whole, checked, checked_arguments

from ..collecting.asking import ask_questions
from ..collecting.assignment import people_wanted
from ..store.event_store import LabelStore
from ..store.events import Event
from ..store.replay import ItemState, LabelState
from .values import LiveKind, value_of

__all__ = ["HumanQuestions", "Outcome", "PaidReward", "Ticket", "audit"]

PRIORITY = 100
"""Least of live questions, so that they go before ordinary labelling."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A question that was asked; plain values, for a checkpoint."""

    item: str
    """Id of the item."""
    policy_version: int | None
    """Updates of the policy when it was asked; None if the asker did not say."""
    asked_at: float
    """Seconds since 1970 UTC."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What has become of a ticket."""

    state: Literal["open", "value", "abstained", "timeout", "retracted", "stale"]
    """``"open"``: somebody may still answer; ``"value"``: people answered; ``"abstained"``: they passed it, or it was
    closed; ``"timeout"``: nobody answered in time; ``"retracted"``: whoever answered took it back; ``"stale"``: people
    answered, too late for the policy of now. What is stale is a label like any other, and is not paid."""
    value: float | None = None
    """The mean of :func:`value_of` over annotators, where people answered."""
    answers: tuple[str, ...] = ()
    """Ids of the answers."""


@dataclass(frozen=True, kw_only=True)
class PaidReward:
    """One reward that was paid, with what an audit asks for."""

    prompt: str
    """The prompt."""
    response: str
    """The response."""
    value: float | None
    """The reward; None for an abstention."""
    source: str
    """``"people"``, or what stood in for them."""
    people: tuple[str, ...]
    """Pseudonyms of those whose answers it was made of."""
    delay_seconds: float
    """From the question to the payment."""
    policy_version: int | None
    """Updates of the policy when it was paid."""


class HumanQuestions:
    """Asks people about responses through a label store, and never waits."""

    def __init__(
        self,
        store: LabelStore,
        *,
        kind: LiveKind = "rating",
        batch: str = "live",
        timeout_seconds: float | None = None,
        max_staleness: int | None = None,
        overlap: int | None = None,
    ) -> None:
        """Args:
            store: that people answer in.
            kind: of the question.
            batch: what the questions belong to; answers are reused within it.
            timeout_seconds: time after which a ticket without an answer is a timeout; None never gives up.
            max_staleness: updates of the policy after which an answer is not paid; None pays however late.
            overlap: annotators wanted for each response; None for the store's rule.

        Raises:
            ConfigError: one of these is out of range.
        """
        self.store = checked("HumanQuestions: store", store, LabelStore)
        rules = {"kind": LiveKind, "batch": Text, "timeout_seconds": Positive | None}
        checked_arguments("HumanQuestions", {**rules, "max_staleness": Whole | None, "overlap": Count | None}, locals())
        self.kind: LiveKind = kind
        self.batch = batch
        self.timeout_seconds = timeout_seconds
        self.max_staleness = max_staleness
        self.overlap = overlap

    def ask(
        self, prompts: Sequence[str], responses: Sequence[str], *, policy_version: int | None = None
    ) -> list[Ticket]:
        """Put B responses before people. Returns: B tickets; equal texts have one question.

        Raises:
            ConfigError: not as many prompts as responses.
        """
        if len(prompts) != len(responses):
            raise ConfigError(f"ask: needs one prompt per response, got {len(prompts)} and {len(responses)}")
        questions = [Question.of(prompt, [text]) for prompt, text in zip(prompts, responses, strict=True)]
        with self.store.reading() as state:
            newest = PRIORITY + state.sequence  # whoever asked before may have given up, and this asker waits
        items = ask_questions(
            self.store,
            questions,
            kind=self.kind,
            batch=self.batch,
            policy_version=policy_version,
            overlap=self.overlap,
            priority=newest,
        )
        now = self.store.clock()
        return [Ticket(item=item, policy_version=policy_version, asked_at=now) for item in items]

    def outcomes(self, tickets: Sequence[Ticket], *, policy_version: int | None = None) -> list[Outcome]:
        """What has become of tickets by now.

        Args:
            tickets: of :meth:`ask`.
            policy_version: updates of the policy now, which staleness is counted to.
        """
        now = self.store.clock()
        with self.store.reading() as state:
            return [self._outcome(state, one, now, policy_version) for one in tickets]

    def pay(
        self,
        tickets: Sequence[Ticket],
        outcomes: Sequence[Outcome],
        *,
        source: Sequence[str] | None = None,
        values: Sequence[float | None] | None = None,
        policy_version: int | None = None,
    ) -> None:
        """Write down which rewards were used, for the audit.

        Args:
            tickets, outcomes: B of each.
            source: of each reward; None for people where they answered, and nobody elsewhere.
            values: the rewards; None for those of the outcomes.
            policy_version: updates of the policy now.
        """
        now = self.store.clock()
        with self.store.transaction() as transaction:
            for number, (ticket, outcome) in enumerate(zip(tickets, outcomes, strict=True)):
                answered = outcome.state == "value"  # what is stale has a value too, and is not paid
                value, by = (outcome.value, "people") if answered else (None, "nobody")
                body = {
                    "value": value if values is None else values[number],
                    "source": by if source is None else source[number],
                    "answers": list(outcome.answers),
                    "delay_seconds": now - ticket.asked_at,
                    "policy_version": policy_version,
                }
                transaction.append(Event(id=str(uuid.uuid4()), kind="paid", at=now, item=ticket.item, body=body))

    def _outcome(self, state: LabelState, ticket: Ticket, now: float, policy_version: int | None) -> Outcome:
        item = state.items[ticket.item]
        late = self.timeout_seconds is not None and now - ticket.asked_at > self.timeout_seconds
        settled = people_wanted(state, item) == 0
        if item.labels and (settled or late):
            values = [value_of(one.judgement.verdict) for one in item.labels if one.judgement is not None]
            stale = self._is_stale(ticket, policy_version)
            answers = tuple(one.id for one in item.labels)
            return Outcome(state="stale" if stale else "value", value=float(np.mean(values)), answers=answers)
        if settled:
            return Outcome(state="abstained")
        if late:
            return Outcome(state="retracted" if _was_retracted(item) else "timeout")
        return Outcome(state="open")

    def _is_stale(self, ticket: Ticket, policy_version: int | None) -> bool:
        if self.max_staleness is None or policy_version is None or ticket.policy_version is None:
            return False
        return policy_version - ticket.policy_version > self.max_staleness


def _was_retracted(item: ItemState) -> bool:
    return bool(item.retracted)


def audit(state: LabelState) -> Iterator[PaidReward]:
    """Every reward that was paid, oldest first: its question, its people and its delay."""
    people = {answer.id: answer.showing.annotator for answer in (*state.answers(), *state.retracted.values())}
    people |= {id: answer.showing.annotator for id, answer in state.undone.items()}
    for paid in state.payments:
        question = state.items[paid.item].item.question
        yield PaidReward(
            prompt=question.prompt,
            response=question.texts[0],
            value=paid.value,
            source=paid.source,
            people=tuple(people[one] for one in paid.answers),
            delay_seconds=paid.delay_seconds,
            policy_version=paid.policy_version,
        )
