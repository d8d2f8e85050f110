"""Agents: everything that acts and learns in the text environments. Heavy modules load with the first name used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .algorithms.ppo import PPO, PPOConfig
    from .callbacks import Agent, Callback, ProgressDisplay, TrainingRun
    from .metrics import METRICS
    from .policy import LanguageModelPolicy
    from .supervised.finetune import SupervisedConfig, SupervisedResult, supervised_finetune
    from .supervised.pretrain import PretrainConfig, PretrainResult, pretrain
    from .trackers import JsonlTracker, TensorBoardTracker, TrackioTracker, WandbTracker
    from .training import TrainResult, train
    from .update.advantages import GAE, AdvantageEstimator, RewardToGo, Targets
    from .update.surrogate import SurrogateAgent, SurrogateConfig

__all__ = [
    "GAE",
    "METRICS",
    "PPO",
    "AdvantageEstimator",
    "Agent",
    "Callback",
    "JsonlTracker",
    "LanguageModelPolicy",
    "PPOConfig",
    "PretrainConfig",
    "PretrainResult",
    "ProgressDisplay",
    "RewardToGo",
    "SupervisedConfig",
    "SupervisedResult",
    "SurrogateAgent",
    "SurrogateConfig",
    "Targets",
    "TensorBoardTracker",
    "TrackioTracker",
    "TrainResult",
    "TrainingRun",
    "WandbTracker",
    "pretrain",
    "supervised_finetune",
    "train",
]

_HOMES = {
    "update.advantages": ("GAE", "AdvantageEstimator", "RewardToGo", "Targets"),
    "callbacks": ("Agent", "Callback", "ProgressDisplay", "TrainingRun"),
    "metrics": ("METRICS",),
    "policy": ("LanguageModelPolicy",),
    "algorithms.ppo": ("PPO", "PPOConfig"),
    "supervised.pretrain": ("PretrainConfig", "PretrainResult", "pretrain"),
    "update.surrogate": ("SurrogateAgent", "SurrogateConfig"),
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
