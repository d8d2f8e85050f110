"""Best-of-n by hand, by enumeration of all draws, and against a rollout."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lm_gym.agents import (
    RejectionSampling,
    RejectionSamplingConfig,
    best_of_n,
    best_of_n_kl_bound,
    best_of_n_probs,
    best_of_n_scores,
)
from lm_gym.agents.algorithms.best_of_n import kept_rows
from lm_gym.errors import ConfigError

from ...helpers.paid_for_kl import with_kl


def test_the_score_from_a_pool_is_the_mean_over_all_subsets() -> None:
    scores = np.array([[3.0, 1.0, 2.0, 2.0], [0.0, 0.0, 5.0, -1.0]])
    for n in range(1, 5):
        subsets = [[max(chosen) for chosen in itertools.combinations(row, n)] for row in scores.tolist()]
        np.testing.assert_allclose(best_of_n_scores(scores, n), [np.mean(each) for each in subsets])
    with pytest.raises(ConfigError, match=r"n, of pools of 4: must be a whole number in \[1, 4\], got 5"):
        best_of_n_scores(scores, 5)


def test_the_distribution_is_that_of_all_draws() -> None:
    """Four responses, two of them tied; every sequence of three draws, whose first maximum wins."""
    probs, scores = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 5.0, 5.0, -2.0])
    counted = np.zeros(4)
    for draws in itertools.product(range(4), repeat=3):
        counted[max(draws, key=lambda one: scores[one])] += math.prod(probs[one] for one in draws)
    np.testing.assert_allclose(best_of_n_probs(probs, scores, 3), counted)
    np.testing.assert_allclose(best_of_n_probs(probs, scores, 1), probs)
    with pytest.raises(ConfigError, match=r"best_of_n_probs: .*sum of 0.5"):
        best_of_n_probs(np.array([0.5]), np.array([1.0]), 2)


def test_the_bound_is_reached_without_ties_and_loose_with_them() -> None:
    """Of 20,000 equally likely responses the KL is log n - (n - 1) / n; of two levels of score far less."""
    probs = np.full(20_000, 1 / 20_000)

    def kl(scores: np.ndarray, n: int) -> float:
        chosen = best_of_n_probs(probs, scores, n)
        return float((chosen[chosen > 0] * np.log(chosen[chosen > 0] / probs[chosen > 0])).sum())

    for n in (1, 4, 16):
        assert kl(np.arange(20_000.0), n) == pytest.approx(best_of_n_kl_bound(n), abs=2e-3)
    tied = kl((np.arange(20_000) % 2).astype(float), 16)
    assert tied < math.log(2) < best_of_n_kl_bound(16)


def test_a_rollout_keeps_the_best_of_each_group(make_env: Callable[..., Any], make_policy: Callable[..., Any]) -> None:
    env = make_env()
    policy = make_policy(env)
    state = env.state_dict()
    every = env.rollout_on(policy, ["a b c", "d"], samples_per_prompt=8)
    env.load_state_dict(state)
    found = best_of_n(policy, env, ["a b c", "d"], n=8)
    assert found.prompts == ("a b c", "d")
    assert found.scores.tolist() == every.scores.reshape(2, 8).max(axis=1).tolist()
    assert found.scores.min() > every.scores.mean()


def test_what_abstained_is_never_the_best(make_env: Callable[..., Any], make_policy: Callable[..., Any]) -> None:
    env = make_env(reward_model=lambda prompts, completions: [None, -7.0] * (len(prompts) // 2))
    found = best_of_n(make_policy(env), env, ["d"], n=4)
    assert found.score_valid.tolist() == [True]
    assert found.scores.tolist() == [-7.0]


def test_one_round_of_rejection_sampling_is_best_of_n() -> None:
    """Every draw of three out of four responses, two of them tied, is a group: what is kept has the distribution of
    best-of-3, which maximises the mean log-likelihood of what is kept."""
    probs, scores = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 5.0, 5.0, -2.0])
    draws = np.array(list(itertools.product(range(4), repeat=3)))
    chance = probs[draws].prod(axis=1)
    group = np.repeat(np.arange(len(draws)), 3)
    kept = kept_rows(scores[draws].ravel(), group, np.ones(len(group), dtype=bool), threshold=None)
    imitated = np.bincount(draws.ravel()[kept], weights=chance[group[kept]], minlength=4)
    np.testing.assert_allclose(imitated, best_of_n_probs(probs, scores, 3))


def test_what_is_kept_by_hand() -> None:
    returns = np.array([1.0, 3.0, 3.0, 2.0, 9.0, 0.0])
    group, counted = np.array([4, 4, 4, 2, 2, 7]), np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    assert kept_rows(returns, group, counted, threshold=None).tolist() == [
        3,
        1,
    ]  # of equals the first
    assert kept_rows(returns, group, counted, threshold=2.0).tolist() == [1, 2, 3]
    assert kept_rows(returns, group, counted, threshold=99.0).tolist() == []
    assert kept_rows(returns, group, np.zeros(6, dtype=bool), threshold=None).tolist() == []


@pytest.mark.parametrize(("score", "kl"), [pytest.param(1.0, -1.5, id="kl"), pytest.param(0.7, 0.0, id="float32")])
def test_no_rounding_takes_a_response_off_its_threshold(
    score: float, kl: float, make_env: Callable[..., Any], make_policy: Callable[..., Any]
) -> None:
    """1 + .15 - .15 is less than 1 in floating point, and so is .7 as a score of seven digits less than .7."""
    env = make_env(reward_model=lambda prompts, completions: [score] * len(completions))
    config = RejectionSamplingConfig(episodes_per_iteration=8, threshold=score)
    agent = RejectionSampling(make_policy(env), config)
    episodes = with_kl(env.rollout(agent.policy, 8), kl)
    assert (episodes.rewards_without_kl.sum(axis=1) < score).all()
    assert agent.update(episodes)["kept_share"] == 1.0


def test_rejection_sampling_makes_what_it_keeps_likelier(
    make_env: Callable[..., Any], make_policy: Callable[..., Any]
) -> None:
    env = make_env()
    policy = make_policy(env)
    small: dict[str, Any] = {"learning_rate": 1e-3, "max_batch_tokens": 12}  # several pieces
    config = RejectionSamplingConfig(episodes_per_iteration=16, samples_per_prompt=4, **small)
    agent = RejectionSampling(policy, config)
    metrics = agent.learn(env)
    episodes = agent.last_episodes
    assert episodes is not None
    assert metrics["kept_share"] == 0.25
    best = np.arange(4) * 4 + episodes.scores.reshape(4, 4).argmax(axis=1)
    kept = episodes[best]
    assert metrics["policy_loss"] == pytest.approx(-kept.log_probs.sum(axis=1).mean(), rel=1e-4)
    start = make_policy(env)
    (-start.log_probs_and_values(kept).log_probs.sum(1).mean()).backward()
    squares = sum(float((one.grad**2).sum()) for one in start.parameters() if one.grad is not None)
    assert metrics["grad_norm"] == pytest.approx(math.sqrt(squares), rel=1e-4)
    after = policy.log_probs_and_values_in_batches(kept, 1000).log_probs.numpy().sum(axis=1)
    assert after.mean() > kept.log_probs.sum(axis=1).mean()
    with pytest.raises(ConfigError, match=r"RejectionSampling: samples_per_prompt: must be >= 2 where .* got 1"):
        RejectionSampling(policy, RejectionSamplingConfig(samples_per_prompt=1))
    nothing = RejectionSampling(policy, RejectionSamplingConfig(episodes_per_iteration=8, threshold=99.0)).learn(env)
    assert (nothing["kept_share"], nothing["optimizer_steps"]) == (0.0, 0.0)
