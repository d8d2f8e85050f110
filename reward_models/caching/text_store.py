"""Bytes by text hash: in memory, or in one SQLite file that several processes may share.

Knows: hashes, files. Does not know: what the bytes mean.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, closing
from itertools import islice
from pathlib import Path
from typing import Any

from lm_gym.tools.files import reading, writing

__all__ = ["TextStore", "text_key"]


def text_key(*texts: str) -> bytes:
    """SHA-256 of some texts, in order; no two different rows of texts have one key."""
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.digest()


class TextStore:
    """A mapping from keys to bytes. It may be copied, pickled, and used from several threads."""

    def __init__(self, path: str | Path | None = None, *, size: int | None = None) -> None:
        """Args:
        path: SQLite file, made if it is missing; None keeps everything in memory.
        size: most entries in memory, the oldest leave first; None is no limit. A file has none.

        Raises:
            ArtifactError: the file is no such store.
        """
        self.path = None if path is None else Path(path)
        self.size = size
        self._known: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        if self.path is not None:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._reading(), closing(self._open()) as store, store:
                store.execute("CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
                store.execute("SELECT key, value FROM texts LIMIT 0")

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the bytes of those keys that are stored."""
        wanted = dict.fromkeys(keys)
        if self.path is None:
            with self._lock:
                return {key: self._known[key] for key in wanted if key in self._known}
        with self._reading(), closing(self._open()) as store:
            rows = ((key, store.execute("SELECT value FROM texts WHERE key = ?", (key,)).fetchone()) for key in wanted)
            return {key: row[0] for key, row in rows if row is not None}

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, whole or not at all."""
        if self.path is not None:
            with writing(self.path), closing(self._open()) as store, store:
                store.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?)", list(values.items()))
            return
        with self._lock:
            self._known.update(values)
            if self.size is not None and len(self._known) > self.size:
                for key in list(islice(self._known, len(self._known) - self.size)):
                    del self._known[key]

    def clear(self) -> None:
        """Forget what is kept in memory."""
        with self._lock:
            self._known.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def _reading(self) -> AbstractContextManager[None]:
        return reading(f"cache {self.path}", "must be a whole SQLite file of texts", remedy="delete it")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(str(self.path), timeout=60)
