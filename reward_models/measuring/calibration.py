"""Probabilities out of margins: one temperature, fitted on some groups and measured on others.

Source: Guo et al. 2017 (arXiv:1706.04599), section 4.2, for two classes: ``P(a wins) = sigmoid(d / T)``.

Shapes: P = pairs; margins are score of the better response minus that of the worse.
"""

from __future__ import annotations

import numpy as np

from lm_gym.errors import DataError
from lm_gym.tools.settings import finite_array

__all__ = ["bin_edges", "bin_of", "cross_fitted", "expected_calibration_error", "fit_temperature"]

BINS, LEAST = 10, 0.5
"""Bins of the predicted winner's probability, and the least that it can be."""
LOWEST, HIGHEST = 1e-3, 1e3


def fit_temperature(margins: np.ndarray) -> float:
    """The temperature that makes the margins likeliest: argmin of the mean of ``log(1 + exp(-d / T))``.

    Args: margins: Shape: (P,).

    Returns: between .001 and 1000; the upper end where the margins are on the wrong side as often as not.

    Raises:
        DataError: no pairs, or they have no finite margins.
    """
    margins = finite_array("fit_temperature: margins", margins, dimensions=1)
    if not margins.size:
        raise DataError("fit_temperature: needs at least one pair, got none")
    # The loss is convex in 1/T: its slope, mean of -d sigmoid(-d / T), changes sign once.
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(200):
        middle = np.sqrt(low * high)
        slope = float(np.mean(-margins * np.exp(-np.logaddexp(0.0, margins * middle))))
        low, high = (middle, high) if slope <= 0 else (low, middle)
    return float(1 / np.sqrt(low * high))


def expected_calibration_error(margins: np.ndarray) -> float:
    """ECE of the predicted winner's probability over 10 equal bins of [.5, 1] (Guo et al. 2017, eq. 3).

    A winner of two has at least .5, so ten bins of [0, 1] would leave five empty.

    Args: margins: Shape: (P,), at least one.

    Raises:
        DataError: no pairs, or they have no finite margins.
    """
    margins = finite_array("expected_calibration_error: margins", margins, dimensions=1)
    if not margins.size:
        raise DataError("expected_calibration_error: needs at least one pair, got none")
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    points = 0.5 * (1 + np.sign(margins))
    place = bin_of(confidence)
    gaps = [abs(float((points - confidence)[place == number].sum())) for number in range(BINS)]
    return sum(gaps) / len(points)


def bin_edges() -> list[tuple[float, float]]:
    """Lower and upper edge of each bin."""
    width = (1 - LEAST) / BINS
    return [(LEAST + number * width, LEAST + (number + 1) * width) for number in range(BINS)]


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Numbers of the bins of probabilities of the predicted winner, in [.5, 1]. Shape: (P,), int64."""
    return np.clip(((confidence - LEAST) / (1 - LEAST) * BINS).astype(int), 0, BINS - 1)


def cross_fitted(margins: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Margins over a temperature that was fitted on other groups.

    The groups are dealt into two halves, in the order of their names; each half is divided by the temperature of the
    other. With one group nothing can be held out and the margins come back as they are.

    Args:
        margins: Shape: (P,).
        groups: whose pair it is. Shape: (P,), any type that sorts.

    Returns: Shape: (P,).
    """
    names = sorted(set(groups.tolist()))
    if len(names) < 2:
        return np.asarray(margins, dtype=np.float64)
    first = np.isin(groups, np.array(names[::2], dtype=groups.dtype))
    scaled = np.asarray(margins, dtype=np.float64).copy()
    scaled[first] /= fit_temperature(margins[~first])
    scaled[~first] /= fit_temperature(margins[first])
    return scaled
