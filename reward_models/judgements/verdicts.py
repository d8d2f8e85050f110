"""Kinds of verdict on one or more responses to one prompt, and what makes one unusable.

A verdict refers to responses by place, never by text: response 0 is "a", response 1 is "b".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from lm_gym.errors import DataError
from lm_gym.tools.json_values import is_finite, require_unicode

__all__ = [
    "KINDS",
    "BestOf",
    "Choice",
    "Critique",
    "Ranks",
    "Rating",
    "Thumb",
    "Value",
    "Verdict",
    "Vote",
    "Votes",
    "Winner",
]

Winner = Literal["a", "b", "tie", "both_bad"]
LOWEST_RATING, HIGHEST_RATING = 0, 5


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
    overall_rating: int | None = None
    """0 to 5: how good the response is that they prefer; see ``Judgement.overall_rating``."""


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
            require_said("vote", vote)
            if vote.overall_rating is not None:
                require_rating("vote: overall_rating", vote.overall_rating)

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


def _are_places(ranks: Sequence[Any]) -> bool:
    """True for places from 1 on without a gap, with ties counted on densely or by size."""
    if any(isinstance(rank, bool) or not isinstance(rank, int) for rank in ranks):
        return False
    dense = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    if all(dense[rank] == rank for rank in ranks):
        return True
    return all(rank == 1 + sum(other < rank for other in ranks) for rank in ranks)


def require_said(subject: str, said: Any) -> None:
    """Raises: DataError: the comment or the annotator's name is no text."""
    for name in ("comment", "annotator"):
        value = getattr(said, name)
        if not (value is None or isinstance(value, str)):
            raise DataError(f"{subject}: {name} must be a string, got {value!r}; write it as text")
        require_unicode(value or "", f"{subject}: {name}")


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
