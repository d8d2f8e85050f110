"""Reward functions with the signatures that TRL 1.16 has, as reward models; TRL itself is not installed.

The stand-ins have the parameters, the annotations and the kind of result of ``trl.rewards``.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_models import single_env

from lm_gym import Reference
from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.scoring import TRLReward, as_reward_model, checked_scores
from lm_gym.testing import check_reward_model

PROMPTS = ["1 + 1 =", "2 + 2 ="]
TEXTS = ["<think>two</think> 2", "5"]


def think_format_reward(completions: list[list[dict[str, str]]], **kwargs: Any) -> list[float]:
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(r"^<think>.*</think>.*$", content) else 0.0 for content in contents]


def accuracy_reward(
    completions: list[list[dict[str, str]]],
    solution: list[str],
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    contents = [completion[0]["content"] for completion in completions]
    if log_extra:
        log_extra("solution", solution)
    return [None if right == "?" else float(right in text) for text, right in zip(contents, solution, strict=True)]


class Grader:
    """A callable object, as TRL's makers of reward functions return one."""

    __name__ = "grader"

    def __call__(
        self, completions: list[Any], solution: list[str], log_extra: Any = None, **kwargs: Any
    ) -> list[float | None]:
        return accuracy_reward(completions, solution, log_extra, **kwargs)


class CosineScaled:
    """As ``get_cosine_scaled_reward`` makes one: it asks for the number of tokens."""

    def __call__(
        self, completions: list[Any], solution: list[str], completion_ids: list[list[int]], **kwargs: Any
    ) -> list[float]:
        raise AssertionError


