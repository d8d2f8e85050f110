"""Stopping a run at a signal: the first one asks it to stop, the second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Interrupted", "StopRequest", "stopping_at_signals"]

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(KeyboardInterrupt):
    """A signal stopped the work at hand, after what was done had been saved."""

    def __init__(self, number: int) -> None:
        """Args: number: of the signal."""
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class StopRequest:
    """Tells whether the process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stopping_at_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C (SIGINT), SIGTERM or SIGHUP within the block into a request.

    The second one raises KeyboardInterrupt (SIGINT) or SystemExit with status 128 + its number. A SIGHUP that the
    process ignores, as under ``nohup``, stays ignored. Outside the main thread signals are left alone.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handler(number: int, frame: Any) -> None:
        if not request:
            request.signal = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has no SIGHUP
    handled = [n for n in numbers if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in handled}
    try:
        yield request
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
