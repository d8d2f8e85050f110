"""Stable-Baselines3 as the agent behind the hand-over: PPO learns through it, DQN is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny_models import PROMPTS, length_score

from lm_gym import PolicyHandle, PolicyLogProb, Reference, TextGenerationEnv
from lm_gym.errors import ConfigError


class Watch(BaseCallback):
    """Collects, step by step, the log-probability that PPO stored and the one that the env was given."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[float, float]] = []

    def _on_step(self) -> bool:
        stored = self.locals["log_probs"].flatten().tolist()
        self.pairs += zip(stored, [info["log_prob"] for info in self.locals["infos"]], strict=True)
        return True


def env_with(handle: PolicyHandle, reference: Reference) -> PolicyLogProb:
    inner = TextGenerationEnv(
        reference, PROMPTS, length_score, max_new_tokens=5, kl_coef=0.1, action_mode="token_and_log_prob"
    )
    return PolicyLogProb(inner, handle)


def test_ppo_learns_through_the_wrapper_and_the_env_sees_its_log_probs(reference: Reference) -> None:
    handle = PolicyHandle()
    env = DummyVecEnv([lambda: env_with(handle, reference)] * 2)
    agent = PPO(
        "MultiInputPolicy", env, n_steps=16, batch_size=16, n_epochs=1, ent_coef=0.0, gamma=1.0, seed=0, device="cpu"
    )
    handle.bind(agent)
    before = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    watch = Watch()
    agent.learn(64, callback=watch)
    assert len(watch.pairs) == 64
    np.testing.assert_allclose(*np.array(watch.pairs).T, atol=1e-5)
    # The policy moved between the two iterations, and the env was told of the new one.
    assert len({round(given, 4) for _, given in watch.pairs}) > 30
    after = list(agent.policy.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("part", ["algorithm", "policy"])
def test_either_the_algorithm_or_its_policy_can_be_bound(part: str, reference: Reference) -> None:
    handle = PolicyHandle()
    env = env_with(handle, reference)
    agent = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, device="cpu", seed=0)
    handle.bind(agent if part == "algorithm" else agent.policy)
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation, deterministic=True)
    batch = {key: torch.as_tensor(value[None]) for key, value in observation.items()}
    with torch.no_grad():
        expected = agent.policy.get_distribution(batch).log_prob(torch.as_tensor(action[None])).item()
    assert env.step(action)[4]["log_prob"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("part", ["algorithm", "policy"])
def test_dqn_has_no_log_probability_and_is_refused(part: str, reference: Reference) -> None:
    inner: Any = TextGenerationEnv(reference, PROMPTS, None, max_new_tokens=4)
    agent = DQN("MultiInputPolicy", inner, buffer_size=10, device="cpu")
    name = {"algorithm": "DQN", "policy": "MultiInputPolicy"}[part]
    with pytest.raises(
        ConfigError,
        match=rf'{name} has none \(no evaluate_actions\); a value-only agent belongs in action_mode="token"',
    ):
        PolicyHandle().bind(agent if part == "algorithm" else agent.policy)
