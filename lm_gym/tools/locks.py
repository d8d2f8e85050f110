"""Locks on files and folders that the operating system releases when their holder dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["locked", "release"]


def locked(path: str | Path, *, create: bool = False) -> int | None:
    """Take the exclusive lock of a file or folder without waiting.

    Args:
        path: of the file or folder.
        create: make the file if it is not there.

    Returns: a descriptor for :func:`release`, or None where another holder has the lock (another open of the same
        path in this process counts as one).

    Raises:
        OSError: the path cannot be opened, or this file system knows no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o644)
    try:
        if _take(handle):
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def release(handle: int) -> None:
    """Give back a lock of :func:`locked`."""
    os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _take(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
