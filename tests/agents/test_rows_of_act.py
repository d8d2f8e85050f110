"""Acting draws in a row what it would draw whatever the other rows do: end, restart, or take other tokens."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import LanguageModel, TextGenerationVectorEnv
from lm_gym.agents import LanguageModelPolicy
from lm_gym.models.language_model import own_copy
from lm_gym.testing import tiny_language_model

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


def test_a_pass_that_fails_midway_is_run_anew(
    make_env: Callable[..., TextGenerationVectorEnv],
    make_policy: Callable[..., LanguageModelPolicy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = make_env(action_mode="token")
    policy, calm = make_policy(env), make_policy(env)
    observation, _ = env.reset(seed=0)
    model, hidden = policy.language_model, policy.language_model.hidden

    def fails_at_its_end(*args: Any, **kwargs: Any) -> Any:
        hidden(*args, **kwargs)
        raise RuntimeError("out of memory")

    for token in (3, 4):
        for each in (policy, calm):
            each.act(observation, env.sampling)
        observation, *_ = env.step(np.full(env.num_envs, token))
        with monkeypatch.context() as patch:
            patch.setattr(model, "hidden", fails_at_its_end)
            with pytest.raises(RuntimeError, match="out of memory"):
                policy.act(observation, env.sampling)
    rules = replace(env.sampling, seed=5)
    found, expected = (each.act(observation, rules) for each in (policy, calm))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=ROUNDING)


def test_weights_in_bfloat16_act_as_the_model_alone_does(make_env: Callable[..., TextGenerationVectorEnv]) -> None:
    env = make_env("llama", prompts=["a b c"])
    small = own_copy(tiny_language_model("llama", initializer_range=0.1))
    policy = LanguageModelPolicy(LanguageModel(small.model.to(torch.bfloat16), small.tokenizer, dtype="bfloat16"))
    observation, _ = env.reset(seed=0)
    tokens, found = policy.act(observation, env.sampling)
    with torch.no_grad():
        logits = policy.model(torch.from_numpy(observation["input_ids"][:, :3])).logits[:, -1].float()
    expected = torch.log_softmax(logits, dim=-1)[range(len(tokens)), tokens]
    np.testing.assert_allclose(found, expected, atol=0.02)  # bfloat16 has eight bits


def test_rows_that_stay_while_one_restarts_keep_their_prompts(
    make_env: Callable[..., TextGenerationVectorEnv], make_policy: Callable[..., LanguageModelPolicy]
) -> None:
    env = make_env("bart", action_mode="token", autoreset_mode="Disabled", num_envs=3)
    policy, calm = make_policy(env), make_policy(env)
    first, _ = env.reset(options={"prompt": "a b"})
    policy.act(first, env.sampling)  # row 0 goes on with this prompt below, the others do not
    second, _ = env.reset(options={"prompt": "c d", "reset_mask": np.array([False, True, True])})
    third, *_ = env.step(np.array([3, 4, 5]))
    fourth, _ = env.reset(options={"prompt": "e", "reset_mask": np.array([False, False, True])})
    for seen in (second, third):
        for each in (policy, calm):
            each.act(seen, env.sampling)
    found, expected = (each.act(fourth, replace(env.sampling, seed=5)) for each in (policy, calm))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=ROUNDING)
