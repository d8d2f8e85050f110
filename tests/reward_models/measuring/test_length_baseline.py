"""The length rule: the strongest of its six forms."""

from __future__ import annotations

import numpy as np
import pytest

from lm_gym.reward_models import Judgement, evaluate_reward_model
from lm_gym.reward_models.measuring.length_baseline import strongest_length_rule

FIRST, SECOND = np.array([0, 2, 4]), np.array([1, 3, 5])


def test_the_strongest_unit_is_taken() -> None:
    lengths = {"words": np.array([1, 2, 3, 3, 5, 4]), "characters": np.array([9, 8, 7, 6, 5, 4])}
    found = strongest_length_rule(lengths, FIRST, SECOND)
    assert found.name == "more characters"
    assert found.points.tolist() == [1, 1, 1]
    assert found.longer_wins == {"words": 0.5, "characters": 1.0}


def test_shorter_answers_may_be_preferred() -> None:
    found = strongest_length_rule({"words": np.array([1, 2, 1, 3, 5, 5])}, FIRST, SECOND)
    assert found.name == "fewer words"
    assert found.points.tolist() == [1, 1, 0.5]


def test_the_gain_is_measured_pair_by_pair() -> None:
    scores = {"a": 2.0, "b b": 1.0, "c": 0.0, "d d": 3.0}

    def model(prompts: list[str], completions: list[str]) -> list[float]:
        return [scores[text] for text in completions]

    said = [
        Judgement.pair("p", "b b", "a"),  # longer, and the model is wrong
        Judgement.pair("q", "d d", "c"),  # longer, and the model is right
        Judgement.pair("r", "a", "b b"),  # shorter, and the model is right
        Judgement.pair("s", "d d", "a"),  # longer, and the model is right
    ]
    found = evaluate_reward_model(model, said)
    assert (found.accuracy, found.length_accuracy, found.gain) == (0.75, 0.75, 0.0)
    # Differences -1, 0, +1, 0 in four groups: sqrt(4 / 3 * 2) / 4.
    assert found.gain_standard_error == pytest.approx((4 / 3 * 2) ** 0.5 / 4)
    assert found.length_rule == "more words"
    counted = evaluate_reward_model(model, said, count_tokens=lambda texts: [-ord(text[0]) for text in texts])
    assert counted.longer_wins == {"words": 0.75, "characters": 0.75, "tokens": 0.25}
