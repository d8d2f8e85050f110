"""Files and folders: JSON Lines in and out, and folders that are whole or not there at all.

Whatever is replaced here is on the disk, under the new name, when the call returns: files and folders are synced.
"""

from __future__ import annotations

import ctypes
import glob
import gzip
import json
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_gym.errors import ArtifactError, DataError, LmGymError, WriteError
from lm_gym.tools.json_values import parse_object
from lm_gym.tools.locks import locked, release
from lm_gym.tools.settings import Place, checked

__all__ = [
    "append_jsonl",
    "discard_folder",
    "jsonl_lines",
    "lies_in",
    "read_json",
    "read_jsonl",
    "reading",
    "replaced_folder",
    "restore_replaced",
    "sweep_temporaries",
    "sync_tree",
    "write_json",
    "write_jsonl",
    "write_text",
    "writing",
]

TEMPORARY = ".tmp-"
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, zlib.error)
"""What Python itself, or torch, raises where a file is missing, cut short, or holds something else."""
NATIVE_READERS = ("safetensors", "safetensors_rust", "huggingface_hub", "sqlite3", "_pickle", "pickle")
NATIVE_WRITERS = r"\(os error \d+\)|inline_container|PytorchStreamWriter|iostream error"  # Rust, and torch


def jsonl_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a ``.jsonl`` or ``.jsonl.gz`` file that are not blank, with their numbers from 1.

    A byte order mark, as Windows programs write it, is no part of the first line.

    Raises:
        DataError: the file is missing, or is not UTF-8 or whole gzip.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: must be a .jsonl or .jsonl.gz file, and there is no such file")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:
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
        return parse_object(line)
    except DataError as error:
        raise DataError(f"{path}, line {number}: {error}") from error


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file by way of a temporary one, so that a reader sees the old file or the new, never a half."""
    path = Path(checked("output file", path, Place))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{TEMPORARY}")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync(path.parent)
    return path


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """A block that writes ``path``: an error of the system or of a library's writer in it becomes a WriteError.

    Python, safetensors, tokenizers and torch each tell of a full disk by an error of their own, most without a path.
    The error of a block within the block is raised again with this block's path, under which the user looks for it.

    Raises:
        WriteError: names the path and the remedy.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, WriteError):
            error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        elif isinstance(error, LmGymError) or not _is_of_a_writer(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise WriteError(
            f"{path}: must be written to its end, and writing it failed: {reason}; free space on its disk, see to it "
            "that it may be written, or choose another path"
        ) from error


def _is_of_a_writer(error: Exception) -> bool:
    """True for an error by which Python, safetensors, tokenizers or torch tell that a file could not be written."""
    by_type = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("safetensors", "sqlite3")
    return by_type or re.search(NATIVE_WRITERS, str(error)) is not None


@contextmanager
def reading(path: str | Path, rule: str = "must be whole", *, remedy: str) -> Iterator[None]:
    """A block that reads what this library saved: whatever damage makes of it becomes an ArtifactError.

    Python, JSON, safetensors, SQLite, torch and a missing key each tell of damage by an error of their own.

    Args:
        path: what is read, the subject of the message.
        rule: what it must be.
        remedy: what to do.

    Raises:
        ArtifactError: names path, rule, fault and remedy.
    """
    try:
        yield
    except LmGymError:
        raise
    except Exception as error:
        if not (isinstance(error, DAMAGE) or type(error).__module__.partition(".")[0] in NATIVE_READERS):
            raise
        fault = f"the key {error} is missing" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise ArtifactError(
            f"{path}: {rule}, and reading it failed: {fault or type(error).__name__}; {remedy}"
        ) from error


def read_json(path: str | Path, rule: str = "must be whole JSON", *, remedy: str) -> Any:
    """Read one JSON value that this library wrote. Raises: ArtifactError: see :func:`reading`."""
    with reading(path, rule, remedy=remedy):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> Path:
    """Write one JSON value, indented, atomically."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON Lines, atomically."""
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_jsonl(path: str | Path, row: Mapping[str, Any]) -> None:
    """Append a row to a file of JSON Lines; it is on the disk when the call returns. A kill may leave half a line."""
    with writing(path), Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def lies_in(path: str | Path, folder: str | Path) -> bool:
    """True if a path is a folder or lies in it, by whatever links either is named: it is lost with the folder."""
    path, folder = Path(path).resolve(), Path(folder).resolve()
    return folder == path or folder in path.parents


@contextmanager
def replaced_folder(target: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends without an error.

    A kill at any moment leaves the old folder or the new one under the name. Where the system cannot exchange two
    folders in one step, the old one may lie beside it for a moment, and :func:`restore_replaced` brings it back; so do
    the next ``replaced_folder`` and :func:`lm_gym.runs.open_run`. Temporary folders of killed processes are deleted.

    Raises:
        WriteError: see :func:`writing`; the old folder is as it was.
        ConfigError: no file system can hold the name.
    """
    target = Path(checked("output folder", target, Place))
    with writing(target), _temporary_folder(target) as temporary:
        yield temporary
        os.chmod(temporary, 0o755)
        sync_tree(temporary)
        _put_in_place(temporary, target)
        _sync(target.parent)


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target``, locked as long as it is written, and deleted with what it holds at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    restore_replaced(target)
    sweep_temporaries(target.parent, name=target.name)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}{TEMPORARY}"))
    lock = _try_lock(temporary)  # says that it is being written, and is not to be swept
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            release(lock)


def discard_folder(folder: str | Path) -> None:
    """Delete a folder and all that it holds. A kill leaves it whole, or gone with remains that are swept later."""
    folder = Path(folder)
    if folder.exists():
        grave = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}{TEMPORARY}"))
        os.rename(folder, grave / folder.name)
        shutil.rmtree(grave, ignore_errors=True)


def restore_replaced(target: str | Path) -> None:
    """Bring back a folder whose replacement was killed after it was moved away and before the new one was there."""
    target = Path(target)
    aside = _aside(target)
    if not aside.exists():
        return
    if target.exists():
        shutil.rmtree(aside)
    else:
        os.rename(aside, target)
    _sync(target.parent)


def _put_in_place(temporary: Path, target: Path) -> None:
    """Move a folder to its name; what had the name before ends up at ``temporary``, or is deleted."""
    if not target.exists():
        os.rename(temporary, target)
        return
    if _exchanged(temporary, target):
        return
    aside = _aside(target)
    os.rename(target, aside)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.rename(aside, target)
        raise
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step. Returns: False where the system or the file system cannot."""
    name, flag = {"linux": ("renameat2", 2), "darwin": ("renameatx_np", 2)}.get(sys.platform, ("", 0))
    here = -100 if sys.platform == "linux" else -2  # AT_FDCWD
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None) if name else None
    return function is not None and function(here, os.fsencode(one), here, os.fsencode(other), flag) == 0


def sweep_temporaries(folder: str | Path, *, name: str | None = None) -> None:
    """Delete the temporary files and folders in ``folder`` that processes left which were killed while they wrote.

    Args: name: of the file or folder that they were to become; None sweeps all.
    """
    pattern = f".*{TEMPORARY}*" if name is None else f".{glob.escape(name)}{TEMPORARY}*"
    for left in Path(folder).glob(pattern):
        if left.is_file():
            left.unlink(missing_ok=True)
        elif (lock := _try_lock(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            release(lock)


def _try_lock(folder: Path) -> int | None:
    """The folder's lock, or None where another process has it or the file system has none."""
    try:
        return locked(folder)
    except OSError:
        return None


def sync_tree(folder: str | Path) -> None:
    """Have a folder and all that it holds written to the disk."""
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            if not (Path(path) / name).is_symlink():
                _sync(Path(path) / name)
        _sync(Path(path))


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, written to the disk where the system can."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
