"""Passes over a batch with any loss that is a mean over items: responses, or pairs of them.

The policy gradient has a page of its own (``surrogate.py``). Knows: minibatches, pieces, processes. Does not know:
what the loss is.

Shapes: N = items, w = responses of an item, n = items of a piece, B = episodes, T = longest response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm_gym.episodes import Episodes
from lm_gym.models.teacher_forcing import token_batches
from lm_gym.policy import PolicyEvaluation, Sampler
from lm_gym.processes import Processes
from lm_gym.runs.generators import generator_of, require_state, state_of

from ..policy import LanguageModelPolicy
from .config import BatchConfig
from .learning import LearningAgent
from .optimizer import PolicyOptimizer

__all__ = ["ItemLoss", "PassesAgent", "PassesUpdate", "response_log_ratios"]

ItemLoss = Callable[[Episodes, PolicyEvaluation, np.ndarray], Mapping[str, Tensor]]
"""From the n * w episodes of a piece, side by side, the policy's view of them with gradient, and their rows in the
batch, to numbers of each item by name, of shape (n,). ``policy_loss`` among them is the loss."""


class PassesUpdate:
    """The update of a policy by a loss over items, with the optimiser and the generator of minibatches."""

    def __init__(self, name: str, policy: LanguageModelPolicy, config: BatchConfig, processes: Processes) -> None:
        """Args: as those of :class:`~lm_gym.agents.update.optimizer.PolicyOptimizer`, with passes in the config."""
        self.policy, self.config, self.processes, self.name = policy, config, processes, name
        self._rng = np.random.default_rng(config.seed)
        self._optimizer = PolicyOptimizer(name, policy, config, processes)

    def __call__(
        self, episodes: Episodes, items: np.ndarray, loss: ItemLoss, names: Sequence[str], *, progress: float
    ) -> dict[str, float]:
        """Several passes over the items, each cut into minibatches anew.

        Args:
            episodes: the batch.
            items: rows of the episodes of each item. Shape: (N, w), int.
            loss: of a piece.
            names: of the numbers that it returns.
            progress: share of the run that is done, in [0, 1).

        Returns: means over steps of the numbers and of ``grad_norm``, ``learning_rate``, and ``optimizer_steps``; with
            no item in any process the last two alone.

        Raises:
            DivergedError: the loss or a gradient is not finite; the weights are those of the last good step.
        """
        rate = self._optimizer.set_learning_rate(progress)
        steps: list[dict[str, float]] = []
        for _ in range(self.config.epochs):
            order = self._rng.permutation(len(items))
            for chosen in np.array_split(order, self.config.minibatches):
                steps += self._step(episodes, items[chosen], loss, names)
        means = {name: float(np.mean([step[name] for step in steps])) for name in (steps[0] if steps else ())}
        return {**means, "learning_rate": rate, "optimizer_steps": float(len(steps))}

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and generator of minibatches."""
        return {"optimizer": self._optimizer.state_dict(), "rng": state_of(self._rng)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an update."""
        state = require_state(self.name, state, ("optimizer", "rng"))
        rng = generator_of(state["rng"], f"{self.name} state: rng")
        self._optimizer.load_state_dict(state["optimizer"])
        self._rng = rng

    def _step(
        self, episodes: Episodes, items: np.ndarray, loss: ItemLoss, names: Sequence[str]
    ) -> list[dict[str, float]]:
        """One optimiser step; none, and an empty list, where no process has an item for it."""
        count = int(self.processes.sum(torch.tensor(len(items), device=self.policy.device)))
        if count == 0:
            return []
        width = items.shape[1]
        lengths = (episodes.prompt_lengths + episodes.response_lengths)[items].max(axis=1, initial=0) * width

        def backward(piece: np.ndarray) -> Tensor:
            rows = items[piece].ravel()
            part = episodes[rows]
            found = loss(part, self.policy.log_probs_and_values(part, entropy=False, values=False), rows)
            (found["policy_loss"].sum() / count).backward()
            return torch.stack([found[name].detach().float().sum() / count for name in names])

        pieces = token_batches(lengths, self._optimizer.config.max_batch_tokens, self.policy.device)
        return [self._optimizer.step(pieces, backward, sums=names, losses=["policy_loss"])]


class PassesAgent(LearningAgent):
    """An agent that learns from each batch by a loss over items."""

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: Any = None,
        *,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args: see :class:`LearningAgent`; the config is a :class:`BatchConfig`."""
        super().__init__(policy, config, sampler=sampler, processes=processes)
        self._passes = PassesUpdate(type(self).__name__, policy, self.config, self.processes)

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and generator of minibatches."""
        return self._passes.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an agent."""
        self._passes.load_state_dict(state)


def response_log_ratios(part: Episodes, now: PolicyEvaluation) -> Tensor:
    """``log pi(y|x) / pi_ref(y|x)`` of whole responses, with gradient. Shape: (B,), float32.

    Args: part: episodes that know the reference's log-probabilities; now: of the policy.
    """
    assert part.ref_log_probs is not None
    device = now.log_probs.device
    mask = torch.from_numpy(part.response_mask).to(device)
    return torch.where(mask, now.log_probs - torch.from_numpy(part.ref_log_probs).to(device), 0.0).sum(1)
