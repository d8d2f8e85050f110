"""Reward models on an accelerator: bfloat16 while training, the same scores as on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lm_gym.reward_models import LoraSettings, PreferenceRewardModel, RewardTrainingConfig, evaluate_reward_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
PROMPTS, RESPONSES = ["write a review :"] * 2, ["good film", "the film was very dull"]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4, alpha=8)], ids=["whole", "lora"])
def test_it_learns_in_bfloat16_and_scores_alike_on_the_cpu(
    kind: str, lora: Any, save_base: Any, judged_texts: Any, tmp_path: Any
) -> None:
    base = save_base(kind, tmp_path / "lm")
    model = PreferenceRewardModel.from_base(base, lora=lora, device="cuda")
    rate = 3e-3 if lora is None else 5e-3
    model.fit(judged_texts(200, 4, 0), RewardTrainingConfig(epochs=4, learning_rate=rate, mixed_precision="bf16"))
    assert evaluate_reward_model(model, judged_texts(50, 4, 1)).accuracy > 0.8
    on_cpu = PreferenceRewardModel.load(model.save(tmp_path / "rm"), device="cpu")
    np.testing.assert_allclose(
        on_cpu.score(PROMPTS, RESPONSES).value, model.score(PROMPTS, RESPONSES).value, atol=2e-3, rtol=2e-3
    )


def test_a_base_in_bfloat16_under_an_adapter(save_base: Any, judged_texts: Any, tmp_path: Any) -> None:
    base = save_base("llama", tmp_path / "lm")
    lora = LoraSettings(rank=4, alpha=8)
    model = PreferenceRewardModel.from_base(base, lora=lora, dtype="bfloat16", device="cuda")
    model.fit(judged_texts(200, 4, 0), RewardTrainingConfig(epochs=4, learning_rate=5e-3))
    assert evaluate_reward_model(model, judged_texts(50, 4, 1)).accuracy > 0.8
