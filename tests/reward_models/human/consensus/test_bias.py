"""Position bias and consistency under a swap, by hand."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from lm_gym.errors import DataError
from lm_gym.reward_models.human.consensus.bias import position_bias, sign_test, swap_consistency


def test_position_bias_by_hand() -> None:
    """8 of 10: tails of 0, 1 and 2 in ten throws are 1 + 10 + 45 = 56 of 1024, twice that is .109375."""
    found = position_bias(8, 10)
    assert (found.decided, found.first_share) == (10, 0.8)
    assert found.p_value == pytest.approx(112 / 1024)
    # Wilson, z = 1.96: centre (.8 + 3.8416/20) / 1.38416, half 1.96/1.38416 * sqrt(.016 + 3.8416/400)
    assert (found.low, found.high) == pytest.approx((0.49016, 0.94332), abs=1e-4)


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (5, 10), (600, 1000), (3, 7), (0, 2000)])
def test_the_sign_test_is_scipys(wins: int, n: int) -> None:
    assert sign_test(wins, n) == pytest.approx(binomtest(wins, n).pvalue, rel=1e-9)


def test_nothing_was_decided() -> None:
    assert position_bias(0, 0).first_share is None
    assert swap_consistency([]).share is None


@pytest.mark.parametrize(("wins", "n"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(wins: int, n: int) -> None:
    with pytest.raises(DataError, match="first_wins <= decided"):
        position_bias(wins, n)


def test_swap_consistency_by_hand() -> None:
    twice = [
        (0, 1),  # left, then right: the same response
        (1, 0),
        (None, None),  # a tie both times
        (0, 0),  # left both times: the other response
        (1, None),  # undecided the second time
    ]
    found = swap_consistency(twice)
    assert (found.pairs, found.same, found.to_the_same_side, found.share) == (5, 3, 1, 0.6)
    assert found.low < 0.6 < found.high
