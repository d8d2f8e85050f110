"""The REINFORCE family: returns of whole responses against a baseline, with the KL in the reward.

REINFORCE (Williams 1992) with no, a moving or a learned baseline; REINFORCE++ (Hu 2025, arXiv:2501.03262), whitened
over the whole batch; RLOO (Ahmadian et al. 2024, arXiv:2402.14740), the others of the group as baseline; ReMax (Li et
al. 2023, arXiv:2310.10505), a greedy response as baseline. None of them but the learned baseline has a critic.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from lm_gym.envs.rollout import PhaseTimer, collect
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.tools.settings import Count, Positive, Probability, settings

from ..update.advantages import GAE, AdvantageEstimator, RewardToGo
from ..update.agent import SurrogateAgent
from ..update.baselines import GivenBaseline, GroupMean, LeaveOneOut, MovingBaseline
from ..update.config import OnPolicyConfig, SurrogateConfig
from ..update.objectives import Objective

__all__ = [
    "REINFORCE",
    "RLOO",
    "REINFORCEConfig",
    "REINFORCEPlusPlus",
    "REINFORCEPlusPlusConfig",
    "RLOOConfig",
    "ReMax",
    "ReMaxConfig",
]


@settings
class REINFORCEConfig(OnPolicyConfig):
    """Settings of :class:`REINFORCE`."""

    epochs: Literal[1] = 1
    """Passes over each batch: one."""
    baseline: Literal["moving", "learned", "none"] = "moving"
    """A moving mean of returns; a value head, taken from each reward to go; or none, which leaves most noise."""
    gamma: Probability = 1.0
    """Discount per token of a reward to go; a moving baseline is one of whole returns, without discount."""


class REINFORCE(SurrogateAgent):
    """Monte-Carlo policy gradient (Williams 1992)."""

    config_type: ClassVar[type[SurrogateConfig]] = REINFORCEConfig

    @staticmethod
    def estimator_of(config: REINFORCEConfig) -> AdvantageEstimator:
        """By the baseline."""
        if config.baseline == "moving":
            return MovingBaseline()
        return GAE(gamma=config.gamma, lam=1.0) if config.baseline == "learned" else RewardToGo(gamma=config.gamma)

    @staticmethod
    def objective_of(config: REINFORCEConfig) -> Objective:
        """The plain policy gradient."""
        return Objective(clip_low=None, clip_high=None)


@settings
class REINFORCEPlusPlusConfig(SurrogateConfig):
    """Settings of :class:`REINFORCEPlusPlus`."""

    baseline: Literal["none", "group"] = "none"
    """Before whitening over the batch: nothing (rewards to go), or the mean of each group ("REINFORCE++-baseline")."""
    clip: Positive = 0.2
    """Epsilon of the policy ratio."""
    gamma: Probability = 1.0
    """Discount per token."""


class REINFORCEPlusPlus(SurrogateAgent):
    """Rewards to go, whitened over the whole batch of all processes, under PPO's clip (Hu 2025)."""

    config_type: ClassVar[type[SurrogateConfig]] = REINFORCEPlusPlusConfig

    @staticmethod
    def estimator_of(config: REINFORCEPlusPlusConfig) -> AdvantageEstimator:
        """Rewards to go, or returns less the mean of their group."""
        return RewardToGo(gamma=config.gamma) if config.baseline == "none" else GroupMean(scaled=False)

    @staticmethod
    def objective_of(config: REINFORCEPlusPlusConfig) -> Objective:
        """The clipped surrogate."""
        return Objective(clip_low=config.clip, clip_high=config.clip)


@settings
class RLOOConfig(OnPolicyConfig):
    """Settings of :class:`RLOO`."""

    samples_per_prompt: Count = 4
    """Responses to each prompt that is drawn; they form a group."""
    clip: Positive | None = None
    """Epsilon of the policy ratio, for more than one step on a batch; None does not clip."""


class RLOO(SurrogateAgent):
    """REINFORCE with the mean of the other responses to the prompt as baseline (Ahmadian et al. 2024)."""

    config_type: ClassVar[type[SurrogateConfig]] = RLOOConfig

    @staticmethod
    def estimator_of(config: RLOOConfig) -> AdvantageEstimator:
        """Leave-one-out."""
        return LeaveOneOut()

    @staticmethod
    def objective_of(config: RLOOConfig) -> Objective:
        """The policy gradient, clipped if asked."""
        return Objective(clip_low=config.clip, clip_high=config.clip)


@settings
class ReMaxConfig(OnPolicyConfig):
    """Settings of :class:`ReMax`."""


class ReMax(SurrogateAgent):
    """REINFORCE with the score of the policy's greedy response to the same prompt as baseline (Li et al. 2023).

    The baseline is the paid score alone, without a KL: any number that does not depend on the response will do.
    """

    config_type: ClassVar[type[SurrogateConfig]] = ReMaxConfig

    @staticmethod
    def estimator_of(config: ReMaxConfig) -> AdvantageEstimator:
        """Returns less the greedy response's."""
        return GivenBaseline()

    @staticmethod
    def objective_of(config: ReMaxConfig) -> Objective:
        """The plain policy gradient."""
        return Objective(clip_low=None, clip_high=None)

    def collect(self, env: TextGenerationVectorEnv, timer: PhaseTimer) -> tuple[Episodes, dict[str, float]]:
        """Sampled responses, and one greedy response to each prompt; one that gets no score is a baseline of 0."""
        samples = self.config.samples_per_prompt
        prompts = env.draw_prompts(self.config.episodes_per_iteration // samples)
        episodes = env.rollout_on(self.sampler, prompts, samples_per_prompt=samples, timer=timer)
        greedy = replace(env.task, sampling=replace(env.sampling, top_k=1, top_p=None, min_p=None))
        best = collect(greedy, self.sampler, prompts, env.reward_model, kl_coef=0.0, seed=0, timer=timer)
        return replace(episodes, baselines=np.repeat(best.rewards.sum(axis=1), samples)), {}
