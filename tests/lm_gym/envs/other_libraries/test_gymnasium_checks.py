"""Gymnasium's and Stable-Baselines3's own checkers, ``gym.make``, ``make_vec`` and the round trip of a spec."""

import pickle
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tiny_models import gpt2_parts, length_score

from lm_gym import TextGenerationEnv, TextGenerationVectorEnv
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import ConfigError

TEXT = "lm_gym/TextGeneration-v0"
REVIEWS = "lm_gym/Reviews-v0"
PARTS: dict[str, Any] = {
    "model": gpt2_parts,
    "prompts": ["a b c", "d", "b b"],
    "reward_model": length_score,
    "max_new_tokens": 5,
    "kl_coef": 0.1,
}
IDS = [
    pytest.param(TEXT, PARTS, id="TextGeneration"),
    pytest.param(
        REVIEWS,
        {"max_new_tokens": 6},
        id="Reviews",
        marks=pytest.mark.skipif(
            not (REVIEWS_LM / "config.json").is_file(), reason="lm_gym/assets/reviews_lm is not built yet"
        ),
    ),
]
MODES = ["token", "token_and_log_prob"]

# Under pytest's filterwarnings = ["error"] every warning of the checkers fails these tests.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "kwargs"), IDS)
def test_gymnasiums_checker_finds_nothing(
    name: str, kwargs: dict[str, Any], mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_env(gym.make(name, action_mode=mode, **kwargs).unwrapped)


@pytest.mark.parametrize(("name", "kwargs"), IDS)
def test_stable_baselines_checker_finds_nothing_in_token_mode(name: str, kwargs: dict[str, Any]) -> None:
    from stable_baselines3.common.env_checker import check_env as check_sb3_env

    check_sb3_env(gym.make(name, **kwargs).unwrapped)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "kwargs"), IDS)
def test_episodes_run_under_gymnasiums_passive_checker(name: str, kwargs: dict[str, Any], mode: str) -> None:
    env = gym.make(name, action_mode=mode, render_mode="ansi", **kwargs)
    env.action_space.seed(0)
    for seed in range(3):
        env.reset(seed=seed)
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            ended = terminated or truncated
        assert isinstance(env.render(), str)
    env.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "kwargs"), IDS)
def test_make_vec_takes_the_vector_entry_point(name: str, kwargs: dict[str, Any], mode: str) -> None:
    env = gym.make_vec(name, num_envs=3, action_mode=mode, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)
    assert isinstance(env, TextGenerationVectorEnv)
    assert env.num_envs == 3
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(8):
        obs, rewards, *_ = env.step(env.action_space.sample())
        assert obs in env.observation_space
        assert rewards.dtype == np.float64


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "kwargs"), IDS)
def test_make_vec_sync_wraps_single_envs(name: str, kwargs: dict[str, Any], mode: str) -> None:
    sync = gym.make_vec(name, num_envs=2, vectorization_mode="sync", action_mode=mode, **kwargs)
    ours = gym.make_vec(name, num_envs=2, action_mode=mode, **kwargs)
    assert isinstance(sync, SyncVectorEnv)
    assert sync.single_action_space == ours.single_action_space
    assert sync.single_observation_space == ours.single_observation_space
    first, second = sync.reset(seed=3), ours.reset(seed=3)
    np.testing.assert_array_equal(first[0]["input_ids"], second[0]["input_ids"])
    assert first[1]["prompt"].tolist() == second[1]["prompt"].tolist()
    sync.action_space.seed(1)
    for _ in range(8):
        action = sync.action_space.sample()
        np.testing.assert_allclose(sync.step(action)[1], ours.step(action)[1], atol=2e-4)


@pytest.mark.parametrize(("name", "kwargs"), IDS)
def test_an_env_is_made_again_from_its_spec(name: str, kwargs: dict[str, Any]) -> None:
    env = gym.make(name, **kwargs)
    assert env.spec is not None
    again = gym.make(env.spec)
    assert isinstance(again.unwrapped, TextGenerationEnv)
    for seed in range(3):
        first, second = env.reset(seed=seed), again.reset(seed=seed)
        assert first[1] == second[1]
        np.testing.assert_array_equal(first[0]["input_ids"], second[0]["input_ids"])
        assert env.step(2)[1] == again.step(2)[1]
    vector = gym.make_vec(name, num_envs=2, **kwargs)
    assert gym.make_vec(vector.spec).num_envs == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kwargs"), IDS)
def test_a_spec_can_be_pickled(name: str, kwargs: dict[str, Any]) -> None:
    env = gym.make(name, **kwargs)
    spec = pickle.loads(pickle.dumps(env.spec))
    again = gym.make(spec)
    assert env.reset(seed=1)[1] == again.reset(seed=1)[1]


def test_a_spec_of_string_handles_survives_json() -> None:
    names = {"model": "tiny_models:gpt2_parts", "reward_model": "tiny_models:length_score"}
    env = gym.make(TEXT, **(PARTS | names))
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))  # type: ignore[union-attr]
    assert env.reset(seed=1)[1] == again.reset(seed=1)[1]
    assert env.step(2)[1] == again.step(2)[1]


def test_the_ids_are_registered_once_and_a_second_call_is_silent() -> None:
    from lm_gym.envs.registration import register_environments

    register_environments()
    for name in (TEXT, REVIEWS):
        spec = gym.spec(name)
        assert spec.entry_point is not None
        assert spec.vector_entry_point is not None
        assert spec.nondeterministic is False


def test_registration_happens_on_import_in_a_fresh_interpreter() -> None:
    code = f"import gymnasium, lm_gym; print(gymnasium.spec({TEXT!r}).id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == TEXT


def test_unknown_keyword_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"no setting is named 'kl_coeff' .* Did you mean 'kl_coef'\?"):
        gym.make(TEXT, **(PARTS | {"kl_coeff": 0.1}))


def test_a_render_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"render_mode: must be None, \"ansi\" or \"human\", got 'rgb_array'"):
        gym.make(TEXT, render_mode="rgb_array", **PARTS)
