"""Policies on T5 and BART: what `act` takes for the prompt, other agents than PPO, adapters."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import DPO, PPO, RLOO, DPOConfig, LanguageModelPolicy, PPOConfig, RLOOConfig, SoftQ, SoftQConfig
from lm_gym.models.lora import LoraSettings
from lm_gym.testing import tiny_language_model

MakeEnv = Callable[..., TextGenerationVectorEnv]
MakePolicy = Callable[..., LanguageModelPolicy]
ROUNDING = 2e-4
"""Nats: the tolerance of a cached against an uncached pass in float32."""


def forced(policy: LanguageModelPolicy, prompt: list[int], response: list[int]) -> np.ndarray:
    """log pi of every next token, by one plain call. Shape: (V,)."""
    ids, written = torch.tensor([prompt]), torch.tensor([[0, *response]])
    with torch.no_grad():
        logits = policy.model(input_ids=ids, decoder_input_ids=written).logits[0, -1]
    return torch.log_softmax(logits, -1).numpy()


def shown(rows: list[list[int]], width: int = 12) -> dict[str, np.ndarray]:
    """An observation of rows of tokens."""
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int8)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_a_response_is_what_a_row_has_grown_by(architecture: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """It is kept apart from the prompt through new weights, another environment, and an observation shown twice."""
    env = make_env(architecture)
    policy = make_policy(env)
    sampling = replace(env.sampling, seed=0)
    prompts, responses = [[1, 2, 0], [3, 0]], [[], []]

    def check(observation: Any) -> None:
        tokens, log_probs = policy.act(observation, sampling)
        for row, token in enumerate(tokens):
            expected = forced(policy, prompts[row], responses[row])[token]
            assert log_probs[row] == pytest.approx(expected, abs=ROUNDING)

    def grow(*tokens: int) -> None:
        for row, token in enumerate(tokens):
            responses[row].append(token)
        check(shown([p + r for p, r in zip(prompts, responses, strict=True)]))

    check(shown(prompts))
    grow(4, 5)
    policy.refresh()
    grow(6, 7)
    check(shown([p + r for p, r in zip(prompts, responses, strict=True)]))
    for other in range(3):
        policy.act(shown([[8 + other, 0]]), sampling)  # more environments than caches are kept
    grow(9, 1)
    responses[1], prompts[1] = [], [5, 6, 0]
    check(shown([prompts[0] + responses[0], prompts[1]]))  # row 0 has ended and stands there; row 1 begins


def test_a_row_that_has_ended_does_not_pass_the_encoders_positions(make_policy: MakePolicy) -> None:
    """Prompt and response together are longer than either may be."""
    model = tiny_language_model("bart", max_length=6)
    task = TextTask.of(Reference(model), ["a b c d e"], max_new_tokens=5, min_new_tokens=4, kl_coef=0.1)
    env = TextGenerationVectorEnv(task, lambda prompts, completions: [0.0] * len(prompts), num_envs=2)
    policy = make_policy(env)
    observation, _ = env.reset(seed=0)
    for _ in range(12):
        tokens, log_probs = policy.act(observation, env.sampling)
        assert np.isfinite(log_probs).all()
        observation = env.step(tokens)[0]


AGENTS: dict[str, tuple[Any, Any]] = {
    "rloo": (RLOO, RLOOConfig(episodes_per_iteration=16, samples_per_prompt=4, learning_rate=1e-3)),
    "soft-q": (SoftQ, SoftQConfig(episodes_per_iteration=16, learning_rate=1e-3)),
    "dpo": (DPO, DPOConfig(episodes_per_iteration=16, learning_rate=1e-3)),
}


@pytest.mark.parametrize("name", AGENTS)
def test_other_agents_learn_too(name: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    kind, config = AGENTS[name]
    env = make_env("t5")
    policy = make_policy(env)
    agent = kind(policy, config)
    for _ in range(2):
        metrics = agent.learn(env)
    assert np.isfinite(metrics["kl"])
    assert env.rollout(policy, 4).kl.any()  # type: ignore[union-attr]


def test_an_adapter_is_trained_saved_and_merged(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = tiny_language_model("t5")
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    policy = LanguageModelPolicy.from_pretrained(
        tmp_path / "base", lora=LoraSettings(rank=2), device="cpu", gradient_checkpointing=True
    )
    task = TextTask.of(
        policy.reference(), ["a b", "c"], action_mode="token_and_log_prob", max_new_tokens=5, kl_coef=0.1
    )
    env = TextGenerationVectorEnv(task, lambda prompts, completions: [float("a" in text) for text in completions])
    env.reset(seed=0)
    agent = PPO(policy, PPOConfig(episodes_per_iteration=16, learning_rate=1e-2))
    assert agent.learn(env)["kl"] == pytest.approx(0.0, abs=1e-5)
    agent.learn(env)
    episodes = env.rollout(policy, 6)
    assert np.abs(episodes.kl).max() > 1e-3
    expected = policy.log_probs_and_values(episodes).log_probs
    again = LanguageModelPolicy.from_pretrained(policy.save_pretrained(tmp_path / "saved"), device="cpu")
    assert torch.equal(again.log_probs_and_values(episodes).log_probs, expected)
    merged = policy.merged().log_probs_and_values(episodes).log_probs
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
