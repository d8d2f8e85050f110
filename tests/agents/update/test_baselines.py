"""Advantages of whole responses, by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import Episodes
from lm_gym.agents import REINFORCE, GivenBaseline, GroupMean, LeaveOneOut, MovingBaseline
from lm_gym.agents.update.baselines import group_statistics, leave_one_out, paid_alike
from lm_gym.errors import ConfigError
from lm_gym.processes import Processes

RETURNS = np.array([1.0, 2.0, 6.0, 4.0, 4.0, 9.0])
GROUP = np.array([0, 0, 0, 1, 1, 7])
EVERY = np.ones(6, dtype=bool)


@pytest.fixture
def episodes(make_env: Callable[..., Any], make_policy: Callable[..., Any]) -> Episodes:
    """Six real responses whose rewards sum to the numbers above."""
    env = make_env()
    found = env.rollout(make_policy(env), 6)
    rewards = np.zeros_like(found.rewards)
    rewards[:, 0] = RETURNS
    return replace(found, rewards=rewards, group=GROUP, kl_coef=np.zeros(6))


def numbers(estimator: Any, episodes: Episodes) -> list[float]:
    """The advantage of each response, which all of its tokens must share."""
    evaluation: Any = type("Evaluation", (), {"log_probs": torch.zeros(1)})()
    grid = estimator(episodes, evaluation).advantages.numpy()
    mask = episodes.response_mask
    assert not grid[~mask].any()
    assert all(len(set(row[kept])) == 1 for row, kept in zip(grid, mask, strict=True))
    return grid[:, 0].tolist()


def test_group_statistics_by_hand() -> None:
    size, mean, deviation = group_statistics(RETURNS, GROUP, EVERY)
    assert size.tolist() == [3, 3, 3, 2, 2, 1]
    assert mean.tolist() == [3, 3, 3, 4, 4, 9]
    np.testing.assert_allclose(deviation, [7**0.5] * 3 + [0, 0, 0])  # (4 + 1 + 9) / 2
    counted = np.array([True, True, False, True, True, True])
    size, mean, deviation = group_statistics(RETURNS, GROUP, counted)
    assert size.tolist() == [2, 2, 2, 2, 2, 1]
    assert mean[:3].tolist() == [1.5] * 3
    np.testing.assert_allclose(deviation[:3], 0.5**0.5)


def test_leave_one_out_by_hand() -> None:
    """1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2; alike: 0; alone: 0."""
    assert leave_one_out(RETURNS, GROUP, EVERY).tolist() == [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]
    counted = np.array([True, True, False, True, False, True])
    assert leave_one_out(RETURNS, GROUP, counted).tolist() == [-1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_estimators_of_groups_by_hand(episodes: Episodes) -> None:
    assert numbers(LeaveOneOut(), episodes) == [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]
    assert numbers(GroupMean(scaled=False), episodes) == [-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]
    scaled = np.array([-2.0, -1.0, 3.0]) / (7**0.5 + 1e-4)
    np.testing.assert_allclose(numbers(GroupMean(), episodes), [*scaled, 0, 0, 0], rtol=1e-6)
    assert paid_alike(episodes).tolist() == [False, False, False, True, True, True]


def test_a_group_that_abstained_teaches_nothing(episodes: Episodes) -> None:
    """Group 0 has one counted response left, group 1 none: no advantage, and no NaN."""
    valid = np.array([True, False, False, False, False, True])
    some = replace(episodes, score_valid=valid, terminated=EVERY, truncated=~EVERY)
    for estimator in (LeaveOneOut(), GroupMean(), GroupMean(scaled=False)):
        assert numbers(estimator, some) == [0.0] * 6


def test_a_given_baseline_is_taken_from_the_return(episodes: Episodes) -> None:
    given = replace(episodes, baselines=np.array([1.0, 0.0, 3.0, 4.0, 5.0, 6.0]))
    assert numbers(GivenBaseline(), given) == [0.0, 2.0, 3.0, 0.0, -1.0, 3.0]
    with pytest.raises(ConfigError, match=r"GivenBaseline: needs episodes.baselines, got none; use ReMax"):
        numbers(GivenBaseline(), episodes)


def test_a_moving_baseline_follows_the_returns_and_is_kept(episodes: Episodes) -> None:
    """Mean 26 / 6 of the first batch; then .5 of it and .5 of the next."""
    estimator = MovingBaseline(decay=0.5)
    first = 26 / 6
    np.testing.assert_allclose(numbers(estimator, episodes), RETURNS - first, rtol=1e-6)
    higher = replace(episodes, rewards=episodes.rewards * 2)
    np.testing.assert_allclose(numbers(estimator, higher), 2 * RETURNS - first, rtol=1e-6)
    again = MovingBaseline(decay=0.5)
    again.load_state_dict(estimator.state_dict())
    np.testing.assert_allclose(numbers(again, episodes), RETURNS - (0.5 * first + first), rtol=1e-6)
    with pytest.raises(ConfigError, match="MovingBaseline state"):
        again.load_state_dict({})


def test_a_moving_baseline_is_that_of_all_processes(
    episodes: Episodes, make_env: Callable[..., Any], make_policy: Callable[..., Any]
) -> None:
    """The other process earned 10 and 20; the learner tells the estimator of it."""

    class Two(Processes):
        size = 2

        def gather(self, value: Any) -> list[Any]:
            return [value, np.array([10.0, 20.0])]

    estimator = MovingBaseline()
    REINFORCE(make_policy(make_env()), estimator=estimator, processes=Two())
    np.testing.assert_allclose(numbers(estimator, episodes), RETURNS - (26 + 30) / 8, rtol=1e-6)
