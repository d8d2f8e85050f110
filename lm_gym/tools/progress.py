"""A progress bar for calls that take long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["counted"]


@contextmanager
def counted(description: str, total: int, *, visible: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error around a block, if there is a terminal. Yields: a function that is told of rows done."""
    console = Console(stderr=True)
    columns = (TextColumn(description), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (visible and console.is_terminal), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda rows: bar.advance(task, rows)
