"""A line under a text that grows: drawn after every piece of the text, and gone before the next."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import ControlType
from rich.segment import Segment
from rich.text import Text

__all__ = ["StatusLine"]

BELOW = "\x1bD\x1b[A\x1b7\x1b[B\r"
"""Make room for a line below without leaving the column, keep the place, go to the line's beginning."""
BACK = "\x1b8"
"""Return to the place that was kept."""
CLEAR = "\x1b[J"
"""Clear everything after the cursor."""


@dataclass(frozen=True)
class _Codes:
    """Codes for a terminal; rich sends them nowhere else."""

    codes: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self.codes, None, [(ControlType.ERASE_IN_LINE, 0)])


class StatusLine:
    """A text on a console, written piece by piece, with a line under it while there is one to show.

    The text goes to the terminal as it is and scrolls with it, so that lines that the terminal breaks are copied whole.
    Where there is no terminal, or one that cannot move its cursor, the line is left out.
    """

    def __init__(self, console: Console) -> None:
        """Args: console: the cursor stands at the beginning of a line."""
        self._console = console
        self._able = console.is_terminal and not console.is_dumb_terminal and not console.legacy_windows
        self._column = 0
        self._drawn = False

    @property
    def is_shown(self) -> bool:
        """False if every line is left out."""
        return self._able

    def write(self, piece: str, status: str = "") -> None:
        """Write more of the text, and a line under it that is cut to the terminal's width.

        The line is left out where the text fills its last line, since a terminal forgets that it has to go on below.

        Args:
            piece: cleaned of what a terminal would obey.
            status: cleaned too; "" for none.
        """
        text, width = Text(piece, end=""), self._console.width
        text.expand_tabs(8)
        self._column = _column_after(text.plain, self._column, width)
        parts: list[RenderableType] = [_Codes(CLEAR), text] if self._drawn else [text]
        self._drawn = self._able and bool(status) and self._column < width
        if self._drawn:
            line = Text(status, style="dim", end="")
            line.truncate(width - 1, overflow="ellipsis")
            parts += [_Codes(BELOW), line, _Codes(BACK)]
        self._console.print(Group(*parts), end="", soft_wrap=True)


def _column_after(text: str, column: int, width: int) -> int:
    """Column of the cursor after a text; ``width`` where the next character begins a line."""
    for character in text:
        cells = cell_len(character)
        column = 0 if character == "\n" else cells if column + cells > width else column + cells
    return column
