"""Position bias of people that compare, and whether they say the same when the sides are swapped.

Knows: how often what was shown first won. Does not know: items or annotators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lm_gym.errors import DataError
from lm_gym.tools.intervals import wilson_interval

__all__ = ["PositionBias", "SwapConsistency", "position_bias", "sign_test", "swap_consistency"]


@dataclass(frozen=True, kw_only=True)
class PositionBias:
    """How often the response that was shown first won."""

    decided: int
    """Comparisons that one of the two won."""
    first_share: float | None
    """Share of them that the first one won; None without any."""
    low: float | None
    """Lower end of its 95 % Wilson interval."""
    high: float | None
    """Upper end of it."""
    p_value: float | None
    """Two-sided, of a share of one half (the exact sign test)."""


@dataclass(frozen=True, kw_only=True)
class SwapConsistency:
    """Comparisons that one annotator answered twice, the second time with the sides swapped."""

    pairs: int
    """Number of them."""
    same: int
    """Of these, the same response won, or both times neither did."""
    to_the_same_side: int
    """Of these, the same side won both times, so that the other response did."""
    share: float | None
    """``same`` out of ``pairs``; None without any."""
    low: float | None
    """Lower end of its 95 % Wilson interval."""
    high: float | None
    """Upper end of it."""


def position_bias(first_wins: int, decided: int) -> PositionBias:
    """Args:
        first_wins: comparisons that the response shown first won.
        decided: comparisons that one of the two won. Where the order was drawn at random, half of these are expected.

    Raises:
        DataError: these are no such counts.
    """
    if not 0 <= first_wins <= decided:
        raise DataError(f"position_bias: needs 0 <= first_wins <= decided, got {first_wins} of {decided}")
    if decided == 0:
        return PositionBias(decided=0, first_share=None, low=None, high=None, p_value=None)
    low, high = wilson_interval(first_wins / decided, decided)
    share, p_value = first_wins / decided, sign_test(first_wins, decided)
    return PositionBias(decided=decided, first_share=share, low=low, high=high, p_value=p_value)


def sign_test(successes: int, trials: int) -> float:
    """Two-sided p-value of ``successes`` in ``trials`` under a probability of one half, exact."""
    tail = min(successes, trials - successes)
    total = math.fsum(math.exp(_log_choose(trials, one) - trials * math.log(2)) for one in range(tail + 1))
    return min(1.0, 2 * total)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def swap_consistency(pairs: Iterable[tuple[int | None, int | None]]) -> SwapConsistency:
    """Args: pairs: for each comparison the side that won at first and at the second time, 0 the left one and 1 the
    right one as shown, None for neither. The sides were swapped between the two.
    """
    found = list(pairs)
    same = sum((one is None and other is None) or (None not in (one, other) and one != other) for one, other in found)
    side = sum(one is not None and one == other for one, other in found)
    if not found:
        return SwapConsistency(pairs=0, same=0, to_the_same_side=0, share=None, low=None, high=None)
    low, high = wilson_interval(same / len(found), len(found))
    return SwapConsistency(
        pairs=len(found), same=same, to_the_same_side=side, share=same / len(found), low=low, high=high
    )
