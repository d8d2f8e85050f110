"""Key-value caches of a decoder-only model: one that grows in place, and two for prompts that rows share.

Shapes: B = rows, A = heads of keys and values, S = slots, D = width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

__all__ = ["CacheBehindPrompts", "GrowingCache", "PromptCache"]

LEAST_ROOM = 32
"""Slots that a layer makes room for at once, at least."""


class _GrowingLayer(DynamicLayer):
    """A layer with room for further slots, so that a token is written in place and not joined to a copy of all others.

    Departure from transformers' own, which copies every slot at every token. ``keys`` and ``values`` are views of the
    room; whoever replaces them ends it, and the next slots make room anew.
    """

    keys: Tensor | None
    values: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None
        self._shown: tuple[Tensor | None, Tensor | None] = (None, None)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write slots behind those that are there. Shape of both, and of both results: (B, A, S, D)."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        untouched = self.keys is self._shown[0] and self.values is self._shown[1]
        if self._room is None or not untouched or self._room[0].shape[-2] < end:
            slots = end + max(LEAST_ROOM, end // 8)
            self._room = (
                _with_room(key_states, self.keys, slots, start),
                _with_room(value_states, self.values, slots, start),
            )
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        shown = []
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
            shown.append(room[:, :, :end])
        self.keys, self.values = shown
        self._shown = (self.keys, self.values)
        return self.keys, self.values


def _with_room(new: Tensor, old: Tensor | None, slots: int, start: int) -> Tensor:
    """A tensor of ``slots`` slots whose first are the old ones. Args: new, old: of shape (B, A, S, D)."""
    room = new.new_empty((*new.shape[:2], slots, new.shape[-1]))
    if old is not None and start:
        room[:, :, :start] = old
    return room


class GrowingCache(DynamicCache):
    """A cache that keeps every slot, whatever window a layer looks through, and grows in place; without autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_class_to_replicate = _GrowingLayer


class PromptCache(DynamicCache):
    """Keys and values of prompts as they were first computed; a layer that is run again changes nothing."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep a layer. See ``transformers.Cache``."""
        if layer_idx < len(self.layers):
            return key_states, value_states
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


class CacheBehindPrompts(DynamicCache):
    """A cache whose rows go on from copies of prompts, made layer by layer and again whenever a layer is run again."""

    def __init__(self, prompts: PromptCache, of_row: Tensor) -> None:
        super().__init__()
        self.layers = prompts.layers
        self._of_row = of_row

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Join prompts and new slots; nothing is kept. See ``transformers.Cache``."""
        layer = self.layers[layer_idx]
        keys, values = (past.index_select(0, self._of_row) for past in (layer.keys, layer.values))
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)
