"""From logits to a drawn token: temperature, truncation, the draw, and where a response ends.

Truncation is done by the processors of ``transformers``. A draw is the inverse of the cumulative distribution at one
uniform number per row and step, so it does not depend on which other rows are still being decoded.

Shapes: B = rows, V = vocabulary, t = response tokens so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lm_gym.config import SamplingConfig
from lm_gym.episodes import StopReason
from lm_gym.errors import ConfigError, DivergedError
from lm_gym.models.response_text import ResponseText

__all__ = ["StopRule", "draw", "stop_ids_of", "truncated_logits", "with_stop_ids"]


def with_stop_ids(sampling: SamplingConfig, default: Sequence[int], vocab_size: int) -> SamplingConfig:
    """The rules with every stop token named.

    Args:
        sampling: rules; ``stop_token_ids`` of None are filled in.
        default: the ids to fill in.
        vocab_size: V.

    Raises:
        ConfigError: an id lies beyond the vocabulary, so that it could never be drawn.
    """
    ids = tuple(default) if sampling.stop_token_ids is None else sampling.stop_token_ids
    beyond = [token for token in ids if not 0 <= token < vocab_size]
    if beyond:
        raise ConfigError(
            f"stop_token_ids: every one must lie in the model's vocabulary of {vocab_size} tokens, got {beyond}, which "
            "could never end a response; name the right ones (stop_token_ids=...), or give the model its own tokenizer"
        )
    return replace(sampling, stop_token_ids=ids)


def stop_ids_of(sampling: SamplingConfig) -> tuple[int, ...]:
    """The stop tokens of rules in which they are named.

    Raises:
        ConfigError: they are not.
    """
    if sampling.stop_token_ids is None:
        raise ConfigError(
            "sampling: its stop_token_ids must be named here, got None; use the rules of an environment (env.sampling)"
        )
    return sampling.stop_token_ids


def truncated_logits(logits: Tensor, num_tokens: int | np.ndarray, sampling: SamplingConfig) -> Tensor:
    """Tempered logits with -inf where the sampler may not draw.

    Args:
        logits: Shape: (B, V), float32.
        num_tokens: response tokens that each row has already, t; one number for all, or shape (B,).
        sampling: temperature, truncations, and the stop tokens that ``min_new_tokens`` holds back.

    Returns: Shape: (B, V), float32; at least one entry of a row is finite.
    """
    warpers: list[Any] = []
    if sampling.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k is not None:
        warpers.append(TopKLogitsWarper(min(sampling.top_k, logits.shape[-1])))
    if sampling.top_p is not None:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    early = np.broadcast_to(np.asarray(num_tokens) < sampling.min_new_tokens, (len(logits),))
    if early.any():
        # Before the warpers, so that top-k and top-p choose among the tokens that may be drawn.
        held = torch.zeros_like(logits, dtype=torch.bool)
        held[:, list(stop_ids_of(sampling))] = torch.from_numpy(early.copy()).to(logits.device)[:, None]
        logits = logits.masked_fill(held, -torch.inf)
    dummy_ids = torch.empty((len(logits), 0), dtype=torch.long, device=logits.device)
    return LogitsProcessorList(warpers)(dummy_ids, logits)


def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a token per row by inverse transform sampling.

    Args:
        logits: -inf where a token may not be drawn. Shape: (B, V), float32.
        uniform: in [0, 1). Shape: (B,), float32.

    Returns: tokens (B,) int64 and their log-probabilities (B,) float32, in nats.

    Raises:
        DivergedError: a row's logits are not numbers.
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    cumulative = log_probs.exp().cumsum(-1)
    total = cumulative[:, -1]
    # Strictly below the total, or a draw near 1 would land behind the last token that has any probability.
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, target[:, None], right=True).squeeze(-1)
    drawn = log_probs.gather(-1, tokens.clamp(max=logits.shape[-1] - 1)[:, None]).squeeze(-1)
    if not torch.isfinite(drawn).all():
        raise DivergedError(
            f"sampling: the probabilities of every row must be numbers, and {int((~torch.isfinite(drawn)).sum())} of "
            f"{len(drawn)} rows have NaN; the policy's weights are lost, go on from an earlier checkpoint"
        )
    return tokens, drawn


class StopRule:
    """The rule of where a response ends, why, and with what text. One rule for stepping and for rollouts."""

    def __init__(self, text: ResponseText, sampling: SamplingConfig) -> None:
        """Raises: ConfigError: a stop string that the tokenizer's text can never contain."""
        self._text = text
        self._stop_ids = frozenset(stop_ids_of(sampling))
        self._sampling = sampling
        tokenizer = text.tokenizer
        for stop in sampling.stop_strings:
            if not self._can_be_met(stop, tokenizer):
                raise ConfigError(
                    f"stop_strings: every one must survive encoding and decoding by {type(tokenizer).__name__}, "
                    f"and {stop!r} does not, so it could never be met; use text that the tokenizer can produce"
                )

    def reason(self, prompt_ids: np.ndarray, ids: np.ndarray) -> StopReason | None:
        """Reason why a response is over; None while it is not.

        Args:
            prompt_ids: that it follows. Shape: (P,), int64.
            ids: its tokens. Shape: (t,), int64, t >= 1.
        """
        if int(ids[-1]) in self._stop_ids:
            return "eos"
        if self._sampling.stop_strings and self._cut(self._text(prompt_ids, ids)) is not None:
            return "stop_string"
        return "length" if len(ids) >= self._sampling.max_new_tokens else None

    def is_passed(self, prompt_ids: np.ndarray, ids: np.ndarray) -> bool:
        """True if a response goes on after it should have ended. Args: as in :meth:`reason`."""
        before = ids[:-1]
        return len(before) > 0 and (
            not self._stop_ids.isdisjoint(before.tolist()) or self.reason(prompt_ids, before) is not None
        )

    def text(self, prompt_ids: np.ndarray, ids: np.ndarray, reason: StopReason | None) -> str:
        """The text that is scored: it ends before the stop token or the stop string.

        Args:
            prompt_ids: that the response follows. Shape: (P,), int64.
            ids: its tokens. Shape: (t,), int64.
            reason: of its end.
        """
        text = self._text(prompt_ids, ids[:-1] if reason == "eos" else ids)
        cut = self._cut(text) if reason == "stop_string" else None
        return text if cut is None else text[:cut]

    def _can_be_met(self, text: str, tokenizer: Any) -> bool:
        """True if the tokens of the string give it back: alone, twice in a row, or between letters."""
        alone, within = (
            np.asarray(tokenizer(each, add_special_tokens=False)["input_ids"], dtype=np.int64)
            for each in (text, f"a{text}a")
        )
        tries = (alone, np.concatenate([alone, alone]), within)
        return any(text in self._text(ids[:0], ids) for ids in tries)

    def _cut(self, text: str) -> int | None:
        found = [text.find(stop) for stop in self._sampling.stop_strings if stop in text]
        return min(found) if found else None
