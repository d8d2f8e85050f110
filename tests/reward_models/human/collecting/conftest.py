"""A store with a clock that the test turns, and questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lm_gym.reward_models import Question
from lm_gym.reward_models.human.store.event_store import LabelStore


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place: str, clock: Clock) -> Iterator[LabelStore]:
    with LabelStore.open(place, clock=clock) as made:
        yield made


@pytest.fixture
def questions() -> Callable[..., list[Question]]:
    def make(count: int, responses: int = 2) -> list[Question]:
        return [
            Question.of(f"prompt {number}", [f"{number}.{place}" for place in range(responses)])
            for number in range(count)
        ]

    return make
