"""The policy-gradient update, whole, on one page: passes, minibatches, micro-batches, loss, gradient, step.

Source: Schulman et al. 2017 (arXiv:1707.06347), with the details that RLHF codes agree on: rewards per token with the
score on the last one, whitening over the whole batch, clipped value loss, Adam with eps 1e-5.
Departures: the log-probabilities that ratios start from come from one teacher-forced pass over the stored keep sets,
never from the sampler; gradients are normalised over the whole minibatch, in all micro-batches and processes, however
it is cut; a loss or gradient that is not finite stops the run before the step.

What is swapped lives elsewhere: the estimate of advantages (``advantages.py``), the loss of a token and its weight
(``objectives.py``). So do the optimiser (``optimizer.py``) and the formulas (``functional.py``). Which parts make which
algorithm: ``algorithms``.

Shapes: B = episodes of a batch, T = longest response.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lm_gym.episodes import Episodes
from lm_gym.models.teacher_forcing import episode_batches
from lm_gym.processes import Processes
from lm_gym.runs.generators import generator_of, require_state, state_of
from lm_gym.tools.settings import Whole, checked

from ..metrics import episode_metrics
from ..policy import LanguageModelPolicy
from .advantages import AdvantageEstimator, SharedEstimator, estimated
from .baselines import uniform_share
from .config import SurrogateConfig
from .functional import clipped_value_loss, explained_variance, masked_mean, masked_whiten
from .objectives import Objective, kl_term, row_weights
from .optimizer import PolicyOptimizer

__all__ = ["SurrogateUpdate"]

SHARES = (
    "policy_loss",
    "value_loss",
    "approx_kl",
    "clip_fraction",
    "value_clip_fraction",
    "ratio_mean",
    "kl_loss",
)
"""Metrics of a step that are means over its tokens, in the order of their computation."""
MAXIMA = ("ratio_max", "ratio_error")
"""Metrics of a step that are the largest over its tokens, likewise."""


class _Batch(NamedTuple):
    """Episodes with all that the passes over them read; tensors of shape (B, T), kl_coef (B, 1), without gradient."""

    episodes: Episodes
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    ref_log_probs: Tensor
    kl_coef: Tensor


class SurrogateUpdate:
    """The update of a policy from a batch of episodes, with the optimiser and the generator of minibatches."""

    def __init__(
        self,
        name: str,
        policy: LanguageModelPolicy,
        config: SurrogateConfig,
        estimator: AdvantageEstimator,
        objective: Objective,
        processes: Processes,
    ) -> None:
        """Args:
        name: of the agent, for errors.
        policy: trained in place.
        config: settings.
        estimator: of the advantages.
        objective: loss of a token.
        processes: those that share the run, each with episodes of its own.
        """
        self.name, self.policy, self.config = name, policy, config
        self.estimator, self.objective, self.processes = estimator, objective, processes
        if isinstance(estimator, SharedEstimator):
            estimator.share(processes)
        self._rng = np.random.default_rng(config.seed)
        self._updates = 0
        self._optimizer = PolicyOptimizer(name, policy, config, processes)

    def __call__(self, episodes: Episodes, *, progress: float) -> dict[str, float]:
        """Learn from one batch. Episodes whose reward model abstained teach nothing and are counted.

        Args:
            episodes: the batch; the abstained ones too, so that the estimator sees whole groups.
            progress: share of the run that is done, in [0, 1).

        Returns: the metrics of the batch and of the update.

        Raises:
            DivergedError: a loss or gradient is not finite; the weights are those of the last good step.
            ConfigError: the estimator's targets do not fit the batch.
        """
        processes = self.processes
        counted = ~episodes.abstained
        summary = {
            **episode_metrics(episodes, processes=processes),
            "learning_rate": self._optimizer.set_learning_rate(progress),
            "uniform_groups": uniform_share(episodes, processes) if self.estimator.needs_groups else math.nan,
        }
        if not processes.any(bool(counted.any())):
            return summary
        needs_values = self.estimator.needs_values
        old = self.policy.log_probs_and_values_in_batches(episodes, self.config.max_batch_tokens, values=needs_values)
        paid = episodes if self.objective.kl_in_reward else replace(episodes, rewards=episodes.rewards_without_kl)
        targets = estimated(self.estimator, paid, old)
        mask = torch.from_numpy(episodes.response_mask & counted[:, None]).to(self.policy.device)
        advantages = targets.advantages
        if self.config.whiten_advantages:
            advantages = masked_whiten(advantages, mask, processes=processes)
        sampled = torch.from_numpy(episodes.log_probs).to(self.policy.device)
        drift = torch.where(mask, (old.log_probs - sampled).abs(), 0.0).amax()
        if needs_values:
            explained = explained_variance(old.values, targets.returns, mask, processes=processes)
            summary["explained_variance"] = float(explained)
        reference = torch.zeros_like(sampled) if episodes.ref_log_probs is None else episodes.ref_log_probs
        reference, beta = (
            torch.as_tensor(each, dtype=torch.float32, device=sampled.device)
            for each in (reference, episodes.kl_coef[:, None])
        )
        batch = _Batch(episodes, old.log_probs, old.values, advantages, targets.returns, reference, beta)
        return {
            **summary,
            "entropy": float(masked_mean(old.entropy, mask, processes=processes)),
            "log_prob_drift": float(processes.max(drift)),
            **self._learned(batch, np.flatnonzero(counted)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, generator of minibatches, and number of updates."""
        return {"optimizer": self._optimizer.state_dict(), "rng": state_of(self._rng), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an update."""
        state = require_state(self.name, state, ("optimizer", "rng", "updates"))
        updates = checked(f"{self.name} state: updates", state["updates"], Whole)
        rng = generator_of(state["rng"], f"{self.name} state: rng")
        self._optimizer.load_state_dict(state["optimizer"])
        self._rng, self._updates = rng, updates

    def _learned(self, batch: _Batch, counted: np.ndarray) -> dict[str, float]:
        """The passes over a batch; while the critic warms up the language model is frozen in them."""
        warming = self._updates < self.config.critic_warmup_iterations
        self._updates += 1
        with _frozen(self.policy.model) if warming else nullcontext():
            return self._passes(batch, counted)

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
        sizes = torch.tensor([int(episodes.response_lengths[rows].sum()), len(rows)], device=device)
        tokens, sequences = processes.sum(sizes).tolist()
        if tokens == 0:
            return {}
        return self._optimizer.step(
            episode_batches(episodes.without_keep_sets()[rows], self.config.max_batch_tokens, device),
            lambda piece: self._backward(batch, rows[piece], tokens, sequences),
            sums=SHARES,
            maxima=MAXIMA,
            losses=("policy_loss", "value_loss"),
        )

    def _backward(self, batch: _Batch, rows: np.ndarray, tokens: int, sequences: int) -> Tensor:
        """Accumulate the gradient of some episodes.

        Args:
            batch: whole.
            rows: episodes of this piece. Shape: (b,), int.
            tokens, sequences: response tokens, and responses, of the whole minibatch, in all processes.

        Returns: shares of the token means ``SHARES``, then the ``MAXIMA``. Shape: (len(SHARES) + len(MAXIMA),).
        """
        config, objective, needs_values = self.config, self.objective, self.estimator.needs_values
        part = batch.episodes[rows]
        now = self.policy.log_probs_and_values(part, entropy=config.entropy_coef != 0, values=needs_values)
        mask = torch.from_numpy(part.response_mask).to(now.log_probs.device)
        index = torch.from_numpy(rows).to(mask.device)
        old_log_probs, old_values, advantages, returns, ref_log_probs = (
            grid[index, : mask.shape[1]] for grid in batch[1:-1]
        )
        policy = objective.policy_term(now.log_probs, old_log_probs, advantages, mask)
        loss = policy.loss - config.entropy_coef * now.entropy
        kl, value_loss, value_clipped = torch.zeros_like(loss), torch.zeros_like(loss), torch.zeros_like(mask)
        if objective.kl_in_loss:
            kl = kl_term(now.log_probs, old_log_probs, ref_log_probs, estimator=objective.kl_estimator)
            loss = loss + batch.kl_coef[index] * kl
        if needs_values:
            value_loss, value_clipped = clipped_value_loss(now.values, old_values, returns, clip=config.value_clip)
            loss = loss + config.value_coef * value_loss
        weights = row_weights(
            mask.sum(1),
            aggregation=objective.aggregation,
            tokens=tokens,
            sequences=sequences,
            longest=part.max_new_tokens,
        )
        (torch.where(mask, loss, 0.0) * weights).sum().backward()
        with torch.no_grad():
            change = torch.where(mask, now.log_probs - old_log_probs, 0.0)
            ratio = torch.where(mask, policy.log_ratio, 0.0).exp()
            grids = (policy.loss, value_loss, change.exp() - 1.0 - change, policy.bound, value_clipped, ratio, kl)
            shares = [torch.where(mask, grid.float(), 0.0).sum() / tokens for grid in grids]
            return torch.stack([*shares, ratio[mask].max(), (ratio[mask] - 1.0).abs().max()])


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No weight of the model learns; those that did before do again after it."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in learning:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
