"""Float32 copies of weights that learn in a shorter type, whose rounding would swallow most steps.

A bfloat16 number has 8 bits of precision, and a step of Adam is a thousandth of a typical weight or less: added to the
weight itself it is mostly lost. So the optimiser steps on the copies, and the weights are what they round to
(Micikevicius et al. 2018, arXiv:1710.03740, section 3.1). Gradients of the pieces of a step are summed in float32 too.

Knows: weights and gradients. Does not know: the optimiser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import shown

__all__ = ["MasterWeights"]


class MasterWeights:
    """What an optimiser steps on: the float32 weights of a policy themselves, and copies of the others."""

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        """Args: weights: those that learn."""
        learned = list(weights)
        self._copies = {
            place: (weight, nn.Parameter(weight.detach().float()))
            for place, weight in enumerate(learned)
            if weight.dtype != torch.float32
        }
        self.parameters: list[nn.Parameter] = [
            self._copies[place][1] if place in self._copies else weight for place, weight in enumerate(learned)
        ]
        """In the order of the weights."""

    def take_gradients(self) -> None:
        """Move the gradients of the last backward pass from the weights to their copies, adding to what is there."""
        for weight, copy in self._copies.values():
            if weight.grad is not None:
                found = weight.grad.float()
                copy.grad = found if copy.grad is None else copy.grad.add_(found)
                weight.grad = None

    @torch.no_grad()
    def follow(self) -> None:
        """Begin a step: forget old gradients of the weights, and take over what somebody else has changed of them."""
        for weight, copy in self._copies.values():
            weight.grad = None
            if not torch.equal(copy.to(weight.dtype), weight):
                copy.copy_(weight)

    @torch.no_grad()
    def write(self) -> None:
        """Round the copies into the weights."""
        for weight, copy in self._copies.values():
            weight.copy_(copy)

    def state_dict(self) -> dict[int, Tensor]:
        """The copies, by the place of their weight; empty where every weight is float32."""
        return {place: copy.detach() for place, (_, copy) in self._copies.items()}

    def check_state(self, state: Any, name: str) -> None:
        """Refuse what :meth:`load_state_dict` cannot take. Args: name: of the agent.

        Raises:
            ConfigError: it is none, or that of weights of other types or shapes.
        """
        shapes = {place: copy.shape for place, (_, copy) in self._copies.items()}
        if not isinstance(state, Mapping) or {place: _shape(copy) for place, copy in state.items()} != shapes:
            got = f"{len(state)} float32 copies" if isinstance(state, Mapping) else shown(state)
            raise ConfigError(
                f"{name} state: must be that of as many bfloat16 weights, of the same shapes, got {got} for "
                f"{len(shapes)} weights; load the policy with the dtype that it was trained with"
            )

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[int, Tensor], name: str) -> None:
        """Take back what :meth:`state_dict` gave. Args: name: of the agent. Raises: ConfigError: it is none of them."""
        self.check_state(state, name)
        for place, (_, copy) in self._copies.items():
            copy.copy_(state[place])


def _shape(found: Any) -> torch.Size | None:
    return found.shape if isinstance(found, Tensor) else None
