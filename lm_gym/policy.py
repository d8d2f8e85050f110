"""What the environment and the tools around it ask of a policy. Concrete policies live in ``lm_gym.agents``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lm_gym.config import SamplingConfig
from lm_gym.decoding import Generation
from lm_gym.episodes import Episodes

__all__ = ["Policy", "PolicyEvaluation"]


class PolicyEvaluation(NamedTuple):
    """A policy's own view of finished episodes; B = episodes, T = longest response."""

    log_probs: Any
    """Of each response token, tempered and over its keep set, in nats; 0 off the mask. Tensor (B, T)."""
    values: Any
    """Of the state before each token, in reward units; 0 off the mask. Tensor (B, T)."""
    entropy: Any
    """Of the distribution that each token was drawn from, in nats; 0 off the mask. Tensor (B, T)."""
    final_values: Any
    """Of the state after the last token; what a truncated episode bootstraps from. Tensor (B,)."""


@runtime_checkable
class Policy(Protocol):
    """Acts token by token, generates whole responses, and looks back on episodes to learn from them."""

    def act(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Draw a token in each of B states. Returns: tokens (B,) int64, log-probabilities (B,) float32."""
        ...

    def generate(self, prompts: Sequence[np.ndarray], sampling: SamplingConfig) -> Generation:
        """One response per prompt of token ids; ``sampling.seed`` fixes the draws."""
        ...

    def evaluate(self, episodes: Episodes) -> PolicyEvaluation:
        """One teacher-forced pass, with gradients where autograd is on."""
        ...
