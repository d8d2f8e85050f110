"""Checks of agents and reward models: exact optima of small text MDPs, the contract of reward models, tiny models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance import check_reward_model
    from .models import tiny_language_model, tiny_tokenizer
    from .solver import PolicyValue, Solution, expected_return, policy_value, share_closed, solve, state_log_probs
    from .text_mdp import TextMDP, enumerate_mdp

_HOMES = {
    "check_reward_model": "conformance",
    "PolicyValue": "solver",
    "Solution": "solver",
    "TextMDP": "text_mdp",
    "enumerate_mdp": "text_mdp",
    "expected_return": "solver",
    "policy_value": "solver",
    "share_closed": "solver",
    "solve": "solver",
    "state_log_probs": "solver",
    "tiny_language_model": "models",
    "tiny_tokenizer": "models",
}

__all__ = [
    "PolicyValue",
    "Solution",
    "TextMDP",
    "check_reward_model",
    "enumerate_mdp",
    "expected_return",
    "policy_value",
    "share_closed",
    "solve",
    "state_log_probs",
    "tiny_language_model",
    "tiny_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lm_gym.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
