"""Questions about responses, and the annotators that answer them with judgements.

Knows: what is asked and the contract of the answers. Does not know: how a verdict is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lm_gym.errors import ConfigError, DataError
from lm_gym.runs.folder import Stateful
from lm_gym.runs.generators import generator_of, require_state, state_of
from lm_gym.tools.settings import Seed, checked

from .record import Judgement, Response, require_judgements

__all__ = ["Annotator", "AnnotatorPool", "Question", "RecordedAnnotator"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One prompt and the responses to it that an annotator is asked about.

    Raises:
        DataError: the prompt is no string, or there is no response.
    """

    prompt: str
    """The prompt."""
    responses: tuple[Response, ...]
    """K >= 1 responses."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "responses", tuple(self.responses))
        if not isinstance(self.prompt, str):
            raise DataError(f"question: prompt must be a string, got {self.prompt!r}")
        if not self.responses:
            raise DataError(f"question: must hold at least one response, got none to {self.prompt[:60]!r}")

    @property
    def texts(self) -> tuple[str, ...]:
        """The K response texts."""
        return tuple(response.text for response in self.responses)

    @classmethod
    def of(cls, prompt: str, texts: Sequence[str]) -> Question:
        """A question about bare texts."""
        return cls(prompt=prompt, responses=tuple(Response(text=text) for text in texts))


@runtime_checkable
class Annotator(Stateful, Protocol):
    """Answers questions with judgements: simulated people, a model, a file of answers, people.

    One whose answers depend on chance or on what it was asked before keeps that in its state, so that a run that is
    taken up again gets the answers that an undisturbed one would have got.
    """

    def ask(self, items: Sequence[Question]) -> list[Judgement]:
        """Answer questions, in their order; one that is skipped has no judgement, one that several answer has several.

        Every judgement is about the prompt and the responses of one item.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state, ready for JSON; empty for an annotator without one."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`state_dict` gave."""


class AnnotatorPool(Annotator):
    """Several annotators; each question goes to one of them, drawn at random."""

    def __init__(self, annotators: Sequence[Annotator], *, seed: int = 0) -> None:
        """Args:
        annotators: one or more.
        seed: of the draw of who answers what.

        Raises:
            ConfigError: there is none.
        """
        self.annotators: tuple[Annotator, ...] = checked("AnnotatorPool: annotators", annotators, tuple[Annotator, ...])
        if not self.annotators:
            raise ConfigError("AnnotatorPool: needs at least one annotator, got none")
        self._rng = np.random.default_rng(checked("AnnotatorPool: seed", seed, Seed))

    def ask(self, items: Sequence[Question]) -> list[Judgement]:
        """Answer questions, in their order; see :class:`Annotator`."""
        who = self._rng.integers(len(self.annotators), size=len(items))
        found: list[Judgement] = []
        for number, annotator in enumerate(self.annotators):
            mine = [item for item, index in zip(items, who, strict=True) if index == number]
            found += annotator.ask(mine) if mine else []
        place = {_key(item): number for number, item in enumerate(items)}
        return sorted(found, key=lambda one: place[_key(one)])

    def state_dict(self) -> dict[str, Any]:
        """The states of the draw and of every annotator, ready for JSON."""
        return {
            "rng": state_of(self._rng),
            "annotators": [annotator.state_dict() for annotator in self.annotators],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`state_dict` gave. Raises: ConfigError: it is none of such a pool."""
        state = require_state("AnnotatorPool", state, ("rng", "annotators"))
        own = checked("AnnotatorPool state: annotators", state["annotators"], tuple[Any, ...])
        if len(own) != len(self.annotators):
            raise ConfigError(
                f"AnnotatorPool state: must come from a pool of {len(self.annotators)} annotators, got {len(own)}"
            )
        rng = generator_of(state["rng"], "AnnotatorPool state: rng")
        for annotator, one in zip(self.annotators, own, strict=True):
            annotator.load_state_dict(one)
        self._rng = rng


class RecordedAnnotator(Annotator):
    """Answers from judgements that exist already; it skips questions that none of them answers."""

    def __init__(self, judgements: Iterable[Judgement]) -> None:
        """Args: judgements: the answers, for instance of ``load_judgements(path)``.

        Raises:
            DataError: they are no judgements.
        """
        self._by_question: dict[tuple[str, tuple[str, ...]], list[Judgement]] = {}
        for one in require_judgements("RecordedAnnotator", judgements):
            self._by_question.setdefault(_key(one), []).append(one)

    def ask(self, items: Sequence[Question]) -> list[Judgement]:
        """Every recorded judgement of each item; the responses may stand in another order in it."""
        return [one for item in items for one in self._by_question.get(_key(item), ())]


def _key(asked: Question | Judgement) -> tuple[str, tuple[str, ...]]:
    return asked.prompt, tuple(sorted(asked.texts))
