"""Bodies of requests and responses of the labelling page, which its OpenAPI description is made of.

Knows: types and bounds of every field. Does not know: whether an answer fits what was shown; the store says that.
Responses hold no name or version of a model: people judge blindly.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lm_gym.reward_models.judgements.record import Winner

from ..store.items import ItemKind

__all__ = [
    "AnswerBody",
    "Empty",
    "NextBody",
    "OverviewBody",
    "ProblemBody",
    "Progress",
    "SessionBody",
    "StoredBody",
    "Turn",
    "UndoBody",
    "UndoneBody",
]

MOST_TEXT = 20_000
"""Characters of a comment."""
MOST_RESPONSES = 100
WEEK_SECONDS = 7 * 24 * 3600.0

Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Place = Annotated[int, Field(ge=0, lt=MOST_RESPONSES)]
Rank = Annotated[int, Field(ge=1, le=MOST_RESPONSES)]
Stars = Annotated[int, Field(ge=0, le=5)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ChoiceSaid(_Body):
    """The better one of two."""

    kind: Literal["choice"]
    winner: Winner


class RanksSaid(_Body):
    """A place for each response, 1 = best."""

    kind: Literal["ranks"]
    ranks: Annotated[list[Rank], Field(min_length=2, max_length=MOST_RESPONSES)]


class BestSaid(_Body):
    """The best one alone."""

    kind: Literal["best_of"]
    best: Place


class ThumbSaid(_Body):
    """A thumb up or down."""

    kind: Literal["thumb"]
    up: bool


class RatingSaid(_Body):
    """0 to 5."""

    kind: Literal["rating"]
    stars: Stars


class ValueSaid(_Body):
    """A number."""

    kind: Literal["value"]
    reward: Annotated[float, Field(allow_inf_nan=False)]


class CritiqueSaid(_Body):
    """A comment alone."""

    kind: Literal["critique"]


Said = Annotated[
    ChoiceSaid | RanksSaid | BestSaid | ThumbSaid | RatingSaid | ValueSaid | CritiqueSaid, Field(discriminator="kind")
]


class AnswerBody(_Body):
    """An answer to what was shown, in the places in which it was shown."""

    id: Uuid
    """Made by the page, so that an answer that is sent again is stored once."""
    showing: Uuid
    kind: Literal["judged", "skipped"]
    verdict: Said | None = None
    comment: Annotated[str, StringConstraints(max_length=MOST_TEXT)] | None = None
    overall_rating: Stars | None = None
    seconds: Annotated[float, Field(ge=0, le=WEEK_SECONDS, allow_inf_nan=False)] | None = None


class UndoBody(_Body):
    """An answer that is taken back."""

    id: Uuid
    target: Uuid


class Empty(_Body):
    """Nothing."""


class Progress(BaseModel):
    """How far an annotator is."""

    done: int
    skipped: int
    left: int
    last_answer: str | None
    """Id of the answer that undo takes back."""


class Turn(BaseModel):
    """A turn of a conversation."""

    role: str
    text: str


class GuidelineBody(BaseModel):
    """What annotators look for."""

    text: str
    version: str


class ItemBody(BaseModel):
    """What kind of thing is asked."""

    kind: ItemKind
    count: int


class NextBody(BaseModel):
    """What an annotator is to answer now, or nothing."""

    item: ItemBody | None
    waiting: bool
    """True if there is nothing for them now; more may come."""
    showing: str | None = None
    kind: ItemKind | None = None
    prompt: str | None = None
    conversation: list[Turn] | None = None
    responses: list[str] = []
    """In the order in which they are shown."""
    guideline: GuidelineBody | None = None
    progress: Progress


class StoredBody(BaseModel):
    """An answer is stored."""

    stored: Literal[True] = True
    again: bool
    """True if it was stored before."""
    progress: Progress


class UndoneBody(BaseModel):
    """An answer is taken back."""

    undone: Literal[True] = True
    progress: Progress


class SessionBody(BaseModel):
    """Who asks, and the token that every change must carry."""

    name: str
    role: Literal["annotator", "owner"]
    csrf: str


class OverviewBody(BaseModel):
    """Numbers of the overview: counts, annotators, the newest labels, statistics, reward models."""

    numbers: dict[str, Any]


class ProblemBody(BaseModel):
    """Why a request is refused."""

    error: str
