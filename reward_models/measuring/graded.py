"""A reward model on judgements of single responses: thumbs, ratings and rewards.

Knows: scores beside what was said of each response. Does not know: pairs, models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm_gym.reward_models.judgements.record import Judgement, Rating, Thumb, Value, require_judgements
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.protocol import checked_scores
from lm_gym.tools.extras import require

__all__ = ["GradedMeasures", "graded_measures", "rank_correlation"]


@dataclass(frozen=True, kw_only=True)
class GradedMeasures:
    """Agreement with judgements of single responses; None where there are none, or all say one thing."""

    thumbs: int
    """Thumbs on responses that have a score."""
    thumbs_auroc: float | None
    """Probability that a response with its thumb up scores above one with its thumb down, equal scores counted half."""
    thumbs_auroc_standard_error: float | None
    """Its standard error (Hanley and McNeil 1982), responses taken as independent."""
    ratings: int
    """Ratings on responses that have a score."""
    rating_correlation: float | None
    """Spearman correlation of score and rating."""
    values: int
    """Rewards given to responses that have a score."""
    value_correlation: float | None
    """Spearman correlation of score and reward."""


def graded_measures(model: RewardModelLike, judgements: Sequence[Judgement]) -> GradedMeasures | None:
    """Measure a reward model on thumbs, ratings and rewards. Returns: None where there are none.

    Args:
        model: any reward model, or a plain reward function.
        judgements: of any kinds, not seen in training; those of other kinds are left out.

    Raises:
        RewardModelError: the model raised or returned a bad score.
    """
    model, judgements = as_reward_model(model), require_judgements("graded_measures", judgements)
    graded = [one for one in judgements if isinstance(one.verdict, Thumb | Rating | Value)]
    if not graded:
        return None
    scores = checked_scores(model, [one.prompt for one in graded], [one.texts[0] for one in graded])
    said: dict[type, list[tuple[float, float]]] = {Thumb: [], Rating: [], Value: []}
    for one, score, valid in zip(graded, scores.value, scores.valid, strict=True):
        if valid:
            said[type(one.verdict)].append((float(score), _grade(one)))
    thumbs, ratings, values = (np.array(said[kind]).reshape(-1, 2).T for kind in (Thumb, Rating, Value))
    area, error = _auroc(thumbs[0], thumbs[1] > 0)
    return GradedMeasures(
        thumbs=thumbs.shape[1],
        thumbs_auroc=area,
        thumbs_auroc_standard_error=error,
        ratings=ratings.shape[1],
        rating_correlation=rank_correlation(*ratings),
        values=values.shape[1],
        value_correlation=rank_correlation(*values),
    )


def _grade(one: Judgement) -> float:
    verdict = one.verdict
    if isinstance(verdict, Thumb):
        return float(verdict.up)
    return float(verdict.stars) if isinstance(verdict, Rating) else float(verdict.reward)  # type: ignore[union-attr]


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman correlation of two arrays of shape (B,); None where one of them is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    stats = require("scipy.stats", extra="evaluation", purpose="rank correlation")
    return float(stats.spearmanr(first, second).statistic)


def _auroc(scores: np.ndarray, up: np.ndarray) -> tuple[float | None, float | None]:
    """The area, and its standard error by Hanley and McNeil 1982, eq. 2."""
    ups, downs = int(up.sum()), int((~up).sum())
    if not ups or not downs:
        return None, None
    metrics = require("sklearn.metrics", extra="evaluation", purpose="the ROC of thumbs")
    area = float(metrics.roc_auc_score(up, scores))
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (ups - 1) * (first - area**2) + (downs - 1) * (second - area**2)
    return area, float(np.sqrt(max(variance, 0.0) / (ups * downs)))
