"""Kill a piece of work before each of its changes to a folder; for scripts that run in a process of their own.

Python's audit events tell of every open for writing, rename, deletion and new folder just before it happens. The work
is done in a fork, so that a heavy import is paid once.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "ctypes.dlsym"}


def forked(work: Callable[[], None]) -> int:
    """Do the work in a child process. Returns: its exit status, negative for the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_before(change: int, folder: Path, work: Callable[[], None]) -> bool:
    """Do the work, and kill it before its change number ``change`` (from 1) below ``folder``.

    Returns: False if the work came to its end first.
    """

    def watched() -> None:
        seen = 0

        def hook(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in CHANGES and _is_below(event, args, str(folder)):
                seen += 1
                if seen == change:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    status = forked(watched)
    assert status in (0, -signal.SIGKILL), f"the work failed with status {status}"
    return status != 0


def killed_after(seconds: float, work: Callable[[], None]) -> bool:
    """Do the work, and kill it after a time. Returns: False if it came to its end first."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def random_moments(count: int, longest: float) -> list[float]:
    """Seconds after which to kill, the same in every run."""
    rng = random.Random(0)
    return sorted(rng.uniform(0.0, longest) for _ in range(count))


def _is_below(event: str, args: tuple[Any, ...], folder: str) -> bool:
    if event == "ctypes.dlsym" or (event in ("os.remove", "os.rmdir") and args[1] != -1):
        return True  # two folders are about to be exchanged; a file of a folder that is being deleted
    if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return False
    return any(isinstance(arg, str | os.PathLike) and os.fspath(arg).startswith(folder) for arg in args)
