"""One optimiser step, for every rule of learning: pieces, their gradients, processes, the norm, Adam.

Knows: weights, their gradients, the numbers that pieces of a batch share. Does not know: losses and episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lm_gym.errors import DivergedError
from lm_gym.processes import Processes
from lm_gym.tools.settings import Count, Positive, Seed, settings

from ..master_weights import MasterWeights
from ..policy import LanguageModelPolicy
from .agent_folder import load_optimizer_state

__all__ = ["OptimizerConfig", "PolicyOptimizer"]


@settings
class OptimizerConfig:
    """Settings of the optimiser, the same for every agent."""

    learning_rate: Positive = 1e-5
    """Adam's step size at the start."""
    learning_rate_decay: Literal["linear", "none"] = "linear"
    """Linear: to 0 at the end of the run, whose length ``train`` knows."""
    adam_eps: Positive = 1e-5
    """Adam's epsilon."""
    max_grad_norm: Positive | None = 1.0
    """Gradients are scaled down to this L2 norm; None leaves them."""
    max_batch_tokens: Count = 16_384
    """Padded tokens per forward pass; a step above it is accumulated."""
    seed: Seed = 0
    """Seed of the agent's own draws, such as the order of episodes in minibatches."""


class PolicyOptimizer:
    """Adam in float32 on the weights of a policy, whatever their type; a step that is not finite is not taken."""

    def __init__(self, name: str, policy: LanguageModelPolicy, config: OptimizerConfig, processes: Processes) -> None:
        """Args:
        name: of the agent, for errors.
        policy: trained in place, and refreshed after each step.
        config: settings.
        processes: those that share the run; gradients and numbers are summed over them.
        """
        self.name, self.policy, self.config, self.processes = name, policy, config, processes
        self._masters = MasterWeights(policy.parameters())
        self._adam = torch.optim.Adam(
            self._masters.parameters, lr=config.learning_rate, eps=config.adam_eps, fused=policy.device.type != "mps"
        )

    @property
    def weights(self) -> list[nn.Parameter]:
        """What it steps on, in float32, in the order of the policy's ``parameters()``."""
        return self._masters.parameters

    def set_learning_rate(self, progress: float) -> float:
        """Decay the step size. Args: progress: share of the run that is done. Returns: the step size."""
        left = 1.0 - progress if self.config.learning_rate_decay == "linear" else 1.0
        for group in self._adam.param_groups:
            group["lr"] = self.config.learning_rate * left
        return self.config.learning_rate * left

    def step(
        self,
        pieces: Iterable[np.ndarray],
        backward: Callable[[np.ndarray], Tensor],
        *,
        sums: Sequence[str],
        maxima: Sequence[str] = (),
        losses: Sequence[str],
    ) -> dict[str, float]:
        """One step on a minibatch that is cut into pieces.

        Args:
            pieces: indices of the items of each forward pass, which hold ``max_batch_tokens`` at most; none where only
                other processes have some. Shape of each: (n,), int.
            backward: accumulates the gradient of a piece, and returns its shares of the numbers below. Shape of its
                result: (len(sums) + len(maxima),).
            sums: names of the numbers that add up over pieces and processes.
            maxima: names of those whose largest counts.
            losses: names among ``sums`` that must be finite, as an error shows them (``_`` as a space).

        Returns: the numbers by name, and ``grad_norm``, the L2 norm before it was scaled down.

        Raises:
            DivergedError: a loss or the gradient is not finite; the weights are those before the step.
        """
        self._adam.zero_grad(set_to_none=True)
        device, most = self.policy.device, len(sums)
        self._masters.follow()
        found_of_pieces = []
        for piece in pieces:
            found_of_pieces.append(backward(piece))
            self._masters.take_gradients()
        self.processes.sum_gradients(self._masters.parameters)
        shares = torch.stack([torch.zeros(most + len(maxima), device=device), *found_of_pieces])
        found = dict(zip(sums, self.processes.sum(shares[:, :most].sum(0)).tolist(), strict=True))
        found |= dict(zip(maxima, self.processes.max(shares[:, most:].amax(0)).tolist(), strict=True))
        limit = self.config.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(self._masters.parameters, math.inf if limit is None else limit))
        if not np.isfinite([norm, *(found[name] for name in losses)]).all():
            self._adam.zero_grad(set_to_none=True)
            got = ", ".join(f"a {name.replace('_', ' ')} of {found[name]:.4g}" for name in losses)
            raise DivergedError(
                f"{self.name}: loss and gradient must be finite, got {got} and a gradient of norm {norm:.4g}; the step "
                "was not taken and the weights are those before it. Look at the scores of the last episodes, or lower "
                "learning_rate"
            )
        self._adam.step()
        self._masters.write()
        self.policy.refresh()
        return found | {"grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """Adam's, and the float32 copies of weights of another type; the tensors themselves, as torch gives them."""
        return self._adam.state_dict() | {"masters": self._masters.state_dict()}

    def load_state_dict(self, state: Any) -> None:
        """Take back a copy of what :meth:`state_dict` gave, or leave everything as it is.

        Raises:
            ConfigError: it is none of such an optimiser.
        """
        if isinstance(state, Mapping):
            self._masters.check_state(state.get("masters", {}), self.name)
        load_optimizer_state(self._adam, state, self.name)
        self._masters.load_state_dict(state.get("masters", {}), self.name)
