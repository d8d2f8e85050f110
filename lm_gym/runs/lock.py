"""Locks of run folders and other outputs: one process works there, and whoever comes second is told which."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lm_gym.errors import OutputExistsError
from lm_gym.processes import launched_processes
from lm_gym.tools.locks import locked, release

__all__ = ["LOCK", "lock_folder", "only_writer", "unlock_folder"]

LOCK = "lm_gym_run.lock"
logger = logging.getLogger(__name__)


def lock_folder(folder: Path) -> int | None:
    """Take the folder for this process. Returns: for :func:`unlock_folder`; None where the file system has no locks.

    Raises:
        OutputExistsError: another process works in it.
    """
    return _taken(folder / LOCK, folder)


def unlock_folder(folder: Path, lock: int | None) -> None:
    """Let other processes work in the folder."""
    _given_back(folder / LOCK, lock)


@contextmanager
def only_writer(output: str | Path) -> Iterator[None]:
    """A block in which no other process makes what is to be at a path, be it a folder that is replaced as a whole.

    The lock is a hidden file beside it, since a lock in a folder goes with the folder. Of several processes that a
    launcher started the main one takes it.

    Raises:
        OutputExistsError: another process works there, or the folder around it cannot be made.
    """
    output = Path(output)
    if not launched_processes().is_main:
        yield
        return
    try:
        whole = output.resolve()
        whole.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, UnicodeEncodeError) as error:
        raise OutputExistsError(f"output folder {output}: cannot be made ({error}); choose another path") from error
    path = whole.parent / f".{whole.name}.lock"
    lock = _taken(path, output)
    try:
        yield
    finally:
        _given_back(path, lock)


def _taken(path: Path, output: Path) -> int | None:
    """Take the lock in a file. Returns: see :func:`lock_folder`. Args: output: what it is the lock of."""
    while True:
        try:
            handle = locked(path, create=True)
        except OSError as error:
            logger.warning("run %s: this file system has no locks (%s); start no second process there", output, error)
            return None
        if handle is None:
            raise OutputExistsError(
                f"run {output}: another process works in it ({_holder(path)}); wait for it to end or stop it, "
                "or choose another path"
            )
        if _is_at(handle, path):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        release(handle)  # the file was deleted or replaced between opening and locking it


def _given_back(path: Path, lock: int | None) -> None:
    if lock is None:
        return
    if _is_at(lock, path):
        with suppress(OSError):  # some systems delete no open file
            path.unlink()
    release(lock)


def _is_at(handle: int, path: Path) -> bool:
    """True if an open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "unknown"
    except OSError:
        return "unknown"
