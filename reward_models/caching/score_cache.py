"""Scores by hash of what they depend on: each row is scored once, however often it is asked for.

Knows: the protocol in ``lm_gym.scoring.protocol``. Does not know: how a score is made.

Shapes: B = rows asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_gym.config import ScoreNormalizer
from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.protocol import RewardModel, Scores, checked_scores, require_rows
from lm_gym.tools.console.progress import counted
from lm_gym.tools.settings import Count, Text, checked

from .text_store import TextStore, text_key

__all__ = ["CachedRewardModel", "ScoreCache"]

DEFAULT_SIZE = 65536


class ScoreCache:
    """Remembers scores, and asks for those of new rows only; abstentions are not remembered."""

    def __init__(self, path: str | Path | None = None, *, size: int = DEFAULT_SIZE) -> None:
        """Args:
        path: SQLite file that keeps scores between processes; None keeps them in memory.
        size: most scores in memory; 0 only takes equal rows of one call together.

        Raises:
            ArtifactError: the file is no such cache.
        """
        self._store = TextStore(path, size=size)

    def score(
        self,
        keys: Sequence[bytes],
        compute: Callable[[list[int]], Scores],
        *,
        chunk_rows: int | None = None,
        progress: str | None = None,
    ) -> Scores:
        """Scores of B rows.

        Args:
            keys: one per row, of all that its score depends on.
            compute: scores some of the rows, given by number; it is asked for one row of each key that is not known.
            chunk_rows: most new rows per call of ``compute``, each chunk kept as soon as it is scored; None has no
                limit.
            progress: title of the progress over several chunks; None shows none.

        Returns: Scores of shape (B,).
        """
        wanted = {key: row for row, key in enumerate(keys)}
        known = self._store.get(wanted)
        new = [key for key in wanted if key not in known]
        step = chunk_rows or max(len(new), 1)
        with counted(progress or "", len(new), visible=progress is not None and len(new) > step) as advance:
            for start in range(0, len(new), step):
                chunk = new[start : start + step]
                found = compute([wanted[key] for key in chunk])
                made = dict(zip(chunk, _packed(found), strict=True))
                known |= made
                self._store.put({key: made[key] for key, valid in zip(chunk, found.valid, strict=True) if valid})
                advance(len(chunk))
        return _unpacked([known[key] for key in keys])


def _packed(scores: Scores) -> list[bytes]:
    std = np.full(len(scores), np.nan) if scores.std is None else scores.std
    table = np.stack([scores.value, scores.valid, std], axis=1).astype("<f4")
    return [row.tobytes() for row in table]


def _unpacked(rows: Sequence[bytes]) -> Scores:
    table = np.frombuffer(b"".join(rows), dtype="<f4").reshape(len(rows), 3).astype(np.float32)
    std = None if np.isnan(table[:, 2]).any() or not len(rows) else table[:, 2].copy()
    return Scores(value=table[:, 0].copy(), valid=table[:, 1] != 0, std=std)


class CachedRewardModel(RewardModel):
    """Any reward model, asked about each row only once; for slow or costly ones, a judge for instance.

    Name, normaliser and columns are those of the model. It is right for models whose score depends on the texts and
    columns alone. Long calls go in chunks, each kept as soon as it is
    scored, so that a call that was interrupted goes on where it stopped if the scores are kept in a file.
    """

    def __init__(
        self,
        model: RewardModelLike,
        *,
        path: str | Path | None = None,
        identity: str | None = None,
        size: int = 2**20,
        chunk_rows: int = 1024,
        progress: bool = False,
    ) -> None:
        """Store; nothing is scored yet.

        Args:
            model: a reward model or reward function.
            path: SQLite file that keeps scores between processes. Several models may share it: an entry belongs to
                the model that scored.
            identity: of the scoring model in the file; one with other settings needs another one. None takes the
                model's own (a saved model's kind and weights, ``module:name`` of a function at the top of a module).
            size: most scores in memory, where there is no file.
            chunk_rows: new rows per call of the model.
            progress: True shows long calls on standard error.

        Raises:
            ArtifactError: the file is no such cache.
            ConfigError: a file, and nothing says who scores.
            RewardModelError: it is no reward model.
        """
        self.model = as_reward_model(model)
        self.name = self.model.name
        self.columns, self.all_columns = self.model.columns, self.model.all_columns
        identity = checked("CachedRewardModel: identity", identity, Text | None)
        self._who: str | None = identity
        if path is not None and identity is None:
            self._who = self.model.identity()
            if self._who is None:
                raise ConfigError(
                    f"CachedRewardModel: scores in a file belong to who gave them, and {self.name!r} does not say who "
                    "it is; pass identity='...', and another one whenever its settings change"
                )
        self._cache = ScoreCache(path, size=checked("CachedRewardModel: size", size, Count))
        self._chunk_rows: int = checked("CachedRewardModel: chunk_rows", chunk_rows, Count)
        self._progress: bool = checked("CachedRewardModel: progress", progress, bool)

    @property
    def normalizer(self) -> ScoreNormalizer | None:  # type: ignore[override]
        """Normaliser of the model, which may be fitted later."""
        return self.model.normalizer

    def identity(self) -> str | None:
        """Identity of the model that scores."""
        return self._who or self.model.identity()

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Returns: Scores of shape (B,).

        Raises:
            RewardModelError: the model raised or returned a bad score, or a column holds no plain values.
        """
        require_rows(self.name, prompts, responses)

        def compute(rows: list[int]) -> Scores:
            texts = [prompts[row] for row in rows], [responses[row] for row in rows]
            return checked_scores(self.model, *texts, {name: [v[row] for row in rows] for name, v in columns.items()})

        keys = [
            text_key(self._who or "", *texts, *_written(self.name, columns, row))
            for row, texts in enumerate(zip(prompts, responses, strict=True))
        ]
        label = f"scoring with {self.name}" if self._progress else None
        return self._cache.score(keys, compute, chunk_rows=self._chunk_rows, progress=label)


def _written(name: str, columns: Mapping[str, Sequence[Any]], row: int) -> list[str]:
    """The columns of one row as text, name and value in turn."""
    try:
        return [text for key in sorted(columns) for text in (key, json.dumps(columns[key][row], sort_keys=True))]
    except (TypeError, ValueError) as error:
        raise RewardModelError(
            f"reward model {name}: a column must hold plain JSON values for its scores to be remembered; row {row}: "
            f"{error}. Use the model without a cache."
        ) from error
