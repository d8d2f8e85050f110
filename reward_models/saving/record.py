"""The record of a saved reward model: how its folder is to be read, and the digests of its files.

A save writes the record last; with it go a README.md for people and a manifest of SHA-256 digests. A load reads the
record first, and refuses a folder of which any listed file is missing or has changed by a single byte. (Whoever changes
a file on purpose deletes the manifest; loading then warns.)

Knows: files. Does not know: models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_gym.errors import ArtifactError
from lm_gym.runs.manifests import MANIFEST, check_manifest, write_manifest
from lm_gym.scoring.handles import REWARD_MODEL_RECORD
from lm_gym.tools.files import read_json, write_json, write_text

__all__ = ["read_record", "write_record"]

logger = logging.getLogger(__name__)

README = "README.md"
UNLISTED = (README, "tokenizer_config.json")
"""Files without a digest: people edit them, other tools rewrite them, and no score depends on their bytes."""


def write_record(folder: Path, record: Mapping[str, Any], *, readme: str | None = None) -> None:
    """Write the record of a folder that holds everything else, its README.md, and the digests of its files.

    Args:
        folder: of the reward model.
        record: plain JSON values with ``kind`` and ``format``.
        readme: text of the README.md; None writes none.
    """
    write_json(folder / REWARD_MODEL_RECORD, record)
    if readme is not None:
        write_text(folder / README, readme)
    write_manifest(folder, [path.relative_to(folder).as_posix() for path in _listed(folder)])


def _listed(folder: Path) -> Iterator[Path]:
    """Every file that counts; of a folder with a manifest of its own that manifest alone, which stands for the rest."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from [path / MANIFEST] if (path / MANIFEST).is_file() else _listed(path)
        elif path.name not in UNLISTED:
            yield path


def read_record(folder: Path, *, kind: str, format_: int, keys: Sequence[str]) -> dict[str, Any]:
    """Read the record of a saved reward model, and compare its files with their digests.

    Raises:
        ArtifactError: the record is missing, cut short, of another kind or format, or lacks a key; or a file is missing
            or has changed since it was saved.
    """
    path = folder / REWARD_MODEL_RECORD
    if not path.is_file():
        raise ArtifactError(f"reward model {folder}: must be a folder with {REWARD_MODEL_RECORD}, and has none")
    record = read_json(f"{path}", remedy="save the model again")
    if not isinstance(record, dict) or (record.get("kind"), record.get("format")) != (kind, format_):
        raise ArtifactError(f"reward model {path}: must say kind {kind!r} and format {format_}, got {str(record)[:80]}")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ArtifactError(
            f"reward model {path}: must have the key {missing[0]!r}, and has none; save the model again"
        )
    if not (folder / MANIFEST).is_file():
        logger.warning("reward model %s: has no %s, so its files are taken unchecked", folder, MANIFEST)
        return record
    try:
        check_manifest(folder)
    except ArtifactError as error:
        raise ArtifactError(f"reward model {error}") from error
    return record
