"""Scores by text hash: each pair of texts is scored once, however often it is asked for.

Knows: the protocol in ``lm_gym.scoring``. Does not know: how a score is made.

Shapes: B = rows asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_gym.scoring import RewardFunction, RewardModel, Scores, as_reward_model, checked_scores, require_rows

from .progress import counted
from .text_store import TextStore, text_key

__all__ = ["CachedRewardModel", "ScoreCache"]

DEFAULT_SIZE = 65536


class ScoreCache:
    """Remembers scores, and asks for those of new rows only. What abstained is asked again: it may pass."""

    def __init__(self, path: str | Path | None = None, *, size: int = DEFAULT_SIZE) -> None:
        """Args:
        path: SQLite file that keeps scores between processes; None keeps them in memory.
        size: most scores in memory; 0 only takes equal rows of one call together.

        Raises:
            ArtifactError: the file is no such cache.
        """
        self._store = TextStore(path, size=size)
        self._stamp: Any = None

    def score(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        compute: Callable[[list[str], list[str]], Scores],
        *,
        stamp: Any = None,
        chunk_rows: int | None = None,
        progress: str | None = None,
    ) -> Scores:
        """Scores of B rows.

        Args:
            prompts, responses: the rows.
            compute: scores rows that are not known, each different one once.
            stamp: whatever changes when the model does; with another stamp than last time all is forgotten.
            chunk_rows: most new rows per call of ``compute``, each chunk kept as soon as it is scored; None has no
                limit.
            progress: what to call a bar over several chunks, on a terminal; None draws none.

        Returns: Scores of shape (B,).
        """
        if stamp != self._stamp:
            self._store.clear()
            self._stamp = stamp
        rows = list(zip(prompts, responses, strict=True))
        keys = [text_key(*row) for row in rows]
        wanted = dict(zip(keys, rows, strict=True))
        known = self._store.get(wanted)
        new = [key for key in wanted if key not in known]
        step = chunk_rows or max(len(new), 1)
        with counted(progress or "", len(new), visible=progress is not None and len(new) > step) as advance:
            for start in range(0, len(new), step):
                chunk = new[start : start + step]
                found = compute([wanted[key][0] for key in chunk], [wanted[key][1] for key in chunk])
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


class CachedRewardModel:
    """Any reward model, asked about each pair of texts only once; for slow or costly ones, a judge for instance.

    It is right for models whose score depends on the texts alone. Long calls go in chunks, each kept as soon as it is
    scored, so that a call that was interrupted goes on where it stopped if the scores are kept in a file.
    """

    def __init__(
        self,
        model: RewardModel | RewardFunction,
        *,
        path: str | Path | None = None,
        size: int = 2**20,
        chunk_rows: int = 1024,
        progress: bool = False,
    ) -> None:
        """Store; nothing is scored yet.

        Args:
            model: a reward model or reward function.
            path: SQLite file that keeps the scores of this one model between processes.
            size: most scores in memory, where there is no file.
            chunk_rows: new rows per call of the model.
            progress: whether to draw a bar over long calls, on a terminal.

        Raises:
            ArtifactError: the file is no such cache.
            RewardModelError: it is no reward model.
        """
        self.model = as_reward_model(model)
        self.name = getattr(self.model, "name", type(self.model).__name__)
        self._cache = ScoreCache(path, size=size)
        self._chunk_rows, self._progress = chunk_rows, progress

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Returns: Scores of shape (B,).

        Raises:
            RewardModelError: the model raised or returned a bad score.
        """
        require_rows(self.name, prompts, responses)
        label = f"scoring with {self.name}" if self._progress else None
        return self._cache.score(prompts, responses, self._compute, chunk_rows=self._chunk_rows, progress=label)

    def _compute(self, prompts: list[str], responses: list[str]) -> Scores:
        return checked_scores(self.model, prompts, responses)
