"""SHA-256 digests of texts, JSON values, files and named tensors, for telling one run's inputs from another's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["digest_file", "digest_folder", "digest_json", "digest_parts", "digest_tensors"]

BLOCK = 1 << 20


def digest_parts(parts: Iterable[str | bytes]) -> str:
    """Digest of the parts in order; where one ends and the next begins counts. Returns: 64 hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def digest_json(value: Any) -> str:
    """Digest of a JSON value; the order of keys does not count."""
    return digest_parts([json.dumps(value, sort_keys=True)])


def digest_file(path: str | Path) -> str:
    """Digest of a file's bytes, as ``sha256sum`` prints it."""
    total = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def digest_folder(folder: str | Path) -> str:
    """Digest of the names and bytes of all files below a folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return digest_parts(text for path in files for text in (path.relative_to(folder).as_posix(), digest_file(path)))


def digest_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Digest of named tensors: names, shapes, types and bytes. Neither their order nor their device counts.

    Args: tensors: such as ``model.state_dict().items()``.
    """
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        value = tensor.detach().cpu().contiguous()
        total.update(digest_parts([name, str(tuple(value.shape)), str(value.dtype)]).encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
