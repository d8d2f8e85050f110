"""A simulated person's faults are those that were stated."""

from __future__ import annotations

import pytest

from lm_gym.errors import ConfigError
from lm_gym.reward_models import Question
from lm_gym.reward_models.human import SimulatedPerson, StoreTransport, ask_questions
from lm_gym.reward_models.human.live.simulated import said_of


def ask(store, count: int, kind: str = "choice") -> None:
    texts = ("worse", "better") if kind == "choice" else ("better",)
    ask_questions(store, [Question.of(f"p{number}", texts) for number in range(count)], kind=kind)


def opinion(prompt: str, response: str) -> float:
    return 0.8 if response == "better" else 0.2


def test_flips_and_skips_come_as_often_as_stated(store) -> None:
    ask(store, 400)
    person = SimulatedPerson(StoreTransport(store, "one"), opinion, flip_rate=0.2, skip_rate=0.1, seed=1)
    while person.answer_next():
        pass
    with store.reading() as state:
        answers = list(state.answers())
    judged = [one.judgement for one in answers if one.judgement is not None]
    assert 22 <= len(answers) - len(judged) <= 58  # 40, 3 sigma of 6
    assert 0.13 <= sum(one.verdict.winner == "a" for one in judged) / len(judged) <= 0.27


def test_a_delay_passes_before_the_answer_and_is_told(store) -> None:
    ask(store, 2)
    slept: list[float] = []
    person = SimulatedPerson(StoreTransport(store, "one"), opinion, delay_seconds=7.0, sleep=slept.append)
    assert person.answer_next()
    assert slept == [7.0]
    with store.reading() as state:
        assert next(state.answers()).seconds == 7.0


def test_drift_makes_the_same_text_better_with_time(store) -> None:
    ask(store, 30, "rating")
    person = SimulatedPerson(StoreTransport(store, "one"), lambda *_: 0.0, drift=0.05)
    while person.answer_next():
        pass
    with store.reading() as state:
        stars = [one.judgement.verdict.stars for one in state.history[store.pseudonym("one")]]
    assert stars[0] == 0
    assert stars[-1] == 5
    assert stars == sorted(stars)


@pytest.mark.parametrize(
    ("kind", "scores", "said"),
    [
        ("thumb", [0.5], {"up": True}),
        ("thumb", [0.4], {"up": False}),
        ("rating", [0.79], {"stars": 4}),
        ("value", [0.25], {"reward": 0.25}),
        ("choice", [0.1, 0.9], {"winner": "b"}),
        ("choice", [0.5, 0.5], {"winner": "tie"}),
        ("ranks", [0.1, 0.9, 0.1], {"ranks": [2, 1, 2]}),
        ("best_of", [0.1, 0.9, 0.1], {"best": 1}),
    ],
)
def test_answers_by_hand(kind: str, scores: list[float], said: dict) -> None:
    assert said_of(kind, scores) == {"kind": kind, **said}


def test_there_is_no_opinion_on_a_critique() -> None:
    with pytest.raises(ConfigError, match="no opinion on items of kind 'critique'"):
        said_of("critique", [1.0])
