"""Fitted weights of an ensemble."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models import EnsembleRewardModel, Judgement, LengthReward
from lm_gym.reward_models.composed.weight_fit import fit_weights


def first(prompts: list[str], completions: list[str]) -> list[float]:
    return [100.0 * float(text.split()[0]) for text in completions]


def second(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(text.split()[1]) for text in completions]


def noise(prompts: list[str], completions: list[str]) -> list[float]:
    return [random.Random(text).gauss(0, 1) for text in completions]


def judged(count: int, groups: int) -> list[Judgement]:
    """The truth is first / 100 + 2 second, said with the noise of a Bradley-Terry model."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        (a, b), (c, d) = rng.normal(size=(2, 2)).round(4)
        texts = f"{a} {b} {number}", f"{c} {d} {number}"
        won = rng.random() < 1 / (1 + np.exp(-(a + 2 * b - c - 2 * d)))
        found.append(Judgement.pair(f"prompt {number % groups}", *(texts if won else texts[::-1])))
    return found


def test_the_weights_of_a_known_truth_are_found() -> None:
    said = judged(3000, 6)
    found = fit_weights([first, second, noise], said)
    assert found.weights[0] * 100 == pytest.approx(1, abs=0.12)
    assert found.weights[1] == pytest.approx(2, abs=0.2)
    assert found.weights[2] == pytest.approx(0, abs=0.1)
    assert found.accuracy > max(found.member_accuracy) + 0.03
    assert found.pairs == 3000


def test_a_weighted_ensemble_scores_the_weighted_sum() -> None:
    model = EnsembleRewardModel(
        [LengthReward(target=3, tolerance=4), LengthReward(target=5, tolerance=4)], weights=(0.5, 0.0)
    )
    texts = ["one two three", "one"]
    member = LengthReward(target=3, tolerance=4).score(["p"] * 2, texts).value
    np.testing.assert_allclose(model.score(["p"] * 2, texts).value, 0.5 * member, rtol=1e-6)


@pytest.mark.parametrize("weights", [(1.0,), (-1.0, 1.0), (0.0, 0.0), (float("nan"), 1.0)])
def test_bad_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"weights:? must be .*finite number >= 0"):
        EnsembleRewardModel([first, second], weights=weights)


def test_one_group_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="at least two groups of prompts"):
        fit_weights([first, second], judged(20, 1))


def test_members_that_say_nothing_or_the_contrary_have_no_weights() -> None:
    def constant(prompts: list[str], completions: list[str]) -> list[float]:
        return [1.0] * len(completions)

    def contrary(prompts: list[str], completions: list[str]) -> list[float]:
        return [-value for value in second(prompts, completions)]

    for members in ([constant, constant], [contrary, constant]):
        with pytest.raises(DataError, match="at least one member must score the better response"):
            fit_weights(members, judged(300, 3))
    with pytest.raises(ConfigError, match="at least one member, got none"):
        fit_weights([], judged(20, 2))
