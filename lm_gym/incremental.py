"""One key-value cache for B rows that start, grow and end at different times.

The prefix is never run again. Rows are left-padded inside the cache: all rows write slot ``length`` at once, a row
that starts is prefilled into the slots just before it, and slots that no live row still reads are dropped from the
left once the cache is full. Positions are given explicitly and slots are shown or hidden by a 2-D mask, so a shifted
row computes what an unshifted one would.

Departure from ``model.generate``: rows are independent, and a dead row costs its share of the batch until it restarts
(it reads one slot, its own, so that its softmax is defined).

Shapes: B = rows, S = slots in the cache, H = hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from lm_gym.language_model import LanguageModel

__all__ = ["IncrementalDecoder", "left_padded"]


def left_padded(prompts: Sequence[np.ndarray], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts as a left-padded batch.

    Args: prompts: token ids, each of shape (P_i,).

    Returns: ids (B, P) int64, mask (B, P) bool, positions (B, P) int64 (0 on pads).
    """
    width = max(len(ids) for ids in prompts)
    ids = np.full((len(prompts), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(prompts), width), dtype=bool)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = True
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    return tuple(torch.from_numpy(array).to(device) for array in (ids, mask, positions))  # type: ignore[return-value]


class IncrementalDecoder:
    """The states at the end of B growing token sequences, one forward pass per added token."""

    def __init__(self, model: LanguageModel, num_rows: int, max_length: int) -> None:
        """Args:
        model: whose states are wanted; it must not change while rows are alive.
        num_rows: B.
        max_length: longest sequence of one row, in tokens; the cache holds at most twice as many slots.
        """
        self._model = model
        self._num_rows = num_rows
        self._capacity = 2 * max_length
        self._cache: Cache = model.new_cache()
        self._mask = torch.zeros((num_rows, 0), dtype=torch.bool, device=model.device)
        self._lengths = np.zeros(num_rows, dtype=np.int64)

    @property
    def num_slots(self) -> int:
        """Slots in the cache now, S."""
        return self._mask.shape[1]

    @torch.inference_mode()
    def start(self, rows: Sequence[int], prompts: Sequence[np.ndarray]) -> Tensor:
        """Restart some rows from new prompts; the others are left as they are.

        Returns: the state after each prompt's last token, in the order of ``rows``. Shape: (len(rows), H).
        """
        ids, mask, positions = left_padded(prompts, self._model.pad_id, self._model.device)
        cache = self._model.new_cache()
        hidden = self._model.hidden(ids, mask, positions, cache)[:, -1]
        kept = set(range(self._num_rows)) - set(rows)
        if all(self._lengths[row] == 0 for row in kept):
            self._mask = torch.zeros((self._num_rows, 0), dtype=torch.bool, device=self._model.device)
            self._cache = _scattered(cache, rows, self._num_rows)
        else:
            self._make_room(ids.shape[1])
            for layer, new in zip(self._cache.layers, cache.layers, strict=True):
                layer.keys[rows, :, -ids.shape[1] :] = new.keys
                layer.values[rows, :, -ids.shape[1] :] = new.values
        self._make_room(ids.shape[1])
        self._mask[rows] = False
        self._mask[rows, -ids.shape[1] :] = mask
        self._lengths[list(rows)] = [len(prompt) for prompt in prompts]
        return hidden

    @torch.inference_mode()
    def advance(self, tokens: np.ndarray, alive: np.ndarray) -> Tensor:
        """Append one token to every live row; a row that is not alive is dead until it starts again.

        Args:
            tokens: token ids; the entries of dead rows are not used. Shape: (B,), int64.
            alive: Shape: (B,), bool.

        Returns: the state after the new token; rows that are not alive hold nothing of meaning. Shape: (B, H).
        """
        device = self._model.device
        self._lengths[~alive] = 0
        living = torch.from_numpy(alive).to(device)
        self._mask = torch.cat([self._mask & living[:, None], torch.ones_like(living)[:, None]], dim=1)
        ids = torch.from_numpy(np.where(alive, tokens, self._model.pad_id)).to(device)
        positions = torch.from_numpy(self._lengths).to(device)
        hidden = self._model.hidden(ids[:, None], self._mask, positions[:, None], self._cache)[:, -1]
        self._lengths[alive] += 1
        if self.num_slots >= self._capacity:
            self._drop(self.num_slots - max(int(self._lengths.max()), 1))
        return hidden

    def _make_room(self, slots: int) -> None:
        """Grow mask and cache on the left, so that a prompt longer than the cache finds its slots."""
        missing = slots - self.num_slots
        if missing <= 0:
            return
        self._mask = torch.nn.functional.pad(self._mask, (missing, 0))
        for layer in self._cache.layers:
            grown = slots - layer.keys.shape[-2]
            layer.keys = torch.nn.functional.pad(layer.keys, (0, 0, grown, 0))
            layer.values = torch.nn.functional.pad(layer.values, (0, 0, grown, 0))

    def _drop(self, slots: int) -> None:
        """Forget the oldest slots; no live row reads them."""
        self._mask = self._mask[:, slots:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[:, :, slots:].contiguous()
            layer.values = layer.values[:, :, slots:].contiguous()


def _scattered(cache: Cache, rows: Sequence[int], num_rows: int) -> Cache:
    """The prefilled rows at their places in a cache of ``num_rows`` rows."""
    if list(rows) == list(range(num_rows)):
        return cache
    for layer in cache.layers:
        for name in ("keys", "values"):
            part = getattr(layer, name)
            whole = part.new_zeros((num_rows, *part.shape[1:]))
            whole[list(rows)] = part
            setattr(layer, name, whole)
    return cache
