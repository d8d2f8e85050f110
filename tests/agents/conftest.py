"""Tiny environments and policies of four architectures, and the pinned training run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from lm_gym import Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.agents.policy import own_copy
from lm_gym.testing import tiny_language_model

CONFIG = PPOConfig(episodes_per_iteration=8, minibatches=2, learning_rate=1e-3)
PROMPTS = ("a b c", "d", "e f g h i", "b b")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are slower on several threads, and sums in one order can be compared to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def letter_score(prompts: list[str], completions: list[str]) -> list[float]:
    """Letters of the first half of the alphabet minus the others, per response."""
    return [sum(1.0 if word[0] < "h" else -1.0 for word in text.split()) / 4 for text in completions]


@pytest.fixture
def make_env() -> Callable[..., TextGenerationVectorEnv]:
    """An env of a random reference over 16 tokens; keyword arguments as the env's own, or ``architecture``."""

    def make(
        architecture: Any = "gpt2",
        *,
        num_envs: int = 4,
        prompts: Sequence[str] = PROMPTS,
        reward_model: Any = letter_score,
        seed: int = 0,
        **settings: Any,
    ) -> TextGenerationVectorEnv:
        reference = Reference(tiny_language_model(architecture))
        settings = {"action_mode": "token_and_log_prob", "max_new_tokens": 6} | settings
        options = {"autoreset_mode": settings.pop("autoreset_mode")} if "autoreset_mode" in settings else {}
        task = TextTask.of(reference, prompts, **settings)
        env = TextGenerationVectorEnv(task, reward_model, num_envs=num_envs, **options)
        env.reset(seed=seed)
        return env

    return make


@pytest.fixture
def make_policy() -> Callable[..., LanguageModelPolicy]:
    """A policy that starts as a copy of an env's reference, with a value head that is not zero."""

    def make(
        env: TextGenerationVectorEnv,
        *,
        separate_critic: bool = False,
        value_head_std: float = 0.1,
    ) -> LanguageModelPolicy:
        assert env.reference is not None
        model = own_copy(env.reference.language_model)
        policy = LanguageModelPolicy(model, separate_critic=separate_critic)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            weight = policy.value_head.weight
            weight.copy_(value_head_std * torch.randn(weight.shape, generator=generator))
        return policy

    return make


@pytest.fixture
def start(
    make_env: Callable[..., TextGenerationVectorEnv], make_policy: Callable[..., LanguageModelPolicy]
) -> Callable[..., tuple[PPO, TextGenerationVectorEnv]]:
    """Makes a fresh agent and its environment, the same every time; keyword arguments as those of ``make_env``."""

    def make(config: PPOConfig = CONFIG, **settings: Any) -> tuple[PPO, TextGenerationVectorEnv]:
        env = make_env(**settings)
        return PPO(make_policy(env), config), env

    return make
