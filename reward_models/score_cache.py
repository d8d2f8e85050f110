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
    ) -> Scores:
        """Scores of B rows.

        Args:
            prompts, responses: the rows.
            compute: scores rows that are not known, each different one once.
            stamp: whatever changes when the model does; with another stamp than last time all is forgotten.

        Returns: Scores of shape (B,).
        """
        if stamp != self._stamp:
            self._store.clear()
            self._stamp = stamp
        rows = list(zip(prompts, responses, strict=True))
        keys = [text_key(*row) for row in rows]
        wanted = dict(zip(keys, rows, strict=True))
        known = self._store.get(wanted)
        new = {key: row for key, row in wanted.items() if key not in known}
        if new:
            found = compute([prompt for prompt, _ in new.values()], [response for _, response in new.values()])
            made = dict(zip(new, _packed(found), strict=True))
            known |= made
            self._store.put({key: made[key] for key, valid in zip(new, found.valid, strict=True) if valid})
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
        rows = list(zip(prompts, responses, strict=True))
        unique = list(dict.fromkeys(rows))
        found: list[Scores] = []
        visible = self._progress and len(unique) > self._chunk_rows
        with counted(f"scoring with {self.name}", len(unique), visible=visible) as advance:
            for start in range(0, len(unique), self._chunk_rows):
                part = unique[start : start + self._chunk_rows]
                found.append(self._cache.score([row[0] for row in part], [row[1] for row in part], self._compute))
                advance(len(part))
        place = {row: number for number, row in enumerate(unique)}
        return _taken(found, [place[row] for row in rows])

    def _compute(self, prompts: list[str], responses: list[str]) -> Scores:
        return checked_scores(self.model, prompts, responses)


def _taken(parts: Sequence[Scores], places: Sequence[int]) -> Scores:
    """Rows of several scores put end to end. Returns: Scores of shape (len(places),)."""
    if not parts:
        return Scores.of([])
    spreads = [part.std for part in parts if part.std is not None]
    std = np.concatenate(spreads)[places] if len(spreads) == len(parts) else None
    value, valid = (np.concatenate([getattr(part, name) for part in parts])[places] for name in ("value", "valid"))
    return Scores(value=value, valid=valid, std=std)
