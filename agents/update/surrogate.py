"""The clipped-surrogate update, whole, on one page: passes, minibatches, micro-batches, loss, gradient, step.

Source: Schulman et al. 2017 (arXiv:1707.06347), with the details that RLHF codes agree on: rewards per token with the
score on the last one, whitening over the whole batch, clipped value loss, Adam with eps 1e-5.
Departures: the log-probabilities that ratios start from come from one teacher-forced pass over the stored keep sets,
never from the sampler; gradients are normalised by the number of response tokens in the minibatch, over all
micro-batches and processes, however it is cut; a loss or gradient that is not finite stops the run before the step.

What is swapped lives elsewhere: how advantages are estimated (``advantages.py``), the formulas (``functional.py``).

Shapes: B = episodes of a batch, T = longest response.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lm_gym.envs.rollout import PhaseTimer, sampler_of
from lm_gym.envs.wrappers import AnyEnv, vector_env_of
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError, DivergedError
from lm_gym.models.teacher_forcing import token_batches
from lm_gym.policy import Sampler
from lm_gym.processes import Processes, chosen_processes
from lm_gym.runs.generators import generator_of, require_state, state_of
from lm_gym.tools.settings import Count, NotNegative, Positive, Seed, Share, checked, settings, shown

from ..metrics import METRICS, episode_metrics, phase_metrics
from ..policy import LanguageModelPolicy
from .advantages import AdvantageEstimator, estimated
from .functional import clipped_policy_loss, clipped_value_loss, explained_variance, masked_mean, masked_whiten

__all__ = ["SurrogateAgent", "SurrogateConfig"]


@settings
class SurrogateConfig:
    """Settings of :class:`SurrogateAgent`, the same for every advantage estimator."""

    episodes_per_iteration: Count = 64
    """Responses per rollout, in one process."""
    samples_per_prompt: Count = 1
    """Responses to each prompt that is drawn; they form a group."""
    epochs: Count = 4
    """Passes over each batch."""
    minibatches: Count = 4
    """Optimiser steps per pass."""
    clip: Positive = 0.2
    """Epsilon of the policy ratio."""
    value_clip: Positive | None = 0.2
    """Largest counted change of a value, in reward units; None does not clip."""
    value_coef: NotNegative = 0.5
    """Weight of the value loss, where the estimator reads values."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus in the loss. The KL already holds the entropy; see docs/concepts/action_modes.md."""
    whiten_advantages: bool = True
    """Whiten the advantages over the counted tokens of the whole batch."""
    learning_rate: Positive = 1e-5
    """Adam's step size at the start."""
    learning_rate_decay: Literal["linear", "none"] = "linear"
    """Linear: to 0 at the end of the run, whose length ``train`` knows."""
    adam_eps: Positive = 1e-5
    """Adam's epsilon."""
    max_grad_norm: Positive | None = 1.0
    """Gradients are scaled down to this L2 norm; None leaves them."""
    target_kl: Positive | None = None
    """Stop the passes over a batch once the mean k3 KL to the collecting policy passes 1.5 times this, nats/token."""
    max_batch_tokens: Count = 16_384
    """Padded tokens per forward pass; a minibatch above it is accumulated."""
    seed: Seed = 0
    """Seed of the order of episodes in minibatches."""

    def __post_init__(self) -> None:
        name, most = type(self).__name__, self.episodes_per_iteration
        if self.minibatches > most:
            raise ConfigError(
                f"{name}.minibatches: must be at most episodes_per_iteration = {most}, got {self.minibatches}"
            )
        if most % self.samples_per_prompt:
            raise ConfigError(
                f"{name}.samples_per_prompt: must divide episodes_per_iteration = {most}, got {self.samples_per_prompt}"
            )


class _Batch(NamedTuple):
    """Episodes with all that the passes over them read; tensors of shape (B, T), without gradient."""

    episodes: Episodes
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


