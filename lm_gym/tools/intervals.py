"""Confidence intervals of proportions."""

from __future__ import annotations

import math

__all__ = ["wilson_interval"]


def wilson_interval(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a proportion (Wilson 1927); NaN for n = 0.

    Args:
        share: observed, in [0, 1].
        n: trials.
        z: normal quantile; the default gives 95 %.
    """
    if n == 0 or math.isnan(share):
        return math.nan, math.nan
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
