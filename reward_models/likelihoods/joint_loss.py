"""One loss for any mix of judgements about one scalar score, and the few numbers it learns beside the score.

Legend of shapes: N = different texts of a batch, B = rankings, K = responses of the largest ranking, P = pairs,
M = thumbs, ratings or rewards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lm_gym.errors import ConfigError
from lm_gym.reward_models.judgements.learning_targets import Opinion, Targets
from lm_gym.reward_models.judgements.verdicts import HIGHEST_RATING
from lm_gym.tools.settings import Bounds, NotNegative, Positive, settings

from .comparison_losses import plackett_luce_nll, score_centering_penalty
from .graded_losses import davidson_nll, ordinal_nll, rao_kupper_nll, soft_bradley_terry_nll, thumb_nll, value_error

__all__ = ["JudgementLoss", "LossConfig", "target_tensors"]

Smoothing = Annotated[float, Bounds(least=0, below=0.5)]
"""A number in [0, 0.5)."""


@settings
class LossConfig:
    """Settings of the loss. A kind's weight multiplies the loss of each of its judgements."""

    tie_model: Literal["half", "rao_kupper", "davidson"] = "half"
    """A tie as half a win each way, or with a learned tie parameter."""
    label_smoothing: Smoothing = 0.0
    """Share of each comparison's outcome that is spread over both sides, in [0, 0.5)."""
    margin: NotNegative = 0.0
    """Taken off the winner's lead before it counts (Touvron et al. 2023, eq. 2), >= 0, on top of the margin that a
    choice may have of its own; with ``tie_model="half"``."""
    score_centering: NotNegative = 0.0
    """Weight of the squared mean score of each ranking and pair, which pins the free constant; >= 0."""
    rankings_weight: NotNegative = 1.0
    """Weight of a ranking or a pick of the best."""
    pairs_weight: NotNegative = 1.0
    """Weight of a choice, or of several people's votes on one pair."""
    thumbs_weight: NotNegative = 1.0
    """Weight of a thumb."""
    ratings_weight: NotNegative = 1.0
    """Weight of a rating."""
    values_weight: NotNegative = 1.0
    """Weight of a real-valued reward."""
    value_center: float | None = None
    """Reward that a score of 0 stands for; None takes the mean of the training rewards."""
    value_scale: Positive | None = None
    """Difference in reward that a score of 1 stands for; None takes their standard deviation."""

    def __post_init__(self) -> None:
        if self.margin and self.tie_model != "half":
            raise ConfigError(
                f'LossConfig.margin: must be 0 unless tie_model is "half", got {self.margin} with {self.tie_model!r}'
            )


