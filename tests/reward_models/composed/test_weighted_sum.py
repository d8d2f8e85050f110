from __future__ import annotations

import numpy as np
import pytest

from lm_gym import Scores
from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.reward_models import WeightedSum


def words(prompts, completions):
    return [float(len(text.split())) for text in completions]


def shy(prompts, completions):
    return [None if "?" in text else 1.0 for text in completions]


class Unsure:
    def __init__(self, value: float, std: float) -> None:
        self.value, self.std = value, std

    def score(self, prompts, responses) -> Scores:
        return Scores.of([self.value] * len(responses), [self.std] * len(responses))


def test_sum_and_abstention_by_hand() -> None:
    model = WeightedSum({"words": (0.5, words), "shy": (-2.0, shy)})
    scores = model.score(["p"] * 2, ["a b c", "a ?"])
    assert scores.value.tolist() == [-0.5, 0.0]
    assert scores.value.dtype == np.float32
    assert scores.valid.tolist() == [True, False]
    assert scores.std is None
    assert model.name == "0.5*words + -2*shy"
    assert model.weights == {"words": 0.5, "shy": -2.0}


def test_table_shows_each_part() -> None:
    rows = WeightedSum({"words": (0.5, words), "shy": (-2.0, shy)}).table(["p"] * 2, ["a b c", "a ?"])
    assert rows == [
        {"response": "a b c", "terms": {"words": 1.5, "shy": -2.0}, "total": -0.5},
        {"response": "a ?", "terms": {"words": 1.0, "shy": None}, "total": None},
    ]


def test_independent_stds_add_in_squares_and_only_if_all_have_one() -> None:
    both = WeightedSum({"a": (1.0, Unsure(1, 3)), "b": (-2.0, Unsure(1, 2))}).score(["p"], ["r"])
    assert both.std is not None
    assert both.std.tolist() == [5.0]
    assert WeightedSum({"a": (1.0, Unsure(1, 3)), "w": (1.0, words)}).score(["p"], ["r"]).std is None


def test_sums_nest_and_take_no_rows() -> None:
    inner = WeightedSum({"w": (2.0, words)})
    assert WeightedSum({"inner": (0.25, inner)}).score(["p"], ["a b"]).value.tolist() == [1.0]
    assert len(inner.score([], [])) == 0


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ({}, "at least one term"),
        ({"w": words}, "must be \\(weight, reward model\\)"),
        ({"w": (float("nan"), words)}, "must be a finite number"),
        ({"w": ("1", words)}, "must be a finite number"),
    ],
)
def test_bad_terms_are_refused(terms, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        WeightedSum(terms)


def test_a_class_is_no_term_and_a_bad_term_is_named() -> None:
    with pytest.raises(RewardModelError, match="Pass an instance, not a class"):
        WeightedSum({"w": (1.0, Unsure)})  # type: ignore[dict-item]
    with pytest.raises(RewardModelError, match=r"row 0 got .*nan"):
        WeightedSum({"w": (1.0, lambda prompts, completions: [float("nan")])}).score(["p"], ["r"])
