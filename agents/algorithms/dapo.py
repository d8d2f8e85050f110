"""DAPO (Yu et al. 2025, arXiv:2503.14476): GRPO with a higher upper clip, a mean over all tokens, dynamic sampling of
groups, and a rule for overlong responses. Beta is the environment's ``kl_coef``; the paper has 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from lm_gym.envs.rollout import PhaseTimer
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.tools.settings import Count, NotNegative, Positive, Whole, settings

from ..update.advantages import AdvantageEstimator
from ..update.agent import SurrogateAgent
from ..update.baselines import GroupMean, paid_alike
from ..update.config import SurrogateConfig
from ..update.objectives import Objective
from .grpo import GroupConfig

__all__ = ["DAPO", "DAPOConfig", "overlong_penalty"]


@settings
class DAPOConfig(GroupConfig):
    """Settings of :class:`DAPO`."""

    clip: Positive = 0.2
    """Epsilon below 1 of the policy ratio."""
    clip_high: Positive = 0.28
    """Epsilon above 1, larger so that rare tokens can become likely."""
    sampling_rounds: Count = 3
    """Most rollouts of an iteration that replace groups whose responses are all paid alike; 1 replaces none."""
    overlong_buffer: Whole = 0
    """The last so many allowed tokens are paid less and less; 0 pays every length alike (eq. 13)."""
    overlong_penalty: NotNegative = 1.0
    """Penalty of the longest response, in score units."""


class DAPO(SurrogateAgent):
    """Decoupled clip and dynamic sampling policy optimisation."""

    config_type: ClassVar[type[SurrogateConfig]] = DAPOConfig
    config: DAPOConfig

    @staticmethod
    def estimator_of(config: DAPOConfig) -> AdvantageEstimator:
        """Returns less the group's mean, over its deviation."""
        return GroupMean()

    @staticmethod
    def objective_of(config: DAPOConfig) -> Objective:
        """The surrogate with two epsilons, a mean over the tokens of the batch."""
        return Objective(clip_low=config.clip, clip_high=config.clip_high, kl_place=config.kl_place)

    def collect(self, env: TextGenerationVectorEnv, timer: PhaseTimer) -> tuple[Episodes, dict[str, float]]:
        """Groups that teach something, from as many rollouts as are allowed; the rest is filled up with others."""
        taught: list[Episodes] = []
        others: list[Episodes] = []
        wanted, drawn, uniform = self.config.episodes_per_iteration, 0, 0
        for _ in range(self.config.sampling_rounds):
            episodes, _ = super().collect(env, timer)
            episodes = self._shortened(episodes)
            alike = paid_alike(episodes)
            drawn, uniform = drawn + len(episodes), uniform + int(alike.sum())
            taught += [episodes[~alike]] if not alike.all() else []
            others += [episodes[alike]] if alike.any() else []
            if sum(len(one) for one in taught) >= wanted:
                break
        joined = Episodes.concatenate([*taught, *others])
        return joined[:wanted], {"uniform_groups": uniform / drawn}

    def _shortened(self, episodes: Episodes) -> Episodes:
        """Episodes whose last token pays the penalty of an overlong response."""
        lengths = episodes.response_lengths
        penalty = self.config.overlong_penalty * overlong_penalty(
            lengths, longest=episodes.max_new_tokens, buffer=self.config.overlong_buffer
        )
        rewards = episodes.rewards.copy()
        rewards[np.arange(len(episodes)), lengths - 1] += np.where(episodes.abstained, 0.0, penalty)
        return replace(episodes, rewards=rewards)


def overlong_penalty(lengths: np.ndarray, *, longest: int, buffer: int) -> np.ndarray:
    """Soft penalty of lengths (eq. 13): 0 up to ``longest - buffer``, then falling to -1 at ``longest``.

    Args: lengths: tokens, shape (B,); longest: that are allowed; buffer: 0 penalises none.
    """
    if buffer == 0:
        return np.zeros(len(lengths))
    return -np.clip((lengths - (longest - buffer)) / buffer, 0.0, 1.0)
