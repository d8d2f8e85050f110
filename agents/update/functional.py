"""The mathematics of policy-gradient learning on token sequences, as pure functions of tensors.

Knows: returns, advantages, whitening, KL estimators, losses, diagnostics. Does not know: models, optimisers, text.

Shapes: B = episodes, T = tokens of the longest response. ``mask`` is (B, T) bool, True = counts; rows are
right-padded, so the counted tokens of a row come first. Log-probabilities, KL and entropies are in nats. With
``processes`` a mean, a variance or a whitening is that of the batches of all of them together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lm_gym.processes import ONE_PROCESS, Processes

__all__ = [
    "bounded_ratio",
    "clipped_policy_loss",
    "clipped_value_loss",
    "discounted_returns",
    "entropy",
    "explained_variance",
    "full_kl",
    "gae",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "masked_mean",
    "masked_var",
    "masked_whiten",
    "weighted_policy_loss",
]


def _check(mask: Tensor, **tensors: Tensor) -> None:
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(f"mask: must be bool of shape (B, T), got {mask.dtype} of shape {tuple(mask.shape)}")
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise ValueError(f"{name}: must have the mask's shape {tuple(mask.shape)}, got {tuple(tensor.shape)}")


def discounted_returns(rewards: Tensor, mask: Tensor, bootstrap: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Reward to go, ``G_t = r_t + gamma G_{t+1}``, with ``G`` after the last token equal to ``bootstrap``.

    Args:
        rewards: Shape: (B, T).
        mask: Shape: (B, T), bool.
        bootstrap: value of the state after the last token where the episode was truncated, 0 where it terminated.
            Shape: (B,).
        gamma: discount per token.

    Returns: 0 where the mask is False. Shape: (B, T).
    """
    _check(mask, rewards=rewards)
    following = bootstrap
    columns = []
    for t in reversed(range(rewards.shape[1])):
        current = rewards[:, t] + gamma * following
        columns.append(torch.where(mask[:, t], current, 0.0))
        following = torch.where(mask[:, t], current, following)
    return torch.stack(columns[::-1], dim=1)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16).

    Args:
        rewards: Shape: (B, T).
        values: of the state before each token. Shape: (B, T).
        mask: Shape: (B, T), bool.
        bootstrap: value after the last token where the episode was truncated, 0 where it terminated. Shape: (B,).
        gamma: discount per token.
        lam: lambda of the exponential average.

    Returns: advantages and value targets (advantage + value), 0 where the mask is False. Shapes: (B, T).
    """
    _check(mask, rewards=rewards, values=values)
    next_value, next_advantage = bootstrap, torch.zeros_like(bootstrap)
    columns = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        columns.append(torch.where(mask[:, t], advantage, 0.0))
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        next_advantage = torch.where(mask[:, t], advantage, next_advantage)
    advantages = torch.stack(columns[::-1], dim=1)
    return advantages, torch.where(mask, advantages + values, 0.0)


def masked_mean(values: Tensor, mask: Tensor, *, processes: Processes = ONE_PROCESS) -> Tensor:
    """Mean over counted entries; 0 if there are none. Args: values, mask of one shape. Returns: scalar."""
    return processes.sum(torch.where(mask, values, 0.0).sum()) / processes.sum(mask.sum()).clamp(min=1)


def masked_var(values: Tensor, mask: Tensor, *, processes: Processes = ONE_PROCESS) -> Tensor:
    """Population variance over counted entries. Args: values, mask of one shape. Returns: scalar."""
    mean = masked_mean(values, mask, processes=processes)
    return masked_mean((values - mean) ** 2, mask, processes=processes)


def masked_whiten(
    values: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8, processes: Processes = ONE_PROCESS
) -> Tensor:
    """Scale counted entries to unit variance and, with ``shift_mean``, zero mean.

    Args: values, mask of shape (B, T); eps is added to the variance.

    Returns: 0 where the mask is False. Shape: (B, T).
    """
    _check(mask, values=values)
    mean = masked_mean(values, mask, processes=processes)
    white = (values - mean) * torch.rsqrt(masked_var(values, mask, processes=processes) + eps)
    return torch.where(mask, white if shift_mean else white + mean, 0.0)


def kl_k1(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """``log pi - log pi_ref``: unbiased, can be negative. Shapes alike.

    Source of k1, k2 and k3: J. Schulman, "Approximating KL divergence" (2020).
    """
    return log_probs - ref_log_probs


def kl_k2(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """``(log pi - log pi_ref)^2 / 2``: biased, never negative. Shapes alike."""
    return 0.5 * (log_probs - ref_log_probs) ** 2


def kl_k3(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """``pi_ref / pi - 1 - log(pi_ref / pi)``: unbiased, never negative. Shapes alike."""
    difference = ref_log_probs - log_probs
    return torch.expm1(difference) - difference


def full_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL(pi || pi_ref) summed over the vocabulary. Args: logits of shape (..., V). Returns: Shape: (...)."""
    log_probs, ref_log_probs = torch.log_softmax(logits, -1), torch.log_softmax(ref_logits, -1)
    return (log_probs.exp() * (log_probs - ref_log_probs)).sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits); a logit of -inf has no part in it. Args: (..., V). Returns: Shape: (...)."""
    log_probs = torch.log_softmax(logits, -1)
    probabilities = log_probs.exp()
    return -(probabilities * torch.where(probabilities > 0, log_probs, 0.0)).sum(-1)


def clipped_policy_loss(
    log_ratio: Tensor, advantages: Tensor, *, low: float | None, high: float | None, dual: float | None = None
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate per token (Schulman et al. 2017, arXiv:1707.06347, eq. 7), as a loss.

    Args:
        log_ratio: log of pi / pi_old, with gradient. Shape: (B, T).
        advantages: Shape: (B, T).
        low, high: the clipped ratio lies in [1 - low, 1 + high] (different ones: Yu et al. 2025, arXiv:2503.14476,
            eq. 10); None leaves that side open.
        dual: where the advantage is negative, the loss counts no more than that of this ratio (Ye et al. 2020,
            arXiv:1912.09729, eq. 5); None sets no such bound.

    Returns: loss per token, and True where a bound decides it. Shapes: (B, T).
    """
    ratio = torch.exp(log_ratio)
    unclipped = -advantages * ratio
    if low is None and high is None:
        loss, bound = unclipped, torch.zeros_like(unclipped, dtype=torch.bool)
    else:
        clipped = -advantages * bounded_ratio(ratio, low, high)
        loss, bound = torch.maximum(unclipped, clipped), clipped > unclipped
    if dual is None:
        return loss, bound
    most = torch.where(advantages < 0, -advantages * dual, torch.inf)
    return torch.minimum(loss, most), bound | (loss > most)


