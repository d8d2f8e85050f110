"""Sentence features and their cache: each text is embedded once per encoder, across processes.

Knows: sentence-transformers, how token states become one vector, files. Does not know: judgements, heads.

Shapes: B = texts, T = tokens, W = width of the encoder, H = features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm_gym.errors import ModelLoadError
from lm_gym.models.lora import saved_base
from lm_gym.pretrained.loading import loading
from lm_gym.reward_models.caching.text_store import TextStore, text_key
from lm_gym.reward_models.scalar.text_encoding import fitting_end, warn_of_cut
from lm_gym.tools.console.progress import counted
from lm_gym.tools.extras import require
from lm_gym.tools.settings import Place, checked

__all__ = ["EmbeddingCache", "SentenceFeatures"]

BATCH_SIZE = 32
CHUNK_TEXTS = 512


class SentenceFeatures:
    """A frozen ``SentenceTransformer`` read through three poolings of its token states, H = 3 W.

    Mean, maximum, and sum over the square root of the number of tokens: the modes ``mean``, ``max`` and
    ``mean_sqrt_len_tokens`` of sentence-transformers. The last keeps how much was said, which the mean forgets.
    """

    def __init__(self, encoder: Any, *, source: str) -> None:
        """Args:
        encoder: a ``SentenceTransformer``; it is put in eval mode.
        source: its path or hub id, which an artefact refers to.
        """
        self.encoder = encoder.eval()
        self.source = source
        self.fingerprint = fingerprint_of(encoder)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str | None = None) -> SentenceFeatures:
        """Load an encoder from a folder, a GGUF file or a hub id.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            ModelLoadError: nothing loads from this handle, or it is an adapter's.
        """
        source = checked("sentence encoder", source, Place)
        if saved_base(source) is not None:
            raise ModelLoadError(
                f"sentence encoder {str(source)!r}: must be a whole model, and is an adapter on one; save it merged by "
                "LanguageModelPolicy.from_pretrained(folder).merged().save_pretrained(other)"
            )
        library = require("sentence_transformers", extra="embeddings", purpose="an embedding reward model")
        with loading("sentence encoder", source, by="SentenceTransformer") as handle:
            encoder = library.SentenceTransformer(handle, device=device)
        return cls(encoder, source=str(source))

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Features of B texts; all 0 for a text without a token.

        A text that is longer than the encoder reads keeps its end; the number of cut texts is logged.

        Returns: Shape: (B, H), float32.
        """
        fitting = self._fitting(texts)
        cut = sum(short is not whole for short, whole in zip(fitting, texts, strict=True))
        if cut:
            warn_of_cut(cut, len(texts), self.max_length or 0)
        readable = [row for row, text in enumerate(fitting) if text.strip() or self._blank_has_tokens]
        states = self.encoder.encode(
            [fitting[row] for row in readable] or ["a"],
            output_value="token_embeddings",
            batch_size=BATCH_SIZE,
            show_progress_bar=False,
        )
        found = np.zeros((len(texts), 3 * states[0].shape[-1]), dtype=np.float32)
        for row, state in zip(readable, states, strict=False):
            total = state.float().sum(0)
            pooled = (total / len(state), state.float().amax(0), total / len(state) ** 0.5)
            found[row] = torch.cat(pooled).cpu().numpy()
        return found

    @property
    def max_length(self) -> int | None:
        """Most tokens that the encoder reads, special ones included; None if there is no limit."""
        return self.encoder.max_seq_length

    def count_cut(self, texts: Sequence[str]) -> int:
        """Count the texts that are longer than the encoder reads."""
        return sum(self.are_cut(texts))

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        """True for each of B texts that is longer than the encoder reads."""
        return [short is not whole for short, whole in zip(self._fitting(texts), texts, strict=True)]

    def _fitting(self, texts: Sequence[str]) -> list[str]:
        """Texts that the encoder can read whole; those that it can are returned as they are."""
        if self.max_length is None:
            return list(texts)
        tokenizer = self.encoder.tokenizer
        room = self.max_length - tokenizer.num_special_tokens_to_add(pair=False)
        # A token stands for at least one byte, so most short texts need no count.
        return [
            text if len(text.encode("utf-8", "replace")) <= room else fitting_end(tokenizer, text, room)
            for text in texts
        ]

    @property
    def _blank_has_tokens(self) -> bool:
        """True if the tokenizer puts special tokens around a text, so that even an empty one has states."""
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
        folder: keeps features between processes; None keeps them in memory.

        Raises:
            ArtifactError: the file of this encoder is no such cache; delete it.
        """
        self.features = features
        self._store = TextStore(None if folder is None else Path(folder) / f"{features.fingerprint[:16]}.sqlite")

    def __call__(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Features of B texts; each different one is embedded once, and kept chunk by chunk.

        Args:
            texts: B texts.
            show_progress: True shows long calls on standard error.

        Returns: Shape: (B, H), float32.
        """
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        keys = [text_key(text) for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        known = {key: np.frombuffer(row, dtype=np.float32) for key, row in self._store.get(wanted).items()}
        new = [key for key in wanted if key not in known]
        with counted("embedding", len(new), visible=show_progress and len(new) > CHUNK_TEXTS) as advance:
            for start in range(0, len(new), CHUNK_TEXTS):
                chunk = new[start : start + CHUNK_TEXTS]
                rows = self.features([wanted[key] for key in chunk])
                known |= dict(zip(chunk, rows, strict=True))
                self._store.put({key: row.tobytes() for key, row in zip(chunk, rows, strict=True)})
                advance(len(chunk))
        return np.stack([known[key] for key in keys])
