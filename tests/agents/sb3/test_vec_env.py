"""The vector environment as SB3 sees it: the same rewards and tokens as stepping it by hand, under one seed."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from lm_gym import PolicyHandle, TextGenerationVectorEnv, VectorPolicyLogProb
from lm_gym.agents.sb3 import SB3VecEnv
from lm_gym.errors import ConfigError, PromptError

Make = Callable[..., TextGenerationVectorEnv]
STEPS = 20
ROWS = 4


def script(seed: int = 0) -> np.ndarray:
    """Tokens that end episodes at different times. Shape: (STEPS, ROWS)."""
    return np.random.default_rng(seed).integers(0, 6, (STEPS, ROWS))


def by_hand(env: TextGenerationVectorEnv, tokens: np.ndarray) -> list[tuple[Any, ...]]:
    """Ends, rewards, observations and texts of an environment whose ended rows are begun anew by their mask."""
    seen: list[tuple[Any, ...]] = []
    observation, info = env.reset(seed=3)
    for step in tokens:
        last, rewards, terminated, truncated, info = env.step(step)
        ended = terminated | truncated
        texts = [info["response"][row] if ended[row] else None for row in range(ROWS)]
        observation = env.reset(options={"reset_mask": ended})[0] if ended.any() else last
        seen.append((observation, last, rewards, ended, truncated, texts))
    return seen


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("limit", ["terminate", "truncate"])
def test_it_pays_and_shows_what_stepping_by_hand_does(mode: AutoresetMode, limit: str, make_env: Make) -> None:
    settings = {"action_mode": "token", "on_length_limit": limit}
    expected = by_hand(make_env(autoreset_mode=AutoresetMode.DISABLED, **settings), script())
    env = SB3VecEnv(make_env(autoreset_mode=mode, **settings))
    env.seed(3)
    env.reset()
    assert sum(step[3].sum() for step in expected) > 8
    assert any(step[4].any() for step in expected) == (limit == "truncate")
    for tokens, (observation, last, rewards, ended, truncated, texts) in zip(script(), expected, strict=True):
        found, paid, done, infos = env.step(tokens)
        np.testing.assert_array_equal(found["input_ids"], observation["input_ids"])
        np.testing.assert_array_equal(found["attention_mask"], observation["attention_mask"])
        np.testing.assert_array_equal(paid, rewards.astype(np.float32))
        assert paid.dtype == np.float32
        np.testing.assert_array_equal(done, ended)
        for row, info in enumerate(infos):
            assert info["TimeLimit.truncated"] is bool(truncated[row])
            assert info.get("response") == texts[row]
            assert type(info["ref_log_prob"]) is float
            assert "prompt" not in info
            assert ("terminal_observation" in info) == ended[row]
            if ended[row]:
                end = info["terminal_observation"]
                np.testing.assert_array_equal(end["input_ids"], last["input_ids"][row])
                np.testing.assert_array_equal(end["attention_mask"], last["attention_mask"][row])
                assert env.reset_infos[row].keys() == {"prompt"}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_log_probability_is_asked_of_every_row_at_every_step(mode: AutoresetMode, make_env: Make) -> None:
    """No step is lost on a reset, in any mode; the reward is the formula's."""
    asked: list[int] = []

    def log_prob(observation: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        asked.append(len(tokens))
        return -1.5 - 0.1 * tokens

    env = SB3VecEnv(make_env(autoreset_mode=mode, kl_coef=0.25), log_prob)
    env.seed(0)
    env.reset()
    for tokens in script():
        _, rewards, _, infos = env.step(tokens)
        for token, reward, info in zip(tokens, rewards, infos, strict=True):
            assert info["log_prob"] == pytest.approx(-1.5 - 0.1 * token)
            kl = info["log_prob"] - info["ref_log_prob"]
            assert reward == pytest.approx(-0.25 * kl + info.get("score", 0.0), abs=1e-5)
    assert asked == [ROWS] * STEPS


def test_a_handle_of_its_own_or_that_of_a_wrapper(make_env: Make) -> None:
    handle = PolicyHandle()
    assert SB3VecEnv(make_env(action_mode="token")).log_prob is None
    assert isinstance(SB3VecEnv(make_env()).log_prob, PolicyHandle)
    assert SB3VecEnv(make_env(), handle).log_prob is handle
    wrapped = SB3VecEnv(VectorPolicyLogProb(make_env(), handle))
    assert wrapped.log_prob is handle
    assert wrapped.get_attr("log_prob") == [handle] * ROWS
    assert wrapped.env_is_wrapped(VectorPolicyLogProb) == [True] * ROWS
    assert wrapped.env_is_wrapped(gymnasium.Wrapper, indices=[0]) == [False]


def test_attributes_and_methods_are_those_of_the_one_environment(make_env: Make) -> None:
    env = SB3VecEnv(make_env())
    assert env.get_attr("kl_coef", indices=[1, 2]) == [0.1, 0.1]
    assert env.get_attr("render_mode") == [None] * ROWS
    assert not env.has_attr("nonesuch")
    env.set_attr("kl_coef", 0.7)
    assert env.get_attr("kl_coef") == [0.7] * ROWS
    with pytest.raises(
        ConfigError, match=r"SB3VecEnv.set_attr: 'kl_coef' must be set for all 4 rows, .* indices \[1\]"
    ):
        env.set_attr("kl_coef", 0.1, indices=[1])
    env.reset()
    [state] = env.env_method("state_dict", indices=2)
    assert state["kl_coef"] == 0.7
    env.close()


def test_seeds_wait_for_the_next_reset_and_options_are_each_rows_own(make_env: Make) -> None:
    native = make_env()
    env = SB3VecEnv(native)
    assert env.seed(5) == [5, 6, 7, 8]
    first = env.reset()["input_ids"]
    np.testing.assert_array_equal(make_env().reset(seed=5)[0]["input_ids"], first)
    np.testing.assert_array_equal(make_env().reset(seed=[5, 6, 7, 8])[0]["input_ids"], first)
    env.set_options([{"prompt": text} for text in ("a", "b c", "a", "d")])
    env.reset()
    assert [info["prompt"] for info in env.reset_infos] == ["a", "b c", "a", "d"]
    env.set_options({"prompt": "c c"})
    env.reset()
    assert {info["prompt"] for info in env.reset_infos} == {"c c"}
    env.set_options({"prompt": ""})
    with pytest.raises(PromptError):
        env.reset()


def test_monitor_and_normalised_rewards_go_around_it(make_env: Make) -> None:
    env = SB3VecEnv(make_env(action_mode="token"))
    monitored = VecMonitor(env, info_keywords=("score",))
    scaled = VecNormalize(monitored, norm_obs=False, gamma=1.0)
    scaled.seed(0)
    scaled.reset()
    returns = np.zeros(ROWS)
    episodes = 0
    for tokens in script():
        _, _, ended, infos = scaled.step(tokens)
        returns += scaled.get_original_reward()
        for row in np.flatnonzero(ended):
            assert infos[row]["episode"]["r"] == pytest.approx(returns[row], abs=1e-5)
            assert infos[row]["episode"]["r"] == pytest.approx(infos[row]["episode_return"], abs=1e-5)
            assert infos[row]["episode"]["l"] == infos[row]["episode_length"]
            assert infos[row]["episode"]["score"] == infos[row]["score"]
            returns[row] = 0
            episodes += 1
    assert episodes > 8


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_infos_of_numbers_only(mode: AutoresetMode, make_env: Make) -> None:
    made = make_env(action_mode="token")
    native = TextGenerationVectorEnv(made.task, made.reward_model, num_envs=2, info_keys="numeric", autoreset_mode=mode)
    env = SB3VecEnv(native)
    env.reset()
    _, _, ended, infos = env.step(np.array([0, 1]))
    assert ended.tolist() == [True, False]
    assert infos[0]["score_valid"] == 1.0
    assert infos[1]["score_valid"] == 0.0
    assert {
        type(value) for key, value in infos[0].items() if key not in ("TimeLimit.truncated", "terminal_observation")
    } == {float}


def test_stock_ppo_learns_in_it(make_env: Make) -> None:
    env = SB3VecEnv(make_env())
    small: dict[str, Any] = {"device": "cpu", "policy_kwargs": {"net_arch": [8]}, "gamma": 1.0, "seed": 0}
    agent = PPO("MultiInputPolicy", VecMonitor(env), n_steps=8, batch_size=16, n_epochs=1, **small)
    assert env.log_prob is not None
    env.log_prob.bind(agent)
    agent.learn(64)
    assert agent.ep_info_buffer


def test_an_agent_that_is_not_bound_or_has_no_log_probability_is_refused(make_env: Make) -> None:
    env = SB3VecEnv(make_env())
    agent = DQN("MultiInputPolicy", env, buffer_size=10, learning_starts=0, device="cpu")
    assert env.log_prob is not None
    with pytest.raises(ConfigError, match=r'DQN has none .*; a value-only agent belongs in action_mode="token"'):
        env.log_prob.bind(agent)
    with pytest.raises(ConfigError, match=r"PolicyHandle: no policy is bound yet"):
        agent.learn(4)


def test_what_it_cannot_adapt_is_refused(make_env: Make) -> None:
    with pytest.raises(
        ConfigError, match=r"SB3VecEnv: log_prob must be None in action_mode=\"token\".*token_and_log_prob"
    ):
        SB3VecEnv(make_env(action_mode="token"), PolicyHandle())
    with pytest.raises(ConfigError, match=r"log_prob must be given once, and VectorPolicyLogProb .* leave it out"):
        SB3VecEnv(VectorPolicyLogProb(make_env(), PolicyHandle()), PolicyHandle())
    with pytest.raises(ConfigError, match=r"got RecordEpisodeStatistics; put the wrappers of .* \(VecMonitor, VecNorm"):
        SB3VecEnv(RecordEpisodeStatistics(make_env()))
    for wrong in (gymnasium.make_vec("CartPole-v1", num_envs=2), gymnasium.make("CartPole-v1"), None):
        with pytest.raises(
            ConfigError, match=r"SB3VecEnv: needs the vector environment itself, .* make it by gymnasium"
        ):
            SB3VecEnv(wrong)  # type: ignore[arg-type]
