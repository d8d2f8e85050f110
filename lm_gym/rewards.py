"""The reward of the MDP, in one place: stepping and fused rollouts both call :func:`token_rewards`.

Shapes: B = rows, T = response tokens. Masks: True = counts. KL and log-probabilities are in nats.

Source: Ziegler et al. 2019 (arXiv:1909.08593), eq. 2, spread over the tokens. The estimator in the reward is k1
(``log pi - log pi_ref``) only: with the reward held fixed, as policy gradient holds it, it alone has the gradient of
the KL-regularised objective; k2, k3 and the full KL are metrics or terms of a loss (``lm_gym.agents.update``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lm_gym.config import RewardConfig, ScoreNormalizer
from lm_gym.errors import ConfigError
from lm_gym.scoring.protocol import Scores
from lm_gym.tools.settings import checked

__all__ = ["TokenRewards", "paid_scores", "token_rewards"]


class TokenRewards(NamedTuple):
    """Rewards and the KL term that is in them."""

    rewards: np.ndarray
    """Shape: (B, T), float64; 0 where the response mask is False."""
    kl: np.ndarray | None
    """k1 per token, in nats; None without log-probabilities or without a reference. Shape: (B, T), float64."""


def paid_scores(
    scores: Scores, hit_length_limit: np.ndarray, config: RewardConfig, normalizer: ScoreNormalizer | None
) -> np.ndarray:
    """Payment of the last token for the text, before any KL.

    Args:
        scores: the reward model's verdicts. Shape: (B,).
        hit_length_limit: True where the cap ended the response. Shape: (B,), bool.
        config: weight, clip, penalty, what happens at the cap, and perhaps a normaliser.
        normalizer: that of the reward model which gave the scores; used where ``config`` has none.

    Returns: Shape: (B,), float64. An abstention is paid 0, without the penalty; a truncated response is paid nothing.
    """
    _check_shape("hit_length_limit", hit_length_limit, scores.value.shape)
    value = scores.value.astype(np.float64)
    normalizer = config.normalizer or normalizer
    if normalizer is not None:
        value = normalizer(value)
    if config.score_clip is not None:
        value = np.clip(value, -config.score_clip, config.score_clip)
    paid = config.score_weight * value - config.missing_eos_penalty * hit_length_limit
    if config.on_length_limit == "truncate":
        paid = np.where(hit_length_limit, 0.0, paid)
    return np.where(scores.valid, paid, 0.0)


def token_rewards(
    *,
    log_probs: np.ndarray | None,
    ref_log_probs: np.ndarray | None,
    response_mask: np.ndarray,
    last_token: np.ndarray,
    paid: np.ndarray,
    kl_coef: float,
) -> TokenRewards:
    """``r_t = -kl_coef * (log pi - log pi_ref) + [t is the last token] * paid``.

    Without ``log_probs`` (action mode "token") the term in the policy's log-probability is left out, so the reward is
    ``kl_coef * log pi_ref + [last] * paid`` and no KL is known. Without ``ref_log_probs`` no KL is paid at all.

    Args:
        log_probs: of the action under the policy. Shape: (B, T) or None.
        ref_log_probs: of the action under the reference. Shape: (B, T) or None.
        response_mask: True where a token was taken. Shape: (B, T), bool.
        last_token: True on the last response token of a finished row. Shape: (B, T), bool.
        paid: from :func:`paid_scores`. Shape: (B,).
        kl_coef: beta, in score units per nat.

    Raises:
        ConfigError: an array is none, or of another shape; or kl_coef is no finite number.
    """
    response_mask = checked("response_mask", response_mask, np.ndarray)
    if response_mask.ndim != 2:
        raise ConfigError(f"response_mask: must have shape (B, T), got {response_mask.shape}")
    kl_coef = checked("token_rewards: kl_coef", kl_coef, float)
    _check_shape("last_token", last_token, response_mask.shape)
    _check_shape("paid", paid, response_mask.shape[:1])
    rewards = np.where(last_token, paid[:, None], 0.0)
    if ref_log_probs is None:
        return TokenRewards(np.where(response_mask, rewards, 0.0), None)
    _check_shape("ref_log_probs", ref_log_probs, response_mask.shape)
    reference = ref_log_probs.astype(np.float64)
    if log_probs is None:
        return TokenRewards(np.where(response_mask, rewards + kl_coef * reference, 0.0), None)
    _check_shape("log_probs", log_probs, response_mask.shape)
    kl = np.where(response_mask, log_probs.astype(np.float64) - reference, 0.0)
    return TokenRewards(np.where(response_mask, rewards - kl_coef * kl, 0.0), kl)


def _check_shape(name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if checked(name, array, np.ndarray).shape != expected:
        raise ConfigError(f"{name}: must have shape {expected}, got {array.shape}")
