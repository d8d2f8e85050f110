"""Agreement of annotators beyond chance: Krippendorff's alpha with a bootstrap interval, and plain agreement.

Knows: how often each value was said of each item. Does not know: items or annotators.

Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability", by the package ``krippendorff``; the interval
is the percentile bootstrap over items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lm_gym.errors import DataError
from lm_gym.tools.extras import require
from lm_gym.tools.settings import shown

__all__ = ["Agreement", "Level", "agreement_of_counts", "krippendorff_alpha"]

Level = Literal["nominal", "ordinal"]
RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement on items that several annotators labelled."""

    items: int
    """Items with two labels or more."""
    labels: int
    """Labels on them."""
    share: float | None
    """Share of pairs of labels of one item that are equal, the mean over items; None without such items."""
    alpha: float | None
    """Krippendorff's alpha: 1 is perfect, 0 is chance; None where there are none, or all labels are the same."""
    low: float | None
    """Lower end of its 95 % interval; None with fewer than two such items."""
    high: float | None
    """Upper end of it."""


def agreement_of_counts(counts: np.ndarray, *, level: Level, seed: int = 0) -> Agreement:
    """Agreement of the labels of some items.

    Args:
        counts: how often each value was said of each item, the values in their order. Shape: (I, C).
        level: whether the values have an order.
        seed: of the bootstrap.

    Raises:
        DataError: the counts are no such table.
        MissingExtraError: the package krippendorff is not installed.
    """
    table = np.asarray(counts)
    if table.ndim != 2 or table.dtype.kind not in "iu" or (table < 0).any():
        raise DataError(f"agreement: counts must be a table of whole numbers >= 0, got {shown(counts)}")
    table = table[table.sum(axis=1) >= 2]
    said = table.sum(axis=1)
    if not len(table):
        return Agreement(items=0, labels=0, share=None, alpha=None, low=None, high=None)
    equal = (table * (table - 1)).sum(axis=1) / (said * (said - 1))
    alpha = krippendorff_alpha(table, level=level)
    low, high = (None, None) if alpha is None or len(table) < 2 else _interval(table, level, seed)
    return Agreement(
        items=len(table), labels=int(said.sum()), share=float(equal.mean()), alpha=alpha, low=low, high=high
    )


def krippendorff_alpha(counts: np.ndarray, *, level: Level, values: Sequence[float] | None = None) -> float | None:
    """Krippendorff's alpha of a table of counts.

    Args:
        counts: see :func:`agreement_of_counts`.
        level: whether the values have an order.
        values: of the columns; None for 0, 1, 2, ...

    Returns: None where fewer than two values were said, so that there is no chance to be above.
    """
    library = require("krippendorff", extra="evaluation", purpose="agreement of annotators")
    if (counts.sum(axis=0) > 0).sum() < 2:
        return None
    domain = list(range(counts.shape[1])) if values is None else list(values)
    return float(library.alpha(value_counts=counts, value_domain=domain, level_of_measurement=level))


def _interval(table: np.ndarray, level: Level, seed: int) -> tuple[float | None, float | None]:
    rng = np.random.default_rng(seed)
    drawn = (
        krippendorff_alpha(table[rng.integers(len(table), size=len(table))], level=level) for _ in range(RESAMPLES)
    )
    found = [one for one in drawn if one is not None]
    if len(found) < RESAMPLES // 2:
        return None, None
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)
