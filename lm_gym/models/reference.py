"""The frozen reference model: log pi_ref of every token, incrementally in ``step`` and in one pass in a rollout.

The reference is tempered like the policy and never truncated, so its log-probabilities are finite; a model whose own
are not is refused at the token, since its KL would be paid as NaN or without bound.

Shapes: B = rows, T = response tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_gym.config import SamplingConfig
from lm_gym.episodes import Episodes
from lm_gym.errors import UnsupportedModelError
from lm_gym.models.decoder import decoder_for
from lm_gym.models.language_model import LanguageModel, frozen
from lm_gym.models.sampling import truncated_logits
from lm_gym.models.teacher_forcing import episode_batches, forced_states, scatter, token_statistics
from lm_gym.tools.digests import digest_tensors
from lm_gym.tools.settings import checked

__all__ = ["Reference", "ReferenceScorer"]


class Reference:
    """A language model that no longer learns."""

    def __init__(self, language_model: LanguageModel) -> None:
        """Args:
        language_model: one that somebody may be training is copied as it is now (see ``frozen``); the base under an
            adapter (:meth:`LanguageModel.base`) is not, and shares its weights with whoever trains the adapter.
        """
        self.language_model = frozen(checked("Reference: language_model", language_model, LanguageModel))

    def __deepcopy__(self, memo: dict[int, Any]) -> Reference:
        """Itself: it never changes, and ``gymnasium.make`` deep-copies its arguments."""
        return self

    @property
    def model(self) -> PreTrainedModel:
        """The ``transformers`` model; of a base under an adapter, the model with the adapter on."""
        return self.language_model.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.language_model.tokenizer

    def digest(self) -> str:
        """SHA-256 of its weights; the same for a base under an adapter and for a copy without one."""
        return digest_tensors(self.language_model.weights().items())

    def fits(self, prompt_tokens: int, response_tokens: int) -> bool:
        """True if the model has positions for such a prompt and response together."""
        return decoder_for(self.language_model).fits(prompt_tokens, response_tokens)

    def longest_prompt(self, response_tokens: int) -> int | None:
        """Most prompt tokens that leave a response of so many tokens its positions; None for no limit."""
        return decoder_for(self.language_model).longest_prompt(response_tokens)

    @torch.inference_mode()
    def log_probs(self, episodes: Episodes, *, max_batch_tokens: int = 16_384) -> np.ndarray:
        """Log-probability of each response token, by teacher forcing.

        Args:
            episodes: tokens and temperature; keep sets are ignored.
            max_batch_tokens: padded tokens per forward pass.

        Returns: 0 where the response mask is False; nats. Shape: (B, T), float32.

        Raises:
            UnsupportedModelError: one of them is not finite.
        """
        out = np.zeros(episodes.response_mask.shape, dtype=np.float32)
        for rows in episode_batches(episodes, max_batch_tokens, self.language_model.device):
            part = episodes[rows].without_keep_sets()
            states = forced_states(self.language_model, part).before
            flat = token_statistics(self.language_model, states, part, entropy=False).log_probs
            out[rows, : part.response_mask.shape[1]] = scatter(flat, part.response_mask).cpu().numpy()
        _require_finite(self.language_model, out)
        return out


class ReferenceScorer:
    """log pi_ref of the next token for B rows of a running environment; each prefix is run once."""

    def __init__(self, reference: Reference, num_rows: int, max_length: int, temperature: float) -> None:
        """Args:
        reference: the frozen model.
        num_rows: B.
        max_length: prompt plus response, in tokens.
        temperature: of the softmax.
        """
        self._model = reference.language_model
        self._num_rows, self._max_length = num_rows, max_length
        self._temperature = temperature
        self.forget()
        self._next = torch.zeros((num_rows, self._model.vocab_size), device=self._model.device)

    def forget(self) -> None:
        """Drop every row's prefix; each has to be started again."""
        self._decoder = decoder_for(self._model, self._num_rows, self._max_length)

    def start(self, rows: Sequence[int], prompts: Sequence[np.ndarray]) -> None:
        """Restart rows from prompts, each of shape (P_i,)."""
        self._keep(torch.as_tensor(rows), self._decoder.prefill(rows, prompts))

    def log_probs(self, tokens: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Log-probability of each row's next token, in nats.

        Args:
            tokens: Shape: (B,), int64.
            active: rows that are asked about. Shape: (B,), bool.

        Returns: 0 in rows that are not active. Shape: (B,), float64.

        Raises:
            UnsupportedModelError: one of them is not finite.
        """
        index = torch.from_numpy(tokens).to(self._next.device)
        found = self._next.gather(-1, index[:, None]).squeeze(-1).double().cpu().numpy()
        found = np.where(active, found, 0.0)
        _require_finite(self._model, found)
        return found

    def support(self, num_tokens: np.ndarray, sampling: SamplingConfig) -> np.ndarray:
        """Tokens that truncating the reference's own next distribution keeps.

        Args:
            num_tokens: response tokens that each row has already. Shape: (B,), int64.
            sampling: top_k, top_p, min_p and min_new_tokens; the temperature is that of this scorer.

        Returns: at least one True per row. Shape: (B, V), bool.
        """
        kept = truncated_logits(self._next, num_tokens, replace(sampling, temperature=1.0))
        return np.asarray(torch.isfinite(kept).cpu().numpy())

    def advance(self, tokens: np.ndarray, alive: np.ndarray) -> None:
        """Append the tokens of live rows. Args: tokens (B,) int64, alive (B,) bool."""
        states = self._decoder.advance(tokens, alive)
        rows = torch.from_numpy(np.flatnonzero(alive))
        self._keep(rows, states[rows.to(states.device)])

    @torch.inference_mode()
    def _keep(self, rows: torch.Tensor, states: torch.Tensor) -> None:
        logits = self._model.logits(states) / self._temperature
        self._next[rows.to(self._next.device)] = torch.log_softmax(logits, dim=-1)


def _require_finite(model: LanguageModel, log_probs: np.ndarray) -> None:
    """Args: log_probs of shape (B,) or (B, T), 0 where nothing counts."""
    wrong = np.argwhere(~np.isfinite(log_probs))
    if len(wrong):
        raise UnsupportedModelError(
            f"reference {type(model.model).__name__}: every log-probability must be a finite number, got "
            f"{log_probs[tuple(wrong[0])]} in row {wrong[0][0]}; use a reference that gives every token a probability"
        )
