"""Labelling in a terminal: one question after another, one key or one line an answer.

Knows: keys, and how questions are drawn; they are those of the page. Does not know: files, links.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models.human import LabelStore, Showing, judge, next_showing, skip, undo
from lm_gym.sources.transcripts import is_transcript, messages_of
from lm_gym.tools.console.terminal import visible

__all__ = ["label_in_terminal", "ranking_of"]

WIDE_TERMINAL = 90
"""Columns that answers side by side need."""
QUIT, UNDO, SKIP, COMMENT, RATE = "q", "u", "s", "c", "r"
CHOICES = {"1": "a", "a": "a", "2": "b", "b": "b", "0": "tie", "t": "tie", "9": "both_bad", "x": "both_bad"}
ROLES = {"user": "User", "assistant": "Assistant", "system": "System", "tool": "Tool"}
HELP = {
    "choice": "1 A is better   2 B is better   0 tie   9 both bad",
    "ranks": "Enter: type the numbers, best first (312; 3=12 for a tie; 3 for the best alone)",
    "best_of": "the number of the best answer",
    "thumb": "1 good   0 bad",
    "rating": "0 useless ... 5 excellent",
    "value": "Enter: type a number",
    "critique": "Enter: type what is good or bad",
}
COMMON = "c comment   r overall rating   s skip   u undo   q stop"


def label_in_terminal(place: str, name: str, console: Console) -> None:
    """Let a person answer the questions of a store in this terminal until they stop or nothing is left.

    Raises:
        ConfigError: standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            "lm-gym label --terminal: standard input must be a terminal, and is none; leave --terminal out"
        )
    with LabelStore.open(place) as store:
        Labelling(store, store.pseudonym(name), console).run()


def ranking_of(text: str, count: int) -> dict[str, Any]:
    """The verdict of a line of numbers, best first; "=" before one ties it with the one before.

    Args:
        text: such as ``"312"``, ``"3 = 1 2"``, or ``"3"`` for the best alone.
        count: of the answers.

    Raises:
        DataError: it is no ranking of them.
    """
    order: list[int] = []
    places: list[int] = []
    tied = False
    words = text.replace(",", " ").split() if count > 9 else list(text.replace(",", " ").replace(" ", ""))
    for word in words:
        if word == "=" and order and not tied:
            tied = True
            continue
        answer = int(word) - 1 if word.isdecimal() else -1
        if not 0 <= answer < count or answer in order:
            raise DataError(f"a ranking names each answer from 1 to {count} once, best first, got {text!r}")
        places.append(places[-1] if tied else len(order) + 1)
        order.append(answer)
        tied = False
    if len(order) == 1:
        return {"kind": "best_of", "best": order[0]}
    if len(order) != count or tied:
        raise DataError(f"a ranking names all {count} answers, or the best alone, got {text!r}")
    return {"kind": "ranks", "ranks": [place for _, place in sorted(zip(order, places, strict=True))]}


