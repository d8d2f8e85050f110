"""The record of one judgement: a prompt, K responses, a verdict on them. There is no other record.

Knows: the kinds of verdict, what makes a record unusable, and the order of the responses that a verdict implies (a
ranking is read off a judgement, never stored beside it). Does not know: files, losses, models.

A verdict refers to responses by place, never by text: response 0 is "a", response 1 is "b".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from lm_gym.errors import DataError
from lm_gym.tools.json_values import is_finite, require_unicode
from lm_gym.tools.settings import shown

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

Winner = Literal["a", "b", "tie", "both_bad"]
Origin = Literal["labelling", "product"]
LOWEST_RATING, HIGHEST_RATING = 0, 5


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


@dataclass(frozen=True)
class Choice:
    """One person compared two responses."""

    kind: ClassVar[str] = "choice"
    winner: Winner
    """The better one, ``"tie"``, or ``"both_bad"`` (a tie, and a thumb down for each)."""

    def check(self, count: int) -> None:
        """Raises: DataError: no such winner, or not two responses."""
        _require_count("choice", count, exactly=2)
        _require_winner("choice", self.winner)


@dataclass(frozen=True)
class Vote:
    """One of several people's choices on the same two responses."""

    winner: Winner
    """As in :class:`Choice`."""
    comment: str | None = None
    """The annotator's reason, in their own words."""
    annotator: str | None = None
    """Name of the annotator."""


@dataclass(frozen=True)
class Votes:
    """Several people compared the same two responses."""

    kind: ClassVar[str] = "votes"
    votes: tuple[Vote, ...]
    """At least one."""

    def check(self, count: int) -> None:
        """Raises: DataError: no votes, or not two responses."""
        _require_count("votes", count, exactly=2)
        if not self.votes:
            raise DataError("votes: must hold at least one vote, got none")
        for vote in self.votes:
            _require_winner("votes", vote.winner)
            _require_said("vote", vote)

    @property
    def share_for_a(self) -> float:
        """Votes for "a" plus half the ties, divided by all votes."""
        return sum(POINTS_OF_A[vote.winner] for vote in self.votes) / len(self.votes)


@dataclass(frozen=True)
class Ranks:
    """A ranking of all K responses."""

    kind: ClassVar[str] = "ranks"
    ranks: tuple[int, ...]
    """K places, 1 = best. Ties are counted on as 1, 1, 2 or as 1, 1, 3."""

    def check(self, count: int) -> None:
        """Raises: DataError: the numbers are no ranking of the responses."""
        _require_count("ranks", count, least=2)
        if len(self.ranks) != count:
            raise DataError(f"ranks: must give one rank per response, got {len(self.ranks)} for {count} responses")
        if not _are_places(self.ranks):
            raise DataError(
                f"ranks: must be places that start at 1 and leave no gap (1 = best, ties share a place), "
                f"got {list(self.ranks)}"
            )


@dataclass(frozen=True)
class BestOf:
    """The best of K responses; nothing is said about the rest."""

    kind: ClassVar[str] = "best_of"
    best: int
    """Place of the best, from 0."""

    def check(self, count: int) -> None:
        """Raises: DataError: no such response."""
        _require_count("best_of", count, least=2)
        if isinstance(self.best, bool) or not isinstance(self.best, int) or not 0 <= self.best < count:
            raise DataError(f"best_of: best must be a place from 0 to {count - 1}, got {self.best!r}")


@dataclass(frozen=True)
class Thumb:
    """One response, liked or not."""

    kind: ClassVar[str] = "thumb"
    up: bool
    """True for a thumb up."""

    def check(self, count: int) -> None:
        """Raises: DataError: not one response, or not a bool."""
        _require_count("thumb", count, exactly=1)
        if not isinstance(self.up, bool):
            raise DataError(f"thumb: up must be true or false, got {self.up!r}")


