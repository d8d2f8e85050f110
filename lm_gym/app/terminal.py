"""The console of the command line: prompts, responses and paths are printed as they are.

Square brackets and colons in them are no markup and no emoji codes here; style is given by argument.
"""

from __future__ import annotations

from rich.console import Console

__all__ = ["plain_console"]


def plain_console(*, stderr: bool = False) -> Console:
    """A console that takes every text literally, on standard output or standard error."""
    return Console(stderr=stderr, markup=False, emoji=False)
