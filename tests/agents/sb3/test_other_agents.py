"""Agents of SB3 and sb3-contrib that stand beside PPO: masked, and value-based, at small size."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from lm_gym import PolicyHandle, PolicyLogProb, TextGenerationEnv, TextGenerationVectorEnv
from lm_gym.agents.sb3 import SB3VecEnv

sb3_contrib = pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
Make = Callable[..., TextGenerationVectorEnv]
SMALL: dict[str, Any] = {"gamma": 1.0, "seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}


class Watch(BaseCallback):
    """Collects what was drawn, under which masks, and what was stored and paid for it."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[int, np.ndarray]] = []
        self.pairs: list[tuple[float, float]] = []

    def _on_step(self) -> bool:
        actions, masks = self.locals["actions"].flatten().tolist(), self.locals["action_masks"]
        self.drawn += zip(actions, masks, strict=True)
        stored = self.locals["log_probs"].flatten().tolist()
        self.pairs += zip(stored, [info["log_prob"] for info in self.locals["infos"]], strict=True)
        return True


@pytest.mark.parametrize("vector", [True, False])
def test_maskable_ppo_keeps_to_the_references_support(vector: bool, make_env: Make) -> None:
    """NLPO's idea: the masks are the reference's top k, and what is paid is the masked policy's log-probability."""
    native = make_env(top_k=4)
    handle = PolicyHandle()
    if vector:
        env: Any = SB3VecEnv(native, handle)
    else:
        env = DummyVecEnv([lambda: PolicyLogProb(TextGenerationEnv(native.task, native.reward_model), handle)] * 4)
    agent = sb3_contrib.MaskablePPO("MultiInputPolicy", env, n_steps=8, batch_size=16, n_epochs=1, **SMALL)
    handle.bind(agent)
    watch = Watch()
    agent.learn(4 * 8 * 2, callback=watch)
    assert len(watch.drawn) == 4 * 8 * 2
    assert all(mask.sum() == 4 and mask[token] for token, mask in watch.drawn)
    assert len({tuple(mask) for _, mask in watch.drawn}) > 8  # each state has its own
    np.testing.assert_allclose(*np.array(watch.pairs).T, atol=1e-5)


@pytest.mark.parametrize("kind", [DQN, sb3_contrib.QRDQN])
def test_value_based_agents_learn_in_action_mode_token(kind: Any, make_env: Make) -> None:
    native = make_env(action_mode="token", kl_coef=0.0)
    settings = {"buffer_size": 256, "learning_starts": 16, "batch_size": 16, "exploration_fraction": 0.5}
    agent = kind("MultiInputPolicy", SB3VecEnv(native), learning_rate=1e-2, **settings, **SMALL)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.learn(160)
    assert agent.num_timesteps == 160
    assert any(not value.equal(before[name]) for name, value in agent.policy.state_dict().items())
    token, _ = agent.predict(native.reset(seed=0)[0], deterministic=True)
    assert native.single_action_space.contains(token[0])
