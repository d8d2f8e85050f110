"""Settings of learning from batches, shared by the algorithms."""

from __future__ import annotations

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import Count, NotNegative, Positive, Whole, settings

from .optimizer import OptimizerConfig

__all__ = ["BatchConfig", "OnPolicyConfig", "SurrogateConfig"]


@settings
class BatchConfig(OptimizerConfig):
    """Settings of agents that make several passes over each batch of episodes that they collect."""

    episodes_per_iteration: Count = 64
    """Responses per rollout, in one process."""
    samples_per_prompt: Count = 1
    """Responses to each prompt that is drawn; they form a group."""
    epochs: Count = 1
    """Passes over each batch."""
    minibatches: Count = 1
    """Optimiser steps per pass."""

    def __post_init__(self) -> None:
        name, most = type(self).__name__, self.episodes_per_iteration
        if self.minibatches > most:
            raise ConfigError(
                f"{name}.minibatches: must be at most episodes_per_iteration = {most}, got {self.minibatches}"
            )
        if most % self.samples_per_prompt:
            raise ConfigError(
                f"{name}.samples_per_prompt: must divide episodes_per_iteration = {most}, got {self.samples_per_prompt}"
            )


@settings
class SurrogateConfig(BatchConfig):
    """Settings of :class:`SurrogateAgent`, the same for every estimator and objective."""

    epochs: Count = 4
    """Passes over each batch."""
    minibatches: Count = 4
    """Optimiser steps per pass."""
    value_clip: Positive | None = 0.2
    """Largest counted change of a value, in reward units; None does not clip."""
    critic_warmup_iterations: Whole = 0
    """Iterations at the start in which the value head learns and the policy stays as it is, where there is one."""
    value_coef: NotNegative = 0.5
    """Weight of the value loss, where the estimator reads values."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus in the loss. The KL already holds the entropy; see docs/concepts/action_modes.md."""
    whiten_advantages: bool = True
    """Whiten the advantages over the counted tokens of the whole batch."""
    target_kl: Positive | None = None
    """Stop the passes over a batch once the mean k3 KL to the collecting policy passes 1.5 times this, nats/token."""


@settings
class OnPolicyConfig(SurrogateConfig):
    """Settings of algorithms that take one step on each batch, where every ratio is 1, unless they are told more."""

    epochs: Count = 1
    """Passes over each batch."""
    minibatches: Count = 1
    """Optimiser steps per pass; from the second on they are off-policy."""
    value_clip: Positive | None = None
    """Largest counted change of a value, in reward units, where there is a value head; None does not clip."""
    whiten_advantages: bool = False
    """Whiten the advantages over the counted tokens of the whole batch."""
