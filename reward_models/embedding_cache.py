"""Sentence features and where they are kept: each text is embedded once per encoder, across processes.

Knows: sentence-transformers, how token states become one vector, files. Does not know: judgements, heads.

Shapes: B = texts, T = tokens, W = width of the encoder, H = features.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm_gym.errors import ArtifactError, ModelLoadError
from lm_gym.extras import require
from lm_gym.quiet import quiet_transformers

__all__ = ["EmbeddingCache", "SentenceFeatures"]

BATCH_SIZE = 32


class SentenceFeatures:
    """A frozen ``SentenceTransformer`` read through three poolings of its token states, H = 3 W.

    Mean, maximum, and sum over the square root of the number of tokens: the modes ``mean``, ``max`` and
    ``mean_sqrt_len_tokens`` of sentence-transformers. The last keeps how much was said, which the mean forgets.
    """

    def __init__(self, encoder: Any, *, source: str) -> None:
        """Args:
        encoder: a ``SentenceTransformer``; it is put in eval mode.
        source: where it came from, a path or hub id; what an artefact refers to.
        """
        self.encoder = encoder.eval()
        self.source = source
        self.fingerprint = fingerprint_of(encoder)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str | None = None) -> SentenceFeatures:
        """Load an encoder from a folder or hub id.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            ModelLoadError: nothing loads from this handle.
        """
        library = require("sentence_transformers", extra="embeddings", purpose="an embedding reward model")
        try:
            with quiet_transformers():
                encoder = library.SentenceTransformer(str(source), device=device)
        except Exception as error:  # the library and those below it each have their own errors
            raise ModelLoadError(
                f"sentence encoder {str(source)!r}: must be a folder or hub id that SentenceTransformer loads; it "
                f"failed: {str(error).partition(chr(10))[0]} Give a local folder if there is no network."
            ) from error
        return cls(encoder, source=str(source))

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Features of B texts; all 0 for a text without a token. Returns: Shape: (B, H), float32."""
        readable = [row for row, text in enumerate(texts) if text.strip() or self._blank_has_tokens]
        states = self.encoder.encode(
            [texts[row] for row in readable] or ["a"],
            output_value="token_embeddings",
            batch_size=BATCH_SIZE,
            show_progress_bar=show_progress,
        )
        found = np.zeros((len(texts), 3 * states[0].shape[-1]), dtype=np.float32)
        for row, state in zip(readable, states, strict=False):
            total = state.float().sum(0)
            pooled = (total / len(state), state.float().amax(0), total / len(state) ** 0.5)
            found[row] = torch.cat(pooled).cpu().numpy()
        return found

    @property
    def _blank_has_tokens(self) -> bool:
        """Whether the tokenizer puts special tokens around a text, so that even an empty one has states."""
        return len(self.encoder.tokenizer("", verbose=False)["input_ids"]) > 0


def fingerprint_of(encoder: Any) -> str:
    """SHA-256 of an encoder's weights, names and longest input: two encoders that embed alike have one."""
    digest = hashlib.sha256(str(getattr(encoder, "max_seq_length", None)).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + b"\0" + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """Features by text, in memory or, if a folder is given, in one SQLite file per encoder."""

    def __init__(self, features: SentenceFeatures, folder: str | Path | None = None) -> None:
        """Args:
        features: embeds what is not known yet.
        folder: where features are kept between processes; None keeps them in memory.

        Raises:
            ArtifactError: the file of this encoder is no such cache; delete it.
        """
        self.features = features
        self._path: Path | None = None
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._path = Path(folder) / f"{features.fingerprint[:16]}.sqlite"
        try:
            self._store = sqlite3.connect(":memory:" if self._path is None else self._path, timeout=60)
            self._store.execute("CREATE TABLE IF NOT EXISTS features (text BLOB PRIMARY KEY, row BLOB NOT NULL)")
        except sqlite3.DatabaseError as error:
            raise ArtifactError(
                f"embedding cache {self._path}: must be a whole SQLite file ({error}); delete it"
            ) from error

    def __call__(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Features of B texts; each different one is embedded once. Returns: Shape: (B, H), float32."""
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        known = {key: row for key in wanted if (row := self._found(key)) is not None}
        new = {key: text for key, text in wanted.items() if key not in known}
        if new:
            rows = self.features(list(new.values()), show_progress=show_progress)
            known |= dict(zip(new, rows, strict=True))
            with self._store:
                self._store.executemany(
                    "INSERT OR REPLACE INTO features VALUES (?, ?)", [(key, known[key].tobytes()) for key in new]
                )
        return np.stack([known[key] for key in keys])

    def _found(self, key: bytes) -> np.ndarray | None:
        row = self._store.execute("SELECT row FROM features WHERE text = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0], dtype=np.float32)
