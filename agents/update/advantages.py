"""Advantage estimators: from finished episodes and the policy's own view of them to learning targets.

Each is a callable of (Episodes, PolicyEvaluation) that keeps no state, so an agent is an estimator plus the settings of
the clipped surrogate (``surrogate.py``). Knows: rewards, values, bootstraps. Does not know: losses, optimisers,
whitening (the learner does that over the whole batch).

Shapes: B = episodes of a batch, T = longest response.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.policy import PolicyEvaluation
from lm_gym.processes import Processes
from lm_gym.tools.settings import Probability, checked

from .functional import discounted_returns, gae

__all__ = ["GAE", "AdvantageEstimator", "GivenValues", "RewardToGo", "SharedEstimator", "Targets", "estimated"]


class Targets(NamedTuple):
    """Learning targets of one batch, without gradient."""

    advantages: Tensor
    """Weights of the policy gradient; 0 off the response mask. Shape: (B, T), float32."""
    returns: Tensor
    """Targets of the value head, in reward units; 0 off the response mask. Shape: (B, T), float32."""


@runtime_checkable
class AdvantageEstimator(Protocol):
    """A rule that says how much better each token was than expected."""

    needs_values: bool
    """True if it reads values; then the value head is trained too."""
    needs_groups: bool
    """True if it compares the responses of one prompt draw (``Episodes.group``); then there must be several."""

    def __call__(self, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
        """Targets of a batch.

        Args:
            episodes: as collected; an abstained one stays in, so that groups are whole, and is masked by the learner.
            evaluation: of the policy that collected them, without gradient.
        """
        ...


@runtime_checkable
class SharedEstimator(AdvantageEstimator, Protocol):
    """An estimator with a number of its own that must be the same in all processes of a run, such as a moving mean."""

    def share(self, processes: Processes) -> None:
        """Take the processes that share the run; the learner hands them over before the first batch."""
        ...


def checked_estimator(subject: str, estimator: Any, *, samples_per_prompt: int) -> AdvantageEstimator:
    """Refuse what is no estimator, and one that compares groups where there are none.

    Args: subject: of an error, the agent's name; samples_per_prompt: size of a group.

    Raises:
        ConfigError: it is one of these.
    """
    if isinstance(estimator, type) or not isinstance(estimator, AdvantageEstimator):
        raise ConfigError(
            f"{subject}.estimator: must be an object with needs_values, needs_groups and "
            f"__call__(episodes, evaluation) -> Targets, got {estimator!r}"
        )
    if estimator.needs_groups and samples_per_prompt < 2:
        raise ConfigError(
            f"{subject}: samples_per_prompt: must be >= 2 for {type(estimator).__name__}, which compares the responses "
            f"to one prompt, got {samples_per_prompt}"
        )
    return estimator


def estimated(estimator: AdvantageEstimator, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
    """Targets of a batch, as :class:`AdvantageEstimator` gives them.

    Raises:
        ConfigError: they are no Targets, or not of the batch's shape.
    """
    targets = estimator(episodes, evaluation)
    name, shape = type(estimator).__name__, episodes.response_mask.shape
    if not isinstance(targets, Targets):
        raise ConfigError(f"estimator {name}: must return Targets, got {type(targets).__name__}")
    for field, value in targets._asdict().items():
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        if found != f"shape {shape}":
            raise ConfigError(
                f"estimator {name}: must return {field} as a tensor of one number per response token, shape {shape}, "
                f"got {found}"
            )
    return targets


def rewards_of(episodes: Episodes, device: torch.device) -> Tensor:
    """Rewards as a tensor. Shape: (B, T), float32."""
    return torch.from_numpy(episodes.rewards).to(device, torch.float32)


class GAE:
    """Generalised advantage estimation on the policy's values (Schulman et al. 2016, arXiv:1506.02438)."""

    needs_values = True
    needs_groups = False

    def __init__(self, *, gamma: float = 1.0, lam: float = 0.95) -> None:
        """Args:
        gamma: discount per token, in [0, 1].
        lam: lambda of the exponential average, in [0, 1].

        Raises:
            ConfigError: one of them lies outside.
        """
        self.gamma = checked("GAE.gamma", gamma, Probability)
        self.lam = checked("GAE.lam", lam, Probability)

    def __call__(self, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
        """See :class:`AdvantageEstimator`; a truncated episode bootstraps from the value after its last token."""
        device = evaluation.values.device
        mask = torch.from_numpy(episodes.response_mask).to(device)
        bootstrap = evaluation.final_values * torch.from_numpy(episodes.truncated).to(device)
        rewards = rewards_of(episodes, device)
        advantages, returns = gae(rewards, evaluation.values, mask, bootstrap, gamma=self.gamma, lam=self.lam)
        return Targets(advantages, returns)


class GivenValues:
    """Generalised advantages on ``episodes.state_values``, which whoever collected them estimated: from fresh
    continuations, say (Kazemnejad et al. 2024, arXiv:2410.01679)."""

    needs_values = False
    needs_groups = False

    def __init__(self, *, lam: float = 0.0) -> None:
        """Args: lam: lambda of the exponential average, in [0, 1]; 0 takes the value after a token less that before it.

        Raises:
            ConfigError: it lies outside.
        """
        self.lam = checked("GivenValues.lam", lam, Probability)

    def __call__(self, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
        """See :class:`AdvantageEstimator`; a truncated episode ends with nothing.

        Raises:
            ConfigError: the episodes come without values.
        """
        if episodes.state_values is None:
            raise ConfigError("GivenValues: needs episodes.state_values, got none; use VinePPO, which collects them")
        device = evaluation.log_probs.device
        mask = torch.from_numpy(episodes.response_mask).to(device)
        rewards = rewards_of(episodes, device)
        values = torch.from_numpy(episodes.state_values).to(device, torch.float32)
        return Targets(*gae(rewards, values, mask, rewards.new_zeros(len(rewards)), lam=self.lam))


class RewardToGo:
    """The discounted reward to go itself, without any baseline (Williams 1992, REINFORCE)."""

    needs_values = False
    needs_groups = False

    def __init__(self, *, gamma: float = 1.0) -> None:
        """Args: gamma: discount per token, in [0, 1].

        Raises:
            ConfigError: it lies outside.
        """
        self.gamma = checked("RewardToGo.gamma", gamma, Probability)

    def __call__(self, episodes: Episodes, evaluation: PolicyEvaluation) -> Targets:
        """See :class:`AdvantageEstimator`; a truncated episode ends with nothing."""
        device = evaluation.log_probs.device
        mask = torch.from_numpy(episodes.response_mask).to(device)
        rewards = rewards_of(episodes, device)
        returns = discounted_returns(rewards, mask, rewards.new_zeros(len(rewards)), gamma=self.gamma)
        return Targets(returns, returns)
