"""A real pretrained model, named by LM_GYM_REAL_LM (a folder or a GGUF file), under PPO with low-rank updates."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lm_gym import LoraSettings, Reference, TextGenerationVectorEnv, TextTask, load_language_model
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.models.language_model import own_copy
from lm_gym.models.lora import BASE_RECORD

REAL = os.environ.get("LM_GYM_REAL_LM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="LM_GYM_REAL_LM names no pretrained model (a folder or a GGUF file)"),
]
QUESTIONS = ("Why is the sky blue?", "What is a good name for a grey cat?")


def short(prompts: list[str], completions: list[str]) -> list[float]:
    return [-len(text.split()) / 10 for text in completions]


def test_one_copy_of_a_real_model_learns_and_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    policy = LanguageModelPolicy.from_pretrained(REAL, lora=LoraSettings(rank=8), device="cpu")
    chat = policy.tokenizer.chat_template is not None
    rows = [{"messages": [{"role": "user", "content": one}]} if chat else {"prompt": one} for one in QUESTIONS]
    rules = {"action_mode": "token_and_log_prob", "max_new_tokens": 12, "kl_coef": 0.05}
    env = TextGenerationVectorEnv(TextTask.of(policy.reference(), rows, **rules), short)
    env.reset(seed=0)
    agent = PPO(policy, PPOConfig(episodes_per_iteration=4, minibatches=2, epochs=2, learning_rate=1e-3))
    first = agent.learn(env)
    assert abs(first["kl"]) < 1e-3
    assert first["first_pass_ratio_error"] < 1e-4
    episodes = env.rollout(policy, 4)
    assert episodes.kl is not None
    assert np.abs(episodes.kl).sum() > 1e-3  # it has moved
    copy = Reference(own_copy(load_language_model(REAL, device="cpu")))
    assert np.array_equal(copy.log_probs(episodes), policy.reference().log_probs(episodes))
    folder = policy.save_pretrained(tmp_path / "policy")
    assert json.loads((folder / BASE_RECORD).read_text())["base"] == str(Path(REAL).resolve())
    assert not (folder / "model.safetensors").exists()
    with torch.no_grad():
        own = policy.log_probs_and_values(episodes)
        again = LanguageModelPolicy.from_pretrained(folder, device="cpu").log_probs_and_values(episodes)
        merged = LanguageModelPolicy(own_copy(load_language_model(folder, device="cpu"))).log_probs_and_values(episodes)
    assert torch.equal(again.log_probs, own.log_probs)
    assert torch.equal(again.values, own.values)
    torch.testing.assert_close(merged.log_probs, own.log_probs, rtol=1e-3, atol=1e-3)