class SurrogateAgent:
    """Policy-gradient learning of a :class:`LanguageModelPolicy`: clipped surrogate, any advantage estimator."""

    def __init__(
        self,
        policy: LanguageModelPolicy,
        estimator: AdvantageEstimator,
        config: SurrogateConfig,
        *,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args:
        policy: trained in place.
        estimator: of the advantages.
        config: settings.
        sampler: decodes the rollouts; None takes the policy's own.
        processes: those that share the run, each with episodes of its own; must be given under a launcher of several.

        Raises:
            ConfigError: policy, estimator or config is none, several processes were launched and none are given, or the
                estimator compares the responses of a group, and groups would be of one.
        """
        if not isinstance(policy, LanguageModelPolicy):
            raise ConfigError(
                f"{type(self).__name__}.policy: must be a LanguageModelPolicy, whose weights are trained, got "
                f"{type(policy).__name__}; make one by LanguageModelPolicy.from_pretrained(folder or hub id), or by "
                "LanguageModelPolicy(LanguageModel(model, tokenizer))"
            )
        if isinstance(estimator, type) or not isinstance(estimator, AdvantageEstimator):
            raise ConfigError(
                f"{type(self).__name__}.estimator: must be an object with needs_values, needs_groups and "
                f"__call__(episodes, evaluation) -> Targets, got {estimator!r}"
            )
        config = checked(f"{type(self).__name__}: config", config, SurrogateConfig)
        if estimator.needs_groups and config.samples_per_prompt < 2:
            raise ConfigError(
                f"{type(config).__name__}.samples_per_prompt: must be >= 2 for {type(estimator).__name__}, which "
                f"compares the responses to one prompt, got {config.samples_per_prompt}"
            )
        self.policy = policy
        self.estimator = estimator
        self.config = config
        self.sampler = policy.sampler if sampler is None else sampler_of(sampler)
        self.processes = chosen_processes(processes, type(self).__name__)
        self.last_episodes: Episodes | None = None
        self._rng = np.random.default_rng(config.seed)
        self._optimizer = torch.optim.Adam(
            policy.parameters(), lr=config.learning_rate, eps=config.adam_eps, fused=policy.device.type != "mps"
        )

    def learn(self, env: AnyEnv, *, progress: float = 0.0) -> dict[str, float]:
        """One iteration: collect, then update.

        Args:
            env: gives episodes; single or vector, bare or in wrappers that change no reward.
            progress: share of the run that is done, in [0, 1); the learning rate decays with it.

        Returns: every metric of ``lm_gym.agents.metrics.METRICS``; what is undefined is NaN (all of the update's, if
            the reward model abstained on every episode).

        Raises:
            ConfigError: the policy's weights are those of the environment's reference, progress is no such share, or
                a wrapper may change the reward.
            DivergedError: see :meth:`update`.
        """
        progress = checked("learn: progress", progress, Share)
        env = vector_env_of(env, "learn")
        if env.reference is not None and env.reference.model is self.policy.model:
            raise ConfigError(
                f"{type(self).__name__}: policy and reference must not share weights, or the KL stays 0 while both "
                "drift; got one model for both; train a copy (copy.deepcopy(model)), or load one with "
                "LanguageModelPolicy.from_pretrained"
            )
        timer, config = PhaseTimer(), self.config
        episodes = env.rollout(
            self.sampler, config.episodes_per_iteration, samples_per_prompt=config.samples_per_prompt, timer=timer
        )
        self.last_episodes = episodes
        with timer.phase("update"):
            metrics = self.update(episodes, progress=progress)
        self.sampler.refresh(self.policy)
        tokens = int(episodes.response_mask.sum())
        undefined = dict.fromkeys(METRICS, math.nan)
        return {**undefined, **metrics, "kl_coef": env.kl_coef, **phase_metrics(timer, tokens, self.policy.device)}

    def update(self, episodes: Episodes, *, progress: float = 0.0) -> dict[str, float]:
        """Learn from one batch. Episodes whose reward model abstained teach nothing and are counted.

        Args:
            episodes: the batch; the abstained ones too, so that the estimator sees whole groups.
            progress: see :meth:`learn`.

        Returns: the metrics of the batch and of the update.

        Raises:
            DivergedError: a loss or gradient is not finite; the weights are those of the last good step.
            ConfigError: the estimator's targets do not fit the batch.
        """
        processes, episodes = self.processes, checked(f"{type(self).__name__}.update: episodes", episodes, Episodes)
        counted = ~episodes.abstained
        summary = {
            **episode_metrics(episodes, processes=processes),
            "learning_rate": self._set_learning_rate(progress),
        }
        if not processes.any(bool(counted.any())):
            return summary
        needs_values = self.estimator.needs_values
        old = self.policy.log_probs_and_values_in_batches(episodes, self.config.max_batch_tokens, values=needs_values)
        targets = estimated(self.estimator, episodes, old)
        mask = torch.from_numpy(episodes.response_mask & counted[:, None]).to(self.policy.device)
        advantages = targets.advantages
        if self.config.whiten_advantages:
            advantages = masked_whiten(advantages, mask, processes=processes)
        sampled = torch.from_numpy(episodes.log_probs).to(self.policy.device)
        drift = torch.where(mask, (old.log_probs - sampled).abs(), 0.0).amax()
        if needs_values:
            explained = explained_variance(old.values, targets.returns, mask, processes=processes)
            summary["explained_variance"] = float(explained)
        batch = _Batch(episodes, old.log_probs, old.values, advantages, targets.returns)
        return {
            **summary,
            "entropy": float(masked_mean(old.entropy, mask, processes=processes)),
            "log_prob_drift": float(processes.max(drift)),
            **self._passes(batch, np.flatnonzero(counted)),
        }

    def settings(self) -> dict[str, Any]:
        """Everything that decides how it learns, as plain values: the config, and the estimator with its numbers."""
        kind = type(self.estimator)
        name = f"{kind.__module__}.{kind.__qualname__}"
        return {**asdict(self.config), "estimator": {"name": name, **vars(self.estimator)}}

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and the generator of minibatches; the policy has a state of its own."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "rng": state_of(self._rng),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an agent."""
        name = type(self).__name__
        state = require_state(name, state, ("optimizer", "rng"))
        rng = generator_of(state["rng"], f"{name} state: rng")
        try:
            self._optimizer.load_state_dict(state["optimizer"])
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            reason = f" ({error})" if isinstance(error, ValueError) else ""
            raise ConfigError(
                f"{name} state: optimizer must be that of an agent with the same weights, got "
                f"{shown(state['optimizer'])}{reason}"
            ) from error
        self._rng = rng

    def _set_learning_rate(self, progress: float) -> float:
        left = 1.0 - progress if self.config.learning_rate_decay == "linear" else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * left
        return self.config.learning_rate * left

    def _passes(self, batch: _Batch, counted: np.ndarray) -> dict[str, float]:
        """Several passes over the counted episodes, each cut into minibatches anew."""
        steps: list[dict[str, float]] = []
        for _ in range(self.config.epochs):
            order = self._rng.permutation(counted)
            taken = [self._step(batch, rows) for rows in np.array_split(order, self.config.minibatches)]
            steps += [step for step in taken if step]
            if self.config.target_kl is not None and steps[-1]["approx_kl"] > 1.5 * self.config.target_kl:
                break
        return {
            **{name: float(np.mean([step[name] for step in steps])) for name in steps[0]},
            "ratio_max": max(step["ratio_max"] for step in steps),
            "first_pass_ratio_error": steps[0]["ratio_error"],
            "optimizer_steps": float(len(steps)),
        }

    def _step(self, batch: _Batch, rows: np.ndarray) -> dict[str, float]:
        """One optimiser step; the minibatch is cut by tokens and every piece weighs by its share of them.

        Returns: the metrics of the step; empty, and no step taken, if no process has a token for it.

        Raises:
            DivergedError: the loss or the gradient is not finite.
        """
        episodes, processes, device = batch.episodes, self.processes, self.policy.device
        tokens = int(processes.sum(torch.tensor(int(episodes.response_lengths[rows].sum()), device=device)))
        if tokens == 0:
            return {}
        self._optimizer.zero_grad(set_to_none=True)
        lengths = (episodes.prompt_lengths + episodes.response_lengths)[rows]
        cut = token_batches(lengths, self.config.max_batch_tokens, device)
        pieces = [self._backward(batch, rows[piece], tokens) for piece in cut]
        processes.sum_gradients(self.policy.parameters())
        shares = torch.stack([torch.zeros(8, device=device), *pieces])
        sums = processes.sum(shares[:, :6].sum(0)).tolist()
        largest = processes.max(shares[:, 6:].amax(0)).tolist()
        limit = self.config.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(self.policy.parameters(), math.inf if limit is None else limit))
        if not np.isfinite([norm, *sums[:2]]).all():
            self._optimizer.zero_grad(set_to_none=True)
            raise DivergedError(
                f"{type(self).__name__}: loss and gradient must be finite, got a policy loss of {sums[0]:.4g}, a value "
                f"loss of {sums[1]:.4g} and a gradient of norm {norm:.4g}; the step was not taken and the weights are "
                "those before it. Look at the scores of the last episodes, or lower learning_rate"
            )
        self._optimizer.step()
        self.policy.refresh()
        names = ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "value_clip_fraction", "ratio_mean")
        step = dict(zip(names, sums, strict=True))
        return {**step, "ratio_max": largest[0], "ratio_error": largest[1], "grad_norm": norm}

    def _backward(self, batch: _Batch, rows: np.ndarray, tokens: int) -> Tensor:
        """Accumulate the gradient of some episodes.

        Args:
            batch: whole.
            rows: episodes of this piece. Shape: (b,), int.
            tokens: response tokens of the whole minibatch, in all processes.

        Returns: 6 shares of a token mean, then 2 maxima. Shape: (8,).
        """
        config, needs_values = self.config, self.estimator.needs_values
        part = batch.episodes[rows]
        now = self.policy.log_probs_and_values(part, entropy=config.entropy_coef != 0, values=needs_values)
        mask = torch.from_numpy(part.response_mask).to(now.log_probs.device)
        index = torch.from_numpy(rows).to(mask.device)
        old_log_probs, old_values, advantages, returns = (grid[index, : mask.shape[1]] for grid in batch[1:])
        policy_loss, clipped = clipped_policy_loss(now.log_probs, old_log_probs, advantages, clip=config.clip)
        loss = policy_loss - config.entropy_coef * now.entropy
        value_loss, value_clipped = torch.zeros_like(policy_loss), torch.zeros_like(clipped)
        if needs_values:
            value_loss, value_clipped = clipped_value_loss(now.values, old_values, returns, clip=config.value_clip)
            loss = loss + config.value_coef * value_loss
        (torch.where(mask, loss, 0.0).sum() / tokens).backward()
        with torch.no_grad():
            change = torch.where(mask, now.log_probs - old_log_probs, 0.0)
            ratio = change.exp()
            grids = (policy_loss, value_loss, ratio - 1.0 - change, clipped, value_clipped, ratio)
            shares = [torch.where(mask, grid.float(), 0.0).sum() / tokens for grid in grids]
            return torch.stack([*shares, ratio[mask].max(), (ratio[mask] - 1.0).abs().max()])
