"""Proximal policy optimisation: the clipped surrogate on generalised advantages from a value head.

With ``advantage="return"`` and ``whiten_advantages=False`` the loss is the plain published form
``-min(ratio * R, clip(ratio, 1 - c, 1 + c) * R)`` with R the reward to go: no baseline, no value loss.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lm_gym.tools.settings import Positive, Probability, settings

from ..update.advantages import GAE, AdvantageEstimator, RewardToGo
from ..update.agent import SurrogateAgent
from ..update.config import SurrogateConfig
from ..update.objectives import Objective

__all__ = ["PPO", "PPOConfig"]


@settings
class PPOConfig(SurrogateConfig):
    """Settings of :class:`PPO`."""

    advantage: Literal["gae", "return"] = "gae"
    """Weight of the policy gradient: the generalised advantage, or the bare reward to go, which trains no value."""
    clip: Positive = 0.2
    """Epsilon of the policy ratio."""
    clip_high: Positive | None = None
    """Epsilon above 1; None is ``clip``."""
    gamma: Probability = 1.0
    """Discount per token."""
    gae_lambda: Probability = 0.95
    """Lambda of the advantage estimate."""


class PPO(SurrogateAgent):
    """Token-level PPO on finished episodes (Schulman et al. 2017; Ziegler et al. 2019)."""

    config_type: ClassVar[type[SurrogateConfig]] = PPOConfig

    @staticmethod
    def estimator_of(config: PPOConfig) -> AdvantageEstimator:
        """Generalised advantages, or rewards to go."""
        if config.advantage == "return":
            return RewardToGo(gamma=config.gamma)
        return GAE(gamma=config.gamma, lam=config.gae_lambda)

    @staticmethod
    def objective_of(config: PPOConfig) -> Objective:
        """The clipped surrogate."""
        high = config.clip if config.clip_high is None else config.clip_high
        return Objective(clip_low=config.clip, clip_high=high)
