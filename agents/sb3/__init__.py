"""Stable-Baselines3's own algorithms on language models: its vector environment, and the language model as its policy.

The only place that imports ``stable_baselines3``. Nothing of its algorithms is copied or changed.
"""

from lm_gym.tools.extras import require

require("stable_baselines3", extra="sb3", purpose="lm_gym.agents.sb3")

from .policy import LanguageModelActorCriticPolicy  # noqa: E402 (the extra is there)
from .token_space import TokenSpace  # noqa: E402
from .vec_env import SB3VecEnv  # noqa: E402

__all__ = ["LanguageModelActorCriticPolicy", "SB3VecEnv", "TokenSpace"]