class Labelling:
    """One person at a terminal."""

    def __init__(
        self,
        store: LabelStore,
        annotator: str,
        console: Console,
        *,
        key: Callable[[], str] | None = None,
        line: Callable[[str], str] = input,
    ) -> None:
        """Args: store, annotator: whose answers. key: waits for a key. line: asks for a line of text."""
        self._store = store
        self._annotator = annotator
        self._console = console
        self._key = key or _pressed
        self._line = line
        self._done = 0
        self._comment: str | None = None
        self._rating: int | None = None

    def run(self) -> None:
        """Ask until the person stops or nothing is left."""
        with contextlib.suppress(KeyboardInterrupt, EOFError):
            while (showing := next_showing(self._store, self._annotator)) is not None:
                self._draw(showing)
                if not self._answered(showing):
                    return
            self._console.print("Nothing to answer at the moment.")

    def _answered(self, showing: Showing) -> bool:
        """Take keys until the question is answered, passed or left. Returns: False to stop."""
        self._comment = self._rating = None
        start = time.monotonic()
        kind = self._kind(showing)
        while True:
            key = self._key()
            if key in (QUIT, "\x04"):
                return False
            if key == UNDO:
                if undo(self._store, self._annotator) is not None:
                    return True
                self._console.print("Nothing to undo.")
            elif key == SKIP:
                skip(self._store, self._annotator, showing.id, reason=self._comment, seconds=time.monotonic() - start)
                return True
            elif key in (COMMENT, RATE):
                self._beside(key)
            elif (said := self._said(kind, key, len(showing.order))) is not None and self._stored(showing, said, start):
                return True

    def _beside(self, key: str) -> None:
        if key == COMMENT:
            self._comment = self._line("comment: ").strip() or None
            return
        self._console.print("overall rating, 0 to 5: ", end="")
        digit = self._key()
        self._rating = int(digit) if digit in tuple("012345") else None
        self._console.print("none" if self._rating is None else digit)

    def _said(self, kind: str, key: str, count: int) -> dict[str, Any] | None:
        """The verdict that a key, or the line it asks for, gives; None for none."""
        enter = key in ("\r", "\n")
        if kind == "choice" and key in CHOICES:
            return {"kind": kind, "winner": CHOICES[key]}
        if kind == "thumb" and key in tuple("10yn"):
            return {"kind": kind, "up": key in "1y"}
        if kind == "rating" and key in tuple("012345"):
            return {"kind": kind, "stars": int(key)}
        if kind == "best_of" and key.isdecimal() and 1 <= int(key) <= count:
            return {"kind": kind, "best": int(key) - 1}
        if not (enter and kind in ("ranks", "value", "critique")):
            return None
        text = self._line({"ranks": "ranking: ", "value": "number: ", "critique": "critique: "}[kind]).strip()
        try:
            return _written(kind, text, count)
        except ValueError as error:  # a DataError is one
            self._console.print(f"{error}")
            return None

    def _stored(self, showing: Showing, said: dict[str, Any], start: float) -> bool:
        if self._comment and "comment" not in said:
            said["comment"] = self._comment
        if self._rating is not None and said["kind"] != "rating":
            said["overall_rating"] = self._rating
        try:
            judge(self._store, self._annotator, showing.id, said, seconds=time.monotonic() - start)
        except DataError as error:
            self._console.print(f"not stored: {error}")
            return False
        self._done += 1
        return True

    def _kind(self, showing: Showing) -> str:
        with self._store.reading() as state:
            return state.items[showing.item].item.kind

    def _draw(self, showing: Showing) -> None:
        with self._store.reading() as state:
            item, guideline = state.items[showing.item].item, state.guideline
        if self._done == 0 and guideline is not None:
            self._console.print(Panel(Text(visible(guideline.text)), title="Guideline"))
        self._console.rule(f"{self._done} done")
        self._console.print(_prompt(item.question.prompt))
        texts = [item.question.texts[place] for place in showing.order]
        names = "AB" if item.kind == "choice" else "".join(str(number) for number in range(1, 10))
        titles = [f"Answer {names[place] if place < len(names) else place + 1}" for place in range(len(texts))]
        self._console.print(_answers(titles, texts, self._console.width))
        self._console.print(f"{HELP[item.kind]}\n{COMMON}", style="dim")


def _written(kind: str, text: str, count: int) -> dict[str, Any] | None:
    if not text:
        return None
    if kind == "ranks":
        return ranking_of(text, count)
    return {"kind": kind, "comment": text} if kind == "critique" else {"kind": kind, "reward": float(text)}


def _prompt(prompt: str) -> Text | Group:
    if not is_transcript(prompt):
        return Text(visible(prompt), style="bold")
    return Group(
        *(Text.assemble((f"{ROLES[one['role']]}: ", "bold"), visible(one["content"])) for one in messages_of(prompt))
    )


def _answers(titles: list[str], texts: list[str], width: int) -> Columns | Group:
    side_by_side = width >= WIDE_TERMINAL and 1 < len(texts) <= 3
    each = width // len(texts) - 1 if side_by_side else None
    panels = [
        Panel(Text(visible(text)), title=title, title_align="left", width=each)
        for title, text in zip(titles, texts, strict=True)
    ]
    return Columns(panels, padding=(0, 1)) if side_by_side else Group(*panels)


def _pressed() -> str:
    """Wait for a key, without the Enter that a line needs; Ctrl-C still interrupts."""
    with _by_key():
        return os.read(sys.stdin.fileno(), 1).decode("latin-1").lower()


@contextlib.contextmanager
def _by_key() -> Iterator[None]:
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin.fileno(), termios.TCSADRAIN)  # a key or a Ctrl-C that came early is not thrown away
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
