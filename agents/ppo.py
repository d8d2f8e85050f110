"""Proximal policy optimisation: the clipped surrogate on generalised advantages from a value head.

The update itself is ``surrogate.py``, the estimate ``advantages.py``; here they are put together. Another estimator
makes another algorithm: with ``estimator=RewardToGo()`` and ``whiten_advantages=False`` the loss is the plain published
form ``-min(ratio * R, clip(ratio, 1 - c, 1 + c) * R)`` with R the reward to go: no baseline, no value loss.
"""

from __future__ import annotations

from lm_gym.policy import Sampler
from lm_gym.processes import ONE_PROCESS, Processes
from lm_gym.tools.settings import Probability, settings

from .advantages import GAE, AdvantageEstimator
from .policy import LanguageModelPolicy
from .surrogate import SurrogateAgent, SurrogateConfig

__all__ = ["PPO", "PPOConfig"]


@settings
class PPOConfig(SurrogateConfig):
    """Settings of :class:`PPO`."""

    gamma: Probability = 1.0
    """Discount per token."""
    gae_lambda: Probability = 0.95
    """Lambda of the advantage estimate."""


class PPO(SurrogateAgent):
    """Token-level PPO on finished episodes (Schulman et al. 2017; Ziegler et al. 2019)."""

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: PPOConfig | None = None,
        *,
        estimator: AdvantageEstimator | None = None,
        sampler: Sampler | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> None:
        """Args:
        policy: trained in place.
        config: settings; None takes the defaults.
        estimator: of the advantages; None is GAE with the config's gamma and lambda.
        sampler: decodes the rollouts; None takes the policy's own.
        processes: those that share the run.

        Raises:
            ConfigError: see :class:`~lm_gym.agents.surrogate.SurrogateAgent`.
        """
        config = config or PPOConfig()
        estimator = estimator or GAE(gamma=config.gamma, lam=config.gae_lambda)
        super().__init__(policy, estimator, config, sampler=sampler, processes=processes)
