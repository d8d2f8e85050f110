"""The decoder of an encoder-decoder: the encoder reads each prompt once, the decoder writes the response after it.

Prompt and response are two sequences, each with positions of its own. A response is written after the model's start
token, which is no token of it; what a generation config forces (a first or a last token) is not forced.

Shapes: B = rows, b = rows of a cohort, P = longest prompt, S = slots of the decoder (start token and response so far),
H = hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from .facts import decoder_positions, encoder_positions
from .protocol import ForcedStates
from .shared_prompts import SharedPrompts

__all__ = ["EncoderDecoder"]


class EncoderDecoderModel(Protocol):
    """The model that is decoded: see ``lm_gym.models.language_model.LanguageModel``."""

    model: PreTrainedModel
    start_id: int | None
    """Never None once the model was accepted."""

    @property
    def device(self) -> torch.device: ...

    @property
    def pad_id(self) -> int: ...

    def autocast(self) -> AbstractContextManager[Any]: ...


class _Encoded(NamedTuple):
    """Prompts as the decoder sees them."""

    states: Tensor
    """Last states of the encoder. Shape: (b, P, H)."""
    mask: Tensor
    """True where a prompt token counts. Shape: (b, P), int64."""

    def of(self, places: Tensor) -> _Encoded:
        """Some of the rows."""
        return _Encoded(self.states[places], self.mask[places])


class _Cohort:
    """Rows that were started together, and so have as many response tokens each: no pad stands between them.

    Attributes:
        rows: their numbers. Shape: (b,), int.
        encoded: their prompts.
        cache: keys and values of the decoder, those of the prompts included.
    """

    def __init__(self, rows: np.ndarray, encoded: _Encoded) -> None:
        self.rows = rows
        self.encoded = encoded
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def keep(self, kept: np.ndarray) -> None:
        """Drop the other rows. Args: kept of shape (b,), bool."""
        if kept.all():
            return
        self.rows = self.rows[kept]
        if len(self.rows):
            places = torch.from_numpy(np.flatnonzero(kept)).to(self.encoded.states.device)
            self.encoded = self.encoded.of(places)
            self.cache.batch_select_indices(places)


class EncoderDecoder:
    """An encoder-decoder with a cache for each cohort of rows.

    A model of this kind places a token by the number of slots before it (learned positions) or by distances between
    slots (T5), so rows that start at different times do not share a cache: each prefill makes a cohort of its own, in
    which every row has the same length, and a step runs once for each cohort that is alive. A rollout, which starts
    all its rows at once, has one.
    """

    def __init__(self, model: EncoderDecoderModel, num_rows: int) -> None:
        """See :func:`lm_gym.models.decoder.decoder_for`."""
        self._model = model
        self._encoder: Any = model.model.get_encoder()
        self._decoder: Any = model.model.get_decoder()
        self._start_id = -1 if model.start_id is None else model.start_id
        self._num_rows = num_rows
        self._cohorts: list[_Cohort] = []

    @property
    def num_cohorts(self) -> int:
        """Forward passes of the next step."""
        return len(self._cohorts)

    @torch.inference_mode()
    def prefill(
        self, rows: Sequence[int], prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray] | None = None
    ) -> Tensor:
        """See :meth:`Decoder.prefill`."""
        numbers = np.asarray(rows, dtype=np.int64)
        self._keep_only(~np.isin(np.arange(self._num_rows), numbers))
        lengths = np.zeros(len(numbers), dtype=np.int64)
        if responses is not None:
            lengths = np.array([len(ids) for ids in responses], dtype=np.int64)
        encoded = self._encode(prompts)
        found: Tensor | None = None
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            at = torch.from_numpy(places).to(self._model.device)
            cohort = _Cohort(numbers[places], encoded.of(at) if len(places) < len(numbers) else encoded)
            ids = np.full((len(places), 1 + int(length)), self._start_id, dtype=np.int64)
            if responses is not None:
                ids[:, 1:] = [responses[place] for place in places.tolist()]
            last = self._decode(ids, cohort.encoded, cohort.cache)[:, -1]
            found = last.new_zeros((len(numbers), last.shape[-1])) if found is None else found
            found[at] = last
            self._cohorts.append(cohort)
        assert found is not None
        return found

    @torch.inference_mode()
    def advance(self, tokens: np.ndarray, alive: np.ndarray) -> Tensor:
        """See :meth:`Decoder.advance`."""
        self._keep_only(alive)
        found: Tensor | None = None
        for cohort in self._cohorts:
            last = self._decode(tokens[cohort.rows, None], cohort.encoded, cohort.cache)[:, -1]
            found = last.new_zeros((self._num_rows, last.shape[-1])) if found is None else found
            found[torch.from_numpy(cohort.rows).to(found.device)] = last
        assert found is not None, "no row is alive"
        return found

    @torch.inference_mode()
    def keep(self, rows: np.ndarray) -> None:
        """See :meth:`Decoder.keep`."""
        self._keep_only(np.isin(np.arange(self._num_rows), rows))
        numbers = np.zeros(self._num_rows, dtype=np.int64)
        numbers[rows] = np.arange(len(rows))
        for cohort in self._cohorts:
            cohort.rows = numbers[cohort.rows]
        self._num_rows = len(rows)

    def teacher_forced(self, prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray]) -> ForcedStates:
        """See :meth:`Decoder.teacher_forced`.

        Responses are right-padded behind the start token, so a position is its column and no mask is needed: under
        causal attention no token sees what stands to its right.
        """
        lengths = np.array([len(ids) for ids in responses])
        ids = np.full((len(lengths), 1 + int(lengths.max())), self._model.pad_id, dtype=np.int64)
        ids[:, 0] = self._start_id
        for row, response in enumerate(responses):
            ids[row, 1 : 1 + len(response)] = response
        hidden = self._decode(ids, self._encode(prompts), None)
        columns = np.arange(ids.shape[1])
        flat = hidden.reshape(-1, hidden.shape[-1])
        before = np.flatnonzero(columns < lengths[:, None])
        after = np.flatnonzero(columns == lengths[:, None])
        return ForcedStates(*(flat.index_select(0, torch.from_numpy(at).to(flat.device)) for at in (before, after)))

    def longest_prompt(self, response_tokens: int) -> int | None:
        """See :meth:`Decoder.longest_prompt`: the start token takes one of the response's positions."""
        config = self._model.model.config
        of_response = decoder_positions(config)
        if of_response is not None and response_tokens + 1 > of_response:
            return 0
        return encoder_positions(config)

    def fits(self, prompt_tokens: int, response_tokens: int) -> bool:
        """See :meth:`Decoder.fits`."""
        longest = self.longest_prompt(response_tokens)
        return longest is None or prompt_tokens <= longest

    def _keep_only(self, kept: np.ndarray) -> None:
        """Drop rows from their cohorts. Args: kept of shape (B,), bool."""
        for cohort in self._cohorts:
            cohort.keep(kept[cohort.rows])
        self._cohorts = [cohort for cohort in self._cohorts if len(cohort.rows)]

    def _encode(self, prompts: Sequence[np.ndarray]) -> _Encoded:
        """Run the encoder, once for prompts that are alike."""
        shared = SharedPrompts.of(prompts)
        unlike = shared.prompts
        ids = np.full((len(unlike), max(len(prompt) for prompt in unlike)), self._model.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(unlike):
            ids[row, : len(prompt)] = prompt
            mask[row, : len(prompt)] = 1
        device = self._model.device
        shown = torch.from_numpy(mask).to(device)
        with self._model.autocast():
            states = self._encoder(input_ids=torch.from_numpy(ids).to(device), attention_mask=shown).last_hidden_state
        encoded = _Encoded(states, shown)
        return encoded if len(unlike) == len(prompts) else encoded.of(torch.from_numpy(shared.of_row).to(device))

    def _decode(self, ids: np.ndarray, encoded: _Encoded, cache: EncoderDecoderCache | None) -> Tensor:
        """Run the decoder over tokens that follow what is in the cache. Returns: Shape: (b, S, H)."""
        with self._model.autocast():
            states: Tensor = self._decoder(
                input_ids=torch.from_numpy(np.ascontiguousarray(ids)).to(self._model.device),
                encoder_hidden_states=encoded.states,
                encoder_attention_mask=encoded.mask,
                past_key_values=cache,
                use_cache=cache is not None,
            ).last_hidden_state
        return states
