"""The objective of the update: what one response token adds to the loss, given its advantage.

Four parts, each chosen on its own: the level of the ratio, the rule that bounds it, the weight of a token in the sum
(aggregation), and the place of the KL to the reference. Knows: tensors of one batch. Does not know: models,
optimisers, how an advantage was estimated.

Shapes: B = episodes, T = longest response. ``mask`` is (B, T) bool, True = counts. Log-probabilities are in nats.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import Positive, settings

from .functional import clipped_policy_loss, kl_k2, kl_k3, weighted_policy_loss

__all__ = ["Objective", "PolicyTerm", "kl_term", "log_ratios", "row_weights"]


@settings
class Objective:
    """The policy's part of a loss."""

    ratio: Literal["token", "sequence"] = "token"
    """Level of pi / pi_old: of each token, or of a whole response, ``exp(mean_t log ratio_t)`` (GSPO)."""
    rule: Literal["clip", "weight"] = "clip"
    """Use of the ratio: PPO's pessimistic minimum of the free and the bounded ratio, or the bounded ratio as a constant
    weight of ``log pi`` (CISPO), whose gradient no bound switches off."""
    clip_low: Positive | None = 0.2
    """The ratio is bounded below by 1 minus this; None does not bound it."""
    clip_high: Positive | None = 0.2
    """The ratio is bounded above by 1 plus this; None does not bound it."""
    dual_clip: Positive | None = None
    """Bound, above 1, on the ratio of tokens with a negative advantage (Ye et al. 2020, arXiv:1912.09729, eq. 5)."""
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """Weight of a token: one over the tokens of the batch; one over its response's length and the number of responses;
    one over the number of responses times the longest that is allowed, whatever the response's own length."""
    kl_place: Literal["reward", "loss", "both", "none"] = "reward"
    """Place of ``beta * KL`` (beta is the environment's ``kl_coef``): in the rewards, as the environment pays it; in
    the loss, per token, and taken out of the rewards; in both; nowhere."""
    kl_estimator: Literal["k2", "k3"] = "k3"
    """Estimator of the KL in the loss; both have one gradient here, and differ in the value that is logged."""

    def __post_init__(self) -> None:
        if self.dual_clip is not None and (self.dual_clip <= 1 or self.rule != "clip"):
            raise ConfigError(
                f"Objective.dual_clip: must be > 1, under rule='clip', got {self.dual_clip} under rule={self.rule!r}"
            )
        if self.clip_low is not None and self.clip_low > 1:
            raise ConfigError(f"Objective.clip_low: must be at most 1, since no ratio is negative, got {self.clip_low}")

    @property
    def kl_in_reward(self) -> bool:
        """True if the KL that the environment paid stays in the rewards."""
        return self.kl_place in ("reward", "both")

    @property
    def kl_in_loss(self) -> bool:
        """True if the loss has a KL term."""
        return self.kl_place in ("loss", "both")

    def policy_term(self, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor) -> PolicyTerm:
        """The loss of each token without the KL.

        Args: log_probs (with gradient), old_log_probs, advantages, mask of shape (B, T).
        """
        log_ratio = log_ratios(log_probs, old_log_probs, mask, level=self.ratio)
        if self.rule == "weight":
            loss, bound = weighted_policy_loss(log_ratio, log_probs, advantages, low=self.clip_low, high=self.clip_high)
        else:
            loss, bound = clipped_policy_loss(
                log_ratio, advantages, low=self.clip_low, high=self.clip_high, dual=self.dual_clip
            )
        return PolicyTerm(loss, bound, log_ratio.detach())


class PolicyTerm(NamedTuple):
    """What the policy adds to the loss, token by token; off the mask the values mean nothing."""

    loss: Tensor
    """With gradient. Shape: (B, T)."""
    bound: Tensor
    """True where a bound on the ratio decides the loss. Shape: (B, T), bool."""
    log_ratio: Tensor
    """Log of the ratio that was used, without gradient. Shape: (B, T)."""


def log_ratios(
    log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, *, level: Literal["token", "sequence"]
) -> Tensor:
    """Log of the ratio of the current policy to the one that collected.

    At the sequence's level every token carries the mean over its response, and its own gradient: with advantages that
    are equal along a response, and a mean over its tokens, this is GSPO's gradient (Zheng et al. 2025,
    arXiv:2507.18071, eqs. 7 and 14: ``log pi - sg(log pi) + sg(mean)``).

    Args: log_probs (with gradient), old_log_probs, mask of shape (B, T).

    Returns: Shape: (B, T).
    """
    change = log_probs - old_log_probs
    if level == "token":
        return change
    own = torch.where(mask, change.detach(), 0.0)
    mean = own.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return log_probs - log_probs.detach() + mean


def row_weights(
    lengths: Tensor,
    *,
    aggregation: Literal["token_mean", "sequence_mean", "constant"],
    tokens: int,
    sequences: int,
    longest: int,
) -> Tensor:
    """Weight of each token of a row, so that weighted sums over pieces of a batch add up to its aggregate.

    Args:
        lengths: response tokens of each row of a piece. Shape: (b,).
        aggregation: see :class:`Objective`.
        tokens: response tokens of the whole batch, in all pieces and processes.
        sequences: its responses.
        longest: longest response that is allowed, for the aggregation "constant".

    Returns: Shape: (b, 1), float32.
    """
    if aggregation == "token_mean":
        weights = torch.full_like(lengths, 1.0 / tokens, dtype=torch.float32)
    elif aggregation == "sequence_mean":
        weights = 1.0 / (sequences * lengths.float())
    else:
        weights = torch.full_like(lengths, 1.0 / (sequences * longest), dtype=torch.float32)
    return weights[:, None]


def kl_term(
    log_probs: Tensor, old_log_probs: Tensor, ref_log_probs: Tensor, *, estimator: Literal["k2", "k3"]
) -> Tensor:
    """KL to the reference as a term of the loss, per token, with the gradient of the KL itself.

    Differentiating k3 alone gives the gradient of the other KL, of the reference to the policy. Times the ratio
    pi / pi_old, the expectation of its gradient is that of KL(pi || pi_ref) at each visited state: ``ratio *
    (log pi - log pi_ref) * grad log pi``, on-policy or off. For k2 the ratio is a constant weight, and the gradient is
    the same, sample by sample. Neither credits a token with the KL of later ones; the KL in the reward does.

    Args: log_probs (with gradient), old_log_probs, ref_log_probs of shape (B, T).

    Returns: Shape: (B, T).
    """
    ratio = torch.exp(log_probs - old_log_probs)
    if estimator == "k2":
        return ratio.detach() * kl_k2(log_probs, ref_log_probs)
    return ratio * kl_k3(log_probs, ref_log_probs)
