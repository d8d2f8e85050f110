"""The progress of calls that take long: a bar on a terminal, lines where there is none (a log file, CI, Slurm).

Knows: steps, their number, the time they took. Does not know: the meaning of a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lm_gym.tools.console.terminal import plain_console

__all__ = ["StepProgress", "counted", "duration"]

STEP_SECONDS = 2.0
"""Least time between two lines about steps that are each told of."""
QUIET_SECONDS = 15.0
"""Least time between two lines about steps that only the time is told of; a shorter call prints none."""


def duration(seconds: float) -> str:
    """Seconds in words that are read at a glance, such as "4.2 s", "3 min 05 s" and "2 h 07 min"."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


class StepProgress:
    """Steps of one long call on standard error.

    On a terminal: a bar. Elsewhere: a line per step, at most one every two seconds, the first and the last one always;
    or, for steps that nobody reads one by one, a line every 15 seconds.
    """

    def __init__(
        self,
        title: str,
        *,
        unit: str = "",
        visible: bool = True,
        each_step: bool = False,
        console: Console | None = None,
    ) -> None:
        """Args:
        title: stands before the steps.
        unit: name of a step, such as "iteration".
        visible: False shows nothing at all.
        each_step: True tells of the steps one by one, and leaves the bar where it ended; False for a count of rows.
        console: where it is shown; None takes standard error.
        """
        self._console = console or plain_console(stderr=True)
        self._title, self._unit, self._each = title, unit, each_step
        self._lines = visible and not self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=self._console,
            disable=not (visible and self._console.is_terminal),
            transient=not each_step,
        )

    def start(self, total: int, done: int = 0) -> None:
        """Begin with ``done`` of ``total`` steps behind."""
        self._total, self._first, self.done = total, done, done
        self._began = time.monotonic()
        self._last_line = -math.inf if self._each else self._began
        self._task = self._bar.add_task(self._title, total=total, completed=done, told="")
        self._bar.start()

    def advance_to(self, done: int, told: str = "", more: str = "") -> None:
        """Tell of the steps done so far.

        Args:
            done: number of them.
            told: what the newest one found.
            more: further words, for lines only: a bar has no room for them.
        """
        self.done = done
        self._bar.update(self._task, completed=done, told=told)
        now = time.monotonic()
        wait = STEP_SECONDS if self._each else QUIET_SECONDS
        if self._lines and (now - self._last_line >= wait or (self._each and done >= self._total)):
            self._last_line = now
            self._console.print(self._line(", ".join(filter(None, (told, more))), now), highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Leave the terminal to others; to be called however the call ended."""
        self._bar.stop()

    def _line(self, told: str, now: float) -> str:
        parts = [f"{self._title}: {self._unit} {self.done:,} of {self._total:,}".replace(":  ", ": ")]
        if told:
            parts.append(told)
        if self._first < self.done < self._total:
            left = (now - self._began) / (self.done - self._first) * (self._total - self.done)
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)


@contextmanager
def counted(description: str, total: int, *, visible: bool) -> Iterator[Callable[[int], None]]:
    """Progress of rows on standard error around a block. Yields: a function that is told of rows done."""
    progress = StepProgress(description, visible=visible)
    progress.start(total)
    try:
        yield lambda rows: progress.advance_to(progress.done + rows)
    finally:
        progress.stop()
