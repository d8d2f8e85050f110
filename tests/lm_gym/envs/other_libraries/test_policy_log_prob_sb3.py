"""Stable-Baselines3 and sb3-contrib behind the hand-over: what is paid is what the agent stored, or it is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from tiny_models import PROMPTS, V, length_score, single_env

from lm_gym import PolicyHandle, PolicyLogProb, Reference
from lm_gym.errors import ConfigError, RewardModelError

SMALL: dict[str, Any] = {
    "n_steps": 16,
    "ent_coef": 0.0,
    "gamma": 1.0,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [16]},
}
TRUST_REGION: dict[str, Any] = {key: value for key, value in SMALL.items() if key != "ent_coef"} | {"batch_size": 16}
MINIBATCHES: dict[str, Any] = SMALL | {"batch_size": 16, "n_epochs": 1}


class Watch(BaseCallback):
    """Collects, step by step, the log-probability that the agent stored and the one that the env was given."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[float, float]] = []

    def _on_step(self) -> bool:
        stored = self.locals["log_probs"].flatten().tolist()
        self.pairs += zip(stored, [info["log_prob"] for info in self.locals["infos"]], strict=True)
        return True


def env_with(handle: PolicyHandle, reference: Reference, score: Any = length_score) -> PolicyLogProb:
    inner = single_env(reference, PROMPTS, score, max_new_tokens=5, kl_coef=0.1, action_mode="token_and_log_prob")
    return PolicyLogProb(inner, handle)


