"""A batch of finished responses, each sequence stored once.

Shapes: B = episodes, P = longest prompt of the batch, T = longest response of the batch. Masks are carried from the
sampler, never worked out from token ids; True means "counts". Log-probabilities, KL and entropies are in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from lm_gym.keep_sets import KeepSets

__all__ = ["Episodes", "StopReason"]

StopReason = Literal["eos", "stop_string", "length"]


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """B finished episodes of the text environment, on the CPU.

    ``log_probs`` are the sampler's (behaviour policy, tempered and truncated); ``rewards`` are what ``step`` would
    have paid for the same tokens and log-probabilities.
    """

    prompt_ids: np.ndarray
    """Right-padded. Shape: (B, P), int64."""
    prompt_mask: np.ndarray
    """Shape: (B, P), bool."""
    response_ids: np.ndarray
    """The stop token included where one was drawn. Shape: (B, T), int64."""
    response_mask: np.ndarray
    """Shape: (B, T), bool; every row counts at least one token."""
    log_probs: np.ndarray
    """Log-probabilities of the policy that sampled; 0 where the mask is False. Shape: (B, T), float32."""
    ref_log_probs: np.ndarray | None
    """Log-probabilities under the tempered reference; None without one. Shape: (B, T), float32."""
    kl: np.ndarray | None
    """KL term k1, log_probs - ref_log_probs; None without a reference. Shape: (B, T), float64."""
    rewards: np.ndarray
    """Shape: (B, T), float64."""
    kl_coef: np.ndarray
    """The beta that the rewards were paid with, in score units per nat. Shape: (B,), float64."""
    scores: np.ndarray
    """Scores on the model's own scale, before weight, clip and normaliser; 0 where not valid. Shape: (B,), float32."""
    score_valid: np.ndarray
    """False where the reward model abstained. Shape: (B,), bool."""
    terminated: np.ndarray
    """Shape: (B,), bool."""
    truncated: np.ndarray
    """Shape: (B,), bool."""
    stop_reasons: tuple[StopReason, ...]
    """Length B."""
    group: np.ndarray
    """Number of the prompt draw; responses to one draw share it. Shape: (B,), int64."""
    prompts: tuple[str, ...]
    """Prompt texts. Length B."""
    responses: tuple[str, ...]
    """Response texts as they were scored. Length B."""
    temperature: float
    """Softmax temperature of all log-probabilities above."""
    max_new_tokens: int
    """Longest response that the rules allowed."""
    score_std: np.ndarray | None = None
    """The reward model's own uncertainty, in units of ``scores``; 0 where not valid. None if the model has none, or
    was not asked about any row. Shape: (B,), float32."""
    baselines: np.ndarray | None = None
    """Return that the prompt promises, estimated apart from the response: that of a greedy one, say; None if nobody
    estimated it. Shape: (B,), float64."""
    state_values: np.ndarray | None = None
    """Expected return from the state before each token on, estimated from fresh continuations; None if nobody did.
    Shape: (B, T), float64."""
    keep_sets: KeepSets | None = None
    """Subsets that a truncated sampler drew from; None if it drew from the whole vocabulary."""

    def __post_init__(self) -> None:
        rows, width = self.response_mask.shape
        if self.prompt_mask.ndim != 2 or self.prompt_ids.shape != self.prompt_mask.shape:
            raise ValueError(
                f"Episodes.prompt_ids: must have the shape (B, P) of prompt_mask, got {self.prompt_ids.shape} and "
                f"{self.prompt_mask.shape}"
            )
        for name in ("response_ids", "log_probs", "rewards", "ref_log_probs", "kl", "state_values"):
            array = getattr(self, name)
            if array is not None and array.shape != (rows, width):
                raise ValueError(f"Episodes.{name}: must have shape {(rows, width)}, got {array.shape}")
        if len(self.prompt_mask) != rows:
            raise ValueError(f"Episodes.prompt_mask: must have {rows} rows, got {len(self.prompt_mask)}")
        for name in (
            "group",
            "kl_coef",
            "scores",
            *(() if self.score_std is None else ("score_std",)),
            *(() if self.baselines is None else ("baselines",)),
            "score_valid",
            "terminated",
            "truncated",
            "stop_reasons",
            "prompts",
            "responses",
        ):
            if len(getattr(self, name)) != rows:
                raise ValueError(f"Episodes.{name}: must have {rows} rows, got {len(getattr(self, name))}")

    def __len__(self) -> int:
        return len(self.response_mask)

    @property
    def abstained(self) -> np.ndarray:
        """True where the reward model was asked and gave no score: nothing may be learned from such an episode.

        A truncated response was not asked about, so it is none. Shape: (B,), bool.
        """
        return self.terminated & ~self.score_valid

    @property
    def scored(self) -> np.ndarray:
        """True where the reward model gave a score: neither abstained nor truncated. Shape: (B,), bool."""
        return self.terminated & self.score_valid

    @property
    def rewards_without_kl(self) -> np.ndarray:
        """The rewards with what was paid for the KL given back. Shape: (B, T), float64."""
        return self.rewards if self.kl is None else self.rewards + self.kl_coef[:, None] * self.kl

    @property
    def payments(self) -> np.ndarray:
        """What each response was paid in all, the KL apart, in the precision of a score: what was paid alike is equal,
        though the KL was taken and given back. Shape: (B,), float32."""
        return self.rewards_without_kl.sum(axis=1).astype(np.float32)

    @property
    def prompt_lengths(self) -> np.ndarray:
        """Tokens per prompt. Shape: (B,), int64."""
        return self.prompt_mask.sum(axis=1)

    @property
    def response_lengths(self) -> np.ndarray:
        """Tokens per response, the stop token included. Shape: (B,), int64."""
        return self.response_mask.sum(axis=1)

    def __getitem__(self, rows: np.ndarray | Sequence[int] | slice) -> Episodes:
        """Some of the episodes, in the order given, trimmed to their own longest prompt and response."""
        if isinstance(rows, slice) or np.asarray(rows).dtype == np.bool_:
            rows = np.arange(len(self))[rows]
        rows = np.asarray(rows, dtype=np.int64)
        prompt_width = int(self.prompt_lengths[rows].max(initial=1))
        width = int(self.response_lengths[rows].max(initial=1))
        chosen: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = tuple(value[row] for row in rows)
            elif isinstance(value, KeepSets):
                value = value[rows].trimmed(width)
            elif isinstance(value, np.ndarray):
                value = value[rows]
                if value.ndim == 2:
                    value = value[:, : prompt_width if field.name.startswith("prompt_") else width]
            chosen[field.name] = value
        return Episodes(**chosen)  # type: ignore[arg-type]

    def _no_std(self) -> np.ndarray | None:
        return None if self.score_valid.any() else np.zeros(len(self), dtype=np.float32)

    def prompt_rows(self) -> list[np.ndarray]:
        """Prompt ids without padding, each of shape (P_i,)."""
        return [ids[:size] for ids, size in zip(self.prompt_ids, self.prompt_lengths, strict=True)]

    def response_rows(self) -> list[np.ndarray]:
        """Response ids without padding, each of shape (T_i,)."""
        return [ids[:size] for ids, size in zip(self.response_ids, self.response_lengths, strict=True)]

    def without_keep_sets(self) -> Episodes:
        """The same episodes for a model that is tempered, never truncated."""
        return replace(self, keep_sets=None)

    @classmethod
    def concatenate(cls, parts: Sequence[Episodes]) -> Episodes:
        """Stack several batches, padded to the widest; the groups of one stay apart from those of another.

        Raises:
            ValueError: nothing to join, other temperatures, or a field that only some parts have.
        """
        if not parts:
            raise ValueError("Episodes.concatenate: needs at least one batch, got none")
        width = max(part.response_mask.shape[1] for part in parts)
        prompt_width = max(part.prompt_mask.shape[1] for part in parts)
        vocabularies = [part.keep_sets.vocab_size for part in parts if part.keep_sets is not None]
        starts = np.cumsum([0, *(int(part.group.max(initial=-1)) + 1 for part in parts[:-1])])
        parts = [replace(part, group=part.group + start) for part, start in zip(parts, starts, strict=True)]
        joined: dict[str, object] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            if field.name == "score_std" and any(value is not None for value in values):
                # A batch in which nothing was scored does not know that its reward model has a std.
                values = [part._no_std() if part.score_std is None else part.score_std for part in parts]
            wide = prompt_width if field.name.startswith("prompt_") else width
            if field.name == "keep_sets" and vocabularies:
                joined[field.name] = KeepSets.concatenate([_subsets(part, vocabularies[0]) for part in parts], width)
            else:
                joined[field.name] = _joined(field.name, values, wide)
        return cls(**joined)  # type: ignore[arg-type]


def _joined(name: str, values: list[object], width: int) -> object:
    first = values[0]
    if len({value is None for value in values}) > 1:
        raise ValueError(f"Episodes.concatenate: every part must have {name}, or none of them")
    if isinstance(first, tuple):
        return tuple(item for value in values for item in value)  # type: ignore[attr-defined]
    if isinstance(first, int | float) or first is None:
        if any(value != first for value in values):
            raise ValueError(f"Episodes.concatenate: every part must have the same {name}, got {values}")
        return first
    arrays = [np.asarray(value) for value in values]
    if arrays[0].ndim == 2:
        arrays = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]
    return np.concatenate(arrays)


def _subsets(part: Episodes, vocab_size: int) -> KeepSets:
    if part.keep_sets is not None:
        return part.keep_sets
    return KeepSets(
        kind=np.zeros(part.response_mask.shape, dtype=np.uint8),
        ids=np.zeros(0, dtype=np.int32),
        offsets=np.zeros(1, dtype=np.int64),
        bits=np.zeros((0, (vocab_size + 7) // 8), dtype=np.uint8),
        vocab_size=vocab_size,
    )
