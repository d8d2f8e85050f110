"""Text of models and users reaches a terminal as text: no markup is read from it, and no command."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lm_gym.tools.console.progress import counted
from lm_gym.tools.console.terminal import plain_console, visible

INSTRUCTION = "[INST] x [/INST]"
CLEARS = "\x1b[2J"
TITLES = "\x1b]0;title\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (INSTRUCTION, INSTRUCTION),
        (CLEARS, r"\x1b[2J"),
        (TITLES, r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("seen\rhidden", r"seen\rhidden"),
        ("two\r\nlines\n\tand a tab", "two\nlines\n\tand a tab"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("\ud800", r"\ud800"),
        ("\x00\x7f", r"\x00\x7f"),
        ("größer 日本 \N{GRINNING FACE} e\u0301 \u200d", "größer 日本 \N{GRINNING FACE} e\u0301 \u200d"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def printed(*things: object, terminal: bool = False) -> str:
    file = io.StringIO()
    plain_console(file=file, width=60, force_terminal=terminal).print(*things)
    return file.getvalue()


@pytest.mark.parametrize("text", [CLEARS, TITLES, "\r", "\x9b"])
def test_no_way_of_printing_lets_a_command_through(text: str) -> None:
    table = Table(text, title=text)
    table.add_row(text)
    for thing in (text, Text(text), table, Panel(text, title=text)):
        assert not set("\x1b\x07\r\x9b") & set(printed(thing)), thing


def test_markup_and_emoji_codes_are_text() -> None:
    assert printed(f"{INSTRUCTION} [/b] :smile:") == f"{INSTRUCTION} [/b] :smile:\n"


def test_styles_of_the_program_still_reach_a_terminal() -> None:
    assert "\x1b[1m" in printed(Text("bold", style="bold"), terminal=True)


def test_a_bar_takes_its_description_literally(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, to rich
    with counted(f"scoring with {INSTRUCTION} {{x}} [/b]{TITLES}", 2, visible=True) as advance:
        advance(2)
    drawn = capsys.readouterr().err
    assert f"scoring with {INSTRUCTION} {{x}} [/b]" in drawn
    assert "\x07" not in drawn
    assert "\x1b]0;" not in drawn


def test_no_other_module_makes_a_console_of_its_own() -> None:
    root = Path(__file__).resolve().parents[4]
    files = [path for folder in ("lm_gym", "agents", "reward_models") for path in (root / folder).rglob("*.py")]
    own = [path.name for path in files if re.search(r"\bConsole\(|rich import print", path.read_text("utf-8"))]
    assert own == []
