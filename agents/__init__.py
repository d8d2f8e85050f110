"""Agents: everything that acts and learns in the text environments. Heavy modules load with the first name used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callbacks import Callback, JsonlTracker, ProgressDisplay, TensorBoardTracker
    from .metrics import METRICS
    from .policy import LanguageModelPolicy
    from .ppo import PPO, PPOConfig
    from .pretraining import PretrainConfig, PretrainResult, pretrain
    from .supervised import SupervisedConfig, SupervisedResult, supervised_finetune
    from .training import TrainResult, train

__all__ = [
    "METRICS",
    "PPO",
    "Callback",
    "JsonlTracker",
    "LanguageModelPolicy",
    "PPOConfig",
    "PretrainConfig",
    "PretrainResult",
    "ProgressDisplay",
    "SupervisedConfig",
    "SupervisedResult",
    "TensorBoardTracker",
    "TrainResult",
    "pretrain",
    "supervised_finetune",
    "train",
]

_HOMES = {
    "callbacks": ("Callback", "JsonlTracker", "ProgressDisplay", "TensorBoardTracker"),
    "metrics": ("METRICS",),
    "policy": ("LanguageModelPolicy",),
    "ppo": ("PPO", "PPOConfig"),
    "pretraining": ("PretrainConfig", "PretrainResult", "pretrain"),
    "supervised": ("SupervisedConfig", "SupervisedResult", "supervised_finetune"),
    "training": ("TrainResult", "train"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lm_gym.agents' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