class RepetitionPenalty:
    __name__ = "repetition_penalty_reward"

    def __call__(self, completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        raise AssertionError


def last_turn(
    prompts: list[list[dict[str, str]]], completions: list[list[dict[str, str]]], **kwargs: Any
) -> list[float]:
    """Reads the prompt too; logs by what the trainer always gives."""
    kwargs["log_extra"]("prompt", prompts)
    kwargs["log_metric"]("mean", 0.0)
    turns = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
    assert [[turn["role"] for turn in each] for each in turns] == [["user", "assistant"]] * len(turns)
    return [float(len(each[0]["content"])) for each in turns]


async def judged(completions: list[Any], solution: list[str], **kwargs: Any) -> list[float | None]:
    """Asks for every row at once, as a remote judge is asked."""

    async def one(text: str, right: str) -> float:
        await asyncio.sleep(0)
        return float(right in text)

    return await asyncio.gather(*(one(c[0]["content"], s) for c, s in zip(completions, solution, strict=True)))


class AsyncJudge:
    async def __call__(self, completions: list[Any], solution: list[str], **kwargs: Any) -> list[float | None]:
        return await judged(completions, solution)


async def weighted(completions: list[Any], solution: list[str], weight: float) -> list[float]:
    return [weight * (value or 0.0) for value in await judged(completions, solution)]


def needs_logs(completions: list[Any], log_metric: Callable[[str, float], None]) -> list[float]:
    log_metric("mean", 1.0)
    return [1.0] * len(completions)


CASES: list[tuple[Any, tuple[str, ...], list[float]]] = [
    (think_format_reward, (), [1.0, 0.0]),
    (accuracy_reward, ("solution",), [1.0, 0.0]),
    (Grader(), ("solution",), [1.0, 0.0]),
    (last_turn, (), [7.0, 7.0]),
    (judged, ("solution",), [1.0, 0.0]),
    (AsyncJudge(), ("solution",), [1.0, 0.0]),
    (functools.partial(weighted, weight=0.5), ("solution",), [0.5, 0.0]),
    (needs_logs, (), [1.0, 1.0]),
]


@pytest.mark.parametrize(("function", "columns", "expected"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_function_is_given_conversations_and_columns(
    function: Any, columns: tuple[str, ...], expected: list[float]
) -> None:
    model = TRLReward(function)
    assert model.columns == columns
    scores = checked_scores(model, PROMPTS, TEXTS, {"solution": ["2", "4"], "level": [1, 2]})
    assert scores.valid.all()
    np.testing.assert_array_equal(scores.value, expected)


def test_none_abstains_and_nan_is_an_error() -> None:
    scores = checked_scores(TRLReward(accuracy_reward), PROMPTS, TEXTS, {"solution": ["2", "?"]})
    assert scores.valid.tolist() == [True, False]

    def broken(completions: list[Any], **kwargs: Any) -> list[float]:
        return [float("nan")] * len(completions)

    with pytest.raises(RewardModelError, match=r"^reward model broken: every score must be a finite number .*got nan"):
        checked_scores(TRLReward(broken), PROMPTS, TEXTS)


def test_texts_where_they_are_wanted() -> None:
    def plain(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float]:
        return [float(len(prompt) + len(text)) for prompt, text in zip(prompts, completions, strict=True)]

    expected = checked_scores(as_reward_model(plain), PROMPTS, TEXTS).value
    np.testing.assert_array_equal(
        checked_scores(TRLReward(plain, conversational=False), PROMPTS, TEXTS).value, expected
    )


def test_an_asynchronous_function_where_an_event_loop_runs() -> None:
    """As in a notebook."""

    async def in_a_loop() -> list[float]:
        return checked_scores(TRLReward(judged), PROMPTS, TEXTS, {"solution": ["2", "4"]}).value.tolist()

    assert asyncio.run(in_a_loop()) == [1.0, 0.0]


def test_it_pays_in_an_environment_and_keeps_the_contract(reference: Reference) -> None:
    rows = [{"prompt": "a b", "solution": "c"}]
    env = single_env(reference, rows, TRLReward(judged), max_new_tokens=2)
    env.reset(seed=0)
    env.step(3)
    assert env.step(0)[4]["score"] == 1.0
    with pytest.raises(ConfigError, match="solution"):
        single_env(reference, ["a b"], TRLReward(judged), max_new_tokens=2)
    check_reward_model(TRLReward(think_format_reward))


def test_its_identity_tells_messages_from_texts() -> None:
    found = [TRLReward(think_format_reward, conversational=each).identity() for each in (True, False)]
    assert [str(each).rpartition(":")[2] for each in found] == [
        "think_format_reward, messages",
        "think_format_reward, texts",
    ]
    assert TRLReward(Grader()).identity() is None


def by_prompt_ids(prompt_ids: list[list[int]], completions: list[Any]) -> list[float]:
    raise AssertionError


def with_state(completions: list[Any], trainer_state: Any) -> list[float]:
    raise AssertionError


@pytest.mark.parametrize("wrap", [TRLReward, as_reward_model])
@pytest.mark.parametrize(
    ("function", "name"),
    [(RepetitionPenalty(), "completion_ids"), (CosineScaled(), "completion_ids"), (by_prompt_ids, "prompt_ids")],
    ids=["repetition", "cosine", "prompt"],
)
def test_a_function_of_token_ids_is_refused_at_once(wrap: Any, function: Any, name: str) -> None:
    with pytest.raises(RewardModelError, match=rf"needs '{name}', and a reward model is given text, never token ids"):
        wrap(function)


def test_other_functions_that_it_cannot_call_are_refused() -> None:
    with pytest.raises(RewardModelError, match="with_state: needs 'trainer_state', which only a trainer of TRL has"):
        TRLReward(with_state)
    for wrong in (3, "think_format_reward", Grader):
        with pytest.raises(RewardModelError, match=r"TRLReward: needs a reward function f\(prompts, completions"):
            TRLReward(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="TRLReward: conversational: must be"):
        TRLReward(think_format_reward, conversational="yes")  # type: ignore[arg-type]
    with pytest.raises(RewardModelError, match=r"it is asynchronous; .*lm_gym\.scoring\.TRLReward\(g, conversational="):
        as_reward_model(judged)