def masked(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Only the first ten tokens may be drawn."""
    wrappers = pytest.importorskip("sb3_contrib.common.wrappers", reason="needs sb3-contrib")
    return wrappers.ActionMasker(env, lambda _: np.arange(V) < 10)  # type: ignore[no-any-return]


def identity(env: Any) -> Any:
    return env


def contrib(name: str) -> Any:
    return getattr(pytest.importorskip("sb3_contrib", reason="needs sb3-contrib"), name)


AGENTS: dict[str, tuple[Callable[[], Any], str, dict[str, Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "PPO": (lambda: PPO, "MultiInputPolicy", MINIBATCHES, identity, identity),
    "A2C": (lambda: A2C, "MultiInputPolicy", SMALL, identity, identity),
    "TRPO": (lambda: contrib("TRPO"), "MultiInputPolicy", TRUST_REGION, identity, identity),
    "action masks": (lambda: contrib("MaskablePPO"), "MultiInputPolicy", MINIBATCHES, masked, identity),
    "recurrent": (lambda: contrib("RecurrentPPO"), "MultiInputLstmPolicy", MINIBATCHES, identity, identity),
    "normalised observations": (
        lambda: PPO,
        "MultiInputPolicy",
        MINIBATCHES,
        identity,
        lambda env: VecNormalize(env, norm_obs=True, norm_reward=False),
    ),
    "stacked observations": (
        lambda: PPO,
        "MultiInputPolicy",
        MINIBATCHES,
        identity,
        lambda env: VecFrameStack(env, n_stack=2),
    ),
}


@pytest.mark.parametrize("part", ["algorithm", "policy"])
@pytest.mark.parametrize("name", AGENTS)
def test_the_env_is_paid_the_log_prob_that_the_agent_stores(name: str, part: str, reference: Reference) -> None:
    make, policy, settings, wrap, wrap_vector = AGENTS[name]
    handle = PolicyHandle()
    env = wrap_vector(DummyVecEnv([lambda: wrap(env_with(handle, reference))] * 2))
    agent = make()(policy, env, **settings)
    handle.bind(agent if part == "algorithm" else agent.policy)
    before = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    watch = Watch()
    agent.learn(64, callback=watch)
    assert len(watch.pairs) == 64
    np.testing.assert_allclose(*np.array(watch.pairs).T, atol=1e-5)
    # The policy moved between the two iterations, and the env was told of the new one.
    assert len({round(given, 4) for _, given in watch.pairs}) > 20
    after = list(agent.policy.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("part", ["algorithm", "policy"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_predicted_actions_are_paid_under_the_policy_that_predicted_them(
    part: str, deterministic: bool, reference: Reference
) -> None:
    handle = PolicyHandle()
    env = env_with(handle, reference)
    agent = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, device="cpu", seed=0)
    handle.bind(agent if part == "algorithm" else agent.policy)
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        action, _ = agent.predict(observation, deterministic=deterministic)
        batch = {key: torch.as_tensor(value[None]) for key, value in observation.items()}
        with torch.no_grad():
            expected = agent.policy.get_distribution(batch).log_prob(torch.as_tensor(action[None])).item()
        observation, _, _, _, info = env.step(action)
        assert info["log_prob"] == pytest.approx(expected, abs=1e-6)


def test_predicted_actions_under_a_mask_are_paid_under_the_mask(reference: Reference) -> None:
    handle = PolicyHandle()
    env = masked(env_with(handle, reference))
    agent = contrib("MaskablePPO")("MultiInputPolicy", env, **MINIBATCHES)
    handle.bind(agent)
    observation, _ = env.reset(seed=0)
    with torch.no_grad():
        agent.policy.action_net.weight.zero_()
        agent.policy.action_net.bias.zero_()
    action, _ = agent.predict(observation, action_masks=np.arange(V) < 10)
    assert env.step(action)[4]["log_prob"] == pytest.approx(-np.log(10), abs=1e-5)


def test_an_evaluation_amid_training_is_told_apart(reference: Reference) -> None:
    handle = PolicyHandle()
    env = DummyVecEnv([lambda: env_with(handle, reference)] * 2)
    agent = PPO("MultiInputPolicy", env, **MINIBATCHES)
    handle.bind(agent)
    held_out = DummyVecEnv([lambda: env_with(handle, reference)] * 2)
    watch = Watch()
    evaluate = EvalCallback(held_out, eval_freq=3, n_eval_episodes=3, verbose=0, warn=False, deterministic=False)
    agent.learn(64, callback=[evaluate, watch])
    np.testing.assert_allclose(*np.array(watch.pairs).T, atol=1e-5)


@pytest.mark.parametrize("part", ["algorithm", "policy"])
def test_a_loaded_agent_that_was_not_bound_is_found_out(part: str, reference: Reference, tmp_path: Path) -> None:
    handle = PolicyHandle()
    env = DummyVecEnv([lambda: env_with(handle, reference)])
    agent = PPO("MultiInputPolicy", env, **MINIBATCHES)
    handle.bind(agent if part == "algorithm" else agent.policy)
    agent.learn(16)
    agent.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", env=env)
    with pytest.raises(ConfigError, match=r"PPO|Policy.* has drawn none since .* call bind\(agent\) again"):
        loaded.learn(16)
    loaded = PPO.load(tmp_path / "agent", env=env)
    handle.bind(loaded)
    watch = Watch()
    loaded.learn(32, callback=watch)
    np.testing.assert_allclose(*np.array(watch.pairs).T, atol=1e-5)


def test_an_algorithm_that_replaced_its_policy_is_asked_for_the_new_one(reference: Reference) -> None:
    handle = PolicyHandle()
    agent = PPO("MultiInputPolicy", DummyVecEnv([lambda: env_with(handle, reference)]), **MINIBATCHES)
    handle.bind(agent)
    agent.learn(16)
    agent._setup_model()
    watch = Watch()
    agent.learn(16, callback=watch)
    np.testing.assert_allclose(*np.array(watch.pairs).T, atol=1e-5)


def test_actions_of_other_origin_are_refused(reference: Reference) -> None:
    handle = PolicyHandle()
    env = env_with(handle, reference)
    agent = PPO("MultiInputPolicy", env, **MINIBATCHES)
    handle.bind(agent)
    observation, _ = env.reset(seed=0)
    with pytest.raises(ConfigError, match="every action must be drawn by the bound agent, and PPO has drawn none"):
        env.step(1)
    env.step(agent.predict(observation)[0])
    with pytest.raises(ConfigError, match="bind a function of"):
        env.step(1)


def test_a_step_that_failed_may_be_played_again(reference: Reference) -> None:
    broken = [True]

    def score(prompts: list[str], completions: list[str]) -> list[float]:
        if broken.pop():
            raise OSError("lost")
        return [1.0] * len(completions)

    handle = PolicyHandle()
    env = env_with(handle, reference, score)
    agent = PPO("MultiInputPolicy", env, **MINIBATCHES)
    handle.bind(agent)
    observation, _ = env.reset(seed=0)
    agent.predict(observation)
    with pytest.raises(RewardModelError):
        env.step(0)
    broken.append(False)
    assert env.step(0)[2]


class Backwards(DummyVecEnv):
    """Steps its environments from the last to the first."""

    def step_wait(self) -> Any:
        self.envs, self.actions = self.envs[::-1], self.actions[::-1]
        _, rewards, dones, infos = super().step_wait()
        self.envs, self.actions = self.envs[::-1], self.actions[::-1]
        for key in self.keys:
            self.buf_obs[key][:] = self.buf_obs[key][::-1].copy()
        return self._obs_from_buf(), rewards[::-1].copy(), dones[::-1].copy(), infos[::-1]


def test_environments_that_are_stepped_out_of_order_are_found_out(reference: Reference) -> None:
    handle = PolicyHandle()
    agent = PPO("MultiInputPolicy", Backwards([lambda: env_with(handle, reference)] * 3), **MINIBATCHES)
    handle.bind(agent)
    with pytest.raises(
        ConfigError, match=r"it was given -\d\.\d+ nats where PPO stored -\d\.\d+; step the environments"
    ):
        agent.learn(48)


def test_one_handle_per_environment_is_refused(reference: Reference) -> None:
    handles = [PolicyHandle(), PolicyHandle()]
    env = DummyVecEnv([lambda: env_with(handles[0], reference), lambda: env_with(handles[1], reference)])
    agent = PPO("MultiInputPolicy", env, **MINIBATCHES)
    with pytest.raises(ConfigError, match="give all of them the same PolicyHandle"):
        handles[0].bind(agent)
    for handle in handles:
        handle.bind(agent.policy)
    with pytest.raises(ConfigError, match=r"of 2 rows of MultiInputActorCriticPolicy 1 did; give all"):
        agent.learn(32)


@pytest.mark.parametrize("part", ["algorithm", "policy"])
def test_dqn_has_no_log_probability_and_is_refused(part: str, reference: Reference) -> None:
    inner: Any = single_env(reference, PROMPTS, None, max_new_tokens=4)
    agent = DQN("MultiInputPolicy", inner, buffer_size=10, device="cpu")
    name = {"algorithm": "DQN", "policy": "MultiInputPolicy"}[part]
    with pytest.raises(
        ConfigError,
        match=rf'{name} has none \(no evaluate_actions\); a value-only agent belongs in action_mode="token"',
    ):
        PolicyHandle().bind(agent if part == "algorithm" else agent.policy)
