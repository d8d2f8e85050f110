"""Direct preference optimisation: the better of two responses against the worse (Rafailov et al. 2023,
arXiv:2305.18290, eq. 7), on pairs that are given or on the policy's own (online AI feedback: Guo et al. 2024,
arXiv:2402.04792).

    loss = -log sigmoid(m),    m = beta log pi(y+|x) / pi_ref(y+|x) - beta log pi(y-|x) / pi_ref(y-|x)

Fixed point: where the better is told by chance, with probability ``sigmoid(R(y) - R(y'))`` (Bradley and Terry), the
expected loss is least at ``m = R(y) - R(y')`` for every pair, which is the optimum of the environment at the same beta.
Where the best and the worst of several are told apart for sure there is none: the margin grows as long as both are
drawn, whatever beta, until the policy gives the highest score alone; beta only says how fast.

Given pairs are tokenised as demonstrations are: prompt and response apart, and a stop token after the response. They
teach nothing about responses that are in no pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lm_gym.envs.rollout import PhaseTimer
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.models.language_model import DType
from lm_gym.policy import PolicyEvaluation, Sampler
from lm_gym.processes import Processes
from lm_gym.runs.generators import generator_of, require_state, state_of
from lm_gym.tools.settings import Count, Several, settings

from ..metrics import episode_metrics
from ..policy import LanguageModelPolicy
from ..update.agent_folder import load_agent
from ..update.baselines import uniform_share
from ..update.config import BatchConfig
from ..update.passes import PassesAgent, response_log_ratios
from .preference_pairs import PreferencePairs

__all__ = ["DPO", "DPOConfig", "best_and_worst", "dpo_loss", "neighbours"]

NUMBERS = ("policy_loss", "preference_margin", "preference_accuracy")


@settings
class DPOConfig(BatchConfig):
    """Settings of :class:`DPO`."""

    samples_per_prompt: Several = 2
    """Responses to each prompt that is drawn, or 2 of each pair that is given."""
    minibatches: Count = 1
    """Optimiser steps per pass."""
    judge: Literal["best_worst", "bradley_terry"] = "best_worst"
    """Label of the policy's own responses: the highest against the lowest paid of a group, for sure; or neighbours of a
    group, each better with the probability ``sigmoid`` of the difference of what they are paid, which weighs both
    orders in the loss."""


def dpo_loss(margins: Tensor, chance: Tensor) -> Tensor:
    """Loss of pairs in expectation over who is better.

    Args: margins: of the first over the second; chance: that the first is better, in [0, 1]. Shapes: (n,).

    Returns: Shape: (n,).
    """
    return -chance * logsigmoid(margins) - (1.0 - chance) * logsigmoid(-margins)


def best_and_worst(returns: np.ndarray, group: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Rows of the highest and the lowest paid response of each group whose counted ones are not paid alike.

    Args: returns, group, counted: of each response. Shapes: (B,).

    Returns: Shape: (N, 2), int64; of equals the first.
    """
    found = []
    for number in np.unique(group[counted]):
        rows = np.flatnonzero(counted & (group == number))
        best, worst = rows[returns[rows].argmax()], rows[returns[rows].argmin()]
        if returns[best] > returns[worst]:
            found.append((best, worst))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def neighbours(group: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Rows of the counted responses of each group by twos, the first with the second, the third with the fourth.

    Args: group, counted: of each response. Shapes: (B,).

    Returns: Shape: (N, 2), int64.
    """
    rows = [np.flatnonzero(counted & (group == number)) for number in np.unique(group)]
    pairs = [each[: len(each) // 2 * 2].reshape(-1, 2) for each in rows]
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])


class DPO(PassesAgent):
    """Direct preference optimisation, online, or offline where pairs are given."""

    config_type: ClassVar[type[DPOConfig]] = DPOConfig
    needs_log_ratio = True

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: DPOConfig | None = None,
        *,
        pairs: Sequence[Mapping[str, Any]] | None = None,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args:
        policy, config, sampler, processes: see :class:`LearningAgent`.
        pairs: rows with the texts ``prompt``, ``chosen`` and ``rejected``, to learn from in place of the policy's own
            responses; None learns online.

        Raises:
            ConfigError: see there.
            DataError: a row lacks a text, or is too long for the model.
        """
        super().__init__(policy, config, sampler=sampler, processes=processes)
        self.pairs: PreferencePairs | None = None
        if pairs is not None:
            self.pairs = PreferencePairs.of(pairs, policy.language_model)
        if self.pairs is not None and self.config.samples_per_prompt != 2:
            raise ConfigError(
                f"DPO: samples_per_prompt: must be 2 where pairs are given, got {self.config.samples_per_prompt}; "
                "leave it out"
            )
        self._draws = np.random.default_rng([self.config.seed, self.processes.rank])

    def collect(self, env: TextGenerationVectorEnv, timer: PhaseTimer) -> tuple[Episodes, dict[str, float]]:
        """Responses of the policy, or given pairs drawn anew: better and worse side by side."""
        if self.pairs is None:
            return super().collect(env, timer)
        size, count = self.config.episodes_per_iteration // 2, len(self.pairs)
        drawn = self._draws.choice(count, size=size, replace=size > count)
        return self.pairs.episodes(drawn, env, timer), {}

    def _updated(self, episodes: Episodes, *, progress: float) -> dict[str, float]:
        """See :meth:`LearningAgent.update`."""
        device = self.policy.device
        items, chance = self._labelled(episodes, episodes.payments)
        chance_of = np.zeros(len(episodes), dtype=np.float32)
        chance_of[items[:, 0]] = chance

        def loss(part: Episodes, now: PolicyEvaluation, rows: np.ndarray) -> dict[str, Tensor]:
            beta = torch.from_numpy(part.kl_coef).to(device, torch.float32)
            scaled = (beta * response_log_ratios(part, now)).reshape(-1, 2)
            margins = scaled[:, 0] - scaled[:, 1]
            better = torch.from_numpy(chance_of[rows[::2]]).to(device)
            sign = torch.where(better >= 0.5, 1.0, -1.0)
            return {
                "policy_loss": dpo_loss(margins, better),
                "preference_margin": sign * margins,
                "preference_accuracy": (sign * margins > 0).float(),
            }

        found = self._passes(episodes, items, loss, NUMBERS, progress=progress)
        if self.pairs is not None:  # nobody drew them, and nobody scored them
            return {**found, "response_length": float(episodes.response_lengths.mean())}
        told = episode_metrics(episodes, processes=self.processes)
        return {**told, **found, "uniform_groups": uniform_share(episodes, self.processes)}

    def _labelled(self, episodes: Episodes, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of pairs, and the chance that the first is better. Shapes: (N, 2) and (N,)."""
        if self.pairs is not None:
            if len(episodes) % 2:
                raise ConfigError(
                    f"DPO.update: episodes must be pairs, better and worse side by side, got {len(episodes)}; pass "
                    "those of collect"
                )
            items = np.arange(len(episodes)).reshape(-1, 2)
        elif self.config.judge == "best_worst":
            items = best_and_worst(returns, episodes.group, episodes.scored)
        else:
            items = neighbours(episodes.group, episodes.scored)
            ahead = returns[items[:, 0]] - returns[items[:, 1]]
            return items, np.exp(-np.logaddexp(0.0, -ahead))  # a sigmoid that no difference overflows
        return items, np.ones(len(items))

    def settings(self) -> dict[str, Any]:
        """Everything that decides how it learns, as plain values: config, and a digest of given pairs."""
        return {**super().settings(), "pairs": None if self.pairs is None else self.pairs.digest()}

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, and the generators of minibatches and of the draws of pairs."""
        return super().state_dict() | {"draws": state_of(self._draws)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an agent."""
        state = require_state("DPO", state, ("draws",))
        draws = generator_of(state["draws"], "DPO state: draws")
        super().load_state_dict(state)
        self._draws = draws

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        pairs: Sequence[Mapping[str, Any]] | None = None,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
        device: str | torch.device = "auto",
        dtype: DType = "auto",
    ) -> Self:
        """See :meth:`LearningAgent.load`.

        Args:
            folder, sampler, processes, device, dtype: see there.
            pairs: those that it was given before; a folder does not hold them.

        Raises:
            ArtifactError: see there.
            ConfigError: see there, or the pairs are others.
        """
        saved = load_agent(cls.__name__, folder, device=device, dtype=dtype)
        digest = saved.config.pop("pairs", None)
        agent = cls(saved.policy, cls.config_type(**saved.config), pairs=pairs, sampler=sampler, processes=processes)
        if agent.settings()["pairs"] != digest:
            raise ConfigError(
                f"DPO.load: pairs must be those that {saved.folder} was saved with, and are "
                f"{'missing' if pairs is None else 'others'}; pass pairs=..., or none where it learned online"
            )
        agent.load_state_dict(saved.state)
        return agent
