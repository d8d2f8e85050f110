"""Manifests: a list of a folder's files with sizes and SHA-256 digests, so that damage is found before it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_gym.tools.digests import digest_file
from lm_gym.errors import ArtifactError
from lm_gym.tools.files import sync_tree, write_json, reading

__all__ = ["BASE_RECORD", "MANIFEST", "check_manifest", "read_note", "write_manifest"]

MANIFEST = "lm_gym_manifest.json"
BASE_RECORD = "lm_gym_base.json"
"""File beside an adapter that says where its base lies. No manifest speaks for it, in whatever folder it is, since the
new place of a base that was moved is written into it; a fingerprint in it speaks for the base."""
FORMAT = 1


def write_manifest(
    folder: str | Path, patterns: Sequence[str] = ("**/*",), *, note: Mapping[str, Any] | None = None
) -> None:
    """List the files of a folder, last of all: a folder with a manifest was written to its end, and is on the disk.

    Args:
        folder: holds the files.
        patterns: globs of the files that are listed, below the folder.
        note: plain JSON values to keep beside the list.
    """
    folder = Path(folder)
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": digest_file(path)}
        for path in sorted(found - {folder / MANIFEST})
        if path.name != BASE_RECORD
    }
    sync_tree(folder)
    write_json(folder / MANIFEST, {"format": FORMAT, "note": dict(note or {}), "files": files})


def check_manifest(folder: str | Path) -> None:
    """Compare the listed files with what is there. Files that are not listed do not matter.

    Raises:
        ArtifactError: there is no manifest, or a listed file is missing or has changed.
    """
    folder = Path(folder)
    for name, expected in _read(folder)["files"].items():
        path = folder / name
        if path.name == BASE_RECORD:  # listed until version 0.2
            continue
        if not path.is_file():
            raise ArtifactError(f"{folder}: must hold {name}, which its {MANIFEST} lists, and it is missing")
        if path.stat().st_size != expected["size"] or digest_file(path) != expected["sha256"]:
            raise ArtifactError(
                f"{path}: must have the {expected['size']} bytes that it was saved with (SHA-256 "
                f"{expected['sha256'][:12]}...), and it has changed since; copy it "
                f"again, or delete {MANIFEST} if the change was on purpose"
            )


def read_note(folder: str | Path) -> dict[str, Any]:
    """The note of a folder's manifest.

    Raises:
        ArtifactError: there is no manifest.
    """
    return dict(_read(Path(folder))["note"])


def _read(folder: Path) -> dict[str, Any]:
    remedy = f"delete {MANIFEST} to take the files as they are"
    with reading(folder, f"must hold a whole {MANIFEST}, which is written last", remedy=remedy):
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}, and this version reads format {FORMAT}")
        for part in ("files", "note"):
            if not isinstance(found[part], dict):
                raise ValueError(f"{part} must be an object, got {found[part]!r}")
        sizes = {name: {key: entry[key] for key in ("size", "sha256")} for name, entry in found["files"].items()}
        return {"files": sizes, "note": found["note"]}
