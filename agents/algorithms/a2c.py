"""Advantage actor-critic: one step on each batch, with a value head and no clip.

PPO takes the same step with one epoch and one minibatch, where every ratio is 1 (Huang et al. 2022, arXiv:2205.09123).
Departures: Adam in place of RMSprop; whole responses in place of a fixed number of steps.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lm_gym.tools.settings import Probability, settings

from ..update.advantages import GAE, AdvantageEstimator
from ..update.agent import SurrogateAgent
from ..update.config import OnPolicyConfig, SurrogateConfig
from ..update.objectives import Objective

__all__ = ["A2C", "A2CConfig"]


@settings
class A2CConfig(OnPolicyConfig):
    """Settings of :class:`A2C`."""

    epochs: Literal[1] = 1
    """Passes over each batch: one."""
    gamma: Probability = 1.0
    """Discount per token."""
    gae_lambda: Probability = 1.0
    """Lambda of the advantage estimate; 1 is the return less the value."""


class A2C(SurrogateAgent):
    """Synchronous advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783)."""

    config_type: ClassVar[type[SurrogateConfig]] = A2CConfig

    @staticmethod
    def estimator_of(config: A2CConfig) -> AdvantageEstimator:
        """Generalised advantages; at lambda 1 the return less the value."""
        return GAE(gamma=config.gamma, lam=config.gae_lambda)

    @staticmethod
    def objective_of(config: A2CConfig) -> Objective:
        """The plain policy gradient."""
        return Objective(clip_low=None, clip_high=None)
