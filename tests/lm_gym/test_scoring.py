"""The one door for scores: what a reward function may look like, and what never gets through."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import FunctionRewardModel, RewardModel, Scores
from lm_gym.errors import RewardModelError
from lm_gym.scoring import as_reward_model, checked_scores, scores_where

PROMPTS, RESPONSES = ["p", "q", "r"], ["one", "two", "three"]


def standard(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float]:
    return [float(len(prompt) + len(text)) for prompt, text in zip(prompts, completions, strict=True)]


def keyword_only(*, prompts: list[str], completions: list[str]) -> list[float]:
    return standard(prompts, completions)


def catch_all(**kwargs: Any) -> list[float]:
    return standard(kwargs["prompts"], kwargs["completions"])


def other_names(questions: list[str], answers: list[str]) -> list[float]:
    return standard(questions, answers)


def swapped(completions: list[str], prompts: list[str]) -> list[float]:
    assert completions == RESPONSES
    return standard(prompts, completions)


def completions_alone(completions: list[str], **kwargs: Any) -> list[float]:
    """The form of most reward functions written for TRL."""
    return standard(kwargs["prompts"], completions)


def prompts_first(prompts: list[str], **rest: Any) -> list[float]:
    return standard(prompts, rest["completions"])


def catch_all_by_another_name(**columns: Any) -> list[float]:
    return standard(columns["prompts"], columns["completions"])


FORMS = [standard, keyword_only, catch_all, other_names, completions_alone, prompts_first, catch_all_by_another_name]


class Callable_:
    def __call__(self, prompts: list[str], completions: list[str]) -> list[float]:
        return standard(prompts, completions)


@pytest.mark.parametrize("function", [*FORMS, swapped, Callable_()])
def test_every_form_of_reward_function_gets_prompts_and_responses(function: Callable[..., Any]) -> None:
    model = as_reward_model(function)
    assert isinstance(model, RewardModel)
    scores = checked_scores(model, PROMPTS, RESPONSES)
    assert scores.value.tolist() == [4.0, 4.0, 6.0]
    assert scores.value.dtype == np.float32
    assert scores.valid.all()


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        np.array([1.0, 2.0, 3.0]),
        torch.tensor([1.0, 2.0, 3.0]),
        [np.float64(1), torch.tensor(2.0), True + 2],
    ],
)
def test_lists_and_arrays_of_numbers_are_scores(values: Any) -> None:
    model = FunctionRewardModel(lambda prompts, completions: values)
    assert checked_scores(model, PROMPTS, RESPONSES).value.tolist() == [1.0, 2.0, 3.0]


def test_none_abstains_on_its_row_alone() -> None:
    scores = checked_scores(FunctionRewardModel(lambda prompts, completions: [1.0, None, 3.0]), PROMPTS, RESPONSES)
    assert scores.valid.tolist() == [True, False, True]
    assert scores.value.tolist() == [1.0, 0.0, 3.0]


def returning(value: Any) -> FunctionRewardModel:
    def judge(prompts: list[str], completions: list[str]) -> Any:
        return value

    return FunctionRewardModel(judge)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1.0, 2.0], "reward model judge: must return one score per response, got 2 for 3 responses"),
        ([], "must return one score per response, got 0 for 3 responses"),
        (
            [1.0, float("nan"), 2.0],
            r"must be a finite number or an abstention .*; row 1 got nan for the response 'two' to",
        ),
        ([1.0, 2.0, float("inf")], r"row 2 got inf for the response 'three' to the prompt 'r'"),
        ([1.0, 2.0, -np.inf], "row 2 got -inf"),
        (["1.0", 2.0, 3.0], r"row 0 got '1\.0' for the response 'one'"),
        ([1.0, b"2", 3.0], "row 1 got b'2'"),
        ([1.0, [2.0, 5.0], 3.0], r"row 1 got \[2\.0, 5\.0\]"),
        ([1.0, object(), 3.0], "row 1 got <object"),
        ("good", "must return a list with one float or None per row, got str"),
        (3.0, "must return a list with one float or None per row, got float"),
        (None, "must return a list .* got NoneType"),
        ((value for value in (1.0, 2.0, 3.0)), "must return a list .* got generator"),
        ({"a": 1, "b": 2, "c": 3}, "row 0 got 'a'"),
    ],
)
def test_anything_but_one_finite_number_per_row_is_refused(value: Any, text: str) -> None:
    with pytest.raises(RewardModelError, match=text):
        checked_scores(returning(value), PROMPTS, RESPONSES)


class Model:
    name = "mine"

    def __init__(self, scores: Any) -> None:
        self.scores = scores

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Any:
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([1.0, 2.0, 3.0], r"reward model mine: score\(\) must return lm_gym.Scores, got list"),
        (Scores.of([1.0, np.nan, 3.0]), "row 1 got nan"),
        (Scores.of([1.0]), "got 1 for 3 responses"),
        (Scores(value=np.ones(3, np.float32), valid=np.ones(2, bool)), "got 2 for 3 responses"),
        (Scores.of(np.ones((3, 1))), r"must .*shape"),
        (Scores(value=np.ones(3, np.float32), valid=np.ones((3, 1), bool)), r"must .*shape"),
        (Scores.of([1.0, 2.0, 3.0], std=[1.0]), "std"),
        (ZeroDivisionError("oops"), "reward model mine: raised ZeroDivisionError while scoring 3 responses: oops"),
    ],
)
def test_a_reward_model_that_breaks_its_contract_is_named(scores: Any, text: str) -> None:
    with pytest.raises(RewardModelError, match=text):
        checked_scores(Model(scores), PROMPTS, RESPONSES)


def test_an_error_of_the_reward_model_keeps_its_cause() -> None:
    error = ZeroDivisionError("oops")
    with pytest.raises(RewardModelError) as caught:
        checked_scores(Model(error), PROMPTS, RESPONSES)
    assert caught.value.__cause__ is error


def test_what_an_invalid_row_holds_never_gets_through() -> None:
    scores = Scores(value=np.array([1.0, np.nan, np.inf], np.float32), valid=np.array([True, False, False]))
    checked = checked_scores(Model(scores), PROMPTS, RESPONSES)
    assert checked.value.tolist() == [1.0, 0.0, 0.0]
    assert checked.valid.tolist() == [True, False, False]


def test_scores_where_asks_only_for_the_wanted_rows() -> None:
    asked: list[list[str]] = []

    def spy(prompts: list[str], completions: list[str]) -> list[float | None]:
        asked.append(completions)
        return [None, 5.0]

    scores = scores_where(FunctionRewardModel(spy), PROMPTS, RESPONSES, np.array([True, False, True]))
    assert asked == [["one", "three"]]
    assert scores.value.tolist() == [0.0, 0.0, 5.0]
    assert scores.valid.tolist() == [False, False, True]


def test_no_wanted_row_calls_no_reward_model() -> None:
    scores = scores_where(Model(ValueError()), PROMPTS, RESPONSES, np.zeros(3, dtype=bool))
    assert not scores.valid.any()


def test_without_a_reward_model_every_wanted_score_is_zero() -> None:
    scores = scores_where(None, PROMPTS, RESPONSES, np.array([True, False, True]))
    assert scores.value.tolist() == [0.0, 0.0, 0.0]
    assert scores.valid.tolist() == [True, False, True]


def test_scores_of_makes_every_row_count() -> None:
    scores = Scores.of([1, 2], std=[0.5, 0.1])
    assert (scores.value.dtype, scores.std.dtype) == (np.float32, np.float32)  # type: ignore[union-attr]
    assert len(scores) == 2
    assert scores.valid.all()
