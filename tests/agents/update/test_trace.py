"""Twenty iterations of PPO, pinned: a change of any number that an update depends on shows here.

The numbers lie in ``ppo_trace.json``. After a change that is meant to move them, write them anew with

    python tests/agents/update/test_trace.py

and say in the commit why they moved. The test itself only compares.
"""

import json
from pathlib import Path

import pytest
import torch

from lm_gym import Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.agents.policy import own_copy
from lm_gym.testing import tiny_language_model

TRACE = Path(__file__).with_name("ppo_trace.json")
NAMES = ("score", "kl", "policy_loss", "value_loss", "grad_norm")
ITERATIONS = 20


def vowel_share(prompts: list[str], completions: list[str]) -> list[float]:
    return [sum(word in "aei" for word in text.split()) / 6 for text in completions]


def trace() -> dict[str, list[float]]:
    """One list per metric, one entry per iteration; CPU, one thread, every seed fixed."""
    reference = Reference(tiny_language_model(vocab_size=12, max_length=12, initializer_range=0.1))
    task = TextTask.of(
        reference,
        ["a b c", "d"],
        action_mode="token_and_log_prob",
        max_new_tokens=6,
        temperature=0.9,
        top_k=8,
        kl_coef=0.05,
    )
    env = TextGenerationVectorEnv(task, vowel_share, num_envs=4)
    env.reset(seed=0)
    policy = LanguageModelPolicy(own_copy(reference.language_model))
    # A small step size: rounding differs between processors, and a large one would amplify it past the tolerance.
    config = PPOConfig(episodes_per_iteration=32, learning_rate=3e-4)
    agent = PPO(policy, config)
    history = [agent.learn(env, progress=done / ITERATIONS) for done in range(ITERATIONS)]
    return {name: [round(metrics[name], 7) for metrics in history] for name in NAMES}


def test_twenty_iterations_are_as_they_were() -> None:
    expected = json.loads(TRACE.read_text(encoding="utf-8"))
    found = trace()
    assert found.keys() == expected.keys()
    for name in NAMES:
        assert found[name] == pytest.approx(expected[name], abs=1e-4, rel=1e-4), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    TRACE.write_text(json.dumps(trace(), indent=1) + "\n", encoding="utf-8")
