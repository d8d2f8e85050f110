"""Likelihoods of judgements beside plain comparisons, as pure functions of tensors; values are in nats.

Legend of shapes: P = pairs, N = single responses with a number, C = steps of a rating scale.

One scalar s per response is behind all of them: a comparison reads differences of it, a thumb and a rating read it
against learned thresholds, a real-valued reward against a stated affine scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lm_gym.errors import DataError

__all__ = ["davidson_nll", "ordinal_nll", "rao_kupper_nll", "soft_bradley_terry_nll", "thumb_nll", "value_error"]


def soft_bradley_terry_nll(margins: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of a soft comparison: ``-t log sigmoid(d) - (1 - t) log sigmoid(-d)``.

    Bradley and Terry 1952; with ``t`` the share of votes and 0.5 for a tie it is the mean over annotators.

    Args:
        margins: score of the first response minus that of the second, d. Shape: (P,).
        targets: share that prefers the first, in [0, 1]. Shape: (P,).

    Returns:
        Shape: (P,).

    Raises:
        DataError: the shapes differ.
    """
    _check("soft_bradley_terry_nll", margins, targets)
    return F.binary_cross_entropy_with_logits(margins, targets.to(margins.dtype), reduction="none")


def rao_kupper_nll(margins: Tensor, outcomes: Tensor, log_threshold: Tensor) -> Tensor:
    """Cross-entropy of win, tie and loss under Rao and Kupper 1967, eq. 2.1.

    With ``eta = log theta > 0``: a wins with probability ``sigmoid(d - eta)``, b with ``sigmoid(-d - eta)``, and
    the tie has the rest, ``(theta^2 - 1) sigmoid(d - eta) sigmoid(-d - eta)``.

    Args:
        margins: Shape: (P,).
        outcomes: shares of (a wins, tie, b wins). Shape: (P, 3).
        log_threshold: eta, > 0. A scalar.

    Returns:
        Shape: (P,).

    Raises:
        DataError: the shapes do not fit.
    """
    _check("rao_kupper_nll", margins, outcomes[..., 0])
    first, second = F.logsigmoid(margins - log_threshold), F.logsigmoid(-margins - log_threshold)
    tie = torch.log(torch.expm1(2 * log_threshold)) + first + second
    return -(outcomes * torch.stack([first, tie, second], dim=-1)).sum(-1)


def davidson_nll(margins: Tensor, outcomes: Tensor, log_tie: Tensor) -> Tensor:
    """Cross-entropy of win, tie and loss under Davidson 1970: odds ``e^a : nu sqrt(e^a e^b) : e^b``.

    Args:
        margins: Shape: (P,).
        outcomes: shares of (a wins, tie, b wins). Shape: (P, 3).
        log_tie: log nu. A scalar.

    Returns:
        Shape: (P,).

    Raises:
        DataError: the shapes do not fit.
    """
    _check("davidson_nll", margins, outcomes[..., 0])
    logits = torch.stack([margins / 2, log_tie.expand_as(margins), -margins / 2], dim=-1)
    return -(outcomes * torch.log_softmax(logits, dim=-1)).sum(-1)


def thumb_nll(scores: Tensor, up: Tensor, bias: Tensor) -> Tensor:
    """Binary cross-entropy of thumbs: up with probability ``sigmoid(s + bias)``.

    Args:
        scores: Shape: (N,).
        up: 1 = up, 0 = down, or a share. Shape: (N,).
        bias: log-odds of a thumb up at score 0; it takes up what the zero of the scores should not. A scalar.

    Returns:
        Shape: (N,).

    Raises:
        DataError: the shapes differ.
    """
    _check("thumb_nll", scores, up)
    return F.binary_cross_entropy_with_logits(scores + bias, up.to(scores.dtype), reduction="none")


def ordinal_nll(scores: Tensor, ratings: Tensor, thresholds: Tensor) -> Tensor:
    """Cumulative-logit (proportional-odds) likelihood, McCullagh 1980: ``P(y <= k) = sigmoid(theta_k - s)``.

    Args:
        scores: Shape: (N,).
        ratings: steps 0 to C - 1. Shape: (N,), integer.
        thresholds: strictly increasing. Shape: (C - 1,).

    Returns:
        Shape: (N,).

    Raises:
        DataError: the shapes differ, or a rating is off the scale.
    """
    _check("ordinal_nll", scores, ratings)
    steps = len(thresholds)
    if len(ratings) and not (int(ratings.min()) >= 0 and int(ratings.max()) <= steps):
        raise DataError(
            f"ordinal_nll: ratings must lie in 0..{steps}, got {int(ratings.min())} to {int(ratings.max())}"
        )
    upper = thresholds[ratings.clamp(max=steps - 1)] - scores
    lower = thresholds[(ratings - 1).clamp(min=0)] - scores
    # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - e^(l - u)), without cancellation.
    is_lowest, is_highest = ratings == 0, ratings == steps
    gap = torch.where(is_lowest | is_highest, torch.ones_like(upper), upper - lower)
    between = torch.log(-torch.expm1(-gap))
    log_p = torch.where(is_highest, torch.zeros_like(upper), F.logsigmoid(upper))
    log_p = log_p + torch.where(is_lowest, torch.zeros_like(lower), F.logsigmoid(-lower))
    return -(log_p + torch.where(is_lowest | is_highest, torch.zeros_like(gap), between))


def value_error(scores: Tensor, rewards: Tensor, *, center: float, scale: float) -> Tensor:
    """Squared error against real-valued rewards on a stated affine scale: ``(s - (r - center) / scale)^2``.

    Args:
        scores: Shape: (N,).
        rewards: on their source's scale. Shape: (N,).
        center: the reward that a score of 0 stands for.
        scale: the difference in reward that a score of 1 stands for, > 0.

    Returns:
        Shape: (N,).

    Raises:
        DataError: the shapes differ.
    """
    _check("value_error", scores, rewards)
    return (scores - (rewards.to(scores.dtype) - center) / scale) ** 2


def _check(name: str, first: Tensor, second: Tensor) -> None:
    if first.ndim != 1 or first.shape != second.shape:
        raise DataError(
            f"{name}: scores and judgements must have one shape (N,), got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
