"""Likelihoods of comparisons under scores, as pure functions of tensors.

Legend of shapes: B = rankings, K = responses of the longest ranking (shorter ones are filled up and masked),
P = pairs.

Ties: tied responses form no comparison with each other; each of them is chosen from itself and what ranks
strictly below it. Places with nothing below them add nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lm_gym.errors import DataError

__all__ = ["bradley_terry_nll", "plackett_luce_nll", "score_centering_penalty"]


def bradley_terry_nll(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """Negative log-likelihood, in nats, that the chosen response wins: ``-log sigmoid(chosen - rejected)``.

    Bradley and Terry 1952; as a loss for reward models, Ziegler et al. 2019, eq. 1 with two options.

    Args:
        chosen_scores: Shape: (P,).
        rejected_scores: Shape: (P,).

    Returns:
        Shape: (P,).

    Raises:
        DataError: the shapes differ.
    """
    if chosen_scores.shape != rejected_scores.shape:
        raise DataError(
            f"bradley_terry_nll: chosen and rejected scores must have one shape, "
            f"got {tuple(chosen_scores.shape)} and {tuple(rejected_scores.shape)}"
        )
    return -F.logsigmoid(chosen_scores - rejected_scores)


def plackett_luce_nll(scores: Tensor, ranks: Tensor, response_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of rankings, in nats per choice, under the Plackett-Luce model.

    A ranking is a row of choices: the best of all, the best of the rest, and so on (Plackett 1975). The sum
    over its choices is divided by their number, so that a long ranking weighs as much as a pair; for a pair
    there is one choice and this is :func:`bradley_terry_nll`.

    Args:
        scores: utilities, higher is better. Shape: (B, K), float.
        ranks: places, 1 = best, equal = tied; anything where the mask is False. Shape: (B, K), integer.
        response_mask: True where there is a response. Shape: (B, K), bool.

    Returns:
        (nll, comparable): nll is 0 where ``comparable`` is False, that is where a row compares nothing.
        Shapes: (B,), float; (B,), bool.

    Raises:
        DataError: the shapes are not one (B, K).
    """
    if not (scores.ndim == 2 and scores.shape == ranks.shape == response_mask.shape):
        raise DataError(
            f"plackett_luce_nll: scores, ranks and mask must have one shape (B, K), got "
            f"{tuple(scores.shape)}, {tuple(ranks.shape)} and {tuple(response_mask.shape)}"
        )
    both_real = response_mask[:, :, None] & response_mask[:, None, :]
    below = both_real & (ranks[:, :, None] < ranks[:, None, :])
    itself = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    options = scores[:, None, :].masked_fill(~(below | itself), -torch.inf)
    nll_of_choice = torch.logsumexp(options, dim=-1) - scores
    is_choice = below.any(dim=-1)
    choices = is_choice.sum(dim=-1)
    total = torch.where(is_choice, nll_of_choice, torch.zeros_like(nll_of_choice)).sum(dim=-1)
    return total / choices.clamp(min=1), choices > 0


def score_centering_penalty(scores: Tensor, response_mask: Tensor) -> Tensor:
    """Square of each ranking's mean score: it fixes the additive constant that comparisons leave free.

    A pair's value is a quarter of the ``(r_chosen + r_rejected)^2`` of Eisenstein et al. 2023, section 2.

    Args:
        scores: Shape: (B, K), float.
        response_mask: True where there is a response. Shape: (B, K), bool.

    Returns:
        Shape: (B,); 0 for a row without a response.
    """
    kept = torch.where(response_mask, scores, torch.zeros_like(scores))
    return (kept.sum(dim=-1) / response_mask.sum(dim=-1).clamp(min=1)) ** 2
