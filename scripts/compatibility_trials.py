"""What other libraries are asked to do on a tiny environment, each in a function that fails where they do not do it.

Knows: environments and the calls of each library. Does not know: the page that they are listed on
(``scripts.compatibility``). Functions are named by library and part.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as vector_wrappers

from lm_gym import PolicyHandle, PolicyLogProb
from lm_gym.testing import tiny_language_model

ID = "lm_gym/TextGeneration-v0"
SMALL: dict[str, Any] = {"gamma": 1.0, "seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
ON_POLICY = SMALL | {"n_steps": 8}
REPLAY = SMALL | {"buffer_size": 64, "learning_starts": 8, "batch_size": 8}


def model_parts() -> tuple[Any, Any]:
    """A tiny language model and its tokenizer."""
    made = tiny_language_model()
    return made.model, made.tokenizer


def length(prompts: list[str], completions: list[str]) -> list[float]:
    """Words of the response."""
    return [float(len(text.split())) for text in completions]


PARTS: dict[str, Any] = {
    "model": model_parts,
    "prompts": ["a b", "c"],
    "reward_model": length,
    "max_new_tokens": 4,
    "kl_coef": 0.1,
}


def single(**settings: Any) -> Any:
    """An environment by its id."""
    return gymnasium.make(ID, **PARTS, **settings)


def vector(num_envs: int = 2, **settings: Any) -> Any:
    """A vector environment by its id."""
    return gymnasium.make_vec(ID, num_envs=num_envs, **PARTS, **settings)


def play(env: Any, steps: int = 8) -> Any:
    """Random steps, with what a single environment needs between episodes. Returns: the last observation."""
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        if np.ndim(reward) == 0 and (terminated or truncated):
            env.reset()
    env.close()
    return observation


def moved(agent: Any, steps: int) -> None:
    """Let an agent of SB3 learn. Raises: RuntimeError: its weights are as before."""
    weights = [weight.detach().clone() for weight in agent.policy.parameters()]
    agent.learn(steps)
    if all(old.equal(new) for old, new in zip(weights, agent.policy.parameters(), strict=True)):
        raise RuntimeError(f"{type(agent).__name__} did not learn")


def refused(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    """Raises: RuntimeError: the library does not refuse, or says something else."""
    try:
        call()
    except kind as error:
        if re.search(text, str(error)):
            return
        raise RuntimeError(f"refused for another reason: {error}") from error
    raise RuntimeError(f"nothing refused: {text}")


def run_single_wrappers() -> None:
    """Those that record, check, clip, scale and flatten."""
    env = wrappers.NormalizeReward(wrappers.ClipReward(wrappers.RecordEpisodeStatistics(single()), -5, 5), gamma=1.0)
    play(env)
    play(wrappers.TimeLimit(wrappers.TransformReward(single(), lambda reward: 2 * reward), 3))
    assert play(wrappers.FlattenObservation(single())).ndim == 1
    play(wrappers.FilterObservation(single(), ["input_ids"]))


def run_action_wrappers() -> None:
    """Those that scale a Box of actions."""
    refused(lambda: wrappers.RescaleAction(single(), -1, 1), TypeError, "requires a Box action space")


def run_vector_wrappers() -> None:
    """Over the native vector environment, in the modes that the wrapper takes."""
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        play(vector_wrappers.RecordEpisodeStatistics(vector(autoreset_mode=mode)))
    play(vector_wrappers.NormalizeReward(vector_wrappers.ClipReward(vector(), -5, 5), gamma=1.0))
    play(vector_wrappers.FlattenObservation(vector()))
    env = vector_wrappers.DictInfoToList(vector())
    env.reset(seed=0)
    assert len(env.step(np.array([0, 1]))[-1]) == 2


def run_numpy_to_torch() -> None:
    """Infos without text, since a tensor holds none."""
    import torch

    env = vector_wrappers.NumpyToTorch(vector(info_keys="numeric"))
    env.reset(seed=0)
    assert isinstance(env.step(torch.tensor([0, 1]))[1], torch.Tensor)


def run_sync() -> None:
    """In every mode of autoreset."""
    for mode in AutoresetMode:
        env = SyncVectorEnv([single, single], autoreset_mode=mode)
        env.reset(seed=0)
        env.step(np.array([1, 2]))
        env.close()


def run_async() -> None:
    """Two processes."""
    play(AsyncVectorEnv([single, single], context="spawn"))


def with_handle(kind: Any, policy: str = "MultiInputPolicy", **settings: Any) -> None:
    """A stock agent behind the log-probability hand-over."""
    rules = {"top_k": 4} if kind.__name__ == "MaskablePPO" else {}
    handle = PolicyHandle()
    agent = kind(policy, PolicyLogProb(single(action_mode="token_and_log_prob", **rules), handle), **settings)
    handle.bind(agent)
    moved(agent, 16)


def run_sb3_on_policy() -> None:
    """SB3's own network."""
    from stable_baselines3 import A2C, PPO

    with_handle(PPO, batch_size=8, **ON_POLICY)
    with_handle(A2C, **ON_POLICY)


