"""Settings of the learner, the same for every estimator and objective."""

from __future__ import annotations

from typing import Literal

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import Count, NotNegative, Positive, Seed, settings

__all__ = ["SurrogateConfig"]


@settings
class SurrogateConfig:
    """Settings of :class:`SurrogateAgent`, the same for every estimator and objective."""

    episodes_per_iteration: Count = 64
    """Responses per rollout, in one process."""
    samples_per_prompt: Count = 1
    """Responses to each prompt that is drawn; they form a group."""
    epochs: Count = 4
    """Passes over each batch."""
    minibatches: Count = 4
    """Optimiser steps per pass."""
    value_clip: Positive | None = 0.2
    """Largest counted change of a value, in reward units; None does not clip."""
    value_coef: NotNegative = 0.5
    """Weight of the value loss, where the estimator reads values."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus in the loss. The KL already holds the entropy; see docs/concepts/action_modes.md."""
    whiten_advantages: bool = True
    """Whiten the advantages over the counted tokens of the whole batch."""
    learning_rate: Positive = 1e-5
    """Adam's step size at the start."""
    learning_rate_decay: Literal["linear", "none"] = "linear"
    """Linear: to 0 at the end of the run, whose length ``train`` knows."""
    adam_eps: Positive = 1e-5
    """Adam's epsilon."""
    max_grad_norm: Positive | None = 1.0
    """Gradients are scaled down to this L2 norm; None leaves them."""
    target_kl: Positive | None = None
    """Stop the passes over a batch once the mean k3 KL to the collecting policy passes 1.5 times this, nats/token."""
    max_batch_tokens: Count = 16_384
    """Padded tokens per forward pass; a minibatch above it is accumulated."""
    seed: Seed = 0
    """Seed of the order of episodes in minibatches."""

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
