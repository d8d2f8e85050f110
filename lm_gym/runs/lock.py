"""The lock of a run folder: one process works in it, and whoever comes second is told which."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

from lm_gym.errors import OutputExistsError
from lm_gym.tools.locks import locked, release

__all__ = ["LOCK", "lock_folder", "unlock_folder"]

LOCK = "lm_gym_run.lock"
logger = logging.getLogger(__name__)


def lock_folder(folder: Path) -> int | None:
    """Take the folder for this process. Returns: for :func:`unlock_folder`; None where the file system has no locks.

    Raises:
        OutputExistsError: another process works in it.
    """
    path = folder / LOCK
    while True:
        try:
            handle = locked(path, create=True)
        except OSError as error:
            logger.warning("run %s: this file system has no locks (%s); start no second process there", folder, error)
            return None
        if handle is None:
            raise OutputExistsError(
                f"run {folder}: another process works in it ({_holder(path)}); wait for it to end or stop it, "
                "or choose another path"
            )
        if _is_at(handle, path):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        release(handle)  # the file was deleted or replaced between opening and locking it


def unlock_folder(folder: Path, lock: int | None) -> None:
    """Let other processes work in the folder."""
    if lock is None:
        return
    if _is_at(lock, folder / LOCK):
        with suppress(OSError):  # some systems delete no open file
            (folder / LOCK).unlink()
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
