"""Calls with a time limit.

They run in daemon threads: Python cannot stop a thread, so a call that is given up may go on running, but it
keeps nobody waiting and never keeps the process from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

__all__ = ["calls_within"]

Result = TypeVar("Result")


def calls_within(seconds: float, calls: Sequence[Callable[[], Result]], *, workers: int = 1) -> dict[int, Result]:
    """Make some calls and wait for them all, but not longer than this.

    Args:
        seconds: from now on, for all of them together; none is begun later.
        calls: each is made once, in order, in another thread.
        workers: calls at once.

    Returns: results of those that ended in time, by their number.

    Raises: the error of a call that failed, as soon as it is known.
    """
    end = time.monotonic() + min(seconds, threading.TIMEOUT_MAX / 2)  # centuries; a queue cannot wait for longer
    waiting, lock = iter(enumerate(calls)), threading.Lock()
    done: SimpleQueue[tuple[int, Result | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while time.monotonic() < end:
            with lock:
                number, call = next(waiting, (-1, None))
            if call is None:
                return
            try:
                done.put((number, call(), None))
            except BaseException as error:  # told to the caller, in whose thread it belongs
                done.put((number, None, error))

    for _ in range(min(workers, len(calls))):
        threading.Thread(target=work, daemon=True).start()
    found: dict[int, Result] = {}
    while len(found) < len(calls):
        try:
            number, result, error = done.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break
        if error is not None:
            raise error
        found[number] = result  # type: ignore[assignment]  # a call that did not fail has a result
    return found
