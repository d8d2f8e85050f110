"""Settings of the fit of a scalar reward model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from lm_gym.errors import ConfigError
from lm_gym.reward_models.likelihoods.joint_loss import LossConfig

__all__ = ["RewardTrainingConfig"]


@dataclass(frozen=True, kw_only=True)
class RewardTrainingConfig:
    """Settings of a fit: AdamW on every weight that is not frozen under an adapter."""

    learning_rate: float = 2e-5
    """Peak rate, > 0; 1e-5 suits a pretrained model, 1e-3 a tiny one from scratch."""
    epochs: int = 1
    """Passes over the judgements, >= 1; reward models overfit within few."""
    link_learning_rate: float = 0.01
    """Peak rate of what is learned beside the score (tie parameter, thumb bias, rating thresholds), > 0."""
    items_per_step: int = 16
    """Rankings, or all else that was said about one prompt (or parts of these), in one forward pass of one process."""
    gradient_accumulation_steps: int = 1
    """Forward passes per update; the loss is divided by the judgements of all of them."""
    max_responses: int = 8
    """An item of more responses is cut into parts of at most this many, anew in each epoch; >= 2."""
    weight_decay: float = 0.01
    """AdamW's decay, >= 0."""
    warmup_share: float = 0.05
    """Share of the updates over which the rate rises from 0, in [0, 1)."""
    lr_schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Course of the rate after the warm-up."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Loss of each kind of judgement."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """``auto``: bfloat16 autocast where a GPU has it. The loss is float32 always."""
    seed: int = 0
    """Seed of the batches and of dropout."""
    checkpoint_every_steps: int | None = None
    """Updates between checkpoints, for resuming; None writes none."""
    log_every_steps: int = 10
    """Updates between log lines."""
    progress: bool = True
    """True shows the updates on standard error: a bar on a terminal, a line now and then elsewhere."""

    def __post_init__(self) -> None:
        for name in ("epochs", "items_per_step", "gradient_accumulation_steps", "log_every_steps"):
            _require(getattr(self, name) >= 1, self, name, "must be >= 1")
        for name in ("weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, self, name, "must be finite and >= 0")
        for name in ("learning_rate", "link_learning_rate"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, self, name, "must be finite and > 0")
        _require(self.max_responses >= 2, self, "max_responses", "must be >= 2")
        _require(0 <= self.seed < 2**32, self, "seed", "must be in [0, 2**32)")
        _require(0 <= self.warmup_share < 1, self, "warmup_share", "must be in [0, 1)")
        _require(self.mixed_precision in ("auto", "no", "bf16"), self, "mixed_precision", "must be auto, no or bf16")
        known = ("linear", "cosine", "constant_with_warmup")
        _require(self.lr_schedule in known, self, "lr_schedule", f"must be one of {known}")
        every = self.checkpoint_every_steps
        _require(every is None or every >= 1, self, "checkpoint_every_steps", "must be None or >= 1")


def _require(holds: bool, config: RewardTrainingConfig, name: str, rule: str) -> None:
    if not holds:
        raise ConfigError(f"RewardTrainingConfig.{name}: {rule}, got {getattr(config, name)!r}")
