"""The verdict: a sentence on length, one on probes, one on the scale."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from lm_gym.reward_models import Judgement, reward_card

Model = Callable[..., list[float]]


def said(groups: int) -> list[Judgement]:
    """The better text has the word good; it is longer in half of the pairs."""
    found = []
    for number in range(groups):
        better, worse = ("good and fine", "bad") if number % 2 else ("good", "bad and dull")
        found.append(Judgement.pair(f"prompt {number}", f"{better} {number}", f"{worse} {number}"))
    return found


def by_word(prompts: list[str], completions: list[str]) -> list[float]:
    return [2.0 * ("good" in text.split()[:1]) for text in completions]


def by_word_turned(prompts: list[str], completions: list[str]) -> list[float]:
    return [-score for score in by_word(prompts, completions)]


def by_word_timidly(prompts: list[str], completions: list[str]) -> list[float]:
    return [0.01 * score for score in by_word(prompts, completions)]


def by_length(prompts: list[str], completions: list[str]) -> list[float]:
    return [0.5 * len(text) for text in completions]


@pytest.mark.parametrize(
    ("model", "groups", "words"),
    [
        (by_word, 60, ["It beats the length rule", "of 7 probes fool it"]),
        (by_length, 60, ["It is level with the length rule", "best answer padded (beats 100% of chosen answers"]),
        (
            by_word_turned,
            60,
            ["It is worse than the length rule", "Do not train"],
        ),
        (by_word, 10, ["Too few pairs to tell", ": 10."]),
        (by_word_timidly, 60, ["far from 1; it has learned little"]),
    ],
)
def test_the_verdict_says_what_was_found(model: Any, groups: int, words: list[str]) -> None:
    card = reward_card(model, said(groups), about="nothing")
    for word in words:
        assert word in card.verdict, card.verdict
    assert card.to_json()["verdict"] == card.verdict
    assert card.to_json()["about"] == "nothing"


def test_a_model_that_no_probe_fools() -> None:
    real = {text for one in said(60) for text in one.texts}

    def knows(prompts: list[str], completions: list[str]) -> list[float]:
        return [by_word(prompts, [text])[0] if text in real else -9.0 for text in completions]

    card = reward_card(knows, said(60))
    assert "None of 7 probes fools it." in card.verdict
    assert not any(probe["fools"] for probe in card.to_json()["probes"])


def test_the_worst_groups_are_those_with_evidence() -> None:
    rng = random.Random(0)
    many = [Judgement.pair("many", f"bad {rng.random()}", f"good {rng.random()}") for _ in range(40)]
    one = [Judgement.pair("one", "bad 1", "good 1")]
    card = reward_card(by_word, [*said(30), *many, *one])
    worst = card.evaluation.worst_groups(2)
    assert [group.group for group in worst] == ["many", "one"]
