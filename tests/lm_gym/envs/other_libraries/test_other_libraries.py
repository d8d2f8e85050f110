"""What other libraries do to an environment: they try arguments, stack infos, and make tensors of everything."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from tiny_models import gpt2_parts, length_score

import lm_gym  # noqa: F401 (registers the environments)
from lm_gym.envs.info import NUMERIC_KEYS
from lm_gym.errors import ConfigError, UnknownSettingError

TEXT = "lm_gym/TextGeneration-v0"
PARTS: dict[str, Any] = {
    "model": gpt2_parts,
    "prompts": ["a b c", "d", "b b"],
    "reward_model": length_score,
    "max_new_tokens": 4,
}


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
@pytest.mark.parametrize(("name", "value"), [("frameskip", 4), ("render_mode", "rgb_array")])
def test_an_argument_that_is_tried_is_a_type_error(make: Any, name: str, value: Any) -> None:
    """SB3 tries "rgb_array", TorchRL "frameskip", and both go on after a TypeError."""
    with pytest.raises(TypeError) as found:
        make(TEXT, **PARTS, **{name: value})
    assert isinstance(found.value, UnknownSettingError)
    assert isinstance(found.value, ConfigError)
    if name == "frameskip":
        assert "got an unexpected keyword argument 'frameskip'" in str(found.value)


def test_stable_baselines_takes_the_string_id() -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env(TEXT, n_envs=2, env_kwargs=PARTS)
    assert env.reset()["input_ids"].shape == (2, 7)
    agent = PPO("MultiInputPolicy", "lm_gym/Reviews-v0", n_steps=8, batch_size=8)
    agent.learn(8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["token", "token_and_log_prob"])
def test_torchrl_takes_the_string_id(mode: str) -> None:
    libs = pytest.importorskip("torchrl.envs.libs.gym")
    from torchrl.envs.utils import check_env_specs

    env = libs.GymEnv(TEXT, categorical_action_encoding=True, action_mode=mode, info_keys="numeric", **PARTS)
    check_env_specs(env)
    reader = libs.default_info_dict_reader(list(NUMERIC_KEYS))
    env = libs.GymEnv(TEXT, categorical_action_encoding=True, info_keys="numeric", **PARTS)
    env = env.set_info_dict_reader(reader)
    steps = env.rollout(9, break_when_any_done=False)
    assert set(NUMERIC_KEYS) <= set(steps["next"].keys())
    assert (steps["next", "score"] > 0).any()


def test_numeric_info_has_the_same_keys_on_every_reset_and_step() -> None:
    env, other = gym.make(TEXT, info_keys="numeric", **PARTS), gym.make(TEXT, **PARTS)
    ended = 0
    for seed in range(3):
        infos = [env.reset(seed=seed)[1]]
        other.reset(seed=seed)
        done = False
        while not done:
            *_, terminated, truncated, info = env.step(2)
            full = other.step(2)[4]
            infos.append(info)
            assert {key: value for key, value in full.items() if not isinstance(value, str)}.items() <= info.items()
            done = terminated or truncated
        ended += info["score_valid"] == 1.0
        for info in infos:
            assert tuple(info) == NUMERIC_KEYS
            assert {type(value) for value in info.values()} == {np.float64}
            assert np.isfinite(list(info.values())).all()
    assert ended == 3


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_numeric_info_of_the_vector_env(mode: AutoresetMode) -> None:
    env = gym.make_vec(TEXT, num_envs=3, info_keys="numeric", autoreset_mode=mode, **PARTS)
    infos = [env.reset(seed=0)[1]]
    for _ in range(9):
        *_, terminated, truncated, info = env.step(np.array([2, 3, 0]))
        infos.append(info)
        if mode is AutoresetMode.DISABLED and (ended := terminated | truncated).any():
            infos.append(env.reset(options={"reset_mask": ended})[1])
    for info in infos:
        if mode is AutoresetMode.SAME_STEP and "final_info" in info:
            final = info.pop("final_info")
            assert set(final) == {*NUMERIC_KEYS, *(f"_{key}" for key in NUMERIC_KEYS)}
            info = {key: value for key, value in info.items() if "final" not in key}
        assert set(info) == {*NUMERIC_KEYS, *(f"_{key}" for key in NUMERIC_KEYS)}
        assert all(info[key].dtype == np.float64 for key in NUMERIC_KEYS)


def test_gymnasiums_wrapper_makes_tensors_of_a_numeric_info() -> None:
    import torch

    pytest.importorskip("array_api_compat")
    from gymnasium.wrappers.vector import NumpyToTorch

    env = NumpyToTorch(gym.make_vec(TEXT, num_envs=2, info_keys="numeric", **PARTS))
    env.reset(seed=0)
    for _ in range(6):
        *_, info = env.step(torch.tensor([2, 0]))
        assert isinstance(info["score"], torch.Tensor)


@pytest.mark.parametrize("keys", ["numbers", None, ("kl",)])
def test_other_info_keys_are_refused(keys: Any) -> None:
    with pytest.raises(ConfigError, match='info_keys: must be "all" or "numeric", got'):
        gym.make(TEXT, info_keys=keys, **PARTS)
