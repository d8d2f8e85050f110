"""The check of reward models: it passes a sound one, and names the rule that each broken one breaks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm_gym import RewardModel, ScoreNormalizer, Scores
from lm_gym.errors import RewardModelError
from lm_gym.reward_models import OracleRewardModel
from lm_gym.testing import check_reward_model


class Sound:
    """The number of characters."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of([float(len(text)) for text in responses])


class Batched(Sound):
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of([float(len(responses))] * len(responses))


class Reordered(Sound):
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of(sorted(float(len(text)) for text in responses))


class Moody(Sound):
    def __init__(self) -> None:
        self.calls = count()

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of([float(next(self.calls))] * len(responses))


class Delicate(Sound):
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        if not all(responses):
            raise ValueError("empty text")
        return super().score(prompts, responses)


class Grasping(Sound):
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        if isinstance(responses, list) and responses:
            responses[0] = "changed"
        return super().score(prompts, responses)


class Unsure(Sound):
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of([0.0] * len(responses), std=np.full(len(responses), -1.0))


class Forgetful(Sound):
    def save(self, folder: Path) -> None:
        OracleRewardModel().save(folder)


class Anonymous(Sound):
    name = ""


class Overwriting(RewardModel):
    columns = ("answer",)

    def score(self, prompts: Sequence[str], responses: Sequence[str], answer: list[Any]) -> Scores:  # type: ignore[override]
        answer[0][0] = "changed"
        return Scores.of([1.0] * len(responses))


class Unsteady(Sound):
    """How unsure it is depends on the batch."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of([1.0] * len(responses), std=[float(len(responses))] * len(responses))


class Undeclared(OracleRewardModel):
    """Its normaliser is not in the folder."""

    normalizer = ScoreNormalizer(gain=2.0)


def test_a_sound_model_and_a_function_pass() -> None:
    check_reward_model(Sound())
    check_reward_model(lambda prompts, completions: [None if not text else 1.0 for text in completions])
    check_reward_model(Moody(), deterministic=False)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Batched(), "a row alone must score as in a batch"),
        (Reordered(), "must score as in a batch|another order"),
        (Moody(), "asked again it must give the same"),
        (Delicate(), "must score or abstain on any text"),
        (Grasping(), "must leave the texts"),
        (Unsure(), "std must be finite and >= 0"),
        (lambda prompts, completions: [1.0], "one score per response"),
        (Forgetful(), "saved and loaded it must give the same"),
        (Anonymous(), "name must be a text that says something"),
        (Unsteady(), "a row alone must score as in a batch"),
        (Undeclared(), "saved and loaded it must declare the same normalizer"),
    ],
)
def test_a_broken_model_is_named_with_its_rule(broken: Any, rule: str) -> None:
    texts = ["a", "bbb", "cc"]
    with pytest.raises(RewardModelError, match=rule):
        check_reward_model(broken, prompts=["p"] * 3, responses=list(texts))


def test_a_model_that_changes_its_columns_is_named() -> None:
    with pytest.raises(RewardModelError, match="must leave the texts and columns"):
        check_reward_model(Overwriting(), prompts=["p"] * 2, responses=["a", "b"], columns={"answer": [["x"], ["y"]]})
