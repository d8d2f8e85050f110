"""Proximal policy optimisation: the clipped surrogate on generalised advantages from a value head.

With ``advantage="return"`` and ``whiten_advantages=False`` the loss is the plain published form
``-min(ratio * R, clip(ratio, 1 - c, 1 + c) * R)`` with R the reward to go: no baseline, no value loss.

VinePPO (Kazemnejad et al. 2024, arXiv:2410.01679) has no value head: the value of every state is the mean return of
fresh continuations from it. Each is about half a response on average, and there are so many for every token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from lm_gym.envs.rollout import PhaseTimer, continuation_values
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.tools.settings import Count, Positive, Probability, settings

from ..update.advantages import GAE, AdvantageEstimator, GivenValues, RewardToGo
from ..update.agent import SurrogateAgent
from ..update.config import SurrogateConfig
from ..update.objectives import Objective

__all__ = ["PPO", "PPOConfig", "VinePPO", "VinePPOConfig"]


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
        return _clipped(config)


@settings
class VinePPOConfig(SurrogateConfig):
    """Settings of :class:`VinePPO`."""

    continuations: Count = 4
    """Fresh continuations from each state; its value is the mean of what they earn (the paper has 9)."""
    gae_lambda: Probability = 0.0
    """Lambda of the advantage estimate; 0 takes the value after a token less that before it."""
    clip: Positive = 0.2
    """Epsilon of the policy ratio."""
    clip_high: Positive | None = None
    """Epsilon above 1; None is ``clip``."""


class VinePPO(SurrogateAgent):
    """PPO with Monte-Carlo values in the place of a critic."""

    config_type: ClassVar[type[SurrogateConfig]] = VinePPOConfig
    config: VinePPOConfig

    @staticmethod
    def estimator_of(config: VinePPOConfig) -> AdvantageEstimator:
        """Advantages on the values that come with the episodes."""
        return GivenValues(lam=config.gae_lambda)

    @staticmethod
    def objective_of(config: VinePPOConfig) -> Objective:
        """The clipped surrogate."""
        return _clipped(config)

    def check_env(self, env: TextGenerationVectorEnv) -> None:
        """Refuse stop strings: one that began before a state would not end its continuation. Refuse an encoder-decoder:
        what it has said already would be read as part of the prompt."""
        if self.policy.language_model.is_encoder_decoder:
            raise ConfigError(
                "VinePPO: needs a causal language model, which goes on from any state, got the encoder-decoder "
                f"{type(self.policy.model).__name__}; use PPO"
            )
        if env.sampling.stop_strings:
            raise ConfigError(
                "VinePPO: needs an environment without stop strings, since one may begin before the state that is gone "
                f"on from, got {env.sampling.stop_strings}; leave them out, or use PPO"
            )

    def collect(self, env: TextGenerationVectorEnv, timer: PhaseTimer) -> tuple[Episodes, dict[str, float]]:
        """Responses, and the value of the state before each of their tokens."""
        samples = self.config.samples_per_prompt
        prompts = env.draw_prompts(self.config.episodes_per_iteration // samples)
        episodes = env.rollout_on(self.sampler, prompts, samples_per_prompt=samples, timer=timer)
        values = continuation_values(
            env.task,
            self.sampler,
            episodes,
            [prompt for prompt in prompts for _ in range(samples)],
            env.reward_model,
            kl_coef=env.kl_coef,
            seed=int(env.np_random.integers(2**31)),
            samples=self.config.continuations,
            timer=timer,
        )
        return replace(episodes, state_values=values), {}


def _clipped(config: PPOConfig | VinePPOConfig) -> Objective:
    return Objective(clip_low=config.clip, clip_high=config.clip if config.clip_high is None else config.clip_high)
