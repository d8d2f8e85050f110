"""Settings of the fit of a scalar reward model, and what the parts of such a model must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_gym.config import ScoreNormalizer
from lm_gym.reward_models.likelihoods.joint_loss import LossConfig
from lm_gym.tools.settings import Count, NotNegative, Positive, Seed, Several, Share, Text, settings

from .head_adapter import Adapter

__all__ = ["PARTS", "RewardTrainingConfig"]

PARTS: dict[str, Any] = {
    "model": PreTrainedModel,
    "tokenizer": PreTrainedTokenizerBase,
    "max_length": Count | None,
    "template": Text,
    "normalizer": ScoreNormalizer | None,
    "name": Text,
    "training": Mapping | None,
    "links": Mapping | None,
    "adapter": Adapter | None,
}
"""What each argument of a scalar reward model must be; its device tells by itself."""


@settings
class RewardTrainingConfig:
    """Settings of a fit: AdamW on every weight that is not frozen under an adapter.

    What is None follows from the size of the data and of the model (:mod:`~lm_gym.reward_models.scalar.recipe`); the
    summary of the fit has the numbers.
    """

    learning_rate: Positive | None = None
    """Peak rate, > 0; None is 1e-3 below 2 million weights, 1e-4 below 50, 2e-5 below 500, and 1e-5 above; ten times
    that for an adapter."""
    epochs: Count | None = None
    """Passes over the judgements, >= 1; reward models overfit within few. None is one, or up to three where the
    judgements are too few for 150 updates."""
    link_learning_rate: Positive = 0.01
    """Peak rate of what is learned beside the score (tie parameter, thumb bias, rating thresholds), > 0."""
    items_per_step: Count | None = None
    """Rankings, or all else that was said about one prompt (or parts of these), in one forward pass of one process;
    None is as many as make about 16 texts."""
    gradient_accumulation_steps: Count | None = None
    """Forward passes per update; the loss is divided by the judgements of all of them. None is 1, 2
    from 800 passes of an epoch on, 3 from 1,200 and 4 from 1,600."""
    max_responses: Several = 16
    """An item of more responses is cut into parts of at most this many, anew in each epoch; >= 2."""
    weight_decay: NotNegative = 0.01
    """AdamW's decay, >= 0."""
    warmup_share: Share = 0.05
    """Share of the updates over which the rate rises from 0, in [0, 1)."""
    lr_schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Course of the rate after the warm-up."""
    max_grad_norm: NotNegative = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Loss of each kind of judgement."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """``auto``: bfloat16 autocast where a GPU has it. The loss is float32 always."""
    seed: Seed = 0
    """Seed of the batches and of dropout."""
    checkpoint_every_steps: Count | None = None
    """Updates between checkpoints, for resuming; None writes none."""
    log_every_steps: Count = 10
    """Updates between log lines."""
    progress: bool = True
    """True shows the updates on standard error: a bar on a terminal, a line now and then elsewhere."""
