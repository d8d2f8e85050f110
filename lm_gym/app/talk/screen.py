"""Answers as they are sampled: one after another, or two side by side on a terminal that is wide enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from lm_gym.models.streaming import Streamed
from lm_gym.runs.signals import StopRequest
from lm_gym.tools.console.terminal import visible

from .status_line import StatusLine

__all__ = ["Answering", "show"]

WIDE_TERMINAL = 80
"""Columns that two answers side by side need."""


@dataclass
class Answering:
    """An answer that is being given."""

    name: str
    """Of the model."""
    stream: Iterator[Streamed]
    """Its text, after every token."""
    so_far: Callable[[Streamed], str]
    """Score and KL of what there is of it, in words; "" for none."""
    latest: Streamed | None = None
    """As far as it goes."""

    @property
    def text(self) -> str:
        """The text so far."""
        return "" if self.latest is None else self.latest.text

    def status(self) -> str:
        """Measure it while it goes on. Returns: "" for nothing to show."""
        found = "" if self.latest is None or self.latest.reason else self.so_far(self.latest)
        return f"({visible(found)})" if found else ""

    def goes_on(self) -> bool:
        """Take the next token. Returns: False at the end."""
        found = next(self.stream, None)
        self.latest = found or self.latest
        return found is not None


def show(answers: Sequence[Answering], console: Console, stop: StopRequest) -> None:
    """Draw every answer to its end, or until it is asked to stop."""
    if len(answers) > 1 and console.is_terminal and console.width >= WIDE_TERMINAL:
        _side_by_side(answers, console, stop)
        return
    for answer in answers:
        if stop:
            return
        if len(answers) > 1:
            console.print(Text(visible(f"{answer.name}:"), style="bold"), soft_wrap=True)
        _written(answer, console, stop)


def _written(answer: Answering, console: Console, stop: StopRequest) -> None:
    line = StatusLine(console)
    shown = ""
    try:
        while not stop and answer.goes_on():
            text = visible(answer.text)
            if not text.startswith(shown):  # a tokenizer that takes back what it had decoded
                line.write("\n")
                shown = ""
            line.write(text[len(shown) :], answer.status() if line.is_shown else "")
            shown = text
    finally:
        line.write("\n")


def _side_by_side(answers: Sequence[Answering], console: Console, stop: StopRequest) -> None:
    width = console.width // len(answers) - 1

    def drawn() -> Columns:
        panels = []
        for one in answers:
            status = one.status()
            parts = [Text(visible(one.text)), *([Text(status, style="dim")] if status else [])]
            panels.append(Panel(Group(*parts), title=Text(visible(one.name)), width=width))
        return Columns(panels, padding=(0, 1))

    with Live(drawn(), console=console, auto_refresh=False) as live:
        going = list(answers)
        while going and not stop:
            going = [one for one in going if one.goes_on()]
            live.update(drawn(), refresh=True)
