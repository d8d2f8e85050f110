"""The same claims on a CUDA device, in mixed precision; run with ``-m gpu``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lm_gym import LanguageModel, Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.agents.policy import own_copy
from lm_gym.testing import tiny_language_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def on_gpu() -> Callable[[str], LanguageModel]:
    def make(dtype: str) -> LanguageModel:
        model = tiny_language_model()
        return LanguageModel(model.model.to("cuda"), model.tokenizer, dtype=dtype)  # type: ignore[arg-type]

    return make


def environment(model: LanguageModel) -> TextGenerationVectorEnv:
    def score(prompts: list[str], completions: list[str]) -> list[float]:
        return [float(len(text)) for text in completions]

    task = TextTask.of(Reference(model), ["a b", "a"], action_mode="token_and_log_prob", max_new_tokens=8, kl_coef=0.1)
    env = TextGenerationVectorEnv(task, score, num_envs=4)
    env.reset(seed=0)
    return env


def test_stepping_equals_one_teacher_forced_pass(on_gpu: Callable[[str], LanguageModel]) -> None:
    model = on_gpu("float32")
    env = environment(model)
    episodes = env.rollout(LanguageModelPolicy(own_copy(model)), 4)
    assert episodes.ref_log_probs is not None
    np.testing.assert_allclose(episodes.log_probs, episodes.ref_log_probs, atol=2e-3)


def test_mixed_precision_starts_at_no_kl_and_ratio_one(on_gpu: Callable[[str], LanguageModel]) -> None:
    model = on_gpu("auto")
    env = environment(model)
    config = PPOConfig(episodes_per_iteration=16, learning_rate=1e-3)
    agent = PPO(LanguageModelPolicy(own_copy(model)), config)
    metrics = agent.learn(env)
    assert abs(metrics["kl"]) < 0.2  # bf16 decoding against a bf16 teacher-forced pass
    assert metrics["first_pass_ratio_error"] < 1e-2
    assert np.isfinite(list(agent.learn(env).values())).all()
