"""Weights in bfloat16 learn as float32 weights do: the optimiser steps on float32 copies of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lm_gym import TextGenerationVectorEnv
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.agents.master_weights import MasterWeights
from lm_gym.agents.update.optimizer import OptimizerConfig, PolicyOptimizer
from lm_gym.errors import ConfigError, DivergedError
from lm_gym.models.language_model import LanguageModel, own_copy
from lm_gym.processes import ONE_PROCESS
from lm_gym.testing import tiny_language_model

MakeEnv = Callable[..., TextGenerationVectorEnv]
STEPS, STEP = 48, 1e-5


def policies() -> tuple[LanguageModelPolicy, LanguageModelPolicy]:
    """The same weights in bfloat16 and in float32."""
    short = own_copy(tiny_language_model())
    short.model.to(torch.bfloat16)
    wide = LanguageModel(own_copy(short).model.float(), short.tokenizer)
    return LanguageModelPolicy(short), LanguageModelPolicy(wide)


def optimizer_of(policy: LanguageModelPolicy) -> PolicyOptimizer:
    config = OptimizerConfig(learning_rate=STEP, max_grad_norm=None, max_batch_tokens=1)
    return PolicyOptimizer("PPO", policy, config, ONE_PROCESS)


def pushed(policy: LanguageModelPolicy, optimizer: PolicyOptimizer, sign: float = 1.0) -> None:
    """A step on two pieces, each with a gradient of 0.5 in every weight."""

    def backward(rows: np.ndarray) -> torch.Tensor:
        loss = sum(0.5 * sign * weight.float().sum() for weight in policy.parameters())
        loss.backward()  # type: ignore[union-attr]
        return torch.tensor([0.0])

    optimizer.step(np.array([1, 1]), backward, sums=["loss"], losses=["loss"])


def test_steps_that_bfloat16_would_round_away_are_taken() -> None:
    """48 Adam steps of 1e-5, the acceptance of the rule: the copies move as float32 weights do."""
    runs = []
    for policy in policies():
        optimizer = optimizer_of(policy)
        start = [weight.detach().float().clone() for weight in policy.parameters()]
        for _ in range(STEPS):
            pushed(policy, optimizer)
        masters = [weight.detach() for weight in optimizer._masters.parameters]
        assert all(weight.grad is None or weight.dtype == torch.float32 for weight in policy.parameters())
        runs.append((start, masters, list(policy.parameters())))
    for start, short, wide in zip(runs[0][0], runs[0][1], runs[1][1], strict=True):
        assert short.dtype == torch.float32
        assert torch.equal(short, wide)
        torch.testing.assert_close(short, start - STEPS * STEP, rtol=0, atol=1e-5)
    for weight, copy in zip(runs[0][2], runs[0][1], strict=True):
        assert torch.equal(weight, copy.to(weight.dtype))
    moved = np.mean([(new.float() != old).float().mean() for new, old in zip(runs[0][2], runs[0][0], strict=True)])
    assert 0.05 < moved < 1.0  # most bfloat16 weights are not there yet, and their copies are on the way


def test_plain_adam_loses_them() -> None:
    """What the copies are for: this fails to move the weights."""
    policy, _ = policies()
    start = [weight.detach().clone() for weight in policy.model.parameters()]
    adam = torch.optim.Adam(policy.parameters(), lr=STEP)
    for _ in range(STEPS):
        for weight in policy.parameters():
            weight.grad = torch.full_like(weight, 0.5)
        adam.step()
    total = sum((new != old).sum().item() for new, old in zip(policy.model.parameters(), start, strict=True))
    assert total / sum(weight.numel() for weight in start) < 0.1


def test_an_agent_in_bfloat16_learns_and_is_resumed_to_the_bit(make_env: MakeEnv, tmp_path: Path) -> None:
    config = PPOConfig(episodes_per_iteration=8, learning_rate=1e-3, learning_rate_decay="none")

    def start() -> tuple[PPO, TextGenerationVectorEnv]:
        model = policies()[0].language_model
        return PPO(LanguageModelPolicy(model, gradient_checkpointing=True), config), make_env()

    agent, env = start()
    score = agent.learn(env)["score"]
    agent.save(tmp_path / "agent")
    state = env.state_dict()
    agent.learn(env)
    again = PPO.load(tmp_path / "agent", device="cpu")
    other = make_env()
    other.load_state_dict(state)
    again.learn(other)
    assert again.policy.gradient_checkpointing
    first, second = agent.state_dict()["optimizer"]["masters"], again.state_dict()["optimizer"]["masters"]
    assert first
    assert all(torch.equal(copy, second[place]) for place, copy in first.items())
    for weight, same in zip(agent.policy.weights(), again.policy.weights(), strict=True):
        assert torch.equal(weight, same)
    for _ in range(6):
        last = agent.learn(env)["score"]
    assert last > score
    with pytest.raises(
        ConfigError, match=r"must be that of as many bfloat16 weights, .* load the policy with the dtype"
    ):
        PPO.load(tmp_path / "agent", device="cpu", dtype="float32")


def test_a_step_that_is_not_finite_is_not_taken_and_changed_weights_are_followed() -> None:
    policy, _ = policies()
    optimizer = optimizer_of(policy)
    pushed(policy, optimizer)
    before = [weight.detach().clone() for weight in optimizer._masters.parameters]
    with pytest.raises(DivergedError):
        pushed(policy, optimizer, sign=float("nan"))
    assert all(torch.equal(one, two) for one, two in zip(before, optimizer._masters.parameters, strict=True))
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.fill_(1.0)  # as policy.load_weights() does
    pushed(policy, optimizer, sign=-1.0)
    copies = list(optimizer._masters.state_dict().values())
    assert all((copy - 1.0).abs().max() < 1e-3 for copy in copies)


def test_float32_weights_are_their_own_masters() -> None:
    policy = policies()[1]
    masters = MasterWeights(policy.parameters())
    assert all(one is two for one, two in zip(masters.parameters, policy.parameters(), strict=True))
    assert masters.state_dict() == {}
