"""The fused sampler: a batch of prompts in, a batch of responses out.

One prefill, then one forward pass per token over the rows that are still open; finished rows leave the batch, so time
follows the tokens really generated. Every truncated token's keep set is stored (see ``lm_gym.keep_sets``).

Shapes: B = prompts, T = longest response, H = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm_gym.config import SamplingConfig
from lm_gym.incremental import left_padded
from lm_gym.keep_sets import KeepSetRecorder, KeepSets
from lm_gym.language_model import LanguageModel
from lm_gym.sampling import StopRule, draw, truncated_logits

__all__ = ["Generation", "generate"]

MAX_KEEP_SET_BYTES = 1 << 30
"""Default memory limit of the keep sets of one rollout."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Sampled responses; arrays are 0 where the mask is False."""

    ids: np.ndarray
    """Shape: (B, T), int64."""
    mask: np.ndarray
    """Shape: (B, T), bool."""
    log_probs: np.ndarray
    """Behaviour policy: tempered, truncated, renormalised; in nats. Shape: (B, T), float32."""
    values: np.ndarray | None = None
    """Value of the state before each token, where the sampler has a value head. Shape: (B, T), float32."""
    keep_sets: KeepSets | None = None
    """Subsets drawn from; None if sampling was not truncated."""


class _Log:
    """What a decode writes down, on full (B, max_new_tokens) grids."""

    def __init__(self, num_rows: int, sampling: SamplingConfig, recorder: KeepSetRecorder | None) -> None:
        shape = (num_rows, sampling.max_new_tokens)
        self.ids = np.zeros(shape, dtype=np.int64)
        self.mask = np.zeros(shape, dtype=bool)
        self.log_probs = np.zeros(shape, dtype=np.float32)
        self.values = np.zeros(shape, dtype=np.float32)
        self.recorder = recorder

    def write(self, rows: np.ndarray, column: int, tokens: Tensor, log_probs: Tensor, values: Tensor | None) -> None:
        self.ids[rows, column] = tokens.cpu().numpy()
        self.mask[rows, column] = True
        self.log_probs[rows, column] = log_probs.cpu().numpy()
        if values is not None:
            self.values[rows, column] = values.float().cpu().numpy()

    def finish(self, with_values: bool) -> Generation:
        width = int(self.mask.sum(axis=1).max(initial=1))
        return Generation(
            ids=self.ids[:, :width],
            mask=self.mask[:, :width],
            log_probs=self.log_probs[:, :width],
            values=self.values[:, :width] if with_values else None,
            keep_sets=None if self.recorder is None else self.recorder.finish().trimmed(width),
        )


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[np.ndarray],
    sampling: SamplingConfig,
    *,
    generator: torch.Generator,
    value_head: Callable[[Tensor], Tensor] | None = None,
    max_keep_set_bytes: int = MAX_KEEP_SET_BYTES,
) -> Generation:
    """Sample one response per prompt.

    Args:
        model: the policy's language model.
        prompts: token ids, each of shape (P_i,).
        sampling: temperature, truncation, length, stop strings (its seed is the caller's business).
        generator: a CPU generator; one uniform number per row and step is drawn from it up front.
        value_head: states (b, H) -> values (b,), evaluated at every state that a token is drawn in.
        max_keep_set_bytes: memory limit of the stored keep sets.

    Raises:
        ConfigError: the keep sets pass their memory limit.
    """
    stop = StopRule(model.tokenizer, model.eos_ids, sampling)
    uniform = torch.rand((len(prompts), sampling.max_new_tokens), generator=generator)
    recorder = None
    if sampling.truncates:
        recorder = KeepSetRecorder(
            len(prompts), sampling.max_new_tokens, model.vocab_size, max_bytes=max_keep_set_bytes
        )
    log = _Log(len(prompts), sampling, recorder)
    ids, mask, positions = left_padded(prompts, model.pad_id, model.device)
    cache = model.new_cache()
    hidden = model.hidden(ids, mask, positions, cache)[:, -1]
    lengths = mask.sum(1)
    rows = np.arange(len(prompts))
    for column in range(sampling.max_new_tokens):
        logits = truncated_logits(model.logits(hidden), column, sampling, model.eos_ids)
        tokens, log_probs = draw(logits, uniform[rows, column].to(logits.device))
        log.write(rows, column, tokens, log_probs, None if value_head is None else value_head(hidden))
        if recorder is not None:
            recorder.record(rows, column, torch.isfinite(logits).cpu().numpy())
        going = np.array([stop.reason(prompts[int(row)], log.ids[row, : column + 1]) is None for row in rows])
        if not going.any():
            break
        if not going.all():
            stay = torch.from_numpy(np.flatnonzero(going)).to(model.device)
            cache.batch_select_indices(stay)
            mask, lengths, tokens, rows = mask[stay], lengths[stay], tokens[stay], rows[going]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        hidden = model.hidden(tokens[:, None], mask, lengths[:, None], cache)[:, -1]
        lengths = lengths + 1
    return log.finish(with_values=value_head is not None)
