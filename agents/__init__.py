"""Agents: everything that acts and learns in the text environments. Heavy modules load with the first name used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .algorithms.a2c import A2C, A2CConfig
    from .algorithms.best_of_n import (
        RejectionSampling,
        RejectionSamplingConfig,
        best_of_n,
        best_of_n_kl_bound,
        best_of_n_probs,
        best_of_n_scores,
    )
    from .algorithms.closed_form import VIMPO, AStarPO, AStarPOConfig, VIMPOConfig
    from .algorithms.dapo import DAPO, DAPOConfig
    from .algorithms.dpo import DPO, DPOConfig
    from .algorithms.grpo import CISPO, GRPO, GSPO, CISPOConfig, DrGRPO, DrGRPOConfig, GRPOConfig, GSPOConfig
    from .algorithms.ppo import PPO, PPOConfig, VinePPO, VinePPOConfig
    from .algorithms.reinforce import (
        REINFORCE,
        RLOO,
        REINFORCEConfig,
        REINFORCEPlusPlus,
        REINFORCEPlusPlusConfig,
        ReMax,
        ReMaxConfig,
        RLOOConfig,
    )
    from .algorithms.soft_q import SoftQ, SoftQConfig
    from .callbacks import Agent, Callback, ProgressDisplay, TrainingRun
    from .metrics import METRICS
    from .policy import LanguageModelPolicy
    from .supervised.finetune import SupervisedConfig, SupervisedResult, supervised_finetune
    from .supervised.pretrain import PretrainConfig, PretrainResult, pretrain
    from .trackers import JsonlTracker, TensorBoardTracker, TrackioTracker, WandbTracker
    from .training import TrainResult, train
    from .update.advantages import GAE, AdvantageEstimator, GivenValues, RewardToGo, Targets
    from .update.agent import SurrogateAgent
    from .update.baselines import GivenBaseline, GroupMean, LeaveOneOut, MovingBaseline
    from .update.config import SurrogateConfig
    from .update.learning import LearningAgent
    from .update.objectives import Objective

__all__ = [
    "A2C",
    "CISPO",
    "DAPO",
    "DPO",
    "GAE",
    "GRPO",
    "GSPO",
    "METRICS",
    "PPO",
    "REINFORCE",
    "RLOO",
    "VIMPO",
    "A2CConfig",
    "AStarPO",
    "AStarPOConfig",
    "AdvantageEstimator",
    "Agent",
    "CISPOConfig",
    "Callback",
    "DAPOConfig",
    "DPOConfig",
    "DrGRPO",
    "DrGRPOConfig",
    "GRPOConfig",
    "GSPOConfig",
    "GivenBaseline",
    "GivenValues",
    "GroupMean",
    "JsonlTracker",
    "LanguageModelPolicy",
    "LearningAgent",
    "LeaveOneOut",
    "MovingBaseline",
    "Objective",
    "PPOConfig",
    "PretrainConfig",
    "PretrainResult",
    "ProgressDisplay",
    "REINFORCEConfig",
    "REINFORCEPlusPlus",
    "REINFORCEPlusPlusConfig",
    "RLOOConfig",
    "ReMax",
    "ReMaxConfig",
    "RejectionSampling",
    "RejectionSamplingConfig",
    "RewardToGo",
    "SoftQ",
    "SoftQConfig",
    "SupervisedConfig",
    "SupervisedResult",
    "SurrogateAgent",
    "SurrogateConfig",
    "Targets",
    "TensorBoardTracker",
    "TrackioTracker",
    "TrainResult",
    "TrainingRun",
    "VIMPOConfig",
    "VinePPO",
    "VinePPOConfig",
    "WandbTracker",
    "best_of_n",
    "best_of_n_kl_bound",
    "best_of_n_probs",
    "best_of_n_scores",
    "pretrain",
    "supervised_finetune",
    "train",
]

_HOMES = {
    "algorithms.a2c": ("A2C", "A2CConfig"),
    "algorithms.best_of_n": (
        "RejectionSampling",
        "RejectionSamplingConfig",
        "best_of_n",
        "best_of_n_kl_bound",
        "best_of_n_probs",
        "best_of_n_scores",
    ),
    "algorithms.closed_form": ("VIMPO", "AStarPO", "AStarPOConfig", "VIMPOConfig"),
    "algorithms.dpo": ("DPO", "DPOConfig"),
    "algorithms.dapo": ("DAPO", "DAPOConfig"),
    "algorithms.grpo": ("CISPO", "GRPO", "GSPO", "CISPOConfig", "DrGRPO", "DrGRPOConfig", "GRPOConfig", "GSPOConfig"),
    "algorithms.reinforce": (
        "REINFORCE",
        "RLOO",
        "REINFORCEConfig",
        "REINFORCEPlusPlus",
        "REINFORCEPlusPlusConfig",
        "RLOOConfig",
        "ReMax",
        "ReMaxConfig",
    ),
    "update.baselines": ("GivenBaseline", "GroupMean", "LeaveOneOut", "MovingBaseline"),
    "update.advantages": ("GAE", "AdvantageEstimator", "GivenValues", "RewardToGo", "Targets"),
    "algorithms.soft_q": ("SoftQ", "SoftQConfig"),
    "callbacks": ("Agent", "Callback", "ProgressDisplay", "TrainingRun"),
    "metrics": ("METRICS",),
    "policy": ("LanguageModelPolicy",),
    "algorithms.ppo": ("PPO", "PPOConfig", "VinePPO", "VinePPOConfig"),
    "supervised.pretrain": ("PretrainConfig", "PretrainResult", "pretrain"),
    "update.config": ("SurrogateConfig",),
    "update.objectives": ("Objective",),
    "update.agent": ("SurrogateAgent",),
    "update.learning": ("LearningAgent",),
    "supervised.finetune": ("SupervisedConfig", "SupervisedResult", "supervised_finetune"),
    "trackers": ("JsonlTracker", "TensorBoardTracker", "TrackioTracker", "WandbTracker"),
    "training": ("TrainResult", "train"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lm_gym.agents' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
