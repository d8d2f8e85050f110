"""Log-probabilities and entropies of finished episodes from teacher-forced states.

Work is cut twice: rows into micro-batches by token count, and the head into chunks of positions, so that the largest
float tensor is (chunk, V). Where a gradient is wanted and the logits of a micro-batch pass a fixed size, the backward
pass computes those of each chunk again: then no (tokens, V) tensor outlives its chunk.

Shapes: B = episodes, T = longest response, N = counted response tokens (row-major), H = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lm_gym.episodes import Episodes
from lm_gym.models.decoder import ForcedStates, decoder_for
from lm_gym.models.decoding.shared_prompts import SharedPrompts, padded_tokens, sharing_pays
from lm_gym.models.language_model import LanguageModel

__all__ = ["TokenStatistics", "episode_batches", "forced_states", "scatter", "token_batches", "token_statistics"]

HEAD_NUMBERS_ON_CPU = 1 << 21
"""Logits that are computed at once on a CPU (8 MB); small enough for its caches."""
HEAD_NUMBERS = 1 << 26
"""The same on an accelerator (256 MB)."""
KEPT_NUMBERS = 1 << 26
"""Logits of a micro-batch that may wait for the backward pass (256 MB); beyond it they are computed again."""
MIN_HEAD_CHUNK = 64
"""Positions that the head is applied to at least: below it, reading the head's weights costs more than it saves."""
ENOUGH_TOKENS_ON_CPU = 1 << 10
"""Padded tokens of a forward pass that keep a CPU's cores busy."""
ENOUGH_TOKENS = 1 << 13
"""The same for an accelerator."""
SHARE_OF_LONGEST = 0.75
"""Rows at least this share of the longest row share its batch."""


class TokenStatistics(NamedTuple):
    """Statistics of the policy's distribution at each counted token."""

    log_probs: Tensor
    """Log-probability of the token that was taken, in nats. Shape: (N,), float32."""
    entropy: Tensor
    """Entropy of the (tempered, truncated) distribution, in nats. Shape: (N,), float32."""


