"""Agents: everything that acts and learns in the text environments. Heavy modules load with the first name used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .advantages import GAE, AdvantageEstimator, RewardToGo, Targets
    from .callbacks import Callback, JsonlTracker, ProgressDisplay, TensorBoardTracker
    from .metrics import METRICS
    from .policy import LanguageModelPolicy
    from .ppo import PPO, PPOConfig
    from .supervised.finetune import SupervisedConfig, SupervisedResult, supervised_finetune
    from .supervised.pretrain import PretrainConfig, PretrainResult, pretrain
    from .surrogate import SurrogateAgent, SurrogateConfig
    from .training import TrainResult, train

__all__ = [
    "GAE",
    "METRICS",
    "PPO",
    "AdvantageEstimator",
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
    "TrainResult",
    "pretrain",
    "supervised_finetune",
    "train",
]

_HOMES = {
    "advantages": ("GAE", "AdvantageEstimator", "RewardToGo", "Targets"),
    "callbacks": ("Callback", "JsonlTracker", "ProgressDisplay", "TensorBoardTracker"),
    "metrics": ("METRICS",),
    "policy": ("LanguageModelPolicy",),
    "ppo": ("PPO", "PPOConfig"),
    "supervised.pretrain": ("PretrainConfig", "PretrainResult", "pretrain"),
    "surrogate": ("SurrogateAgent", "SurrogateConfig"),
    "supervised.finetune": ("SupervisedConfig", "SupervisedResult", "supervised_finetune"),
    "training": ("TrainResult", "train"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lm_gym.agents' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
