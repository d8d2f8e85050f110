"""The settings of a fit that follow from the size of the data and of the model, where the user left them open.

Measured: 150 to 165 updates at 1e-4 on a 22-million-weight encoder beat the rule that more words win on every fold of
human judgements (docs/log.md). Not measured here: the steps for other sizes of model, which are those in common use.

Knows: counts. Does not know: texts, models, the Trainer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .batch_schedule import EncodedItem, JudgementSchedule
from .config import RewardTrainingConfig

__all__ = ["FEW_UPDATES", "scheduled", "with_recipe"]

TEXTS_PER_PASS = 16
"""Texts in one forward pass."""
WANTED_UPDATES, FEW_UPDATES = 150, 100
"""Updates below which more passes over the data are made, and below which a warning is given."""
MOST_EPOCHS = 3
"""More passes over few judgements learn them by heart."""
PASSES_PER_STEP, MOST_PASSES_PER_STEP = 400, 4
"""Each so many passes of an epoch are one pass more in an update (two from 800 on), up to four: 64 texts."""
RATES = ((2_000_000, 1e-3), (50_000_000, 1e-4), (500_000_000, 2e-5), (math.inf, 1e-5))
"""Peak rate for models of fewer weights than the first number."""
ADAPTER_FACTOR = 10.0
"""An adapter's rate over that of whole weights (Schulman et al. 2025, "LoRA Without Regret"; 1e-3 measured here)."""


def with_recipe(
    config: RewardTrainingConfig, items: Sequence[EncodedItem], *, weights: int, adapted: bool
) -> RewardTrainingConfig:
    """Fill in whatever the configuration leaves open.

    Args:
        config: of the user; None in a field leaves it open.
        items: the data.
        weights: of the whole model.
        adapted: True if only an adapter is trained.

    Returns: a configuration without an open field.
    """
    if config.learning_rate is None:
        rate = next(rate for most, rate in RATES if weights < most) * (ADAPTER_FACTOR if adapted else 1.0)
        config = replace(config, learning_rate=rate)
    if config.items_per_step is None:
        sizes = [min(len(item.texts), config.max_responses) for item in items]
        config = replace(config, items_per_step=max(1, round(TEXTS_PER_PASS * len(sizes) / sum(sizes))))
    passes = len(scheduled(items, replace(config, epochs=1)))
    if config.gradient_accumulation_steps is None:
        steps = min(MOST_PASSES_PER_STEP, max(1, passes // PASSES_PER_STEP))
        config = replace(config, gradient_accumulation_steps=steps)
    if config.epochs is None:
        updates = math.ceil(passes / (config.gradient_accumulation_steps or 1))
        config = replace(config, epochs=min(MOST_EPOCHS, math.ceil(WANTED_UPDATES / updates)))
    return config


def scheduled(items: Sequence[EncodedItem], config: RewardTrainingConfig) -> JudgementSchedule:
    """The batches of a run. Args: config: without an open field."""
    return JudgementSchedule(
        items,
        epochs=config.epochs or 1,
        batch_size=config.items_per_step or 1,
        max_responses=config.max_responses,
        seed=config.seed,
    )
