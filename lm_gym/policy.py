"""Policies and samplers as the environment and the tools around it see them.

Concrete policies live in ``lm_gym.agents``; the built-in sampler is ``lm_gym.models.generate``.

Shapes: B = rows or episodes, T = longest response, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lm_gym.config import SamplingConfig
from lm_gym.episodes import Episodes
from lm_gym.keep_sets import KeepSets

__all__ = ["Generation", "Policy", "PolicyEvaluation", "Sampler"]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Sampled responses; arrays are 0 where the mask is False."""

    ids: np.ndarray
    """Shape: (B, T), int64."""
    mask: np.ndarray
    """Shape: (B, T), bool."""
    log_probs: np.ndarray
    """Log-probabilities of the behaviour policy: tempered, truncated, renormalised; in nats. Shape: (B, T), float32."""
    keep_sets: KeepSets | None = None
    """Subsets drawn from; None if sampling was not truncated, or if the sampler does not store them."""


class PolicyEvaluation(NamedTuple):
    """A policy's own view of finished episodes."""

    log_probs: Any
    """Log-probability of each response token, tempered, over its keep set, in nats; 0 off the mask. Tensor (B, T)."""
    values: Any
    """Value of the state before each token, in reward units; 0 off the mask. Tensor (B, T)."""
    entropy: Any
    """Entropy of the distribution that each token was drawn from, in nats; 0 off the mask. Tensor (B, T)."""
    final_values: Any
    """Value of the state after the last token, from which a truncated episode bootstraps. Tensor (B,)."""


@runtime_checkable
class Sampler(Protocol):
    """Decodes whole responses for a rollout: the built-in sampler, or a serving engine."""

    stores_keep_sets: bool
    """True if truncated sampling comes with the keep set of each token; without them it is refused for training."""

    @property
    def vocab_size(self) -> int:
        """V, to be checked against the environment's."""
        ...

    def generate(self, prompts: Sequence[np.ndarray], sampling: SamplingConfig) -> Generation:
        """One response per prompt.

        Args:
            prompts: token ids, each of shape (P_i,).
            sampling: the environment's rules, its stop tokens named; ``seed`` fixes the draws.
        """
        ...

    def refresh(self, policy: Any) -> None:
        """Take over the weights of a policy that has changed."""
        ...


@runtime_checkable
class Policy(Protocol):
    """Acts token by token and looks back on episodes to learn from them; its sampler generates whole responses.

    It has no temperature, truncation or stop token of its own: those are the environment's, and are handed to it.
    """

    @property
    def sampler(self) -> Sampler:
        """Decodes for :meth:`TextGenerationVectorEnv.rollout`, with the weights that the policy has now."""
        ...

    def act(self, observation: dict[str, np.ndarray], sampling: SamplingConfig) -> tuple[np.ndarray, np.ndarray]:
        """Draw a token in each of B states.

        Args:
            observation: ``input_ids`` and ``attention_mask`` of shape (B, L), or (L,) for one row.
            sampling: the environment's rules (``env.sampling``).

        Returns: tokens (B,) int64, log-probabilities (B,) float32, in nats; scalars' shape for one row.
        """
        ...

    def log_probs_and_values(self, episodes: Episodes) -> PolicyEvaluation:
        """One teacher-forced pass, with gradients where autograd is on."""
        ...