def weighted_policy_loss(
    log_ratio: Tensor, log_probs: Tensor, advantages: Tensor, *, low: float | None, high: float | None
) -> tuple[Tensor, Tensor]:
    """``log pi`` weighed by the advantage and the bounded ratio, which is held constant (CISPO; MiniMax 2025,
    arXiv:2506.13585, eqs. 4 and 5), as a loss.

    Args: log_ratio, log_probs (with gradient), advantages of shape (B, T); low, high as in :func:`clipped_policy_loss`.

    Returns: loss per token, and True where a bound changes the weight. Shapes: (B, T).
    """
    ratio = torch.exp(log_ratio.detach())
    weight = bounded_ratio(ratio, low, high)
    return -weight * advantages * log_probs, weight != ratio


def bounded_ratio(ratio: Tensor, low: float | None, high: float | None) -> Tensor:
    """A ratio within [1 - low, 1 + high]; None leaves a side open. Shapes alike."""
    if low is None and high is None:
        return ratio
    return ratio.clamp(None if low is None else 1.0 - low, None if high is None else 1.0 + high)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, targets: Tensor, *, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Half squared error per token, clipped around the old value as in the public PPO2 code of OpenAI baselines.

    Args: values (with gradient), old_values, targets of shape (B, T); clip in reward units, None for no clip.

    Returns: loss per token, and True where the clip binds. Shapes: (B, T).
    """
    unclipped = 0.5 * (values - targets) ** 2
    if clip is None:
        return unclipped, torch.zeros_like(unclipped, dtype=torch.bool)
    near = old_values + (values - old_values).clamp(-clip, clip)
    clipped = 0.5 * (near - targets) ** 2
    return torch.maximum(unclipped, clipped), clipped > unclipped


def explained_variance(values: Tensor, targets: Tensor, mask: Tensor, *, processes: Processes = ONE_PROCESS) -> Tensor:
    """``1 - Var[target - value] / Var[target]`` over counted tokens; 0 if the targets do not vary. Returns: scalar."""
    _check(mask, values=values, targets=targets)
    spread = masked_var(targets, mask, processes=processes)
    left = masked_var(targets - values, mask, processes=processes)
    return torch.where(spread > 0, 1.0 - left / spread.clamp(min=1e-12), 0.0)
