"""The record of one judgement: a prompt, K responses, a verdict on them. There is no other record.

Knows: what makes a record unusable, and the order of the responses that a verdict implies (a ranking is read off a
judgement, never stored beside it). Does not know: the kinds of verdict (``verdicts``), files, losses, models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lm_gym.errors import DataError
from lm_gym.tools.json_values import is_finite, require_unicode
from lm_gym.tools.settings import shown

from .verdicts import (
    KINDS,
    POINTS_OF_A,
    BestOf,
    Choice,
    Critique,
    Ranks,
    Rating,
    Thumb,
    Value,
    Verdict,
    Vote,
    Votes,
    Winner,
    require_rating,
    require_said,
)

__all__ = [
    "KINDS",
    "BestOf",
    "Choice",
    "Critique",
    "Judgement",
    "Ranks",
    "Rating",
    "Response",
    "Thumb",
    "Value",
    "Verdict",
    "Vote",
    "Votes",
    "Winner",
]

Origin = Literal["labelling", "product"]


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response and the model that wrote it."""

    text: str
    """The response; it may be empty, since a policy can emit nothing."""
    model: str | None = None
    """Name of the model that wrote it."""
    version: str | None = None
    """Version of that model, for instance a checkpoint or a round."""

    def __post_init__(self) -> None:
        for name in ("text", "model", "version"):
            value = getattr(self, name)
            if not (isinstance(value, str) or (value is None and name != "text")):
                raise DataError(f"response: {name} must be a string, got {value!r}")
            require_unicode(value or "", f"response: {name}")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One statement about one or more responses to one prompt.

    Raises:
        DataError: a text is no string, the verdict does not fit the responses, a comparison has no two different
            texts (votes may: people were asked, and training leaves them out), or a critique has no comment.
    """

    prompt: str
    """The prompt; a conversation is written as a transcript (``lm_gym.sources.transcripts``)."""
    responses: tuple[Response, ...]
    """K >= 1 responses."""
    verdict: Verdict
    """The statement."""
    comment: str | None = None
    """The annotator's reason, in their own words."""
    overall_rating: int | None = None
    """0 to 5: how good a response is that no other is preferred to (see :attr:`rated`). A rating has none beside it,
    and of votes each carries its own."""
    margin: float | None = None
    """Beside a choice with a winner: by how much it is better, in units of the score, >= 0. Training takes it off the
    winner's lead before the lead counts (Touvron et al. 2023, eq. 2)."""
    annotator: str | None = None
    """Name of the annotator; votes carry their own."""
    origin: Origin = "labelling"
    """``"product"`` for what users of a product left behind, who see one answer and seldom vote."""
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further keys of the row that it was read from, plain JSON values. They are kept and written back; no loss reads
    them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "responses", tuple(self.responses))
        if not isinstance(self.prompt, str):
            raise DataError(f"judgement: prompt must be a string, got {self.prompt!r}")
        require_unicode(self.prompt, "judgement: prompt")
        if self.origin not in get_args(Origin):
            raise DataError(f'judgement: origin must be "labelling" or "product", got {self.origin!r}')
        if not isinstance(self.verdict, Verdict):
            raise DataError(f"judgement: verdict must be one of {', '.join(KINDS)}, got {self.verdict!r}")
        self.verdict.check(len(self.responses))
        if isinstance(self.verdict, Choice | Ranks | BestOf) and len(set(self.texts)) < 2:
            raise DataError(
                f"{self.kind}: must compare at least 2 different responses, got {len(self.texts)} times "
                f"{self.texts[0][:60]!r}"
            )
        if isinstance(self.verdict, Critique) and not self.comment:
            raise DataError("critique: must have a comment, got none")
        if self.overall_rating is not None:
            if isinstance(self.verdict, Rating | Votes):
                where = "each vote carries its own" if self.kind == "votes" else "its stars are the rating"
                raise DataError(f"{self.kind}: has no overall_rating beside it; {where}")
            require_rating("overall_rating", self.overall_rating)
        if self.margin is not None:
            _require_margin(self.verdict, self.margin)
        require_said("judgement", self)
        if not isinstance(self.columns, Mapping):
            raise DataError(f"judgement: columns must be an object, got {self.columns!r}")

    @property
    def kind(self) -> str:
        """Name of the verdict's kind, a key of :data:`KINDS`."""
        return self.verdict.kind

    @property
    def texts(self) -> tuple[str, ...]:
        """The K response texts."""
        return tuple(response.text for response in self.responses)

    @property
    def places(self) -> tuple[int, ...] | None:
        """The ranking that the verdict implies: K places, 1 = best, equal = tied; None if it compares no responses.

        Votes give the majority's order, a pick of the best two places.
        """
        verdict = self.verdict
        if isinstance(verdict, Ranks):
            return verdict.ranks
        if isinstance(verdict, BestOf):
            return tuple(1 if place == verdict.best else 2 for place in range(len(self.responses)))
        if isinstance(verdict, Choice):
            share = POINTS_OF_A[verdict.winner]
        elif isinstance(verdict, Votes):
            share = verdict.share_for_a
        else:
            return None
        return (1, 1) if share == 0.5 else ((1, 2) if share > 0.5 else (2, 1))

    @property
    def rated(self) -> tuple[str, ...]:
        """Texts that an overall rating rates: those that no other is preferred to, each once.

        The winner, the best-ranked, the best of a pick; all of those that tie for the first place; where nothing is
        compared, every response.
        """
        places = self.places or (1,) * len(self.responses)
        return tuple(dict.fromkeys(text for text, place in zip(self.texts, places, strict=True) if place == 1))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Every comparison in it as (place of the better response, place of the worse).

        Tied responses form none, nor do two copies of one text: no score of the text can tell them apart.
        """
        ranks, texts = self.places or (), self.texts
        for better, rank in enumerate(ranks):
            for worse, other in enumerate(ranks):
                if rank < other and texts[better] != texts[worse]:
                    yield better, worse

    @property
    def compares(self) -> bool:
        """True if it puts some response above another."""
        return next(self.pairs(), None) is not None

    @classmethod
    def of(cls, prompt: str, texts: Sequence[str], verdict: Verdict, **rest: Any) -> Judgement:
        """A judgement of bare texts."""
        return cls(prompt=prompt, responses=tuple(Response(text=text) for text in texts), verdict=verdict, **rest)

    @classmethod
    def pair(cls, prompt: str, chosen: str, rejected: str, **rest: Any) -> Judgement:
        """A choice between two texts that the first one won."""
        return cls.of(prompt, (chosen, rejected), Choice("a"), **rest)

    @classmethod
    def ranking(cls, prompt: str, texts: Sequence[str], ranks: Sequence[int], **rest: Any) -> Judgement:
        """A ranking of K texts; see :class:`Ranks`."""
        return cls.of(prompt, texts, Ranks(tuple(ranks)), **rest)


def require_judgements(subject: str, judgements: Any) -> list[Judgement]:
    """The judgements as a list.

    Raises:
        DataError: they are something else; a file of judgements, say, whose ``judgements`` are meant.
    """
    if isinstance(judgements, str | bytes | Mapping) or not isinstance(judgements, Iterable):
        raise DataError(
            f"{subject}: must be given a list of judgements, got {shown(judgements)}; read some by "
            "load_judgements(file).judgements"
        )
    found = list(judgements)
    wrong = next((number for number, one in enumerate(found) if not isinstance(one, Judgement)), None)
    if wrong is not None:
        raise DataError(
            f"{subject}: must be given a list of judgements, got {shown(found[wrong])} at place {wrong}; what "
            "load_judgements and split_by_prompt return holds several lists, and one is wanted"
        )
    return found


def _require_margin(verdict: Verdict, margin: Any) -> None:
    if not isinstance(verdict, Choice) or verdict.winner not in ("a", "b"):
        raise DataError(f"{verdict.kind}: only a choice with a winner has a margin beside it")
    if not is_finite(margin) or margin < 0:
        raise DataError(f"judgement: margin must be a finite number >= 0, got {margin!r}")
