"""The decoder of a decoder-only model: one key-value cache for all rows.

Shapes: B = rows, S = slots in the cache, P = prompt tokens, H = hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from .caches import CacheBehindPrompts, PromptCache
from .protocol import ForcedStates
from .shared_prompts import SharedPrompts, padded_tokens

__all__ = ["CausalDecoder"]


class CausalModel(Protocol):
    """The model that is decoded: see ``lm_gym.models.language_model.LanguageModel``."""

    @property
    def device(self) -> torch.device: ...

    @property
    def pad_id(self) -> int: ...

    @property
    def max_length(self) -> int | None: ...

    @property
    def max_cache_slots(self) -> int | None: ...

    def new_cache(self) -> DynamicCache: ...

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor: ...


class CausalDecoder:
    """A decoder-only model with one key-value cache for all rows.

    The prefix is never run again, and a prompt that several rows share is run once. Rows are left-padded inside the
    cache: all rows write slot S at once, a row that starts is prefilled into the slots just before it, and slots that
    no live row still reads are dropped from the left once the cache is full. Positions are given explicitly and slots
    are shown or hidden by a 2-D mask, so a shifted row computes what an unshifted one would.

    Departure from ``model.generate``: rows are independent, and a dead row costs its share of the batch until it
    restarts or is dropped (it reads one slot, its own, so that its softmax is defined).
    """

    def __init__(self, model: CausalModel, num_rows: int, max_length: int) -> None:
        """See :func:`lm_gym.models.decoder.decoder_for`.

        The cache holds at most twice ``max_length`` slots, or what a pass may see.
        """
        self._model = model
        self._capacity = min(2 * max_length, model.max_cache_slots or 2 * max_length)
        self._cache: Cache = model.new_cache()
        self._mask = torch.zeros((num_rows, 0), dtype=torch.bool, device=model.device)
        self._lengths = np.zeros(num_rows, dtype=np.int64)

    @property
    def num_slots(self) -> int:
        """Slots in the cache now, S."""
        return self._mask.shape[1]

    @torch.inference_mode()
    def prefill(
        self, rows: Sequence[int], prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray] | None = None
    ) -> Tensor:
        """See :meth:`Decoder.prefill`."""
        if responses is not None:
            prompts = [np.concatenate(pair) for pair in zip(prompts, responses, strict=True)]
        shared = SharedPrompts.of(prompts)
        ids, mask, positions = self._left_padded(shared.prompts)
        cache = self._model.new_cache()
        hidden = self._model.hidden(ids, mask, positions, cache)[:, -1]
        if len(shared.prompts) < len(prompts):
            of_row = torch.from_numpy(shared.of_row).to(hidden.device)
            cache.batch_select_indices(of_row)
            hidden, mask = hidden[of_row], mask[of_row]
        kept = set(range(len(self._lengths))) - set(rows)
        if all(self._lengths[row] == 0 for row in kept):
            self._mask = self._mask[:, :0]
            self._cache = _scattered(cache, rows, len(self._lengths))
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
        """See :meth:`Decoder.advance`."""
        device = self._model.device
        self._lengths[~alive] = 0
        if self.num_slots >= self._capacity:
            self._drop(self.num_slots - max(int(self._lengths.max()), 1))
        living = torch.from_numpy(alive).to(device)
        self._mask = torch.cat([self._mask & living[:, None], torch.ones_like(living)[:, None]], dim=1)
        ids = torch.from_numpy(np.where(alive, tokens, self._model.pad_id)).to(device)
        positions = torch.from_numpy(self._lengths).to(device)
        hidden = self._model.hidden(ids[:, None], self._mask, positions[:, None], self._cache)[:, -1]
        self._lengths[alive] += 1
        return hidden

    @torch.inference_mode()
    def keep(self, rows: np.ndarray) -> None:
        """See :meth:`Decoder.keep`."""
        index = torch.from_numpy(rows).to(self._model.device)
        self._cache.batch_select_indices(index)
        self._mask, self._lengths = self._mask[index], self._lengths[rows]

    def teacher_forced(self, prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray]) -> ForcedStates:
        """See :meth:`Decoder.teacher_forced`.

        Sequences are right-padded, so a position is its column and no mask is needed: under causal attention no token
        sees what stands to its right. Where enough rows share a prompt, it is run once (:meth:`_after_shared`).
        """
        shared = SharedPrompts.of(prompts)
        starts = np.array([len(ids) for ids in prompts])
        lengths = np.array([len(ids) for ids in responses])
        room = self._model.max_cache_slots
        fits = room is None or starts.max() + lengths.max() <= room
        if fits and padded_tokens(starts, lengths, shared.of_row, self._model.device)[1]:
            return self._after_shared(shared, starts, responses)
        width = int((starts + lengths).max())
        joined = np.full((len(starts), width), self._model.pad_id, dtype=np.int64)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            joined[row, : len(prompt)] = prompt
            joined[row, len(prompt) : len(prompt) + len(response)] = response
        hidden = self._model.hidden(torch.from_numpy(joined).to(self._model.device))
        offsets = np.arange(len(starts)) * width + starts
        first = np.repeat(offsets - np.concatenate([[0], lengths[:-1]]).cumsum(), lengths)
        flat = hidden.reshape(-1, hidden.shape[-1])
        before = first + np.arange(lengths.sum()) - 1
        after = offsets + lengths - 1
        return ForcedStates(*(flat.index_select(0, torch.from_numpy(at).to(flat.device)) for at in (before, after)))

    def _after_shared(self, shared: SharedPrompts, starts: np.ndarray, responses: Sequence[np.ndarray]) -> ForcedStates:
        """:meth:`teacher_forced` in two passes: each prompt once, then the responses behind copies of its cache.

        Autograd goes through the copies, so a prompt's gradient is the sum over its rows.

        Args: starts: length of each row's prompt. Shape: (B,), int.
        """
        device = self._model.device
        of_row = torch.from_numpy(shared.of_row).to(device)
        ids, mask, positions = self._left_padded(shared.prompts)
        cache = PromptCache()
        prompt_states = self._model.hidden(ids, mask, positions, cache)[:, -1]
        lengths = np.array([len(response) for response in responses])
        width = int(lengths.max())
        padded = np.full((len(lengths), width), self._model.pad_id, dtype=np.int64)
        for row, response in enumerate(responses):
            padded[row, : len(response)] = response
        # A pad's place is that of the last token, so that none lies beyond the model's positions.
        places = starts[:, None] + np.minimum(np.arange(width), lengths[:, None] - 1)
        seen = torch.cat([mask[of_row], mask.new_ones((len(lengths), width))], dim=1)
        tokens, places = (torch.from_numpy(each).to(device) for each in (padded, places))
        states = self._model.hidden(tokens, seen, places, CacheBehindPrompts(cache, of_row))
        all_states = torch.cat([prompt_states[of_row][:, None], states], dim=1).flatten(0, 1)
        at = np.arange(len(lengths)) * (width + 1)
        before = np.flatnonzero(np.arange(width + 1) < lengths[:, None])
        return ForcedStates(
            *(all_states.index_select(0, torch.from_numpy(index).to(device)) for index in (before, at + lengths))
        )

    def longest_prompt(self, response_tokens: int) -> int | None:
        """See :meth:`Decoder.longest_prompt`: prompt and response share the positions."""
        limit = self._model.max_length
        return None if limit is None else limit - response_tokens

    def fits(self, prompt_tokens: int, response_tokens: int) -> bool:
        """See :meth:`Decoder.fits`."""
        longest = self.longest_prompt(response_tokens)
        return longest is None or prompt_tokens <= longest

    def _left_padded(self, prompts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns: ids (B, P) int64, mask (B, P) bool, positions (B, P) int64 (0 on pads)."""
        width = max(len(ids) for ids in prompts)
        ids = np.full((len(prompts), width), self._model.pad_id, dtype=np.int64)
        mask = np.zeros((len(prompts), width), dtype=bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = True
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        device = self._model.device
        return (
            torch.from_numpy(ids).to(device),
            torch.from_numpy(mask).to(device),
            torch.from_numpy(positions).to(device),
        )

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
