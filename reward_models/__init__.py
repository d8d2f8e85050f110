"""Reward models: everything that turns text, rankings or a hidden truth into a score.

Names are imported on first use, so that importing this package loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparisons import Ranking, Split, load_rankings, rankings_from_rows, split_by_prompt, to_rows
    from .evaluation import PromptAccuracy, ReliabilityBin, RewardEvaluation, evaluate_reward_model
    from .losses import bradley_terry_nll, plackett_luce_nll, score_centering_penalty
    from .oracle import BradleyTerryAnnotator, OracleRewardModel, agreement, expected_agreement, rank_all
    from .preference import PreferenceRewardModel
    from .training import RewardTrainingConfig, train_preference_model
    from .weighted_sum import WeightedSum

__all__ = [
    "BradleyTerryAnnotator",
    "OracleRewardModel",
    "PreferenceRewardModel",
    "PromptAccuracy",
    "Ranking",
    "ReliabilityBin",
    "RewardEvaluation",
    "RewardTrainingConfig",
    "Split",
    "WeightedSum",
    "agreement",
    "bradley_terry_nll",
    "evaluate_reward_model",
    "expected_agreement",
    "load_rankings",
    "plackett_luce_nll",
    "rank_all",
    "rankings_from_rows",
    "score_centering_penalty",
    "split_by_prompt",
    "to_rows",
    "train_preference_model",
]

_HOMES = {
    "comparisons": ("Ranking", "Split", "load_rankings", "rankings_from_rows", "split_by_prompt", "to_rows"),
    "evaluation": ("PromptAccuracy", "ReliabilityBin", "RewardEvaluation", "evaluate_reward_model"),
    "losses": ("bradley_terry_nll", "plackett_luce_nll", "score_centering_penalty"),
    "oracle": ("BradleyTerryAnnotator", "OracleRewardModel", "agreement", "expected_agreement", "rank_all"),
    "preference": ("PreferenceRewardModel",),
    "training": ("RewardTrainingConfig", "train_preference_model"),
    "weighted_sum": ("WeightedSum",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