def run_sb3_language_model() -> None:
    """SB3's own algorithms, the language model as their policy."""
    from stable_baselines3 import A2C, PPO

    from lm_gym.agents.sb3 import LanguageModelActorCriticPolicy, SB3VecEnv

    with tempfile.TemporaryDirectory() as folder:
        for part in model_parts():
            part.save_pretrained(folder)
        settings = {"gamma": 1.0, "device": "cpu", "n_steps": 8, "policy_kwargs": {"model": folder}}
        for kind, more in ((PPO, {"batch_size": 8}), (A2C, {})):
            env = SB3VecEnv(vector(action_mode="token_and_log_prob"))
            agent = kind(LanguageModelActorCriticPolicy, env, **settings, **more)
            env.log_prob.bind(agent)  # type: ignore[union-attr]
            moved(agent, 16)


def run_sb3_wrappers() -> None:
    """Of SB3's vector environments."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor, VecNormalize

    from lm_gym.agents.sb3 import SB3VecEnv

    env = SB3VecEnv(vector(action_mode="token_and_log_prob"))
    around = VecNormalize(VecMonitor(VecCheckNan(env, raise_exception=True)), norm_obs=False, gamma=1.0)
    agent = PPO("MultiInputPolicy", around, batch_size=8, **ON_POLICY)
    env.log_prob.bind(agent)  # type: ignore[union-attr]
    moved(agent, 16)


def run_sb3_values() -> None:
    """Action mode "token"."""
    from stable_baselines3 import DQN

    moved(DQN("MultiInputPolicy", single(), **REPLAY), 32)


def run_sb3_continuous() -> None:
    """Their own assertion."""
    from stable_baselines3 import DDPG, SAC, TD3

    for kind in (SAC, TD3, DDPG):
        refused(functools.partial(kind, "MultiInputPolicy", single()), AssertionError, "only supports .*Box")


def run_contrib_on_policy() -> None:
    """Behind the hand-over, as PPO."""
    from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO

    with_handle(MaskablePPO, batch_size=8, **ON_POLICY)
    with_handle(RecurrentPPO, "MultiInputLstmPolicy", batch_size=8, **ON_POLICY)
    with_handle(TRPO, batch_size=8, **ON_POLICY)


def run_contrib_values() -> None:
    """Action mode "token"."""
    from sb3_contrib import QRDQN

    moved(QRDQN("MultiInputPolicy", single(), **REPLAY), 32)


def run_contrib_continuous() -> None:
    """Their own assertion."""
    from sb3_contrib import TQC, CrossQ

    for kind, policy in ((TQC, "MultiInputPolicy"), (CrossQ, "MlpPolicy")):
        refused(functools.partial(kind, policy, single()), AssertionError, "only supports .*Box")
