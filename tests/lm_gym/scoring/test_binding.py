"""Reward functions are bound by name: what each form is given, and which forms are refused with what to do instead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

from lm_gym import RewardModel
from lm_gym.errors import RewardModelError
from lm_gym.scoring.adapters import as_reward_model
from lm_gym.scoring.protocol import checked_scores

COLUMNS = {"answer": ["4", "5"], "level": [1, 2]}


def answered(completions: list[str], answer: list[str]) -> list[float]:
    return [float(one in text) for one, text in zip(answer, completions, strict=True)]


def answered_among_all(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    assert set(columns) == {"prompts", "level"}
    return answered(completions, answer)


def answered_keyword_only(*, answer: list[str], completions: list[str], prompts: list[str]) -> list[float]:
    return answered(completions, answer)


def answered_if_known(completions: list[str], answer: list[str] | None = None) -> list[float]:
    return answered(completions, answer or [])


def weighted(completions: list[str], answer: list[str], weight: float) -> list[float]:
    return [weight * score for score in answered(completions, answer)]


class Grader:
    def grade(self, completions: list[str], answer: list[str]) -> list[float]:
        return answered(completions, answer)

    def __call__(self, prompts: list[str], completions: list[str], answer: list[str]) -> list[float]:
        return answered(completions, answer)


FORMS: list[Callable[..., Any]] = [
    answered,
    answered_among_all,
    answered_keyword_only,
    answered_if_known,
    functools.partial(weighted, weight=1.0),
    Grader().grade,
    Grader(),
    lambda completions, answer: answered(completions, answer),
    lambda *rest, completions, answer: answered(completions, answer),
]


@pytest.mark.parametrize("function", FORMS)
def test_every_argument_comes_under_its_own_name(function: Callable[..., Any]) -> None:
    scores = checked_scores(as_reward_model(function), ["p", "q"], ["it is 4", "it is 4"], COLUMNS)
    assert scores.value.tolist() == [1.0, 0.0]


def test_a_function_says_which_columns_it_needs() -> None:
    found = {form: (model.columns, model.all_columns) for form in FORMS for model in [as_reward_model(form)]}
    assert found[answered] == (("answer",), False)
    assert found[answered_among_all] == (("answer",), True)
    assert found[answered_if_known] == ((), True)
    assert found[FORMS[4]] == (("answer",), False)


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(**columns: Any) -> list[float]:
        return [2 * score for score in function(**columns)]

    return call


@twice
def decorated(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    return answered(completions, answer)


def test_only_a_function_at_the_top_of_a_module_has_a_lasting_name() -> None:
    assert as_reward_model(answered).identity() == f"{__name__}:answered"
    assert [as_reward_model(form).identity() for form in (*FORMS[4:], decorated)] == [None] * 6


def test_a_function_alone_misses_the_columns_of_an_environment() -> None:
    with pytest.raises(
        RewardModelError, match=r"reward model answered: needs the column 'answer'.*got the columns \[\]"
    ):
        checked_scores(as_reward_model(answered), ["p"], ["it is 4"])
    with pytest.raises(RewardModelError, match="column 'answer' must have one value per response, got 2 for 1"):
        checked_scores(as_reward_model(answered), ["p"], ["it is 4"], COLUMNS)


async def slow(prompts: list[str], completions: list[str]) -> list[float]:
    return [0.0] * len(completions)


class SlowGrader:
    async def __call__(self, prompts: list[str], completions: list[str]) -> list[float]:
        return [0.0] * len(completions)


class SlowModel:
    async def score(self, prompts: list[str], responses: list[str]) -> Any: ...


class Unfilled:
    def score(self, prompts: list[str], responses: list[str], answer: list[str]) -> Any: ...


def nameless(prompts: list[str], completions: list[str], /) -> list[float]:
    return [0.0] * len(completions)


CLASSIFIER = GPT2ForSequenceClassification(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=8, num_labels=1))


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (
            lambda questions, answers: [0.0],
            r"must take 'prompts' or 'completions' by name, got .*\['questions', 'answers'",
        ),
        (lambda text: [0.0], r"must take 'prompts' or 'completions' by name"),
        (lambda *texts: [0.0], r"must take 'prompts' or 'completions' by name"),
        (nameless, "'prompts' is positional-only; wrap it: def f"),
        (len, "'obj' is positional-only"),
        (max, "reward model max: its signature cannot be read .* wrap it: def f"),
        (slow, r"reward model slow: must be an ordinary function, and it is asynchronous; wrap it: .*asyncio\.run"),
        (functools.partial(slow, prompts=[]), "reward model slow: must be an ordinary function"),
        (SlowGrader(), "reward model SlowGrader: must be an ordinary function"),
        (SlowModel(), "reward model SlowModel: must be an ordinary function"),
        (Unfilled(), r"'answer' is none of them; set columns = \('answer',\)"),
        (Grader, "Pass an instance, not a class"),
        ("oracle", r"lm_gym\.load_reward_model resolves names"),
        (3, r"must have a method score\(prompts, responses\)"),
        (torch.nn.Linear(2, 1), r"must have a method score\(prompts, responses\)"),
        (CLASSIFIER, r"its tokenizer is missing; pass load_reward_model\(path\), or .*PreferenceRewardModel\(model"),
        (CLASSIFIER.score, r"must have a method score\(prompts, responses\)"),
    ],
)
def test_what_cannot_be_bound_is_refused_with_a_remedy(subject: Any, text: str) -> None:
    with pytest.raises(RewardModelError, match=text):
        as_reward_model(subject)


def test_a_module_with_a_method_of_its_own_is_a_reward_model() -> None:
    class Own(GPT2ForSequenceClassification):
        def __init__(self, config: GPT2Config) -> None:
            super().__init__(config)
            head = self.score
            del self.score
            self.head = head

        def score(self, prompts: Any, responses: Any) -> Any: ...  # type: ignore[no-redef]

    found = as_reward_model(Own(CLASSIFIER.config))
    assert isinstance(found, RewardModel)
    assert found.name == "Own"
