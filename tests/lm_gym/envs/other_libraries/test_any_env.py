"""``train``, ``learn`` and ``evaluate`` take what ``gymnasium.make`` gives; other wrappers are refused."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.wrappers import vector as vector_wrappers
from tiny_models import gpt2_parts, length_score

from lm_gym import AdaptiveKL, LanguageModel, PolicyHandle, PolicyLogProb, TextGenerationVectorEnv, evaluate
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, train
from lm_gym.envs.wrappers import vector_env_of
from lm_gym.errors import ConfigError

TEXT = "lm_gym/TextGeneration-v0"
PARTS: dict[str, Any] = {
    "model": gpt2_parts,
    "prompts": ["a b c", "d", "b b"],
    "reward_model": length_score,
    "max_new_tokens": 4,
    "action_mode": "token_and_log_prob",
}


def agent() -> PPO:
    return PPO(LanguageModelPolicy(LanguageModel(*gpt2_parts())), PPOConfig(episodes_per_iteration=4, minibatches=2))


def test_a_single_env_trains_as_a_vector_env_of_one_row() -> None:
    """The same numbers, and beta of the controller is back in the environment that was given."""
    options: dict[str, Any] = {"iterations": 2, "adaptive_kl": AdaptiveKL(target=0.001, horizon=8), "progress": False}
    single, vector = gym.make(TEXT, **PARTS), gym.make_vec(TEXT, num_envs=1, **PARTS)
    assert type(single) is not type(single.unwrapped)
    scores = [[row["score"] for row in train(agent(), env, **options).history] for env in (single, vector)]
    assert scores[0] == scores[1]
    assert single.unwrapped.kl_coef == vector.unwrapped.kl_coef != 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", [None, 7])
def test_an_agent_learns_in_a_single_env_by_itself_and_goes_on_drawing(seed: int | None) -> None:
    """Two calls learn from other episodes, also where ``sampling.seed`` names the stream."""
    single, vector = gym.make(TEXT, seed=seed, **PARTS), gym.make_vec(TEXT, num_envs=1, seed=seed, **PARTS)
    vector.unwrapped.np_random = np.random.default_rng(5)  # type: ignore[attr-defined]
    single.unwrapped.np_random = np.random.default_rng(5)
    learner, other = agent(), agent()
    seen = []
    for _ in range(2):
        learner.learn(single)
        other.learn(vector)
        assert learner.last_episodes is not None
        assert other.last_episodes is not None
        np.testing.assert_array_equal(learner.last_episodes.response_ids, other.last_episodes.response_ids)
        seen.append(learner.last_episodes.response_ids.tolist())
    assert seen[0] != seen[1]


@pytest.mark.parametrize("seed", [None, 7])
def test_the_state_of_a_single_env_holds_every_stream_of_its_rollouts(seed: int | None) -> None:
    env, other = (gym.make(TEXT, seed=seed, **PARTS).unwrapped for _ in range(2))
    env.reset(seed=3)
    policy = agent().policy
    vector_env_of(env, "test").rollout(policy, 2)
    other.load_state_dict(env.state_dict())  # type: ignore[attr-defined]
    found = [vector_env_of(one, "test").rollout(policy, 4).response_ids for one in (env, other)]
    np.testing.assert_array_equal(*found)
    fresh = gym.make(TEXT, seed=seed, **PARTS).unwrapped
    env.reset(seed=3)
    fresh.reset(seed=3)
    found = [vector_env_of(one, "test").rollout(policy, 4).response_ids for one in (env, fresh)]
    np.testing.assert_array_equal(*found)


def test_an_agent_refuses_a_wrapper_and_what_is_no_environment() -> None:
    with pytest.raises(ConfigError, match=r"learn: whole responses are rolled out past every wrapper"):
        agent().learn(wrappers.TransformReward(gym.make(TEXT, **PARTS), lambda reward: reward))
    with pytest.raises(ConfigError, match=r"learn: needs an environment of lm_gym, got int"):
        agent().learn(3)  # type: ignore[arg-type]


def test_a_single_env_is_measured_as_a_vector_env() -> None:
    policy = agent().policy
    found = [evaluate(policy, env, ["a", "b"]) for env in (gym.make(TEXT, **PARTS), gym.make_vec(TEXT, 2, **PARTS))]
    assert found[0].score == found[1].score
    np.testing.assert_array_equal(found[0].episodes.response_ids, found[1].episodes.response_ids)


def test_its_reward_model_beta_and_generator_are_those_of_the_single_env() -> None:
    env = gym.make(TEXT, kl_coef=0.3, **PARTS)
    env.reset(seed=5)
    env.set_wrapper_attr("reward_model", lambda prompts, completions: [2.0] * len(prompts))
    made = vector_env_of(env, "test")
    assert made.kl_coef == 0.3
    assert made.np_random is env.unwrapped.np_random
    assert (made.rollout(agent().policy, 2).scores == 2.0).all()


@pytest.mark.parametrize(
    "wrap",
    [
        wrappers.RecordEpisodeStatistics,
        wrappers.PassiveEnvChecker,
        lambda env: PolicyLogProb(env, PolicyHandle()),
    ],
)
def test_a_wrapper_that_changes_nothing_is_taken_off(wrap: Any) -> None:
    env = wrap(gym.make(TEXT, **PARTS))
    assert vector_env_of(env, "test").task is env.unwrapped.task


def test_a_vector_env_is_itself_under_its_statistics() -> None:
    env = gym.make_vec(TEXT, num_envs=2, **PARTS)
    assert vector_env_of(vector_wrappers.RecordEpisodeStatistics(env), "test") is env


class Mine(wrappers.RecordEpisodeStatistics):
    """A wrapper of one's own; what it changes is not known."""


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            lambda env: wrappers.TransformReward(env, lambda r: -r),
            r"TransformReward may change .* set score_weight, sc",
        ),
        (wrappers.NormalizeReward, "NormalizeReward may change .* set score_weight, score_clip or normalizer"),
        (lambda env: wrappers.TimeLimit(env, 3), r"TimeLimit may change .* set max_new_tokens"),
        (Mine, r"Mine may change .* put what it does into the settings .*, or pass env\.unwrapped to do without it"),
    ],
)
def test_a_wrapper_that_would_be_passed_over_is_refused(wrap: Any, message: str) -> None:
    env = wrap(gym.make(TEXT, **PARTS))
    with pytest.raises(ConfigError, match=f"^train: .*{message}"):
        train(agent(), env, iterations=1)
    with pytest.raises(ConfigError, match=f"^evaluate: .*{message}"):
        evaluate(agent().policy, env, ["a"])


def test_a_vector_wrapper_of_the_reward_is_refused() -> None:
    env = vector_wrappers.ClipReward(gym.make_vec(TEXT, num_envs=2, **PARTS), -1, 1)
    with pytest.raises(ConfigError, match=r"ClipReward may change .* set score_weight"):
        train(agent(), env, iterations=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gym.make_vec(TEXT, num_envs=2, vectorization_mode="sync", **PARTS),
        lambda: gym.make("CartPole-v1"),
        lambda: None,
        lambda: TextGenerationVectorEnv,
    ],
)
def test_what_is_no_environment_of_this_library_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"^train: needs an environment of lm_gym, got \w+; make it by gymnasium"):
        train(agent(), make(), iterations=1)
