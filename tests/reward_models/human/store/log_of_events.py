"""A log of events, written down by hand."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from lm_gym.reward_models.human.store.events import Event

ANN, BEN = "person-0a", "person-0b"


def uid(number: int) -> str:
    return str(UUID(int=number))


def event(number: int, kind: Any, *, at: float | None = None, **rest: Any) -> Event:
    return Event(id=uid(number), kind=kind, at=float(number) if at is None else at, **rest)


def asked(
    number: int, item: int, kind: str = "choice", responses: tuple[str, ...] = ("one", "two"), **rest: Any
) -> Event:
    body = {"kind": kind, "prompt": "Which?", "responses": list(responses), **rest}
    return event(number, "asked", item=uid(item), body=body)


def shown(number: int, item: int, who: str = ANN, order: tuple[int, ...] = (0, 1), **rest: Any) -> Event:
    body = {"order": list(order), "seed": 7, "repeat_of": None, "guideline": None, **rest}
    return event(number, "shown", item=uid(item), annotator=who, body=body)


def judged(number: int, item: int, showing: int, who: str = ANN, *, seconds: float | None = None, **said: Any) -> Event:
    body: dict[str, Any] = {"said": said or {"kind": "choice", "winner": "a"}}
    if seconds is not None:
        body["seconds"] = seconds
    return event(number, "judged", item=uid(item), annotator=who, target=uid(showing), body=body)


def skipped(number: int, item: int, showing: int, who: str = ANN) -> Event:
    return event(number, "skipped", item=uid(item), annotator=who, target=uid(showing))


def undone(number: int, target: int, who: str = ANN) -> Event:
    return event(number, "undone", annotator=who, target=uid(target))


def retracted(number: int, target: int, who: str | None = ANN) -> Event:
    return event(number, "retracted", annotator=who, target=uid(target))
