"""Teacher-forced passes over finished episodes: every state at once, the head on response positions only.

Sequences are right-padded, so a position is its column and no mask is needed: under causal attention no token sees
what stands to its right. Work is cut twice: rows into micro-batches by token count, and the head into chunks of
positions, so that the largest float tensor is (chunk, V).

Shapes: B = episodes, T = longest response, N = counted response tokens (row-major), H = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lm_gym.episodes import Episodes
from lm_gym.language_model import LanguageModel

__all__ = ["ForcedStates", "TokenStatistics", "forced_states", "scatter", "token_batches", "token_statistics"]

HEAD_NUMBERS_ON_CPU = 1 << 21
"""Logits that are computed at once on a CPU (8 MB); small enough for its caches."""
HEAD_NUMBERS = 1 << 26
"""The same on an accelerator (256 MB)."""
MIN_HEAD_CHUNK = 64
"""Positions that the head is applied to at least: below it, reading the head's weights costs more than it saves."""
ENOUGH_TOKENS_ON_CPU = 1 << 10
"""Padded tokens of a forward pass that keep a CPU's cores busy."""
ENOUGH_TOKENS = 1 << 13
"""The same for an accelerator."""
SHARE_OF_LONGEST = 0.75
"""Rows at least this share of the longest row share its batch."""


class ForcedStates(NamedTuple):
    """Trunk states at the positions that predict, or follow, a response token."""

    before: Tensor
    """State before each counted token. Shape: (N, H)."""
    after: Tensor
    """State after the last token of each episode. Shape: (B, H)."""


class TokenStatistics(NamedTuple):
    """What the policy's distribution says at each counted token."""

    log_probs: Tensor
    """Of the token that was taken, in nats. Shape: (N,), float32."""
    entropy: Tensor
    """Of the (tempered, truncated) distribution, in nats. Shape: (N,), float32."""


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


def forced_states(model: LanguageModel, episodes: Episodes) -> ForcedStates:
    """One pass over the joined sequences; autograd follows if it is on."""
    ids = torch.from_numpy(episodes.sequences(model.pad_id)).to(model.device)
    hidden = model.hidden(ids)
    rows, columns = np.nonzero(episodes.response_mask)
    starts, lengths = episodes.prompt_lengths, episodes.response_lengths
    places = rows * ids.shape[1] + starts[rows] - 1 + columns
    last = np.arange(len(episodes)) * ids.shape[1] + starts + lengths - 1
    flat = hidden.reshape(-1, hidden.shape[-1])
    return ForcedStates(
        before=flat.index_select(0, torch.from_numpy(places).to(model.device)),
        after=flat.index_select(0, torch.from_numpy(last).to(model.device)),
    )


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
    if chunk is None:
        numbers = HEAD_NUMBERS_ON_CPU if states.device.type == "cpu" else HEAD_NUMBERS
        chunk = max(MIN_HEAD_CHUNK, numbers // model.vocab_size)
    targets = torch.from_numpy(episodes.response_ids[episodes.response_mask]).to(model.device)
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(targets), chunk):
        stop = min(start + chunk, len(targets))
        logits = model.logits(states[start:stop])
        if episodes.temperature != 1.0:
            logits = logits / episodes.temperature
        if episodes.keep_sets is not None:
            keep = torch.from_numpy(episodes.keep_sets.dense(start, stop, episodes.response_mask)).to(logits.device)
            logits = logits.masked_fill(~keep, torch.finfo(logits.dtype).min)
        # One fused pass over V each way, and its result is all that the backward pass keeps.
        log_probs = torch.log_softmax(logits, dim=-1)
        taken = log_probs.gather(-1, targets[start:stop, None]).squeeze(-1)
        parts.append((taken, _entropy(log_probs) if entropy else torch.zeros_like(taken)))
    return TokenStatistics(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


def _entropy(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs).sum(-1)


def scatter(flat: Tensor, mask: np.ndarray) -> Tensor:
    """Values of counted tokens back on the (B, T) grid, 0 elsewhere. Args: flat of shape (N,), mask of shape (B, T)."""
    grid = flat.new_zeros(mask.shape)
    return grid.masked_scatter(torch.from_numpy(mask).to(flat.device), flat)
