"""Acting token by token with a cache: each observation is one token longer than the last, or a new episode.

Nothing has to tell it about resets, nor which environment asks: a row whose observation continues one that was seen is
advanced, any other row is prefilled. New weights make every cache stale, and whoever changes them says so
(:meth:`TokenActor.refresh`).

What a row holds when it is first seen is its prompt, what it grows by is its response. An encoder-decoder computes
another thing from a token of the prompt than from one of the response, so it must see every episode from its start.

Shapes: B = rows, L = columns of an observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lm_gym.config import SamplingConfig
from lm_gym.models.decoder import Decoder, decoder_for
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.sampling import draw, truncated_logits

__all__ = ["TokenActor"]

MAX_HISTORIES = 16
"""Environments that are told apart; the one that was not seen for longest is forgotten."""
MAX_CACHES = 2
"""Key-value caches that are kept, of the environments seen last."""


@dataclass
class _History:
    """The last observation of one environment, and what was made of it."""

    ids: np.ndarray
    """Shape: (B, L), int64."""
    lengths: np.ndarray
    """Tokens per row. Shape: (B,), int64."""
    counts: np.ndarray
    """Response tokens per row, as far as they were seen to grow. Shape: (B,), int64."""
    decoder: Decoder | None = None
    """Holds the prefixes; None where it has to be filled again."""

    def unchanged(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """True where a row is the one here and has a response: one that ended, or is asked again. Shape: (B,), bool."""
        return (ids == self.ids).all(axis=1) & (lengths == self.lengths) & (self.counts > 0)

    def grown(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """True where a row is the one here plus one token. Shape: (B,), bool."""
        prefix = np.arange(ids.shape[1]) < self.lengths[:, None]
        return np.where(prefix, ids == self.ids, True).all(axis=1) & (lengths == self.lengths + 1)


class TokenActor:
    """Draws actions in any number of running environments."""

    def __init__(self, model: LanguageModel) -> None:
        """Args: model: the policy's language model."""
        self._model = model
        self._generators: dict[int | None, torch.Generator] = {}  # one stream per sampling.seed
        self._histories: list[_History] = []  # the one seen last comes first

    def refresh(self) -> None:
        """Forget the caches: the weights have changed."""
        for history in self._histories:
            history.decoder = None

    def act(self, observation: dict[str, np.ndarray], sampling: SamplingConfig) -> tuple[np.ndarray, np.ndarray]:
        """Draw a token in each state; see :meth:`lm_gym.policy.Policy.act`.

        ``min_new_tokens`` counts from the first observation of an episode: act in it from its start. An observation
        tells tokens and nothing of a reset, so an episode whose prompt is the row's last observation plus one token
        is taken for its continuation (as after a one-token response to "a", where the next prompt is "a b"): its
        tokens count from the earlier episode's start. The state of a causal model is the same either way; that of an
        encoder-decoder is not, whose tokenizer therefore ends a prompt by a token of its own, as those of T5 and BART
        do. Rollouts count for themselves, and know prompt and response apart.
        """
        ids, mask = observation["input_ids"], observation["attention_mask"]
        if ids.ndim == 1:
            tokens, log_probs = self.act({"input_ids": ids[None], "attention_mask": mask[None]}, sampling)
            return tokens[0], log_probs[0]
        states, counts = self.states(ids, mask.astype(np.int64).sum(axis=1))
        with torch.inference_mode():
            logits = truncated_logits(self._model.logits(states), counts, sampling)
            uniform = torch.rand(len(ids), generator=self._stream(sampling.seed)).to(logits.device)
            drawn, drawn_log_probs = draw(logits, uniform)
        return drawn.cpu().numpy(), drawn_log_probs.cpu().numpy()

    def _stream(self, seed: int | None) -> torch.Generator:
        """The generator of a ``sampling.seed``, which goes on from act to act, whatever other seeds come between."""
        if seed not in self._generators:
            self._generators[seed] = torch.Generator()
            self._generators[seed].manual_seed(seed) if seed is not None else self._generators[seed].seed()
        return self._generators[seed]

    def states(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """The state after each row's last token (B, H), and the response tokens it has seen (B,).

        Args:
            ids: right-padded prefixes. Shape: (B, L), int64.
            lengths: tokens per row. Shape: (B,), int64.
        """
        history, grown = self._found(ids, lengths)
        continued = grown if history.decoder is not None else np.zeros_like(grown)
        decoder = history.decoder or decoder_for(self._model, len(ids), ids.shape[1])
        history.decoder = None  # until the pass is over: one that fails midway leaves half a token in the cache
        weights = self._model.model
        states = torch.zeros((len(ids), self._model.hidden_size), device=weights.device, dtype=weights.dtype)
        rows = np.arange(len(ids))
        counts = np.where(grown, history.counts + 1, np.where(history.unchanged(ids, lengths), history.counts, 0))
        if continued.any():
            at = torch.from_numpy(rows[continued]).to(states.device)
            states[at] = decoder.advance(ids[rows, lengths - 1], continued)[at].to(states.dtype)
        fresh = rows[~continued]
        if fresh.size:
            starts = lengths - counts
            prompts = [ids[row, : starts[row]] for row in fresh]
            responses = [ids[row, starts[row] : lengths[row]] for row in fresh]
            at = torch.from_numpy(fresh).to(states.device)
            states[at] = decoder.prefill(fresh.tolist(), prompts, responses).to(states.dtype)
        history.counts = counts
        history.ids, history.lengths, history.decoder = ids.copy(), lengths, decoder
        return states, history.counts

    def _found(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[_History, np.ndarray]:
        """The history that most rows continue or are still at, moved to the front, or a new one; and which rows
        continue it (B,)."""
        alike = [history for history in self._histories if history.ids.shape == ids.shape]
        grew = [int(history.grown(ids, lengths).sum()) for history in alike]
        stayed = [int(history.unchanged(ids, lengths).sum()) for history in alike]
        # Where rows restart alone, the others stay: a prompt that an older history ends with must not outvote them.
        followed = [(one + other, one) for one, other in zip(grew, stayed, strict=True)]
        best = max(range(len(alike)), key=followed.__getitem__, default=None)
        found = alike[best] if best is not None and any(followed[best]) else None
        grown = np.zeros(len(ids), dtype=bool) if found is None else found.grown(ids, lengths)
        if found is None:
            found = _History(ids=ids, lengths=lengths, counts=np.zeros(len(ids), dtype=np.int64))
        others = [history for history in self._histories if history is not found]
        self._histories = [found, *others][:MAX_HISTORIES]
        for history in self._histories[MAX_CACHES:]:
            history.decoder = None
        return found, grown
