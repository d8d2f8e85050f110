"""A person as the reward model: ``score`` asks people through a label store, and waits for them.

Knows: waiting, and what stands in for people that do not answer. Does not know: where they answer; with a store of its
own it starts the labelling page in a process of its own.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lm_gym.scoring.adapters import RewardModelLike
from lm_gym.scoring.handles import load_reward_model
from lm_gym.scoring.protocol import RewardModel, Scores, normalized_scores
from lm_gym.tools.console.terminal import plain_console
from lm_gym.tools.settings import Count, Place, Positive, checked, checked_arguments

from ..page.process import ServerProcess, serve_in_process
from ..page.settings import PageSettings
from ..store.event_store import LabelStore
from ..store.links import make_link
from .tickets import HumanQuestions, Outcome, Ticket
from .values import LiveKind

__all__ = ["HumanRewardModel", "WaitingForPeople", "default_labels"]

PLACE, VARIABLE = "labels.db", "LM_GYM_LABELS"
POLL_SECONDS = 0.25
TELL_SECONDS = 15.0
RECENT = 50
"""Rewards of people that the fallback ``"average"`` is the mean of."""


def default_labels() -> str:
    """The label store of whoever names none: ``$LM_GYM_LABELS``, else ``labels.db`` in the working directory."""
    return os.environ.get(VARIABLE) or PLACE


@dataclass(frozen=True, kw_only=True)
class WaitingForPeople:
    """How far people are with one batch."""

    answered: int
    """Responses that nobody is waited for any more."""
    asked: int
    """Responses of the batch."""
    seconds: float
    """Waited so far."""


class HumanRewardModel(RewardModel):
    """People score: each response is a question in a label store, and ``score`` waits for the answers.

    A text that people answered before has its score at once, in another run too. What was answered is in the store
    before it is used, so that an interruption loses no answer.
    """

    name = "human"

    def __init__(
        self,
        store: str | Path | LabelStore | None = None,
        *,
        kind: LiveKind = "rating",
        timeout_seconds: float = 600.0,
        fallback: str | RewardModelLike = "abstain",
        overlap: int | None = None,
        page: PageSettings | None = None,
        on_wait: Callable[[WaitingForPeople], None] | None = None,
    ) -> None:
        """Args:
            store: place of a label store, which is opened at the first score, with a labelling page whose link is
                printed; or an open one, for which whoever opened it sees to a page. None takes :func:`default_labels`.
            kind: of the question: ``"thumb"``, ``"rating"`` or ``"value"``; see :func:`.values.value_of`.
            timeout_seconds: longest wait for one batch; then the fallback.
            fallback: for a response without an answer: ``"abstain"`` leaves its episode out; ``"average"`` is the mean
                of the last 50 rewards of people, and an abstention before the first; anything else is a reward model
                or the handle of one.
            overlap: annotators wanted for each response; None for the store's rule.
            page: settings of the page.
            on_wait: called while it waits; None prints a line now and then.

        Raises:
            ConfigError: one of these is out of range.
        """
        place = default_labels() if store is None else store
        self._place: Any = checked("HumanRewardModel: store", place, Place | LabelStore)
        rules = {"kind": LiveKind, "timeout_seconds": Positive, "overlap": Count | None, "page": PageSettings | None}
        checked_arguments("HumanRewardModel", rules, locals())
        self.kind: LiveKind = kind
        self.timeout_seconds = timeout_seconds
        self.fallback = fallback
        self.overlap = overlap
        self.policy_version: int | None = None
        """Updates of the policy, noted with every question and reward; whoever trains sets it."""
        self.counts: Counter[str] = Counter()
        """Rewards given so far by source: ``"people"``, ``"average"``, the fallback's name, ``"abstain"``."""
        self._page_settings = page
        self._on_wait = on_wait
        self._questions: HumanQuestions | None = None
        self._server: ServerProcess | None = None
        self._stand_in: RewardModel | None = None

    @property
    def people_share(self) -> float | None:
        """Share of the rewards so far that people gave; None before the first."""
        total = sum(self.counts.values())
        return self.counts["people"] / total if total else None

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Ask people about B responses and wait. Returns: Scores of shape (B,), without a std.

        Raises:
            WriteError: the store cannot be written; what was answered before is whole.
        """
        questions = self._opened()
        tickets = questions.ask(prompts, responses, policy_version=self.policy_version)
        outcomes = self._wait(questions, tickets)
        values, sources = self._values(questions, outcomes, prompts, responses)
        questions.pay(tickets, outcomes, values=values, source=sources, policy_version=self.policy_version)
        self.counts.update(sources)
        valid = np.array([value is not None for value in values], dtype=bool)
        return Scores(value=np.array([value or 0.0 for value in values], dtype=np.float32), valid=valid)

    def close(self) -> None:
        """Stop the page and let go of the store, where they are this model's own."""
        if self._server is not None:
            self._server.stop()
        if self._questions is not None and not isinstance(self._place, LabelStore):
            self._questions.store.close()
        self._server = self._questions = None

    def _opened(self) -> HumanQuestions:
        if self._questions is None:
            if isinstance(self._place, LabelStore):
                store = self._place
            else:
                store = LabelStore.open(self._place)
                self._serve(store)
            self._questions = HumanQuestions(
                store, kind=self.kind, timeout_seconds=self.timeout_seconds, overlap=self.overlap
            )
        return self._questions

    def _serve(self, store: LabelStore) -> None:
        self._server = serve_in_process(self._place, self._page_settings or PageSettings(port=0))
        link = f"{self._server.url}/join/{make_link(store, 'live', role='owner')}"
        plain_console(stderr=True).print(f"people are the reward model; answer here: {link}", soft_wrap=True)

    def _wait(self, questions: HumanQuestions, tickets: Sequence[Ticket]) -> list[Outcome]:
        started = told = time.monotonic()
        while True:
            if self._server is not None and not self._server.runs:
                self._server.stop()
                self._serve(questions.store)
            found = questions.outcomes(tickets, policy_version=self.policy_version)
            answered = sum(one.state != "open" for one in found)
            now = WaitingForPeople(answered=answered, asked=len(found), seconds=time.monotonic() - started)
            if self._on_wait is not None:
                self._on_wait(now)
            elif answered < len(found) and time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                said = f"waiting for people: {answered} of {len(found)} answered, {now.seconds:.0f} s"
                plain_console(stderr=True).print(said)
            if answered == len(found):
                return found
            time.sleep(POLL_SECONDS)

    def _values(
        self, questions: HumanQuestions, outcomes: Sequence[Outcome], prompts: Sequence[str], responses: Sequence[str]
    ) -> tuple[list[float | None], list[str]]:
        values: list[float | None] = [one.value if one.state == "value" else None for one in outcomes]
        sources = ["people" if value is not None else "abstain" for value in values]
        missing = [row for row, value in enumerate(values) if value is None]
        if missing and self.fallback == "average":
            with questions.store.reading() as state:
                given = [one.value for one in state.payments if one.source == "people" and one.value is not None]
            recent = [*given, *(value for value in values if value is not None)][-RECENT:]
            for row in missing if recent else ():
                values[row], sources[row] = float(np.mean(recent)), "average"
        elif missing and self.fallback != "abstain":
            model = self._standing_in()
            found = normalized_scores(model, [prompts[row] for row in missing], [responses[row] for row in missing])
            for row, value, valid in zip(missing, found.value, found.valid, strict=True):
                if valid:
                    values[row], sources[row] = float(value), model.name
        return values, sources

    def _standing_in(self) -> RewardModel:
        if self._stand_in is None:
            self._stand_in = load_reward_model(self.fallback)
        return self._stand_in
