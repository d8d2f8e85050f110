"""An adaptive KL coefficient, owned by the trainer."""

from __future__ import annotations

import math

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import Positive, settings

__all__ = ["AdaptiveKL"]


@settings
class AdaptiveKL:
    """Proportional control of beta in log space: ``beta *= 1 + clip(kl / target - 1, -0.2, 0.2) * n / horizon``.

    Source: Ziegler et al. 2019 (arXiv:1909.08593), section 2.2. The trainer writes the result to ``env.kl_coef``.
    """

    target: Positive
    """Wanted KL of a whole response, in nats (summed over its tokens)."""
    horizon: Positive = 10_000.0
    """Episodes over which a persistent error of 20 % changes beta by about 20 %."""

    def next_coef(self, kl_coef: float, kl: float, num_episodes: int) -> float:
        """The coefficient for the next iteration.

        Args:
            kl_coef: the one that was used, in score units per nat.
            kl: mean KL of the responses, summed over tokens, in nats.
            num_episodes: responses in the iteration; more than a horizon count as one, so beta stays positive.

        Raises:
            ConfigError: the KL is not finite.
        """
        if not math.isfinite(kl):
            raise ConfigError(f"AdaptiveKL: kl must be finite to be controlled, got {kl}; is there a reference model?")
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return kl_coef * (1.0 + error * min(num_episodes / self.horizon, 1.0))
