"""RLHF as a Gymnasium environment: one action is one token, a step pays the score minus the KL to a frozen model.

Importing this package registers the environments and is light: torch and transformers load with the first name that
needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lm_gym.envs.registration import register_environments

if TYPE_CHECKING:
    from lm_gym.config import RewardConfig, SamplingConfig, ScoreNormalizer
    from lm_gym.envs.env import TextGenerationEnv
    from lm_gym.envs.evaluation import Evaluation, evaluate
    from lm_gym.envs.policy_handle import PolicyHandle
    from lm_gym.envs.task import TextTask
    from lm_gym.envs.vector_env import TextGenerationVectorEnv
    from lm_gym.envs.wrappers import PolicyLogProb, VectorPolicyLogProb
    from lm_gym.episodes import Episodes
    from lm_gym.errors import LmGymError
    from lm_gym.kl_control import AdaptiveKL
    from lm_gym.models.language_model import LanguageModel, load_language_model
    from lm_gym.models.lora import LoraSettings
    from lm_gym.models.reference import Reference
    from lm_gym.policy import Policy
    from lm_gym.prompts import load_prompts
    from lm_gym.rewards import token_rewards
    from lm_gym.scoring.adapters import FunctionRewardModel
    from lm_gym.scoring.handles import load_reward_model
    from lm_gym.scoring.protocol import RewardModel, Scores

__version__ = "0.2.0"

_HOMES = {
    "AdaptiveKL": "kl_control",
    "Episodes": "episodes",
    "Evaluation": "envs.evaluation",
    "FunctionRewardModel": "scoring.adapters",
    "LanguageModel": "models.language_model",
    "LmGymError": "errors",
    "LoraSettings": "models.lora",
    "Policy": "policy",
    "PolicyHandle": "envs.policy_handle",
    "PolicyLogProb": "envs.wrappers",
    "Reference": "models.reference",
    "RewardConfig": "config",
    "RewardModel": "scoring.protocol",
    "SamplingConfig": "config",
    "ScoreNormalizer": "config",
    "Scores": "scoring.protocol",
    "TextGenerationEnv": "envs.env",
    "TextGenerationVectorEnv": "envs.vector_env",
    "TextTask": "envs.task",
    "VectorPolicyLogProb": "envs.wrappers",
    "evaluate": "envs.evaluation",
    "load_language_model": "models.language_model",
    "load_prompts": "prompts",
    "load_reward_model": "scoring.handles",
    "token_rewards": "rewards",
}

__all__ = [
    "AdaptiveKL",
    "Episodes",
    "Evaluation",
    "FunctionRewardModel",
    "LanguageModel",
    "LmGymError",
    "LoraSettings",
    "Policy",
    "PolicyHandle",
    "PolicyLogProb",
    "Reference",
    "RewardConfig",
    "RewardModel",
    "SamplingConfig",
    "ScoreNormalizer",
    "Scores",
    "TextGenerationEnv",
    "TextGenerationVectorEnv",
    "TextTask",
    "VectorPolicyLogProb",
    "__version__",
    "evaluate",
    "load_language_model",
    "load_prompts",
    "load_reward_model",
    "token_rewards",
]

register_environments()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lm_gym' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lm_gym.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
