"""PPO on low-rank updates of a frozen model that is its own reference, against the exact optimum."""

import time
from collections.abc import Callable

import pytest

from benchmarks.exact_tasks import PROMPT, TASKS
from lm_gym import (
    LanguageModel,
    LoraSettings,
    Reference,
    RewardConfig,
    SamplingConfig,
    TextGenerationVectorEnv,
    TextTask,
)
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.models.language_model import own_copy
from lm_gym.models.lora import add_adapter
from lm_gym.testing import share_closed, solve, tiny_language_model

pytestmark = pytest.mark.slow
ITERATIONS = 80


def test_ppo_with_an_adapter_closes_the_gap(report_share: Callable[..., None]) -> None:
    """The base is wider than that of the other tasks: its last norm and head are frozen, and bound the logits."""
    pytest.importorskip("peft")
    start = time.perf_counter()
    reward, vocab_size, kl_coef = TASKS["dense"]
    model = tiny_language_model(vocab_size=vocab_size, max_length=8, initializer_range=0.3)
    rules = {"reward_config": RewardConfig(kl_coef=kl_coef), "sampling": SamplingConfig(max_new_tokens=4)}
    solution = solve(Reference(model), reward, PROMPT, **rules)
    learner = own_copy(model)
    adapter = add_adapter(learner.model, LoraSettings(rank=8), task="CAUSAL_LM", base=None)
    policy = LanguageModelPolicy(LanguageModel(learner.model, learner.tokenizer, adapter=adapter))
    task = TextTask.of(policy.reference(), [PROMPT], reward=rules["reward_config"], sampling=rules["sampling"])
    env = TextGenerationVectorEnv(task, reward)
    env.reset(seed=0)
    agent = PPO(policy, PPOConfig(episodes_per_iteration=256, learning_rate=5e-3))
    for done in range(ITERATIONS):
        agent.learn(env, progress=done / ITERATIONS)
    share = share_closed(policy, solution)  # by a reference that never shared a weight with the policy
    report_share("PPO, LoRA", "dense, wider base", 0, share, time.perf_counter() - start)
    assert share >= 0.95
