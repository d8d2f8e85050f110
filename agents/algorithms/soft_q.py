"""Token-level soft Q-learning with the reference as prior, whose fixed point is the optimum of the environment.

The optimum of ``E[R] - beta KL(pi || pi_ref)`` has soft values (Ziebart 2010; Haarnoja et al. 2017, arXiv:1702.08165)

    V*(s) = beta log sum_a pi_ref(a|s) exp(Q*(s, a) / beta),    pi*(a|s) = pi_ref(a|s) exp((Q*(s, a) - V*(s)) / beta),

so a policy and a value head hold a Q-function between them, ``Q(s, a) = V(s) + beta log pi(a|s) / pi_ref(a|s)``, whose
own soft value is V: the backup needs no sum over the vocabulary, and acting is sampling from the policy. The error of
the soft Bellman equation over d steps (d = 1 is Q-learning, more is path consistency: Nachum et al. 2017,
arXiv:1702.08892, eq. 10),

    V(s_t) + sum_k beta log pi(a_k|s_k) / pi_ref(a_k|s_k) - sum_k r_k - V_slow(s_{t+d}),

is 0 at the optimum whoever drew the tokens, so old episodes are replayed. ``r`` is the score without the KL, ``V_slow``
that of a slow copy of the policy. Departures: no double Q; the undiscounted objective of the environment only.

Shapes: B = episodes, T = longest response.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lm_gym.envs.rollout import PhaseTimer
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError, DivergedError
from lm_gym.models.language_model import own_copy
from lm_gym.models.teacher_forcing import episode_batches
from lm_gym.policy import Sampler
from lm_gym.processes import Processes
from lm_gym.runs.generators import generator_of, require_state, state_of
from lm_gym.tools.settings import Count, Share, settings

from ..master_weights import MasterWeights
from ..metrics import episode_metrics
from ..policy import LanguageModelPolicy
from ..update.learning import LearningAgent
from ..update.optimizer import OptimizerConfig, PolicyOptimizer

__all__ = ["SoftQ", "SoftQConfig", "bellman_errors"]


@settings
class SoftQConfig(OptimizerConfig):
    """Settings of :class:`SoftQ`."""

    episodes_per_iteration: Count = 64
    """Responses per rollout."""
    replay_episodes: Count = 1024
    """Responses that are kept to learn from, the newest."""
    updates: Count = 8
    """Optimiser steps per iteration."""
    batch_episodes: Count = 64
    """Responses of a step, drawn from those that are kept."""
    backup_steps: Count | None = 1
    """Tokens of one backup; None backs up from the end of the response, and needs no slow copy."""
    slow_rate: Share = 0.05
    """Share of the way that the slow copy goes to the policy at each step; 0 leaves it where it began."""


def bellman_errors(
    values: Tensor, log_ratios: Tensor, rewards: Tensor, slow_values: Tensor, lengths: Tensor, *, steps: int | None
) -> Tensor:
    """Errors of the soft Bellman equation over some steps (module docstring), for every token of every response.

    Args:
        values: of the state before each token. Shape: (B, T).
        log_ratios: beta log pi / pi_ref of each token, 0 off the response. Shape: (B, T).
        rewards: without a KL, 0 off the response. Shape: (B, T).
        slow_values: of the state before each token, and after the last one: 0 where the episode terminated.
            Shape: (B, T + 1).
        lengths: tokens of each response. Shape: (B,), int64.
        steps: of a backup; None goes to the end.

    Returns: the errors; what stands off the response means nothing. Shape: (B, T).
    """
    width = values.shape[1]
    start = torch.arange(width, device=values.device)
    end = lengths[:, None] if steps is None else torch.minimum(start[None] + steps, lengths[:, None])
    end = end.expand(len(values), width).clamp(min=0)
    paid = torch.nn.functional.pad((log_ratios - rewards).cumsum(1), (1, 0))
    return values + paid.gather(1, end) - paid[:, :-1] - slow_values.gather(1, end)


class SoftQ(LearningAgent):
    """Soft Q-learning of a :class:`LanguageModelPolicy` from replayed responses; the policy and its values are Q."""

    config_type: ClassVar[type[SoftQConfig]] = SoftQConfig
    """Class of its settings."""
    needs_log_ratio = True

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: SoftQConfig | None = None,
        *,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args: see :class:`LearningAgent`; of several processes each keeps and draws from episodes of its own."""
        super().__init__(policy, config, sampler=sampler, processes=processes)
        self._replay: Episodes | None = None
        self._slow: LanguageModelPolicy | None = None
        if self.config.backup_steps is not None:
            copy = own_copy(policy.language_model)
            self._slow = LanguageModelPolicy(copy, separate_critic=policy.separate_critic)
            self._slow.load_state_dict(policy.state_dict())
        followers = () if self._slow is None else zip(self._slow.weights(), policy.weights(), strict=True)
        self._slow_weights = MasterWeights(slow for slow, weight in followers if weight.requires_grad)
        self._rng = np.random.default_rng(self.config.seed)
        self._optimizer = PolicyOptimizer("SoftQ", policy, self.config, self.processes)

    def collect(self, env: TextGenerationVectorEnv, timer: PhaseTimer) -> tuple[Episodes, dict[str, float]]:
        """A response to each prompt that is drawn."""
        return env.rollout(self.sampler, self.config.episodes_per_iteration, timer=timer), {}

    def _updated(self, episodes: Episodes, *, progress: float) -> dict[str, float]:
        """Keep the episodes, and learn from what is kept; they are forgotten again where learning diverges.

        Raises:
            DivergedError: a loss or gradient is not finite; the weights are those of the last good step.
        """
        rate, before = self._optimizer.set_learning_rate(progress), self._replay
        self._keep(episodes)
        beta = float(episodes.kl_coef[-1])
        try:
            steps = [step for _ in range(self.config.updates) for step in self._step(self._replay, beta)]
        except DivergedError:
            self._replay = before
            raise
        return {
            **episode_metrics(episodes, processes=self.processes),
            **{name: float(np.mean([step[name] for step in steps])) for name in (steps[0] if steps else ())},
            "learning_rate": rate,
            "optimizer_steps": float(len(steps)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, draws, slow copy, and the episodes that are kept; the policy has a state of its own."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "rng": state_of(self._rng),
            "slow": None if self._slow is None else self._slow.state_dict(),
            "slow_weights": self._slow_weights.state_dict(),
            "replay": None if self._replay is None else _packed(self._replay),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an agent."""
        state = require_state("SoftQ", state, ("optimizer", "rng", "slow", "slow_weights", "replay"))
        if (state["slow"] is None) != (self._slow is None):
            raise ConfigError("SoftQ state: must come from an agent whose backup_steps are as this one's, and does not")
        rng = generator_of(state["rng"], "SoftQ state: rng")
        replay = None if state["replay"] is None else _unpacked(state["replay"])
        self._slow_weights.check_state(state["slow_weights"], "SoftQ")
        if self._slow is not None:
            self._slow.check_state(state["slow"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._slow is not None:
            self._slow.load_state_dict(state["slow"])
        self._slow_weights.load_state_dict(state["slow_weights"], "SoftQ")
        self._replay, self._rng = replay, rng

    def _keep(self, episodes: Episodes) -> None:
        """Add the episodes that have a score, and forget the oldest above the limit."""
        counted = episodes[~episodes.abstained]
        if len(counted):
            parts = [counted] if self._replay is None else [self._replay, counted]
            joined = Episodes.concatenate(parts)
            self._replay = joined[max(0, len(joined) - self.config.replay_episodes) :]

    def _step(self, replay: Episodes | None, beta: float) -> list[dict[str, float]]:
        """One optimiser step on episodes drawn from those that are kept; none where no process keeps any.

        Args: beta: of the environment as it is now, whatever older episodes were paid with.
        """
        size = 0 if replay is None else min(self.config.batch_episodes, len(replay))
        batch = None if replay is None else replay[self._rng.choice(len(replay), size=size, replace=False)]
        own = 0 if batch is None else int(batch.response_mask.sum())
        tokens = int(self.processes.sum(torch.tensor(own, device=self.policy.device)))
        if tokens == 0:
            return []

        def backward(piece: np.ndarray) -> Tensor:
            assert batch is not None  # there is no piece of nothing
            return self._backward(batch[piece], tokens, beta)

        limit, device = self.config.max_batch_tokens, self.policy.device
        pieces = () if batch is None else episode_batches(batch, limit, device)
        step = self._optimizer.step(pieces, backward, sums=["squared_error"], losses=["squared_error"])
        self._follow()
        return [{"soft_bellman_error": math.sqrt(step["squared_error"]), "grad_norm": step["grad_norm"]}]

    def _backward(self, part: Episodes, tokens: int, beta: float) -> Tensor:
        """Accumulate the gradient of half the mean squared error. Returns: the share of that mean. Shape: (1,)."""
        now = self.policy.log_probs_and_values(part, entropy=False)
        device = now.log_probs.device
        mask = torch.from_numpy(part.response_mask).to(device)
        assert part.ref_log_probs is not None
        reference = torch.from_numpy(part.ref_log_probs).to(device)
        log_ratios = torch.where(mask, beta * (now.log_probs - reference), 0.0)
        rewards = torch.from_numpy(part.rewards_without_kl).to(device, torch.float32)
        lengths = torch.from_numpy(part.response_lengths).to(device)
        slow = self._slow_values(part, now.values.shape, device)
        steps = self.config.backup_steps
        errors = torch.where(mask, bellman_errors(now.values, log_ratios, rewards, slow, lengths, steps=steps), 0.0)
        (0.5 * (errors**2).sum() / tokens).backward()
        return (errors.detach() ** 2).sum()[None] / tokens

    @torch.no_grad()
    def _slow_values(self, part: Episodes, shape: torch.Size, device: torch.device) -> Tensor:
        """Values of the slow copy before each token and after the last one. Shape: (B, T + 1)."""
        found = torch.zeros(shape[0], shape[1] + 1, device=device)
        source = self._slow or self.policy
        if self._slow is None and not part.truncated.any():
            return found
        seen = source.log_probs_and_values(part, entropy=False)
        if self._slow is not None:
            found[:, :-1] = seen.values
        lengths = torch.from_numpy(part.response_lengths).to(device)[:, None]
        after = seen.final_values * torch.from_numpy(part.truncated).to(device)
        return found.scatter(1, lengths, after[:, None])

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the slow copy towards the policy, in float32: bfloat16 would round most of its steps away."""
        if self._slow is not None:
            for slow, weight in zip(self._slow_weights.parameters, self._optimizer.weights, strict=True):
                slow.lerp_(weight, self.config.slow_rate)
            self._slow_weights.write()
            self._slow.refresh()


def _packed(episodes: Episodes) -> dict[str, Any]:
    """Episodes as tensors and plain values, for a checkpoint."""
    given = {field.name: getattr(episodes, field.name) for field in fields(episodes)}
    return {name: torch.from_numpy(one) if isinstance(one, np.ndarray) else one for name, one in given.items()}


def _unpacked(state: dict[str, Any]) -> Episodes:
    given: dict[str, Any] = {n: one.cpu().numpy() if isinstance(one, Tensor) else one for n, one in state.items()}
    return Episodes(**given)
