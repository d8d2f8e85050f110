"""Keep sets: the tokens that a truncated sampler could have drawn, stored for each token.

Under top-k, top-p, min-p or a minimum length the behaviour distribution is renormalised over a subset of the
vocabulary. Learning must renormalise the *current* policy over that same subset; working the subset out again from
new logits would lose sampled tokens. A subset is stored as int32 ids, or as a bit mask where that is smaller.

Shapes: B = rows, T = response tokens, V = vocabulary, W = ceil(V / 8), M = tokens with a proper subset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm_gym.errors import ConfigError

__all__ = ["KeepSetRecorder", "KeepSets"]


@dataclass(frozen=True, kw_only=True)
class KeepSets:
    """The subsets of B x T tokens. Payloads run in row-major order of the tokens they belong to."""

    kind: np.ndarray
    """0: every token could be drawn, 1: subset in ``ids``, 2: subset in ``bits``. Shape: (B, T), uint8."""
    ids: np.ndarray
    """Concatenated token ids of kind 1. Shape: (sum of sizes,), int32."""
    offsets: np.ndarray
    """Start of each kind-1 subset in ``ids``, with the end appended. Shape: (M1 + 1,), int64."""
    bits: np.ndarray
    """Packed masks of kind 2, most significant bit first. Shape: (M2, W), uint8."""
    vocab_size: int
    """V."""

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.kind.nbytes + self.ids.nbytes + self.offsets.nbytes + self.bits.nbytes

    def __getitem__(self, rows: np.ndarray) -> KeepSets:
        """The subsets of some rows, in the order given. Args: rows of shape (b,), int."""
        kind = self.kind[rows]
        numbers = {k: (np.cumsum(self.kind == k).reshape(self.kind.shape) - 1)[rows][kind == k] for k in (1, 2)}
        starts, ends = self.offsets[:-1][numbers[1]], self.offsets[1:][numbers[1]]
        offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], ends - starts) + np.repeat(starts, ends - starts)
        return KeepSets(
            kind=kind,
            ids=self.ids[places],
            offsets=offsets,
            bits=self.bits[numbers[2]],
            vocab_size=self.vocab_size,
        )

    def trimmed(self, width: int) -> KeepSets:
        """The same subsets over ``width`` columns; columns are cut or added where no token counts."""
        kind = np.zeros((len(self.kind), width), dtype=np.uint8)
        shared = min(width, self.kind.shape[1])
        kind[:, :shared] = self.kind[:, :shared]
        if int((kind > 0).sum()) != int((self.kind > 0).sum()):
            raise ValueError(f"trimmed: width {width} cuts off tokens with a stored subset")
        return KeepSets(kind=kind, ids=self.ids, offsets=self.offsets, bits=self.bits, vocab_size=self.vocab_size)

    def dense(self, start: int, stop: int, mask: np.ndarray) -> np.ndarray:
        """Boolean subsets of a run of counted tokens.

        Args:
            start, stop: range in the row-major list of the tokens that ``mask`` counts.
            mask: the response mask. Shape: (B, T), bool.

        Returns: Shape: (stop - start, V), bool; all True for a token without a stored subset.
        """
        before = self.kind[mask][:start]
        kind = self.kind[mask][start:stop]
        keep = np.ones((len(kind), self.vocab_size), dtype=bool)
        first, count = int((before == 1).sum()), int((kind == 1).sum())
        if count:
            offsets = self.offsets[first : first + count + 1]
            keep[kind == 1] = False
            places = np.repeat(np.flatnonzero(kind == 1), np.diff(offsets))
            keep[places, self.ids[offsets[0] : offsets[-1]]] = True
        first, count = int((before == 2).sum()), int((kind == 2).sum())
        if count:
            packed = self.bits[first : first + count]
            keep[kind == 2] = np.unpackbits(packed, axis=1, count=self.vocab_size).astype(bool)
        return keep

    @classmethod
    def concatenate(cls, parts: Sequence[KeepSets], width: int) -> KeepSets:
        """Stack the rows of several, over ``width`` columns."""
        parts = [part.trimmed(width) for part in parts]
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            kind=np.concatenate([part.kind for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            bits=np.concatenate([part.bits for part in parts]),
            vocab_size=parts[0].vocab_size,
        )


class KeepSetRecorder:
    """Collects subsets while a batch is decoded, step by step, and orders them row-major at the end."""

    def __init__(self, num_rows: int, max_new_tokens: int, vocab_size: int, *, max_bytes: int) -> None:
        """Args: max_bytes: memory limit of the subsets of one batch, in bytes."""
        self._kind = np.zeros((num_rows, max_new_tokens), dtype=np.uint8)
        self._payload: dict[int, np.ndarray] = {}
        self._vocab_size = vocab_size
        self._max_bytes = max_bytes
        self._bytes = 0

    def record(self, rows: np.ndarray, column: int, keep: np.ndarray) -> None:
        """Store the subsets of one decoding step.

        Args:
            rows: the rows that drew a token. Shape: (b,), int.
            column: index of that token in the response.
            keep: True where a token could be drawn. Shape: (b, V), bool.

        Raises:
            ConfigError: the memory limit is passed.
        """
        counts = keep.sum(axis=1)
        packed = np.packbits(keep, axis=1)
        for row, mask, bits, count in zip(rows, keep, packed, counts, strict=True):
            if count == self._vocab_size:
                continue
            as_ids = 4 * count < bits.nbytes
            payload = np.flatnonzero(mask).astype(np.int32) if as_ids else bits
            self._kind[row, column] = 1 if as_ids else 2
            self._payload[int(row) * self._kind.shape[1] + column] = payload
            self._bytes += payload.nbytes
        if self._bytes > self._max_bytes:
            raise ConfigError(
                "sampling: the stored keep sets of one rollout must fit in max_keep_set_bytes = "
                f"{self._max_bytes}, and top_k/top_p/min_p/min_new_tokens needed more by token {column + 1}; "
                "use fewer episodes a rollout, a smaller top_k, min_new_tokens=0, or raise the limit"
            )

    def finish(self) -> KeepSets:
        """The subsets of the whole batch, over max_new_tokens columns."""
        order = sorted(self._payload)
        flat = self._kind.reshape(-1)
        ids = [self._payload[place] for place in order if flat[place] == 1]
        bits = [self._payload[place] for place in order if flat[place] == 2]
        width = (self._vocab_size + 7) // 8
        return KeepSets(
            kind=self._kind,
            ids=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
            offsets=np.concatenate([[0], np.cumsum([len(part) for part in ids])]).astype(np.int64),
            bits=np.stack(bits) if bits else np.zeros((0, width), dtype=np.uint8),
            vocab_size=self._vocab_size,
        )
