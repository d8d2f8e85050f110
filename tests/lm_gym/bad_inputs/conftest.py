"""What the tables of bad inputs are held against: small real parts, and one judge of an error.

A row of a table is ``(name, call, words)``: ``call`` is given a :class:`World` and must raise an error of the library
whose message holds every word: the subject, and what was got.
"""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from tiny_models import PROMPTS, length_score, make_model, make_tokenizer, single_env, vector_env

from lm_gym import LanguageModel, Reference, TextGenerationEnv, TextGenerationVectorEnv
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.errors import LmGymError

FOREIGN = ("Traceback", "object has no attribute", "not subscriptable", "unsupported operand", "object is not")
"""What only an error that nobody meant to raise says."""


class World:
    """Parts that a call may need; folders are made anew for each test."""

    def __init__(self, reference: Reference, tmp: Path) -> None:
        self.reference = reference
        self.tmp = tmp

    def env(self, reward_model: Any = length_score, **settings: Any) -> TextGenerationEnv:
        return single_env(self.reference, PROMPTS, reward_model, **{"max_new_tokens": 3} | settings)

    def running(self, **settings: Any) -> TextGenerationEnv:
        env = self.env(**settings)
        env.reset(seed=0)
        return env

    def vector(self, num_envs: Any = 2, reward_model: Any = length_score, **settings: Any) -> TextGenerationVectorEnv:
        return vector_env(num_envs, self.reference, PROMPTS, reward_model, **{"max_new_tokens": 3} | settings)

    def running_vector(self, **settings: Any) -> TextGenerationVectorEnv:
        env = self.vector(**settings)
        env.reset(seed=0)
        return env

    @cached_property
    def policy(self) -> LanguageModelPolicy:
        return LanguageModelPolicy(LanguageModel(make_model().requires_grad_(True), make_tokenizer()))

    @cached_property
    def agent(self) -> PPO:
        return PPO(self.policy, PPOConfig(episodes_per_iteration=2, minibatches=1, epochs=1))

    def file(self, name: str, text: str | bytes) -> Path:
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return path

    def rows(self, *rows: Any, name: str = "rows.jsonl") -> Path:
        return self.file(name, "".join(json.dumps(row) + "\n" for row in rows))

    def saved_policy(self) -> Path:
        return self.policy.save_pretrained(self.tmp / "policy")


@pytest.fixture
def world(reference: Reference, tmp_path: Path) -> World:
    return World(reference, tmp_path)


def _refuses(world: World, call: Callable[[World], Any], words: Sequence[str]) -> str:
    with pytest.raises(LmGymError) as caught:
        call(world)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert not [sign for sign in FOREIGN if sign in message]
    return message


@pytest.fixture
def refuses() -> Callable[[World, Callable[[World], Any], Sequence[str]], str]:
    return _refuses
