"""Events of the label store: everything that was asked, shown, said, taken back or paid, one record each.

Knows: the kinds of event, what each must name, and the one form of its content. Does not know: what an event does to
the state (``replay``), or where it is kept (``event_store``).

An event is never changed or deleted; one that takes something back is a further event. Its id is made by whoever makes
the event, so that a submission that is sent again is recognised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from uuid import UUID

from lm_gym.errors import DataError
from lm_gym.tools.json_values import check_row, is_finite, parse_object
from lm_gym.tools.settings import shown

__all__ = ["Event", "EventKind", "require_uuid"]

EventKind = Literal[
    "asked", "shown", "judged", "skipped", "undone", "retracted", "closed", "guideline", "rules", "paid", "fitted"
]
NEEDED: dict[EventKind, tuple[str, ...]] = {
    "asked": ("item",),
    "shown": ("item", "annotator"),
    "judged": ("item", "annotator", "target"),
    "skipped": ("item", "annotator", "target"),
    "undone": ("annotator", "target"),
    "retracted": ("target",),
    "closed": ("item",),
    "guideline": (),
    "rules": (),
    "paid": ("item",),
    "fitted": (),
}
"""Fields that an event of each kind must have."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of the log.

    Raises:
        DataError: an id is no UUID, the kind is unknown, a field that the kind needs is missing, the time is no finite
            number, or the body is no JSON object.
    """

    id: str
    """UUID in its canonical form, 36 characters."""
    kind: EventKind
    """``"asked"``: an item was put; ``"shown"``: to an annotator, in an order; ``"judged"`` or ``"skipped"``: their
    answer; ``"undone"``: that answer is void and may be given anew; ``"retracted"``: a judgement is void for good;
    ``"closed"``: an item needs nobody any more; ``"guideline"``, ``"rules"``: from now on; ``"paid"``: a live reward
    was used; ``"fitted"``: a reward model learned from the labels so far."""
    at: float
    """Seconds since 1970-01-01 UTC, by the clock of whoever keeps the store."""
    item: str | None = None
    """Id of the item that it is about."""
    annotator: str | None = None
    """Pseudonym of the annotator, never a name."""
    target: str | None = None
    """Id of the event that it refers to: what was shown for an answer, the answer for what takes it back."""
    body: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The rest, plain JSON values."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(EventKind):
            raise DataError(f"event: kind must be one of {', '.join(get_args(EventKind))}, got {shown(self.kind)}")
        for name in ("id", "item", "target"):
            value = getattr(self, name)
            if name == "id" or value is not None:
                require_uuid(f"event {self.kind!r}: {name}", value)
        for name in NEEDED[self.kind]:
            if getattr(self, name) is None:
                raise DataError(f"event {self.kind!r}: must name its {name}, got none")
        if not (self.annotator is None or isinstance(self.annotator, str)):
            raise DataError(f"event {self.kind!r}: annotator must be a text, got {shown(self.annotator)}")
        if not is_finite(self.at):
            raise DataError(f"event {self.kind!r}: at must be a finite number of seconds, got {shown(self.at)}")
        if not isinstance(self.body, Mapping):
            raise DataError(f"event {self.kind!r}: body must be an object, got {shown(self.body)}")
        check_row(self.body, plain=True)

    @property
    def content(self) -> str:
        """What was said, in one form: two submissions of one event are equal in it, whenever each arrived."""
        return json.dumps([self.kind, self.item, self.annotator, self.target, self.body], sort_keys=True)

    @property
    def body_json(self) -> str:
        """The body as JSON in ASCII, so that every database keeps every character of it."""
        return json.dumps(self.body, sort_keys=True)

    @classmethod
    def read(cls, body: str, **fields: Any) -> Event:
        """An event whose body is JSON. Raises: DataError: it is no event."""
        return cls(body=parse_object(body), **fields)


def require_uuid(subject: str, value: Any) -> str:
    """Raises: DataError: the value is no UUID in canonical form (36 characters, lower case)."""
    try:
        good = isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        good = False
    if not good:
        raise DataError(f"{subject}: must be a UUID such as str(uuid.uuid4()), got {shown(value)}")
    return str(value)
