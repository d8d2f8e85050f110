"""Advantage estimators for whole responses: what a response earned, less what its prompt promises.

Each response has one number, the sum of its rewards, and every token of it the same advantage. A truncated response
has no score in that sum, and none is estimated. Knows: returns, groups. Does not know: values, losses.

Shapes: B = episodes, T = longest response, G = responses to one prompt draw.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.policy import PolicyEvaluation
from lm_gym.processes import ONE_PROCESS, Processes
from lm_gym.runs.generators import require_state
from lm_gym.tools.settings import Positive, Share, checked

from .advantages import Targets

__all__ = [
    "GivenBaseline",
    "GroupMean",
    "LeaveOneOut",
    "MovingBaseline",
    "group_statistics",
    "leave_one_out",
    "paid_alike",
    "uniform_share",
]


def group_statistics(returns: np.ndarray, group: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, ...]:
    """Size, mean and deviation of each response's group, over the counted ones.

    Args:
        returns: Shape: (B,).
        group: number of each response's group. Shape: (B,), int.
        counted: True = counts. Shape: (B,), bool.

    Returns: for each response the number of counted ones in its group, their mean, and their standard deviation with
        Bessel's correction (0 for fewer than two). Shapes: (B,), float64.
    """
    _, place = np.unique(group, return_inverse=True)
    size = np.bincount(place, weights=counted.astype(np.float64))
    mean = np.bincount(place, weights=np.where(counted, returns, 0.0)) / np.maximum(size, 1.0)
    squares = np.bincount(place, weights=np.where(counted, (returns - mean[place]) ** 2, 0.0))
    deviation = np.sqrt(squares / np.maximum(size - 1.0, 1.0))
    return size[place], mean[place], deviation[place]


def leave_one_out(returns: np.ndarray, group: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Each counted return less the mean of the others in its group; 0 where there are none. Shapes: (B,)."""
    size, mean, _ = group_statistics(returns, group, counted)
    return np.where(counted & (size > 1), (returns - mean) * size / np.maximum(size - 1.0, 1.0), 0.0)


def paid_alike(episodes: Episodes) -> np.ndarray:
    """True for responses of a group whose counted responses were all paid alike, KL apart. Shape: (B,), bool."""
    _, _, deviation = group_statistics(episodes.payments, episodes.group, ~episodes.abstained)
    return deviation < 1e-9


def uniform_share(episodes: Episodes, processes: Processes) -> float:
    """Share of the responses of all processes whose group is paid alike, as :func:`paid_alike` says."""
    return float(np.mean(np.concatenate(processes.gather(paid_alike(episodes).astype(np.float32)))))


class LeaveOneOut:
    """The return less the mean return of the other responses to the prompt: no bias, since a response has no part in
    its own baseline (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740, eq. 7)."""

    needs_values = False
    needs_groups = True

    def __call__(self, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
        """See :class:`AdvantageEstimator`; a group of which one response counts teaches nothing."""
        returns = episodes.rewards.sum(axis=1)
        advantages = leave_one_out(returns, episodes.group, ~episodes.abstained)
        return spread(advantages, returns, episodes, evaluation)


class GroupMean:
    """The return less the mean return of its group, its own included; over the group's deviation too, if scaled
    (Shao et al. 2024, arXiv:2402.03300, section 4.1.2; unscaled: Liu et al. 2025, arXiv:2503.20783).

    Scaled, prompts whose responses hardly differ weigh as much as all others; unscaled it is leave-one-out times
    (G - 1) / G.
    """

    needs_values = False
    needs_groups = True

    def __init__(self, *, scaled: bool = True, eps: float = 1e-4) -> None:
        """Args:
        scaled: divide by the deviation of the group.
        eps: added to the deviation, so that responses that are paid alike have an advantage of 0.

        Raises:
            ConfigError: a value is of another kind.
        """
        self.scaled = checked("GroupMean.scaled", scaled, bool)
        self.eps = checked("GroupMean.eps", eps, Positive)

    def __call__(self, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
        """See :class:`AdvantageEstimator`; a group of which one response counts teaches nothing."""
        returns, counted = episodes.rewards.sum(axis=1), ~episodes.abstained
        size, mean, deviation = group_statistics(returns, episodes.group, counted)
        advantages = np.where(counted & (size > 1), returns - mean, 0.0)
        if self.scaled:
            advantages = advantages / (deviation + self.eps)
        return spread(advantages, returns, episodes, evaluation)


class GivenBaseline:
    """The return less ``episodes.baselines``, which whoever collected them estimated: from a greedy response, say
    (Li et al. 2023, arXiv:2310.10505)."""

    needs_values = False
    needs_groups = False

    def __call__(self, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
        """See :class:`AdvantageEstimator`.

        Raises:
            ConfigError: the episodes come without baselines.
        """
        if episodes.baselines is None:
            raise ConfigError("GivenBaseline: needs episodes.baselines, got none; use ReMax, which collects them")
        returns = episodes.rewards.sum(axis=1)
        return spread(returns - episodes.baselines, returns, episodes, evaluation)


class MovingBaseline:
    """The return less a moving mean of the returns of earlier batches (Williams 1992, section 2, reinforcement
    baseline); the first batch sets it to its own mean."""

    needs_values = False
    needs_groups = False

    def __init__(self, *, decay: float = 0.9) -> None:
        """Args: decay: share of the mean that stays from batch to batch, in [0, 1).

        Raises:
            ConfigError: it lies outside.
        """
        self.decay = checked("MovingBaseline.decay", decay, Share)
        self._mean = math.nan
        self._processes = ONE_PROCESS

    def share(self, processes: Processes) -> None:
        """See :class:`SharedEstimator`; the mean is that of the returns of all of them."""
        self._processes = processes

    def __call__(self, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
        """See :class:`AdvantageEstimator`; the mean moves after the advantages are taken."""
        returns, counted = episodes.rewards.sum(axis=1), ~episodes.abstained
        every = np.concatenate(self._processes.gather(returns[counted]))
        here = float(every.mean()) if len(every) else self._mean
        mean = here if math.isnan(self._mean) else self._mean
        self._mean = self.decay * mean + (1.0 - self.decay) * here
        return spread(returns - mean, returns, episodes, evaluation)

    def state_dict(self) -> dict[str, Any]:
        """The mean."""
        return {"mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an estimator."""
        self._mean = checked(
            "MovingBaseline state: mean", require_state("MovingBaseline", state, ["mean"])["mean"], float
        )


def spread(advantages: np.ndarray, returns: np.ndarray, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
    """Give every token of a response its number. Args: advantages, returns of shape (B,)."""
    device = evaluation.log_probs.device
    mask = torch.from_numpy(episodes.response_mask).to(device)

    def grid(numbers: np.ndarray) -> Tensor:
        return torch.where(mask, torch.from_numpy(numbers).to(device, torch.float32)[:, None], 0.0)

    return Targets(grid(advantages), grid(returns))
