"""The line under a growing text, on a terminal of the test's own."""

from __future__ import annotations

import io
import re

import pytest

from lm_gym.app.talk.status_line import StatusLine
from lm_gym.tools.console.terminal import plain_console

PIECE = re.compile("\x1b\\[([0-9;]*)([A-Za-z])|\x1b([78D])|([^\x1b])")


class Screen:
    """A terminal of a few lines that obeys what the line sends, as xterm does: a full line wraps at the next letter."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.lines = [""] * height
        self.scrolled: list[str] = []
        self.row = self.column = 0
        self.kept = (0, 0)

    def feed(self, text: str) -> None:
        for found in PIECE.finditer(text):
            _, letter, single, plain = found.groups()
            if plain == "\n":
                self.column = 0
                self._down()
            elif plain == "\r":
                self.column = 0
            elif plain:
                self._put(plain)
            elif single == "D":
                self.column = min(self.column, self.width - 1)
                self._down()
            elif single == "7":
                self.kept = (self.row, self.column)
            elif single == "8":
                self.row, self.column = self.kept
            elif letter in ("A", "B"):
                self.row += -1 if letter == "A" else 1
                self.column = min(self.column, self.width - 1)
            elif letter == "J":
                column = min(self.column, self.width - 1)
                self.lines[self.row] = self.lines[self.row].ljust(column)[:column]
                self.lines[self.row + 1 :] = [""] * (self.height - self.row - 1)
            else:
                assert letter == "m", found.group()

    def _down(self) -> None:
        self.row += 1
        if self.row == self.height:
            self.scrolled.append(self.lines.pop(0))
            self.lines.append("")
            self.row -= 1

    def _put(self, letter: str) -> None:
        if self.column == self.width:
            self.column = 0
            self._down()
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
        self.column += 1

    @property
    def shown(self) -> list[str]:
        return [line.rstrip() for line in (*self.scrolled, *self.lines) if line.strip()]


class Terminal(io.StringIO):
    """Hands a screen what is written."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.screen = screen

    def write(self, text: str) -> int:
        self.screen.feed(text)
        return super().write(text)


@pytest.mark.parametrize("height", [3, 20])
def test_the_line_is_under_the_text_at_every_piece_and_the_text_stays_whole(height: int) -> None:
    screen = Screen(10, height)
    line = StatusLine(plain_console(file=Terminal(screen), width=10, height=height, force_terminal=True))
    for size, piece in enumerate(["ab", "cdef", "ghijkl", "m\nn", "opqrstuvw", "xy", "\n\nz"]):
        line.write(piece, f"({size} long words)")
        if size != 4:  # the text fills its line, and the next letter begins another
            assert screen.shown[-1] == f"({size} long …"
    line.write("\n")
    assert screen.shown == ["abcdefghij", "klm", "nopqrstuvw", "xy", "z"]


def test_a_full_line_is_not_written_over() -> None:
    screen = Screen(4, 6)
    line = StatusLine(plain_console(file=Terminal(screen), width=4, height=6, force_terminal=True))
    for letter in "abcdefghij":
        line.write(letter, "now")
    line.write("\n")
    assert screen.shown == ["abcd", "efgh", "ij"]


def test_wide_letters_and_tabs_are_counted_in_cells() -> None:
    screen = Screen(4, 6)
    line = StatusLine(plain_console(file=(terminal := Terminal(screen)), width=4, height=6, force_terminal=True))
    line.write("漢字", "now")  # four cells: full
    assert "now" not in terminal.getvalue()
    line.write("漢", "now")
    assert "now" in terminal.getvalue()


@pytest.mark.parametrize("options", [{}, {"force_terminal": True, "_environ": {"TERM": "dumb"}}])
def test_without_a_cursor_to_move_there_is_the_text_alone(options: dict[str, object]) -> None:
    file = io.StringIO()
    line = StatusLine(plain_console(file=file, width=10, **options))
    assert not line.is_shown
    line.write("abcdefghijklm", "now")
    line.write("n\n", "now")
    assert file.getvalue() == "abcdefghijklmn\n"
