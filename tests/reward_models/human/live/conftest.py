"""A store, a clock, and people that answer while somebody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lm_gym.reward_models.human import LabelRules, LabelStore, SimulatedPerson, StoreTransport, set_rules


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[LabelStore]:
    with LabelStore.open(tmp_path / "labels.db", clock=clock) as made:
        set_rules(made, LabelRules(repeat_share=0.0, check_share=0.0))
        yield made


@pytest.fixture
def answering() -> Callable[..., AbstractContextManager[list[SimulatedPerson]]]:
    """People with a store of their own, at work while the block runs."""

    @contextmanager
    def at_work(place: str | Path, opinion, *, people: int = 1, **faults) -> Iterator[list[SimulatedPerson]]:
        over = threading.Event()
        made: list[SimulatedPerson] = []

        def work(number: int) -> None:
            with LabelStore.open(place) as mine:
                person = SimulatedPerson(StoreTransport(mine, f"person {number}"), opinion, seed=number, **faults)
                made.append(person)
                while not over.is_set():
                    if not person.answer_next():
                        over.wait(0.01)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(people)]
        for thread in threads:
            thread.start()
        try:
            yield made
        finally:
            over.set()
            for thread in threads:
                thread.join()

    return at_work
