"""Acting draws in a row what it would draw whatever the other rows do: end, restart, or take other tokens."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lm_gym import TextGenerationVectorEnv
from lm_gym.agents import LanguageModelPolicy

ROUNDING = 2e-5
"""Nats: float32 sums in another order. A token that is seen by the wrong row moves them by tenths."""
EOS = 0
PLAYED = [2, 9, 4, 4, 12, 15, 1, 3]
LONG = "e f g h i j k l m n o"


@pytest.mark.parametrize("neighbours", [[EOS] * 8, [5, EOS, 6, 7, EOS, EOS, 8, 9], [1] * 8])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2", "bloom", "t5", "bart"])
def test_a_row_is_drawn_the_same_beside_any_others(
    architecture: str,
    neighbours: list[int],
    make_env: Callable[..., TextGenerationVectorEnv],
    make_policy: Callable[..., LanguageModelPolicy],
) -> None:
    settings: dict[str, Any] = {"num_envs": 3, "max_new_tokens": 10, "max_prompt_tokens": 12}
    found = []
    for others in ([5, 6, 7, 8, 9, 10, 11, 12], neighbours):
        env = make_env(architecture, autoreset_mode="Disabled", **settings)
        policy = make_policy(env)
        observation, _ = env.reset(seed=0, options={"prompt": "a b c"})
        draws = []
        for number, (token, other) in enumerate(zip(PLAYED, others, strict=True)):
            drawn, log_probs = policy.act(observation, replace(env.sampling, seed=9))
            draws.append((drawn[0], log_probs[0]))
            tokens = np.array([token, other, other])
            observation, _, terminated, *_ = env.step({"token": tokens, "log_prob": np.full(3, -1.5)})
            if terminated.any():
                prompt = LONG if number % 2 else "d"
                observation, _ = env.reset(options={"reset_mask": terminated, "prompt": prompt})
        found.append(np.array(draws))
    assert len(set(found[0][:, 0])) > 2
    np.testing.assert_allclose(found[0], found[1], atol=ROUNDING)


def test_environments_of_two_seeds_each_draw_from_their_own_stream(
    make_env: Callable[..., TextGenerationVectorEnv], make_policy: Callable[..., LanguageModelPolicy]
) -> None:
    env = make_env()
    observation, _ = env.reset(seed=0)
    alone = make_policy(env)
    expected = [alone.act(observation, replace(env.sampling, seed=1))[0].tolist() for _ in range(4)]
    assert len({tuple(tokens) for tokens in expected}) > 1
    between = make_policy(env)
    found = []
    for _ in range(4):
        found.append(between.act(observation, replace(env.sampling, seed=1))[0].tolist())
        between.act(observation, replace(env.sampling, seed=2))
    assert found == expected
