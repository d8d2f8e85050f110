"""Best-of-n: the response with the highest score of n, without any training, what RL is measured against; and rejection
sampling, which learns it.

Three formulas go with it: an unbiased estimate of its score from one larger pool, its distribution over responses that
can be enumerated, and the bound ``log n - (n - 1) / n`` on its KL (Beirami et al. 2024, arXiv:2401.01879), which is
loose where scores tie. Rejection sampling (expert iteration; Anthony et al. 2017, arXiv:1705.08439; Dong et al. 2023,
arXiv:2304.06767) imitates what was kept. One round of it, learned to its end, gives exactly the best-of-n of the policy
that drew; each round begins from there, without a KL to hold it: it ends at the highest score alone.

Shapes: B = prompts, N = samples of a prompt, n <= N.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lm_gym.envs.wrappers import AnyEnv, vector_env_of
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.policy import Policy, PolicyEvaluation, Sampler
from lm_gym.processes import Processes
from lm_gym.prompts import Prompt
from lm_gym.tools.settings import Bounds, Count, checked, finite_array, settings

from ..metrics import episode_metrics
from ..policy import LanguageModelPolicy
from ..update.config import BatchConfig
from ..update.passes import PassesAgent

__all__ = [
    "RejectionSampling",
    "RejectionSamplingConfig",
    "best_of_n",
    "best_of_n_kl_bound",
    "best_of_n_probs",
    "best_of_n_scores",
    "kept_rows",
]


def best_of_n(
    policy: Policy | Sampler, env: AnyEnv, prompts: Sequence[Prompt | str | Mapping[str, Any]], *, n: int
) -> Episodes:
    """Sample n responses to each prompt and keep the one with the highest score; of equals the first drawn.

    Args:
        policy: or a sampler.
        env: gives rules, reference and reward model; its random state moves on, as in a rollout.
        prompts: tokenised, texts, or rows with the columns that the reward model needs.
        n: samples of each.

    Returns: one episode per prompt, in their order. A prompt of whose responses none has a score keeps its first.
        Its KL and rewards are those of one sampled response: the KL of best-of-n is :func:`best_of_n_probs`'s.

    Raises:
        ConfigError: n is no count, there are no prompts, or a wrapper may change the reward.
    """
    n = checked("best_of_n: n", n, Count)
    episodes = vector_env_of(env, "best_of_n").rollout_on(policy, prompts, samples_per_prompt=n)
    scores = np.where(episodes.score_valid, episodes.scores, -np.inf).reshape(-1, n)
    return episodes[np.arange(len(scores)) * n + scores.argmax(axis=1)]


def best_of_n_scores(scores: np.ndarray, n: int) -> np.ndarray:
    """Expected highest score of n, from N samples of each prompt, without bias.

    The mean of the maximum over all subsets of n: with the scores in ascending order, the i-th (from 1) is the maximum
    of ``C(i - 1, n - 1)`` of the ``C(N, n)`` subsets (the form of pass@k in Chen et al. 2021, arXiv:2107.03374, for any
    score).

    Args: scores: Shape: (B, N); n: in [1, N].

    Returns: Shape: (B,), float64.

    Raises:
        ConfigError: n is larger than the pool, or no count.
        DataError: a score is not finite.
    """
    scores = finite_array("best_of_n_scores: scores", scores, dimensions=2)
    size = scores.shape[1]
    n = checked(f"best_of_n_scores: n, of pools of {size}", n, Annotated[int, Bounds(least=1, most=size)])
    weights = np.array([math.comb(place, n - 1) / math.comb(size, n) for place in range(size)])
    return np.sort(scores, axis=1) @ weights


def best_of_n_probs(probs: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """Distribution of best-of-n over responses that are all known, where a tie is won by the first drawn.

    A level of the score is reached with ``F(level)^n - F(below)^n``, and shared among its responses as they are drawn.

    Args: probs, scores: of each response, shape (R,); the probabilities sum to 1.

    Returns: Shape: (R,), float64.

    Raises:
        ConfigError: shapes differ, or the probabilities do not sum to 1.
        DataError: a number is not finite.
    """
    n = checked("best_of_n_probs: n", n, Count)
    probs = finite_array("best_of_n_probs: probs", probs, dimensions=1)
    scores = finite_array("best_of_n_probs: scores", scores, dimensions=1)
    if probs.shape != scores.shape or not math.isclose(probs.sum(), 1.0, rel_tol=1e-6):
        raise ConfigError(
            "best_of_n_probs: probs and scores must be of one shape (R,), and the probabilities sum to 1, got shapes "
            f"{probs.shape} and {scores.shape} and a sum of {probs.sum():.6g}"
        )
    _, level = np.unique(scores, return_inverse=True)
    mass = np.bincount(level, weights=probs)
    up_to = np.minimum(np.cumsum(mass), 1.0)
    won = up_to**n - np.concatenate([[0.0], up_to[:-1]]) ** n
    return probs * np.divide(won, mass, out=np.zeros_like(mass), where=mass > 0)[level]


def best_of_n_kl_bound(n: int) -> float:
    """Upper bound of the KL of best-of-n to the policy that it draws from, in nats; reached without ties."""
    n = checked("best_of_n_kl_bound: n", n, Count)
    return math.log(n) - (n - 1) / n


@settings
class RejectionSamplingConfig(BatchConfig):
    """Settings of :class:`RejectionSampling`."""

    samples_per_prompt: Count = 8
    """Responses to each prompt that is drawn."""
    threshold: float | None = None
    """Every response is kept that is paid at least this, KL apart; None keeps the best of each prompt."""


def kept_rows(returns: np.ndarray, group: np.ndarray, counted: np.ndarray, *, threshold: float | None) -> np.ndarray:
    """Rows of the responses that are learned from.

    Args:
        returns: what each was paid. Shape: (B,).
        group: number of its prompt draw. Shape: (B,), int.
        counted: True = has a score. Shape: (B,), bool.
        threshold: that is enough; None keeps the first of the best of each group.

    Returns: Shape: (N,), int64.
    """
    if threshold is not None:
        return np.flatnonzero(counted & (returns >= threshold))
    order = np.lexsort((np.arange(len(returns)), -returns, group))
    order = order[counted[order]]
    return order[np.unique(group[order], return_index=True)[1]]


class RejectionSampling(PassesAgent):
    """Rejection sampling fine-tuning: the likelihood of what was kept, whole responses weighing alike."""

    config_type: ClassVar[type[RejectionSamplingConfig]] = RejectionSamplingConfig

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: RejectionSamplingConfig | None = None,
        *,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args: see :class:`LearningAgent`.

        Raises:
            ConfigError: see there, or the best of one response is to be kept, which learns nothing.
        """
        super().__init__(policy, config, sampler=sampler, processes=processes)
        if self.config.threshold is None and self.config.samples_per_prompt < 2:
            raise ConfigError(
                "RejectionSampling: samples_per_prompt: must be >= 2 where the best of each prompt is kept, got 1; "
                "raise it, or set threshold"
            )

    def _updated(self, episodes: Episodes, *, progress: float) -> dict[str, float]:
        """See :meth:`LearningAgent.update`."""
        kept = kept_rows(episodes.payments, episodes.group, episodes.scored, threshold=self.config.threshold)

        def loss(part: Episodes, now: PolicyEvaluation, rows: np.ndarray) -> dict[str, Tensor]:
            return {"policy_loss": -now.log_probs.sum(1)}

        found = self._passes(episodes, kept[:, None], loss, ("policy_loss",), progress=progress)
        counts = self.processes.sum(torch.tensor([len(kept), len(episodes)], device=self.policy.device)).tolist()
        told = episode_metrics(episodes, processes=self.processes)
        return {**told, **found, "kept_share": counts[0] / counts[1]}
