"""Answers as they are sampled: one after another, or two side by side on a terminal that is wide enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from lm_gym.models.streaming import Streamed
from lm_gym.runs.signals import StopRequest
from lm_gym.tools.console.terminal import visible

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
    latest: Streamed | None = None
    """As far as it goes."""

    @property
    def text(self) -> str:
        """The text so far."""
        return "" if self.latest is None else self.latest.text

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
    shown = ""
    while not stop and answer.goes_on():
        text = visible(answer.text)
        if not text.startswith(shown):  # a tokenizer that takes back what it had decoded
            console.print()
            shown = ""
        console.print(Text(text[len(shown) :]), end="", soft_wrap=True)
        shown = text
    console.print()


def _side_by_side(answers: Sequence[Answering], console: Console, stop: StopRequest) -> None:
    width = console.width // len(answers) - 1

    def drawn() -> Columns:
        panels = (Panel(Text(visible(one.text)), title=Text(visible(one.name)), width=width) for one in answers)
        return Columns(panels, padding=(0, 1))

    with Live(drawn(), console=console, auto_refresh=False) as live:
        going = list(answers)
        while going and not stop:
            going = [one for one in going if one.goes_on()]
            live.update(drawn(), refresh=True)
