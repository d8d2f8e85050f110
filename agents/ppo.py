"""Token-level PPO on finished episodes.

Source: Schulman et al. 2017 (arXiv:1707.06347), with the details that RLHF codes agree on: rewards per token with the
score on the last one, GAE with gamma 1, whitening over the whole batch, clipped value loss, Adam with eps 1e-5.
Departures: the log-probabilities that ratios start from come from one teacher-forced pass over the stored keep sets,
never from the sampler; gradients are normalised by the number of response tokens in the minibatch, however it is cut.

With ``advantage="return"`` the loss is the plain published form ``-min(ratio * R, clip(ratio, 1 - c, 1 + c) * R)``
with R the reward to go: no baseline, no whitening, no value loss.

Shapes: B = episodes of a batch, T = longest response.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.forced import token_batches
from lm_gym.rollout import PhaseTimer
from lm_gym.vector_env import TextGenerationVectorEnv

from .functional import (
    clipped_policy_loss,
    clipped_value_loss,
    discounted_returns,
    explained_variance,
    gae,
    masked_mean,
    masked_whiten,
)
from .metrics import METRICS, episode_metrics, phase_metrics
from .policy import LanguageModelPolicy

__all__ = ["PPO", "PPOConfig"]


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of :class:`PPO`."""

    episodes_per_iteration: int = 64
    """Responses per rollout."""
    epochs: int = 4
    """Passes over each batch."""
    minibatches: int = 4
    """Optimiser steps per pass."""
    clip: float = 0.2
    """Epsilon of the policy ratio."""
    value_clip: float | None = 0.2
    """Largest counted change of a value, in reward units; None does not clip."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus in the loss. The KL already holds the entropy; see docs/action_modes.md."""
    gamma: float = 1.0
    """Discount per token."""
    gae_lambda: float = 0.95
    """Lambda of the advantage estimate."""
    advantage: Literal["gae", "return"] = "gae"
    """GAE with a value baseline, or the bare reward to go."""
    whiten_advantages: bool = True
    """Whiten GAE advantages over the counted tokens of the whole batch."""
    learning_rate: float = 1e-5
    """Adam's step size at the start."""
    learning_rate_decay: Literal["linear", "none"] = "linear"
    """Linear: to 0 at the end of the run, whose length ``train`` knows."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this L2 norm; None leaves them."""
    target_kl: float | None = None
    """Stop the passes over a batch once the mean k3 KL to the collecting policy passes 1.5 times this, nats/token."""
    max_batch_tokens: int = 16_384
    """Padded tokens per forward pass; a minibatch above it is accumulated."""
    seed: int = 0
    """Of the order of episodes in minibatches."""

    def __post_init__(self) -> None:
        positive = ("episodes_per_iteration", "epochs", "minibatches", "max_batch_tokens")
        for name in (*positive, "learning_rate", "clip", "adam_eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"PPOConfig.{name}: must be > 0, got {getattr(self, name)!r}")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"PPOConfig.{name}: must lie in [0, 1], got {getattr(self, name)!r}")
        if self.minibatches > self.episodes_per_iteration:
            raise ConfigError(
                f"PPOConfig.minibatches: must be at most episodes_per_iteration = {self.episodes_per_iteration}, "
                f"got {self.minibatches}"
            )
        if self.advantage not in ("gae", "return"):
            raise ConfigError(f'PPOConfig.advantage: must be "gae" or "return", got {self.advantage!r}')


class Targets(NamedTuple):
    """What a batch is learned towards; all of shape (B, T), without gradient."""

    old_log_probs: Tensor
    """Under the policy that collected, teacher-forced."""
    old_values: Tensor
    """Of the same policy."""
    advantages: Tensor
    """As the surrogate uses them."""
    returns: Tensor
    """Value targets."""


class PPO:
    """Proximal policy optimisation of a :class:`LanguageModelPolicy` in a text-generation environment."""

    def __init__(self, policy: LanguageModelPolicy, config: PPOConfig | None = None) -> None:
        """Args:
        policy: trained in place.
        config: settings; None takes the defaults.
        """
        self.policy = policy
        self.config = config or PPOConfig()
        self.last_episodes: Episodes | None = None
        self._rng = np.random.default_rng(self.config.seed)
        self._optimizer = torch.optim.Adam(
            policy.parameters(),
            lr=self.config.learning_rate,
            eps=self.config.adam_eps,
            fused=policy.device.type != "mps",
        )

    def learn(self, env: TextGenerationVectorEnv, *, progress: float = 0.0) -> dict[str, float]:
        """One iteration: collect, then update.

        Args:
            env: gives episodes.
            progress: share of the run that is done, in [0, 1); the learning rate decays with it.

        Returns: every metric of ``lm_gym.agents.metrics.METRICS``; those of the update are NaN in an iteration in
        which the reward model abstained on every episode.

        Raises:
            ConfigError: the policy's weights are those of the environment's reference, or progress is no such share.
        """
        if not 0 <= progress < 1:
            raise ConfigError(
                f"PPO.learn: progress must be the share of the run that is done, in [0, 1), got {progress}"
            )
        if env.reference is not None and env.reference.model is self.policy.model:
            raise ConfigError(
                "PPO: policy and reference must not share weights, or the KL stays 0 while both drift; got one model "
                "for both; train a copy (copy.deepcopy(model)), or load one with LanguageModelPolicy.from_pretrained"
            )
        timer = PhaseTimer()
        episodes = env.rollout(self.policy, self.config.episodes_per_iteration, timer=timer)
        self.last_episodes = episodes
        with timer.phase("update"):
            metrics = self.update(episodes, progress=progress)
        tokens = int(episodes.response_mask.sum())
        undefined = dict.fromkeys(METRICS, math.nan)
        return {**undefined, **metrics, "kl_coef": env.kl_coef, **phase_metrics(timer, tokens, self.policy.device)}

    def update(self, episodes: Episodes, *, progress: float = 0.0) -> dict[str, float]:
        """Learn from one batch; episodes whose reward model abstained are left out and counted.

        Args:
            episodes: what was collected.
            progress: see :meth:`learn`.

        Returns: the metrics of the batch and of the update.
        """
        usable = np.flatnonzero(episodes.score_valid | episodes.truncated)
        learning_rate = self._set_learning_rate(progress)
        counts = {"invalid_episodes": float(len(episodes) - len(usable)), "learning_rate": learning_rate}
        if not usable.size:
            return {**episode_metrics(episodes), **counts}
        batch = episodes[usable]
        old = self.policy.evaluate_in_batches(batch, self.config.max_batch_tokens)
        targets = self._targets(batch, old.log_probs, old.values, old.final_values)
        mask = torch.from_numpy(batch.response_mask).to(self.policy.device)
        sampled = torch.from_numpy(batch.log_probs).to(self.policy.device)
        return {
            **episode_metrics(batch),
            **counts,
            "entropy": float(masked_mean(old.entropy, mask)),
            "explained_variance": float(explained_variance(old.values, targets.returns, mask)),
            "log_prob_drift": float((old.log_probs - sampled)[mask].abs().max()),
            **self._optimise(batch, targets),
        }

    def state_dict(self) -> dict[str, Any]:
        """Policy, optimiser and the generator of minibatches."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.policy.load_state_dict(state["policy"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rng.bit_generator.state = state["rng"]

    def _set_learning_rate(self, progress: float) -> float:
        left = 1.0 - progress if self.config.learning_rate_decay == "linear" else 1.0
        rate = self.config.learning_rate * left
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _targets(self, batch: Episodes, log_probs: Tensor, values: Tensor, final_values: Tensor) -> Targets:
        mask = torch.from_numpy(batch.response_mask).to(values.device)
        rewards = torch.from_numpy(batch.rewards.astype(np.float32)).to(values.device)
        bootstrap = final_values * torch.from_numpy(batch.truncated).to(values.device)
        gamma = self.config.gamma
        if self.config.advantage == "return":
            returns = discounted_returns(rewards, mask, torch.zeros_like(bootstrap), gamma=gamma)
            return Targets(log_probs, values, returns, returns)
        advantages, returns = gae(rewards, values, mask, bootstrap, gamma=gamma, lam=self.config.gae_lambda)
        if self.config.whiten_advantages:
            advantages = masked_whiten(advantages, mask)
        return Targets(log_probs, values, advantages, returns)

    def _optimise(self, batch: Episodes, targets: Targets) -> dict[str, float]:
        steps: list[dict[str, float]] = []
        for _ in range(self.config.epochs):
            steps += [self._step(batch, targets, rows) for rows in self._minibatches(len(batch))]
            if self.config.target_kl is not None and steps[-1]["approx_kl"] > 1.5 * self.config.target_kl:
                break
        summary = {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}
        return {
            **summary,
            "ratio_max": max(step["ratio_max"] for step in steps),
            "first_pass_ratio_error": steps[0]["ratio_error"],
            "optimizer_steps": float(len(steps)),
        }

    def _minibatches(self, count: int) -> Iterator[np.ndarray]:
        order = self._rng.permutation(count)
        return (part for part in np.array_split(order, self.config.minibatches) if len(part))

    def _step(self, batch: Episodes, targets: Targets, rows: np.ndarray) -> dict[str, float]:
        """One optimiser step; the minibatch is cut by tokens and every piece weighs by its share of them."""
        lengths = (batch.prompt_lengths + batch.response_lengths)[rows]
        tokens = int(batch.response_lengths[rows].sum())
        self._optimizer.zero_grad(set_to_none=True)
        pieces = [
            self._backward(batch, targets, rows[piece], tokens)
            for piece in token_batches(lengths, self.config.max_batch_tokens, self.policy.device)
        ]
        limit = self.config.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit if limit is not None else torch.inf)
        self._optimizer.step()
        stacked = torch.stack(pieces)
        sums, largest = stacked[:, :-2].sum(0).tolist(), stacked[:, -2:].amax(0).tolist()
        names = ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "value_clip_fraction", "ratio_mean")
        return {
            **dict(zip(names, sums, strict=True)),
            "ratio_max": largest[0],
            "ratio_error": largest[1],
            "grad_norm": float(norm),
        }

    def _backward(self, batch: Episodes, targets: Targets, rows: np.ndarray, tokens: int) -> Tensor:
        """Accumulate the gradient of some episodes. Returns: 6 shares of a token mean, then 2 maxima. Shape: (8,)."""
        config = self.config
        part = batch[rows]
        width = part.response_mask.shape[1]
        now = self.policy.evaluate(part, entropy=config.entropy_coef != 0)
        mask = torch.from_numpy(part.response_mask).to(now.log_probs.device)
        index = torch.from_numpy(rows).to(mask.device)
        old_log_probs, old_values, advantages, returns = (grid[index, :width] for grid in targets)
        policy_loss, clipped = clipped_policy_loss(now.log_probs, old_log_probs, advantages, clip=config.clip)
        value_loss, value_clipped = clipped_value_loss(now.values, old_values, returns, clip=config.value_clip)
        loss = policy_loss - config.entropy_coef * now.entropy
        if config.advantage == "gae":
            loss = loss + config.value_coef * value_loss
        (torch.where(mask, loss, 0.0).sum() / tokens).backward()
        with torch.no_grad():
            change = torch.where(mask, now.log_probs - old_log_probs, 0.0)
            ratio = change.exp()
            grids = (policy_loss, value_loss, ratio - 1.0 - change, clipped, value_clipped, ratio)
            shares = [torch.where(mask, grid.float(), 0.0).sum() / tokens for grid in grids]
            counted = ratio[mask]
            return torch.stack([*shares, counted.max(), (counted - 1.0).abs().max()])