def token_batches(lengths: np.ndarray, max_tokens: int, device: torch.device) -> Iterator[np.ndarray]:
    """Cut rows into batches whose padded size is at most ``max_tokens`` (a longer row stands alone).

    A batch that fills the hardware already is closed before a row of less than ``SHARE_OF_LONGEST`` of its longest:
    rows of one length waste nothing on padding.

    Args:
        lengths: tokens per row. Shape: (B,).
        max_tokens: padded tokens of a batch at most.
        device: that will run them.

    Yields: row indices, longest rows first. Shape: (b,), int.
    """
    enough = ENOUGH_TOKENS_ON_CPU if device.type == "cpu" else ENOUGH_TOKENS
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        similar = int((lengths[order[start:]] >= SHARE_OF_LONGEST * longest).sum())
        rows = max(1, min(max_tokens // longest, max(similar, -(-enough // longest))))
        yield order[start : start + rows]
        start += rows


def episode_batches(episodes: Episodes, max_tokens: int, device: torch.device) -> Iterator[np.ndarray]:
    """Cut episodes into batches for :func:`forced_states`, as :func:`token_batches` does.

    Where running shared prompts once pays, the rows of a prompt stay side by side, and a batch counts each of its
    prompts once.

    Args:
        episodes: the rows.
        max_tokens: padded tokens of a batch at most.
        device: that will run them.

    Yields: row indices. Shape: (b,), int.
    """
    prompts, responses = episodes.prompt_lengths, episodes.response_lengths
    of_row = SharedPrompts.of(episodes.prompt_rows()).of_row
    whole, once = int((prompts + responses).sum()), int(prompts[np.unique(of_row, return_index=True)[1]].sum())
    if not sharing_pays(whole, once + int(responses.sum()), device):
        yield from token_batches(prompts + responses, max_tokens, device)
        return

    def size(rows: np.ndarray) -> int:
        return padded_tokens(prompts[rows], responses[rows], of_row[rows], device)[0]

    enough = ENOUGH_TOKENS_ON_CPU if device.type == "cpu" else ENOUGH_TOKENS
    batch = np.zeros(0, dtype=np.int64)
    for rows in _rows_of_prompts(prompts + responses, of_row, lambda rows: size(rows) <= max_tokens):
        joined = np.concatenate([batch, rows])
        added = size(joined) - size(batch) if len(batch) else 0
        wasteful = len(batch) and size(batch) >= enough and SHARE_OF_LONGEST * added > size(rows)
        if len(batch) and (wasteful or size(joined) > max_tokens):
            yield batch
            joined = rows
        batch = joined
    yield batch


def _rows_of_prompts(
    lengths: np.ndarray, of_row: np.ndarray, fits: Callable[[np.ndarray], bool]
) -> Iterator[np.ndarray]:
    """The rows of each prompt, longest first; those that do not fit in a batch come in several parts.

    Args:
        lengths: tokens per row. Shape: (B,), int.
        of_row: number of each row's prompt. Shape: (B,), int.
        fits: True if some rows of one prompt may stand in a batch.
    """
    longest = np.zeros(of_row.max() + 1, dtype=np.int64)
    np.maximum.at(longest, of_row, lengths)
    order = np.lexsort((-lengths, of_row, -longest[of_row]))
    for rows in np.split(order, np.flatnonzero(np.diff(of_row[order])) + 1):
        start = 0
        while start < len(rows):
            count = len(rows) - start
            while count > 1 and not fits(rows[start : start + count]):
                count -= 1
            yield rows[start : start + count]
            start += count


def forced_states(model: LanguageModel, episodes: Episodes) -> ForcedStates:
    """States of the episodes' responses in one pass; autograd follows if it is on."""
    return decoder_for(model).teacher_forced(episodes.prompt_rows(), episodes.response_rows())


def token_statistics(
    model: LanguageModel, states: Tensor, episodes: Episodes, *, entropy: bool = True, chunk: int | None = None
) -> TokenStatistics:
    """Log-probability of each counted token, and the entropy it was drawn at.

    The distribution is the model's, tempered by ``episodes.temperature`` and renormalised over the stored keep sets.

    Args:
        model: whose head is applied.
        states: :attr:`ForcedStates.before`. Shape: (N, H).
        episodes: the tokens, in the same order.
        entropy: False skips the entropy (zeros are returned).
        chunk: positions per application of the head; None bounds the logits that exist at once.
    """
    again = torch.is_grad_enabled() and len(states) * model.vocab_size > KEPT_NUMBERS
    if chunk is None:
        numbers = HEAD_NUMBERS_ON_CPU if states.device.type == "cpu" else HEAD_NUMBERS
        chunk = max(MIN_HEAD_CHUNK, numbers // model.vocab_size)
    targets = torch.from_numpy(episodes.response_ids[episodes.response_mask]).to(model.device)

    def of_chunk(part: Tensor, start: int) -> tuple[Tensor, Tensor]:
        log_probs = _log_probs(model, part, episodes, start)
        taken = log_probs.gather(-1, targets[start : start + len(part), None]).squeeze(-1)
        return taken, -(log_probs.exp() * log_probs).sum(-1) if entropy else torch.zeros_like(taken)

    parts: list[tuple[Tensor, Tensor]] = []
    for start, part in zip(range(0, len(targets), chunk), states.split(chunk), strict=True):
        if again:
            parts.append(checkpoint(of_chunk, part, start, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(of_chunk(part, start))
    return TokenStatistics(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


def _log_probs(model: LanguageModel, states: Tensor, episodes: Episodes, start: int) -> Tensor:
    """Tempered log-probabilities over the keep sets of the counted tokens from ``start`` on. Shape: (n, V), float32."""
    logits = model.logits(states)
    if episodes.temperature != 1.0:
        logits = logits / episodes.temperature
    if episodes.keep_sets is not None:
        keep = episodes.keep_sets.dense(start, start + len(states), episodes.response_mask)
        logits = logits.masked_fill(~torch.from_numpy(keep).to(logits.device), torch.finfo(logits.dtype).min)
    # One fused pass over V each way, and its result is all that the backward pass keeps.
    return torch.log_softmax(logits, dim=-1)


def scatter(flat: Tensor, mask: np.ndarray) -> Tensor:
    """Values of counted tokens back on the (B, T) grid, 0 elsewhere. Args: flat of shape (N,), mask of shape (B, T)."""
    grid = flat.new_zeros(mask.shape)
    return grid.masked_scatter(torch.from_numpy(mask).to(flat.device), flat)
