"""Agents: everything that acts and learns in the text environments. Heavy modules load with the first name used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callbacks import Callback, JsonlTracker, ProgressDisplay, TensorBoardTracker
    from .metrics import METRICS
    from .policy import LanguageModelPolicy
    from .ppo import PPO, PPOConfig
    from .training import TrainResult, train

_HOMES = {
    "METRICS": "metrics",
    "PPO": "ppo",
    "Callback": "callbacks",
    "JsonlTracker": "callbacks",
    "LanguageModelPolicy": "policy",
    "PPOConfig": "ppo",
    "ProgressDisplay": "callbacks",
    "TensorBoardTracker": "callbacks",
    "TrainResult": "training",
    "train": "training",
}

__all__ = [
    "METRICS",
    "PPO",
    "Callback",
    "JsonlTracker",
    "LanguageModelPolicy",
    "PPOConfig",
    "ProgressDisplay",
    "TensorBoardTracker",
    "TrainResult",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lm_gym.agents' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
