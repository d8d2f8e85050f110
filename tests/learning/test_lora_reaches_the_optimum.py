"""PPO on low-rank updates of a frozen model that is its own reference, against the exact optimum."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from lm_gym import LanguageModel, LoraSettings, TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.models.language_model import own_copy
from lm_gym.models.lora import add_adapter
from lm_gym.testing import share_closed

pytestmark = pytest.mark.slow
ITERATIONS = 100


def test_ppo_with_an_adapter_closes_the_gap(
    make_task: Callable[[str, int], Any], report_share: Callable[..., None]
) -> None:
    pytest.importorskip("peft")
    task, start = make_task("dense", 0), time.perf_counter()
    model = own_copy(task.reference.language_model)
    adapter = add_adapter(model.model, LoraSettings(rank=8), task="CAUSAL_LM", base=None)
    policy = LanguageModelPolicy(LanguageModel(model.model, model.tokenizer, adapter=adapter))
    rules = {"reward": task.reward_config, "sampling": task.sampling, "action_mode": "token_and_log_prob"}
    env = TextGenerationVectorEnv(TextTask.of(policy.reference(), ["a b"], **rules), task.reward)
    env.reset(seed=0)
    agent = PPO(policy, PPOConfig(episodes_per_iteration=256, learning_rate=1e-2))
    for done in range(ITERATIONS):
        agent.learn(env, progress=done / ITERATIONS)
    share = share_closed(policy, task.solution)  # against a reference that never shared a weight with the policy
    report_share("PPO, LoRA", "dense", 0, share, time.perf_counter() - start)
    assert share >= 0.95
