"""Reward models as the core sees them: the protocol, plain functions as reward models, and how handles are resolved.

Not here: any concrete reward model. Light to import: no torch, no transformers.
"""

from __future__ import annotations

from .adapters import FunctionRewardModel, ObjectRewardModel, RewardFunction, RewardModelLike, as_reward_model
from .handles import load_reward_model
from .protocol import (
    CountsCutTexts,
    CountsTokens,
    HasMemberScores,
    KeepsTraining,
    RewardModel,
    SavableRewardModel,
    Scorer,
    Scores,
    checked_scores,
)
from .trl import TRLReward

__all__ = [
    "CountsCutTexts",
    "CountsTokens",
    "FunctionRewardModel",
    "HasMemberScores",
    "KeepsTraining",
    "ObjectRewardModel",
    "RewardFunction",
    "RewardModel",
    "RewardModelLike",
    "SavableRewardModel",
    "Scorer",
    "Scores",
    "TRLReward",
    "as_reward_model",
    "checked_scores",
    "load_reward_model",
]