class JudgementLoss(nn.Module):
    """Sum of the losses of a batch of targets, under one scalar per text."""

    def __init__(self, config: LossConfig | None = None, targets: Iterable[Targets] = ()) -> None:
        """Args:
        config: settings.
        targets: the training data; tie parameter, thumb bias, thresholds and value scale start where its
            frequencies put them for a score of 0.
        """
        super().__init__()
        self.config = config or LossConfig()
        data = list(targets)
        if self.config.tie_model != "half" and any(pair.margin for one in data for pair in one.pairs):
            raise ConfigError(
                f'LossConfig.tie_model: must be "half" where choices have a margin, got {self.config.tie_model!r}; '
                "take the margins out of the data, or choose the tie model half"
            )
        ties = [pair.outcome[1] for one in data for pair in one.pairs]
        thumbs = [thumb.number for one in data for thumb in one.thumbs]
        ratings = [int(rating.number) for one in data for rating in one.ratings]
        rewards = [value.number for one in data for value in one.values]
        share = float(np.clip(np.mean(ties or [0.2]), 0.01, 0.9))
        start = torch.tensor(_tie_start(self.config.tie_model, share))
        self.tie = nn.Parameter(start, requires_grad=self.config.tie_model != "half")
        self.thumb_bias = nn.Parameter(torch.tensor(_logit(float(np.mean(thumbs or [0.5])))))
        first, steps = _threshold_start(ratings)
        self.first_threshold = nn.Parameter(torch.tensor(first))
        self.threshold_steps = nn.Parameter(torch.tensor(steps))
        self.value_center, self.value_scale = _value_scale(self.config, rewards)

    @property
    def thresholds(self) -> Tensor:
        """Thresholds of the rating scale, strictly increasing. Shape: (5,)."""
        return self.first_threshold + torch.cat(
            [self.threshold_steps.new_zeros(1), nn.functional.softplus(self.threshold_steps).cumsum(0)]
        )

    def links(self) -> dict[str, Any]:
        """Everything learned or stated beside the score, as plain numbers."""
        with torch.no_grad():
            return {
                "tie_model": self.config.tie_model,
                "tie": float(nn.functional.softplus(self.tie) if self.config.tie_model == "rao_kupper" else self.tie),
                "thumb_bias": float(self.thumb_bias),
                "rating_thresholds": [float(one) for one in self.thresholds],
                "value_center": self.value_center,
                "value_scale": self.value_scale,
            }

    def forward(self, scores: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Summed loss of a batch, in nats. Args: scores (N,), batch of :func:`target_tensors`. Returns: a scalar."""
        config = self.config
        total = config.rankings_weight * self._rankings(scores, batch)
        total = total + config.pairs_weight * self._pairs(scores, batch)
        thumbs = thumb_nll(scores[batch["thumb_index"]], batch["thumb"], self.thumb_bias)
        ratings = ordinal_nll(scores[batch["rating_index"]], batch["rating"].long(), self.thresholds)
        values = value_error(
            scores[batch["value_index"]], batch["value"], center=self.value_center, scale=self.value_scale
        )
        total = total + config.thumbs_weight * thumbs.sum() + config.ratings_weight * ratings.sum()
        return total + config.values_weight * values.sum()

    def _rankings(self, scores: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if not len(batch["rank_index"]):
            return scores.sum() * 0.0
        of_ranking, mask = scores[batch["rank_index"]], batch["rank_mask"]
        nll, _ = plackett_luce_nll(of_ranking, batch["ranks"], mask)
        if self.config.score_centering:
            nll = nll + self.config.score_centering * score_centering_penalty(of_ranking, mask)
        return nll.sum()

    def _pairs(self, scores: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        config, both = self.config, scores[batch["pair_index"]]
        margins, outcomes = both[:, 0] - both[:, 1], batch["pair_outcome"].to(scores.dtype)
        outcomes = (1 - config.label_smoothing) * outcomes + config.label_smoothing / 2 * (
            outcomes.new_tensor([1.0, 0.0, 1.0])
        )
        if config.tie_model == "rao_kupper":
            nll = rao_kupper_nll(margins, outcomes, nn.functional.softplus(self.tie))
        elif config.tie_model == "davidson":
            nll = davidson_nll(margins, outcomes, self.tie)
        else:
            target = outcomes[:, 0] + outcomes[:, 1] / 2
            needed = config.margin + batch["pair_margin"].to(scores.dtype)
            nll = soft_bradley_terry_nll(margins - needed * (2 * target - 1), target)
        if config.score_centering:
            nll = nll + config.score_centering * both.mean(dim=1) ** 2
        return nll.sum()


def _logit(share: float) -> float:
    share = float(np.clip(share, 0.01, 0.99))
    return math.log(share / (1 - share))


def _tie_start(model: str, share: float) -> float:
    """The raw parameter at which two equal scores tie with this probability."""
    if model == "davidson":  # nu / (2 + nu) = share
        return math.log(2 * share / (1 - share))
    eta = math.log((1 + share) / (1 - share))  # 1 - 2 sigmoid(-eta) = share
    return math.log(math.expm1(eta))


def _threshold_start(ratings: Sequence[int]) -> tuple[float, list[float]]:
    counts = np.bincount(ratings, minlength=HIGHEST_RATING + 1) + 1.0 if ratings else np.ones(HIGHEST_RATING + 1)
    below = np.cumsum(counts)[:-1] / counts.sum()
    thresholds = [_logit(share) for share in below]
    gaps = np.maximum(np.diff(thresholds), 0.05)
    return thresholds[0], [math.log(math.expm1(gap)) for gap in gaps]


def _value_scale(config: LossConfig, rewards: Sequence[float]) -> tuple[float, float]:
    center = config.value_center if config.value_center is not None else float(np.mean(rewards or [0.0]))
    spread = float(np.std(rewards or [1.0])) or 1.0
    return center, config.value_scale if config.value_scale is not None else spread


def target_tensors(targets: Sequence[Targets], rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Targets of a batch over the rows of its texts.

    Args:
        targets: of each item.
        rows: for each item, the row of each of its places among the N texts of the batch.

    Returns: a dict with

        rank_index, ranks, rank_mask: rows of the ranked texts, their places in the ranking, True where there is one.
            Shapes: (B, K); int64, int64, bool.
        pair_index, pair_outcome, pair_margin: rows of (a, b), shares of (a wins, tie, b wins), and the margin of each.
            Shapes: (P, 2), (P, 3), (P,).
        thumb_index, thumb, rating_index, rating, value_index, value: rows and what was said. Shapes: (M,).
        labels: 1 for each judgement; what the trainer counts. Shape: (B + P + 3 M,), int64.
    """
    both = list(zip(targets, rows, strict=True))
    ranked = [([row[place] for place in one.places], one.ranks) for target, row in both for one in target.rankings]
    width = max((len(ranks) for _, ranks in ranked), default=0)
    rank_index = torch.zeros((len(ranked), width), dtype=torch.long)
    ranks, mask = torch.zeros_like(rank_index), torch.zeros(rank_index.shape, dtype=torch.bool)
    for number, (places, order) in enumerate(ranked):
        rank_index[number, : len(order)] = torch.tensor(places)
        ranks[number, : len(order)] = torch.tensor(order)
        mask[number, : len(order)] = True
    pairs = [((row[one.first], row[one.second]), one) for target, row in both for one in target.pairs]
    found = {
        "rank_index": rank_index,
        "ranks": ranks,
        "rank_mask": mask,
        "pair_index": torch.tensor([places for places, _ in pairs], dtype=torch.long).reshape(-1, 2),
        "pair_outcome": torch.tensor([one.outcome for _, one in pairs], dtype=torch.float32).reshape(-1, 3),
        "pair_margin": torch.tensor([one.margin for _, one in pairs], dtype=torch.float32),
        "labels": torch.ones(sum(map(len, targets)), dtype=torch.long),
    }
    for name in ("thumb", "rating", "value"):
        said: list[tuple[int, Opinion]] = [(row[o.place], o) for t, row in both for o in getattr(t, f"{name}s")]
        found[f"{name}_index"] = torch.tensor([row for row, _ in said], dtype=torch.long)
        found[name] = torch.tensor([opinion.number for _, opinion in said], dtype=torch.float32)
    return found
