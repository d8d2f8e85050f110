"""The one affine map of scores that an artefact carries: mean 0 and deviation 1 over samples of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lm_gym.config import ScoreNormalizer
from lm_gym.errors import RewardModelError
from lm_gym.scoring.protocol import RewardModel, checked_scores

__all__ = ["fitted_normalizer"]


def fitted_normalizer(
    model: RewardModel, prompts: Sequence[str], responses: Sequence[str], *, fitted_on: str
) -> ScoreNormalizer:
    """Fit the map on the scores of some responses; abstentions are left out.

    Args:
        model: scores them.
        prompts, responses: samples of the reference model.
        fitted_on: description of them, for the record.

    Raises:
        RewardModelError: fewer than two scores, or all are equal.
    """
    scores = checked_scores(model, prompts, responses)
    values = scores.value[scores.valid].astype(np.float64)
    spread = float(values.std()) if len(values) > 1 else 0.0
    if not spread > 0:
        raise RewardModelError(
            f"reward model {model.name}: a normaliser needs at least 2 different scores, got {len(values)} scores with "
            f"standard deviation {spread}"
        )
    return ScoreNormalizer(gain=1 / spread, bias=-float(values.mean()) / spread, fitted_on=fitted_on)
