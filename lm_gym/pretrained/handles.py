"""What a path or hub id of pretrained weights stands for: a GGUF file, or what it names; and its digest."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lm_gym.errors import ModelLoadError
from lm_gym.tools.digests import digest_file, digest_folder

__all__ = ["digest_handle", "gguf_digest", "gguf_of"]

GGUF = ".gguf"
OTHER_WEIGHTS = (".safetensors", ".bin")
"""Weights that transformers loads as they are; a folder that has them is taken for those."""


def gguf_of(handle: str | Path) -> Path | None:
    """The GGUF file that a handle stands for: a file of that ending, or the only one of a folder without other weights.

    Returns: None for any other handle.

    Raises:
        ModelLoadError: there is no such file, or the folder holds several.
    """
    path = Path(handle)
    if path.is_dir():
        return _only_gguf_in(path)
    if path.suffix.lower() != GGUF:
        return None
    if not path.is_file():
        raise ModelLoadError(f"GGUF file {str(handle)!r}: must be a file, and there is no such file")
    return path


def _only_gguf_in(folder: Path) -> Path | None:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [path for path in files if path.suffix.lower() == GGUF]
    if not found or any(path.suffix in OTHER_WEIGHTS for path in files):
        return None
    if len(found) > 1:
        raise ModelLoadError(
            f"model folder {str(folder)!r}: must hold one GGUF file to stand for it, and holds {len(found)}: "
            f"{', '.join(path.name for path in found)}; give the path of the one that you mean"
        )
    return found[0]


def gguf_digest(path: Path) -> str:
    """SHA-256 of a GGUF file, computed once per process as long as the file stays as it is."""
    stat = path.stat()
    return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    return digest_file(path)


def digest_handle(handle: str | Path) -> str:
    """What tells one model from another.

    Returns: the digest of the GGUF file, however it is named; of the folder behind the handle; or a handle that names
        neither.

    Raises:
        ModelLoadError: see :func:`gguf_of`.
    """
    if (gguf := gguf_of(handle)) is not None:
        return gguf_digest(gguf)
    return digest_folder(handle) if Path(handle).is_dir() else str(handle)