@dataclass(frozen=True)
class Rating:
    """One response on a scale of six steps."""

    kind: ClassVar[str] = "rating"
    stars: int
    """0 (worst) to 5 (best)."""

    def check(self, count: int) -> None:
        """Raises: DataError: not one response, or off the scale."""
        _require_count("rating", count, exactly=1)
        require_rating("rating", self.stars)


@dataclass(frozen=True)
class Value:
    """One response and a real number, as in ``(input, output, reward)`` triplets."""

    kind: ClassVar[str] = "value"
    reward: float
    """Finite, higher is better, on the source's own scale."""

    def check(self, count: int) -> None:
        """Raises: DataError: not one response, or not a finite number."""
        _require_count("value", count, exactly=1)
        if not is_finite(self.reward):
            raise DataError(f"value: reward must be a finite number, got {self.reward!r}")


@dataclass(frozen=True)
class Critique:
    """A comment alone. No loss reads it; it is kept, counted and shown."""

    kind: ClassVar[str] = "critique"

    def check(self, count: int) -> None:
        """Raises: DataError: no response."""
        _require_count("critique", count, least=1)


Verdict = Choice | Votes | Ranks | BestOf | Thumb | Rating | Value | Critique
KINDS: dict[str, type[Verdict]] = {verdict.kind: verdict for verdict in get_args(Verdict)}
"""Every kind of verdict by its name."""
POINTS_OF_A: dict[str, float] = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
"""Points of the first response by winner: 1 for a win, 0 for a loss, one half for a tie."""


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
    """0 to 5, beside a choice: how good the preferred response is (either one after a tie)."""
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
            if not isinstance(self.verdict, Choice):
                raise DataError(f"{self.kind}: only a choice has an overall_rating beside it; use kind 'rating'")
            require_rating("overall_rating", self.overall_rating)
        if self.margin is not None:
            _require_margin(self.verdict, self.margin)
        _require_said("judgement", self)
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


def _are_places(ranks: Sequence[Any]) -> bool:
    """True for places from 1 on without a gap, with ties counted on densely or by size."""
    if any(isinstance(rank, bool) or not isinstance(rank, int) for rank in ranks):
        return False
    dense = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    if all(dense[rank] == rank for rank in ranks):
        return True
    return all(rank == 1 + sum(other < rank for other in ranks) for rank in ranks)


def _require_said(subject: str, said: Judgement | Vote) -> None:
    """Raises: DataError: the comment or the annotator's name is no text."""
    for name in ("comment", "annotator"):
        value = getattr(said, name)
        if not (value is None or isinstance(value, str)):
            raise DataError(f"{subject}: {name} must be a string, got {value!r}; write it as text")
        require_unicode(value or "", f"{subject}: {name}")


def _require_margin(verdict: Verdict, margin: Any) -> None:
    if not isinstance(verdict, Choice) or verdict.winner not in ("a", "b"):
        raise DataError(f"{verdict.kind}: only a choice with a winner has a margin beside it")
    if not is_finite(margin) or margin < 0:
        raise DataError(f"judgement: margin must be a finite number >= 0, got {margin!r}")


def require_rating(subject: str, value: Any) -> None:
    """Raises: DataError: not a whole number from 0 to 5."""
    if isinstance(value, bool) or not isinstance(value, int) or not LOWEST_RATING <= value <= HIGHEST_RATING:
        raise DataError(
            f"{subject}: must be a whole number from {LOWEST_RATING} (worst) to {HIGHEST_RATING} (best), got {value!r}"
        )


def _require_winner(subject: str, winner: Any) -> None:
    if winner not in get_args(Winner):
        raise DataError(f"{subject}: the winner must be one of {', '.join(get_args(Winner))}, got {winner!r}")


def _require_count(subject: str, count: int, *, exactly: int | None = None, least: int = 1) -> None:
    if exactly is not None and count != exactly:
        raise DataError(f"{subject}: must be about {exactly} response{'s' * (exactly > 1)}, got {count}")
    if count < least:
        raise DataError(f"{subject}: must be about at least {least} responses, got {count}")
