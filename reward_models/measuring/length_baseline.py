"""The length rule: the strongest of six rules that look at nothing but length, on the very pairs that are measured.

It is chosen on the pairs that it is measured on, which favours it: a model that beats it beats length.

Knows: lengths and pairs. Does not know: models.

Shapes: T = texts, P = pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["LengthRule", "strongest_length_rule"]


@dataclass(frozen=True, kw_only=True)
class LengthRule:
    """A rule such as "more characters": the response that has more of them wins."""

    name: str
    """``more`` or ``fewer``, and the unit."""
    points: np.ndarray
    """1 where it is right, 0 where it is wrong, .5 where the lengths are equal. Shape: (P,)."""
    longer_wins: dict[str, float]
    """Accuracy of the rule that the longer one wins, by unit."""


def strongest_length_rule(lengths: Mapping[str, np.ndarray], better: np.ndarray, worse: np.ndarray) -> LengthRule:
    """Whichever rule is right most often; the first one of equals, and more before fewer.

    Args:
        lengths: of the texts by unit, words say; at least one unit. Shape of each: (T,).
        better, worse: rows of the texts of each pair. Shape: (P,).
    """
    points = {unit: 0.5 * (1 + np.sign(found[better] - found[worse])) for unit, found in lengths.items()}
    rules = {f"more {unit}": found for unit, found in points.items()}
    rules |= {f"fewer {unit}": 1 - found for unit, found in points.items()}
    name = max(rules, key=lambda rule: float(rules[rule].mean()))
    means = {unit: float(found.mean()) for unit, found in points.items()}
    return LengthRule(name=name, points=rules[name], longer_wins=means)
