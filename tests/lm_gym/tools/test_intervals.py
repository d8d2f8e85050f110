"""Intervals of proportions, by hand and against scipy."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from lm_gym.tools.intervals import wilson_interval


@pytest.mark.parametrize(("wins", "n"), [(0, 5), (5, 5), (1, 3), (7, 10), (37, 100), (500, 1000)])
def test_the_interval_is_scipys_wilson_interval(wins: int, n: int) -> None:
    expected = binomtest(wins, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(wins / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_interval_by_hand() -> None:
    # p = .5, n = 4, z = 2: centre (.5 + .5) / 2 = .5, half 2 / 2 * sqrt(.25 / 4 + 4 / 64)
    assert wilson_interval(0.5, 4, z=2.0) == pytest.approx((0.5 - math.sqrt(1 / 8), 0.5 + math.sqrt(1 / 8)))


@pytest.mark.parametrize(("share", "n"), [(0.5, 0), (math.nan, 4)])
def test_no_trials_have_no_interval(share: float, n: int) -> None:
    assert all(math.isnan(end) for end in wilson_interval(share, n))
