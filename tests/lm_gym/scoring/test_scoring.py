"""The one door for scores: what a reward function may look like, and what never gets through."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import FunctionRewardModel, RewardModel, ScoreNormalizer, Scores
from lm_gym.errors import RewardModelError
from lm_gym.scoring.adapters import as_reward_model
from lm_gym.scoring.protocol import checked_scores, normalized_scores, scores_where

PROMPTS, RESPONSES = ["p", "q", "r"], ["one", "two", "three"]


def standard(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float]:
    return [float(len(prompt) + len(text)) for prompt, text in zip(prompts, completions, strict=True)]


def keyword_only(*, prompts: list[str], completions: list[str]) -> list[float]:
    return standard(prompts, completions)


def catch_all(**kwargs: Any) -> list[float]:
    return standard(kwargs["prompts"], kwargs["completions"])


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


FORMS = [standard, keyword_only, catch_all, completions_alone, prompts_first, catch_all_by_another_name]


class Callable_:
    def __call__(self, prompts: list[str], completions: list[str]) -> list[float]:
        return standard(prompts, completions)


@pytest.mark.parametrize("function", [*FORMS, swapped, Callable_()])
def test_every_form_of_reward_function_gets_prompts_and_responses(function: Callable[..., Any]) -> None:
    found = as_reward_model(function)
    assert isinstance(found, RewardModel)
    scores = checked_scores(found, PROMPTS, RESPONSES)
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
    found = FunctionRewardModel(lambda prompts, completions: values)
    assert checked_scores(found, PROMPTS, RESPONSES).value.tolist() == [1.0, 2.0, 3.0]


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
        ([1.0, 1e39, 2.0], r"row 1 got 1e\+39"),
        ([1.0, 10**400, 2.0], "row 1 got 1000"),
        (["1.0", 2.0, 3.0], r"row 0 got '1\.0' for the response 'one'"),
        ([1.0, b"2", 3.0], "row 1 got b'2'"),
        ([1.0, [2.0, 5.0], 3.0], r"row 1 got \[2\.0, 5\.0\]"),
        ([1.0, object(), 3.0], "row 1 got <object"),
        ("good", "must return a list with one float or None per row, got 'good' of type str"),
        (3.0, "must return a list with one float or None per row, got 3.0 of type float"),
        (None, "must return a list .* got None of type NoneType"),
        ((value for value in (1.0, 2.0, 3.0)), "must return a list .* of type generator"),
        ({"a": 1, "b": 2, "c": 3}, "must return a list .* of type dict"),
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


def model(scores: Any) -> RewardModel:
    return as_reward_model(Model(scores))


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
        (Scores.of([1.0, 2.0, 3.0], std=[1.0, np.nan, 1.0]), r"Scores\.std must be finite and >= 0 .* row 1 got nan"),
        (Scores.of([1.0, 2.0, 3.0], std=[1.0, 1.0, -0.5]), r"Scores\.std must be finite and >= 0 .* row 2 got -0\.5"),
        (Scores.of([1.0, 1e39, 3.0]), "row 1 got inf"),
        (Scores(value=np.array([1.0, 2.0, -1e39]), valid=np.ones(3, bool)), r"row 2 got -1e\+39"),
        (ZeroDivisionError("oops"), "reward model mine: raised ZeroDivisionError while scoring 3 responses: oops"),
    ],
)
def test_a_reward_model_that_breaks_its_contract_is_named(scores: Any, text: str) -> None:
    with pytest.raises(RewardModelError, match=text):
        checked_scores(model(scores), PROMPTS, RESPONSES)


def test_an_error_of_the_reward_model_keeps_its_cause() -> None:
    error = ZeroDivisionError("oops")
    with pytest.raises(RewardModelError) as caught:
        checked_scores(model(error), PROMPTS, RESPONSES)
    assert caught.value.__cause__ is error


def test_what_an_invalid_row_holds_never_gets_through() -> None:
    scores = Scores(value=np.array([1.0, np.nan, np.inf], np.float32), valid=np.array([True, False, False]))
    checked = checked_scores(model(scores), PROMPTS, RESPONSES)
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
    scores = scores_where(model(ValueError()), PROMPTS, RESPONSES, np.zeros(3, dtype=bool))
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


def test_the_std_reaches_the_wanted_rows_and_is_0_elsewhere() -> None:
    scores = Scores(value=np.ones(2), valid=np.array([True, False]), std=np.array([0.5, np.nan]))
    found = scores_where(model(scores), PROMPTS, RESPONSES, np.array([True, False, True]))
    assert found.std is not None
    assert found.std.tolist() == [0.5, 0.0, 0.0]
    assert found.std.dtype == np.float32
    assert scores_where(model(Scores.of([1.0])), PROMPTS, RESPONSES, np.array([True, False, False])).std is None


class Inheriting(RewardModel):
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of([2.0] * len(responses))


class Alone:
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of([2.0] * len(responses))


@pytest.mark.parametrize("subject", [Inheriting(), Alone()])
def test_what_a_model_leaves_out_has_its_default(subject: Any) -> None:
    found = as_reward_model(subject)
    assert isinstance(found, RewardModel)
    assert (found is subject) == isinstance(subject, Inheriting)
    assert found.name == type(subject).__name__
    assert (found.normalizer, found.columns, found.all_columns, found.identity()) == (None, (), False, None)


def test_what_an_object_declares_is_read_when_it_is_needed() -> None:
    subject = Alone()
    found = as_reward_model(subject)
    subject.normalizer = ScoreNormalizer(gain=2.0)  # type: ignore[attr-defined]
    subject.name = "later"  # type: ignore[attr-defined]
    assert found.normalizer == ScoreNormalizer(gain=2.0)
    assert found.name == "later"


def test_a_normalised_score_leaves_abstentions_at_0_and_scales_the_std() -> None:
    class Own(Inheriting):
        normalizer = ScoreNormalizer(gain=0.5, bias=-3.0)

        def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
            return Scores(value=np.array([4.0, 9.0]), valid=np.array([True, False]), std=np.array([1.0, 1.0]))

    found = normalized_scores(Own(), ["p", "p"], ["a", "b"])
    assert found.value.tolist() == [-1.0, 0.0]
    assert found.std is not None
    assert found.std.tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"columns": "answer"}, r"columns must be a tuple of names, such as \('answer',\), got 'answer'"),
        ({"normalizer": 2.0}, "normalizer must be a ScoreNormalizer or None, got 2.0"),
    ],
)
def test_a_wrong_declaration_is_refused_at_the_door(changes: dict[str, Any], text: str) -> None:
    subject = Alone()
    vars(subject).update(changes)
    with pytest.raises(RewardModelError, match=text):
        as_reward_model(subject)
