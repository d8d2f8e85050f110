"""Files and folders: JSON Lines in and out, and folders that are whole or not there at all."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_gym.errors import DataError, OutputExistsError

__all__ = ["jsonl_lines", "output_folder", "read_jsonl", "replaced_folder", "write_json", "write_jsonl", "write_text"]


def jsonl_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a ``.jsonl`` or ``.jsonl.gz`` file that are not blank, with their numbers from 1.

    Raises:
        DataError: the file is missing, or is not UTF-8 or whole gzip.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: must be a .jsonl or .jsonl.gz file, and there is no such file")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: must be UTF-8 JSON Lines, plain or gzip; reading it failed: {error}") from error


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read a ``.jsonl`` or ``.jsonl.gz`` file of objects; blank lines are skipped.

    Raises:
        DataError: the file is missing, empty, or a line is not a JSON object (the message gives file and line).
    """
    rows = [_parse_line(path, number, line) for number, line in jsonl_lines(path)]
    if not rows:
        raise DataError(f"{path}: must hold at least one row, got an empty file")
    return rows


def _parse_line(path: str | Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {number}: must be one JSON object, got {line.strip()[:60]!r} ({error})"
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: must be a JSON object, got {type(row).__name__}")
    return row


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file by way of a temporary one, so that a reader sees the old file or the new, never a half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write one JSON value, indented, atomically."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON Lines, atomically."""
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@contextmanager
def replaced_folder(target: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends without an error."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
            os.replace(target, old / "was")
            try:
                os.replace(temporary, target)
            except BaseException:
                os.replace(old / "was", target)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def output_folder(path: str | Path, *, overwrite: bool = False) -> Path:
    """Make an empty output folder, refusing to touch one that already holds something.

    Raises:
        OutputExistsError: the folder is not empty and ``overwrite`` is False.
    """
    path = Path(path)
    if path.is_file():
        raise OutputExistsError(f"output folder {path}: must be a folder, got a file; choose another path")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise OutputExistsError(
                f"output folder {path}: must be new or empty, and it holds another run; "
                "choose another path, or pass --overwrite (overwrite=True) to replace it"
            )
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    return path
