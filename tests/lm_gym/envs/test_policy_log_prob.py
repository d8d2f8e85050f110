"""The hand-over of log-probabilities to an agent whose action is only a token."""

import copy
import inspect
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tiny_models import EOS, PROMPTS, V, gpt2_parts, single_env, text_score, vector_env

from lm_gym import (
    PolicyHandle,
    PolicyLogProb,
    Reference,
    TextGenerationEnv,
    TextGenerationVectorEnv,
    VectorPolicyLogProb,
)
from lm_gym.errors import ActionError, ConfigError, EpisodeOverError

SETTINGS: dict[str, Any] = {"max_new_tokens": 5, "kl_coef": 0.3, "action_mode": "token_and_log_prob"}


def log_prob(observation: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """A made-up policy that depends on the whole observation and on the token."""
    weights = np.arange(1, observation["input_ids"].shape[1] + 1)
    state = (observation["input_ids"] * observation["attention_mask"] * weights).sum(axis=1)
    return -((state % 7) + 1.0) / 4 - tokens / 10


def single(reference: Reference, **changes: Any) -> TextGenerationEnv:
    return single_env(reference, PROMPTS, text_score, **(SETTINGS | changes))


def vector(reference: Reference, mode: AutoresetMode, num: int = 3) -> TextGenerationVectorEnv:
    return vector_env(num, reference, PROMPTS, text_score, autoreset_mode=mode, **SETTINGS)


def test_the_action_space_is_discrete_outside(reference: Reference) -> None:
    env = PolicyLogProb(single(reference), log_prob)
    assert env.action_space == gym.spaces.Discrete(V)
    many = VectorPolicyLogProb(vector(reference, AutoresetMode.NEXT_STEP), log_prob)
    assert many.single_action_space == gym.spaces.Discrete(V)
    assert many.action_space == gym.spaces.MultiDiscrete([V] * 3)


def test_it_pays_what_the_inner_env_pays_for_the_same_log_probs(reference: Reference) -> None:
    wrapped, plain = PolicyLogProb(single(reference), log_prob), single(reference)
    rng = np.random.default_rng(0)
    for seed in range(6):
        observation, _ = plain.reset(seed=seed)
        wrapped.reset(seed=seed)
        ended = False
        while not ended:
            token = int(rng.integers(0, 12))
            batch = {key: value[None] for key, value in observation.items()}
            expected = plain.step({"token": token, "log_prob": log_prob(batch, np.array([token]))[0]})
            got = wrapped.step(token)
            assert got[1:] == expected[1:]
            np.testing.assert_array_equal(got[0]["input_ids"], expected[0]["input_ids"])
            observation, ended = expected[0], expected[2]


@pytest.mark.parametrize("inner", ["ours", "sync"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_vector_form_pays_what_single_envs_are_paid(mode: AutoresetMode, inner: str, reference: Reference) -> None:
    if inner == "ours":
        env = VectorPolicyLogProb(vector(reference, mode), log_prob)
    else:
        env = VectorPolicyLogProb(SyncVectorEnv([lambda: single(reference)] * 3, autoreset_mode=mode), log_prob)
    singles = [PolicyLogProb(single(reference), log_prob) for _ in range(3)]
    env.reset(seed=4)
    for row, each in enumerate(singles):
        each.reset(seed=4 + row)
    rng = np.random.default_rng(1)
    pending = np.zeros(3, dtype=bool)
    for _ in range(30):
        tokens = np.where(rng.random(3) < 0.25, EOS, rng.integers(1, 12, 3))
        _, rewards, terminated, _, _ = env.step(tokens)
        for row, each in enumerate(singles):
            if pending[row]:
                assert rewards[row] == 0
                assert each.reset()
                continue
            _, reward, ended, _, _ = each.step(int(tokens[row]))
            assert rewards[row] == pytest.approx(reward, abs=2e-4)
            assert terminated[row] == ended
            if ended and mode is not AutoresetMode.NEXT_STEP:
                each.reset()
        if mode is AutoresetMode.NEXT_STEP:
            pending = terminated
        elif mode is AutoresetMode.DISABLED and terminated.any():
            env.reset(options={"reset_mask": terminated.copy()})


def test_the_ignored_action_of_a_next_step_autoreset_is_not_asked_for(reference: Reference) -> None:
    asked: list[list[int]] = []

    def spy(observation: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        asked.append(tokens.tolist())
        return np.full(len(tokens), -1.0)

    env = VectorPolicyLogProb(vector(reference, AutoresetMode.NEXT_STEP), spy)
    env.reset(seed=0)
    env.step(np.array([EOS, 2, 3]))
    env.step(np.array([V + 9, 4, 5]))
    env.step(np.array([6, 7, 8]))
    assert asked == [[EOS, 2, 3], [4, 5], [6, 7, 8]]


def test_after_all_rows_ended_the_policy_is_not_called_at_all(reference: Reference) -> None:
    def fail(observation: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        assert len(tokens)
        return np.full(len(tokens), -1.0)

    env = VectorPolicyLogProb(vector(reference, AutoresetMode.NEXT_STEP), fail)
    env.reset(seed=0)
    env.step(np.zeros(3, dtype=int))
    env.step(np.zeros(3, dtype=int))


def test_a_reset_forgets_the_rows_that_would_have_been_ignored(reference: Reference) -> None:
    env = VectorPolicyLogProb(vector(reference, AutoresetMode.NEXT_STEP), log_prob)
    env.reset(seed=0)
    env.step(np.zeros(3, dtype=int))
    env.reset(seed=1)
    *_, info = env.step(np.array([1, 2, 3]))
    assert (info["log_prob"] < 0).all()


def test_the_handle_is_bound_later_and_its_deep_copy_is_itself(reference: Reference) -> None:
    handle = PolicyHandle()
    assert copy.deepcopy(handle) is handle
    assert copy.deepcopy({"log_prob": handle})["log_prob"] is handle
    env = PolicyLogProb(single(reference), handle)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"no policy is bound yet; call bind\(policy\) before the first step"):
        env.step(1)
    assert handle.bind(log_prob) is handle
    env.step(1)
    handle.bind(lambda observation, tokens: np.full(len(tokens), -0.25))
    assert env.step(1)[4]["log_prob"] == -0.25


def test_the_wrapper_is_made_again_from_the_spec_with_the_same_handle() -> None:
    handle = PolicyHandle().bind(log_prob)
    inner = gym.make("lm_gym/TextGeneration-v0", model=gpt2_parts, prompts=list(PROMPTS), **SETTINGS)
    again = gym.make(PolicyLogProb(inner, handle).spec)  # type: ignore[arg-type]
    assert isinstance(again, PolicyLogProb)
    assert again.log_prob is handle


class Heavy:
    """A policy that must not be copied: it stands for gigabytes of weights and an optimiser."""

    device = "cpu"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Heavy":
        raise AssertionError("the policy was copied")

    def evaluate_actions(self, observation: Any, actions: Any) -> tuple[Any, Any, Any]:
        import torch

        return None, torch.full((len(actions),), -2.0), None


def test_a_policy_given_directly_is_not_copied(reference: Reference) -> None:
    env = PolicyLogProb(single(reference), Heavy())  # type: ignore[arg-type]
    many = VectorPolicyLogProb(vector(reference, AutoresetMode.NEXT_STEP), Heavy())  # type: ignore[arg-type]
    env.reset(seed=0)
    many.reset(seed=0)
    assert env.step(1)[4]["log_prob"] == -2.0
    assert many.step(np.array([1, 1, 1]))[4]["log_prob"].tolist() == [-2.0] * 3


class Actor:
    """An actor-critic that keeps the distribution it drew from, and has drawn from none yet."""

    def __init__(self) -> None:
        self.action_dist = SimpleNamespace()

    def evaluate_actions(self, observation: Any, actions: Any) -> tuple[Any, Any, Any]:
        raise AssertionError("what was drawn from is read, not computed again")

    def draw(self, rows: int) -> np.ndarray:
        """A distribution whose row i gives token t the log-probability -(i + t / 100 + 1)."""
        logits = -(np.arange(rows)[:, None] + np.arange(V) / 100 + 1)
        self.action_dist.distribution = SimpleNamespace(logits=logits)
        return np.arange(1, rows + 1)


def test_a_vector_env_pays_each_row_from_its_own_row_of_the_draw(reference: Reference) -> None:
    actor = Actor()
    env = VectorPolicyLogProb(vector(reference, AutoresetMode.NEXT_STEP), actor)  # type: ignore[arg-type]
    env.reset(seed=0)
    actor.draw(3)
    assert env.step(np.array([1, EOS, 3]))[4]["log_prob"] == pytest.approx([-1.01, -2.0, -3.03])
    actor.draw(3)
    info = env.step(np.array([4, 5, 6]))[4]
    assert info["log_prob"][[0, 2]] == pytest.approx([-1.04, -3.06])
    assert info["_log_prob"].tolist() == [True, False, True]
    with pytest.raises(ConfigError, match="Actor has drawn none since the last step"):
        env.step(np.array([1, 2, 3]))
    actor.draw(2)
    with pytest.raises(ConfigError, match=r"Actor drew actions for 2 row\(s\), and row 2 is played"):
        env.step(np.array([1, 2, 3]))


def test_single_envs_of_one_handle_take_their_turns(reference: Reference) -> None:
    actor = Actor()
    handle = PolicyHandle().bind(actor)
    envs = [PolicyLogProb(single(reference), handle) for _ in range(3)]
    for env in envs:
        env.reset(seed=0)
    with pytest.raises(ConfigError, match="Actor has drawn none"):
        envs[0].step(1)
    for _ in range(2):
        tokens = actor.draw(3)
        paid = [env.step(int(token))[4]["log_prob"] for env, token in zip(envs, tokens, strict=True)]
        assert paid == pytest.approx([-1.01, -2.02, -3.03])
    actor.draw(3)
    with pytest.raises(ActionError, match="a token id must lie in"):
        envs[0].step(V)
    envs[0].step(1)
    actor.draw(3)
    with pytest.raises(ConfigError, match=r"of 3 rows of Actor 1 did; give all its environments one PolicyHandle"):
        envs[0].step(1)


@pytest.mark.parametrize("wrapper", [PolicyLogProb, VectorPolicyLogProb])
def test_reset_names_its_two_keywords(wrapper: Any) -> None:
    parameters = inspect.signature(wrapper.reset).parameters
    assert list(parameters) == ["self", "seed", "options"]
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("seed", "options"))
    assert all(parameters[name].default is None for name in ("seed", "options"))


@pytest.mark.parametrize("wrong", [float("nan"), -np.inf, 0.7])
def test_a_policy_that_gives_no_log_prob_is_refused_and_not_repaired(wrong: float, reference: Reference) -> None:
    def bad(observation: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        return np.full(len(tokens), wrong)

    env = PolicyLogProb(single(reference), bad)
    env.reset(seed=0)
    with pytest.raises(ActionError, match="log_prob must be a log-probability"):
        env.step(1)
    many = VectorPolicyLogProb(vector(reference, AutoresetMode.NEXT_STEP), bad)
    many.reset(seed=0)
    with pytest.raises(ActionError, match="log_prob must be a log-probability"):
        many.step(np.array([1, 1, 1]))


def test_rounding_above_zero_is_taken_as_zero(reference: Reference) -> None:
    env = PolicyLogProb(single(reference), lambda observation, tokens: np.full(len(tokens), 5e-7))
    env.reset(seed=0)
    assert env.step(1)[4]["log_prob"] == pytest.approx(0.0, abs=1e-6)


def test_stepping_before_reset_is_refused_as_by_the_env_itself(reference: Reference) -> None:
    with pytest.raises(EpisodeOverError, match=r"call reset\(\)"):
        PolicyLogProb(single(reference), log_prob).step(1)
    with pytest.raises(EpisodeOverError, match=r"call reset\(\)"):
        VectorPolicyLogProb(vector(reference, AutoresetMode.NEXT_STEP), log_prob).step(np.array([1, 1, 1]))


def test_an_env_in_token_mode_is_refused(reference: Reference) -> None:
    with pytest.raises(
        ConfigError, match=r'PolicyLogProb: wraps an environment with action_mode="token_and_log_prob", got .*Discrete'
    ):
        PolicyLogProb(single(reference, action_mode="token"), log_prob)
    many = vector_env(2, reference, PROMPTS, max_new_tokens=4)
    with pytest.raises(ConfigError, match="VectorPolicyLogProb: wraps an environment with"):
        VectorPolicyLogProb(many, log_prob)


def test_something_that_is_no_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"PolicyHandle.bind: .* and int has none \(no evaluate_actions\)"):
        PolicyHandle().bind(3)
