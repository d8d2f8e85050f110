"""Weights of the members of an ensemble, fitted to judgements that no member was trained on.

Knows: margins of the members on pairs, groups of prompts. Does not know: models' kinds, folders.

Shapes: M = members, P = pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models.judgements.record import Judgement, require_judgements
from lm_gym.reward_models.judgements.splits import named_group, prompt_itself
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.protocol import normalized_scores
from lm_gym.tools.extras import require
from lm_gym.tools.settings import checked

__all__ = ["FittedWeights", "fit_weights"]

RIDGE = 1e-3
"""Weight of half the squared norm of the weights, on margins of deviation 1."""
LEAST_WEIGHT = 1e-6
"""Anything less, on these margins, is rounding of 0."""


@dataclass(frozen=True, kw_only=True)
class FittedWeights:
    """Weights under which the weighted sum of the members' scores explains the judgements best."""

    weights: tuple[float, ...]
    """One for each member, >= 0; the sum of the weighted scores is on the scale of a Bradley-Terry model."""
    pairs: int
    """Pairs that they were fitted to."""
    accuracy: float
    """Accuracy of the weighted sum on groups that its weights were not fitted to, each half by the other half."""
    member_accuracy: tuple[float, ...]
    """Accuracy of each member on the same pairs."""


def fit_weights(
    members: Sequence[RewardModelLike],
    judgements: Sequence[Judgement],
    *,
    group_of: Callable[[str], str] = prompt_itself,
) -> FittedWeights:
    """Fit non-negative weights by the Bradley-Terry likelihood.

    Args:
        members: reward models, or plain reward functions; each with its own normaliser applied.
        judgements: of any kinds, seen by no member in training; those that compare nothing are left out.
        group_of: maps a prompt to its group; the accuracy is measured across halves of the groups.

    Raises:
        ConfigError: no member.
        DataError: fewer than two groups have a pair that every member scores, or no member tells the better response.
        RewardModelError: a member raised or returned a bad score.
    """
    members = checked("ensemble weights: members", members, tuple[Any, ...])
    judgements = require_judgements("ensemble weights", judgements)
    group_of = named_group("ensemble weights", group_of)
    if not members:
        raise ConfigError("ensemble weights: need at least one member, got none")
    margins, groups = _margins(members, judgements, group_of)
    names = sorted(set(groups.tolist()))
    if len(names) < 2:
        raise DataError(
            "ensemble weights: need pairs of at least two groups of prompts, so that they can be measured on others, "
            f"got {len(names)}"
        )
    half = np.isin(groups, names[::2])
    points = np.zeros(margins.shape[1])
    for rows in (half, ~half):
        points[rows] = _points(_fit(margins[:, ~rows]) @ margins[:, rows])
    weights = _fit(margins)
    if not weights.any():
        raise DataError(
            f"ensemble weights: at least one member must score the better response of these {margins.shape[1]} pairs "
            "higher more often than not, and none does; measure each of them (lm-gym reward eval)"
        )
    return FittedWeights(
        weights=tuple(weights.tolist()),
        pairs=margins.shape[1],
        accuracy=float(points.mean()),
        member_accuracy=tuple(float(_points(row).mean()) for row in margins),
    )


def _margins(
    members: Sequence[RewardModelLike], judgements: Sequence[Judgement], group_of: Callable[[str], str]
) -> tuple[np.ndarray, np.ndarray]:
    """Score of the better response minus that of the worse. Shapes: (M, P), (P,)."""
    pairs = [
        (one.prompt, one.texts[better], one.texts[worse])
        for one in judgements
        if one.compares
        for better, worse in one.pairs()
    ]
    rows = sorted({(prompt, text) for prompt, *texts in pairs for text in texts})
    place = {row: number for number, row in enumerate(rows)}
    better = np.array([place[prompt, text] for prompt, text, _ in pairs], dtype=int)
    worse = np.array([place[prompt, text] for prompt, _, text in pairs], dtype=int)
    groups = np.array([group_of(prompt) for prompt, _, _ in pairs], dtype=object)
    margins, kept = [], np.ones(len(pairs), dtype=bool)
    for member in members:
        prompts, texts = [prompt for prompt, _ in rows], [text for _, text in rows]
        scores = normalized_scores(as_reward_model(member), prompts, texts, {})
        margins.append(scores.value.astype(np.float64)[better] - scores.value.astype(np.float64)[worse])
        kept &= scores.valid[better] & scores.valid[worse]
    return np.stack(margins)[:, kept], groups[kept]


def _points(margins: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.sign(margins))


def _fit(margins: np.ndarray) -> np.ndarray:
    """Non-negative weights of the smallest negative log-likelihood. Shape: (M,)."""
    optimize = require("scipy.optimize", extra="evaluation", purpose="the weights of an ensemble")
    spread = margins.std(axis=1)
    spread = np.where(spread > 0, spread, 1.0)
    scaled = margins / spread[:, None]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = weights @ scaled
        value = np.logaddexp(0, -total).mean() + RIDGE / 2 * float(weights @ weights)
        slope = -(scaled * np.exp(-np.logaddexp(0, total))).mean(axis=1) + RIDGE * weights
        return float(value), slope

    start = np.full(len(margins), 1 / len(margins))
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(margins))
    return np.where(found.x > LEAST_WEIGHT, found.x, 0.0) / spread
