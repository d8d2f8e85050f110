"""Group methods: the responses to one prompt are each other's baseline.

GRPO (Shao et al. 2024, arXiv:2402.03300); Dr. GRPO (Liu et al. 2025, arXiv:2503.20783), without its two biases; GSPO
(Zheng et al. 2025, arXiv:2507.18071), one ratio per response; CISPO (MiniMax 2025, arXiv:2506.13585), ratios as bounded
weights. DAPO is in ``dapo.py``.

Departures: beta is the environment's ``kl_coef``, and the KL in the loss has the gradient of the KL itself
(``objectives.kl_term``), which the published k3 term lacks. The methods that were published without a KL are so at
``kl_coef=0``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lm_gym.tools.settings import Count, Positive, Share, settings

from ..update.advantages import AdvantageEstimator
from ..update.agent import SurrogateAgent
from ..update.baselines import GroupMean
from ..update.config import OnPolicyConfig, SurrogateConfig
from ..update.objectives import Objective

__all__ = ["CISPO", "GRPO", "GSPO", "CISPOConfig", "DrGRPO", "DrGRPOConfig", "GRPOConfig", "GSPOConfig", "GroupConfig"]

KLPlace = Literal["reward", "loss", "both", "none"]


@settings
class GroupConfig(OnPolicyConfig):
    """Settings that the group methods share."""

    samples_per_prompt: Count = 8
    """Responses to each prompt that is drawn; they form a group."""
    minibatches: Count = 2
    """Optimiser steps per pass."""
    kl_place: KLPlace = "loss"
    """Place of beta KL; see :class:`Objective`."""


@settings
class GRPOConfig(GroupConfig):
    """Settings of :class:`GRPO`."""

    clip: Positive = 0.2
    """Epsilon of the policy ratio."""
    scale_by_deviation: bool = True
    """Divide advantages by the deviation of their group."""


class GRPO(SurrogateAgent):
    """Group relative policy optimisation: scaled group advantages, and a mean over each response's tokens."""

    config_type: ClassVar[type[SurrogateConfig]] = GRPOConfig

    @staticmethod
    def estimator_of(config: GRPOConfig) -> AdvantageEstimator:
        """Returns less the group's mean, over its deviation."""
        return GroupMean(scaled=config.scale_by_deviation)

    @staticmethod
    def objective_of(config: GRPOConfig) -> Objective:
        """The clipped surrogate, each response weighing alike."""
        return Objective(
            clip_low=config.clip, clip_high=config.clip, aggregation="sequence_mean", kl_place=config.kl_place
        )


@settings
class DrGRPOConfig(GroupConfig):
    """Settings of :class:`DrGRPO`."""

    kl_place: KLPlace = "reward"
    """Place of beta KL; in the reward the optimum is that of the environment."""
    clip: Positive = 0.2
    """Epsilon of the policy ratio."""


class DrGRPO(SurrogateAgent):
    """GRPO done right: no division by the deviation, nor by a response's length."""

    config_type: ClassVar[type[SurrogateConfig]] = DrGRPOConfig

    @staticmethod
    def estimator_of(config: DrGRPOConfig) -> AdvantageEstimator:
        """Returns less the group's mean."""
        return GroupMean(scaled=False)

    @staticmethod
    def objective_of(config: DrGRPOConfig) -> Objective:
        """The clipped surrogate over a constant length."""
        return Objective(clip_low=config.clip, clip_high=config.clip, aggregation="constant", kl_place=config.kl_place)


@settings
class GSPOConfig(GroupConfig):
    """Settings of :class:`GSPO`."""

    clip: Positive = 3e-4
    """Epsilon below 1 of a response's ratio, which is a mean over tokens and moves little (section 5.1)."""
    clip_high: Positive = 4e-4
    """Epsilon above 1."""


class GSPO(SurrogateAgent):
    """Group sequence policy optimisation: one ratio per response, clipped as a whole."""

    config_type: ClassVar[type[SurrogateConfig]] = GSPOConfig

    @staticmethod
    def estimator_of(config: GSPOConfig) -> AdvantageEstimator:
        """Returns less the group's mean, over its deviation."""
        return GroupMean()

    @staticmethod
    def objective_of(config: GSPOConfig) -> Objective:
        """The clipped surrogate at the level of a response."""
        return Objective(
            ratio="sequence",
            clip_low=config.clip,
            clip_high=config.clip_high,
            aggregation="sequence_mean",
            kl_place=config.kl_place,
        )


@settings
class CISPOConfig(GroupConfig):
    """Settings of :class:`CISPO`. Two definitions go by the name, and differ in the lower bound."""

    clip: Share | None = None
    """Epsilon below 1 of the weight; None sets no lower bound, as the paper does ("CISPO"), while some codes clip on
    both sides."""
    clip_high: Positive = 4.0
    """Epsilon above 1 of the weight, which is at most 1 plus this."""


class CISPO(SurrogateAgent):
    """Clipped importance weights: every token keeps its gradient, with a bounded weight."""

    config_type: ClassVar[type[SurrogateConfig]] = CISPOConfig

    @staticmethod
    def estimator_of(config: CISPOConfig) -> AdvantageEstimator:
        """Returns less the group's mean, over its deviation."""
        return GroupMean()

    @staticmethod
    def objective_of(config: Any) -> Objective:
        """``log pi`` weighed by the bounded ratio, a mean over the tokens of the batch."""
        return Objective(rule="weight", clip_low=config.clip, clip_high=config.clip_high, kl_place=config.kl_place)
