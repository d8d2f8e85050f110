"""The conversation: a line is a turn or a command, until there are no more lines."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from lm_gym.errors import ConfigError, DataError, LmGymError
from lm_gym.models.reference import Reference
from lm_gym.runs.signals import StopRequest, stopping_at_signals
from lm_gym.scoring.protocol import RewardModel
from lm_gym.tools.console.terminal import visible

from .screen import Answering, show
from .speaker import Heard, Speaker
from .verdict import Judge

__all__ = ["Conversation", "lines_of_standard_input"]

COMMANDS = "/reset forgets the turns, /temperature X, /system TEXT, /quit; // begins a message with a slash"


def lines_of_standard_input(console: Console) -> Iterator[str]:
    """Lines as they are typed, or as they come from a file or pipe; Ctrl-C at the prompt discards the line.

    Raises:
        DataError: they are not UTF-8.
    """
    try:
        yield from _typed(console) if sys.stdin.isatty() else (line.rstrip("\r\n") for line in sys.stdin)
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: must be UTF-8, and decoding it failed: {error}") from error


def _typed(console: Console) -> Iterator[str]:
    with contextlib.suppress(ImportError):  # a module that makes a line one that can be edited; Windows has none
        import readline  # noqa: F401
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            console.print("\n(/quit or Ctrl-D ends the conversation)")


class Conversation:
    """One person and one or two language models."""

    def __init__(
        self,
        speakers: Sequence[Speaker],
        console: Console,
        *,
        reward_model: RewardModel | None = None,
        reference: Reference | None = None,
        attended: bool = True,
    ) -> None:
        """Args:
        speakers: answer every message, each with a history of its own.
        console: where they are shown.
        reward_model: scores every answer, also while it is written, if there is one.
        reference: model that the KL of every answer is taken to, if there is one.
        attended: False repeats every message, which stands on no screen, and raises what goes wrong with it.
        """
        self._speakers = speakers
        self._judges = [Judge(speaker, reward_model, reference) for speaker in speakers]
        self._console = console
        self._attended = attended

    def run(self, lines: Iterator[str]) -> None:
        """Take every line.

        Raises:
            SystemExit: SIGTERM or SIGHUP ended it; Ctrl-C ends an answer only.
            LmGymError: a message could not be answered, and there is nobody at the keyboard to mend it.
        """
        for speaker in self._speakers:
            self._tell(f"{speaker.name} {speaker.kind}")
        self._tell(COMMANDS)
        for line in lines:
            if not self._attended:
                self._console.print(Text(visible(f"> {line}"), style="bold"), soft_wrap=True)
            try:
                if not self._take(line):
                    return
            except LmGymError as error:
                if not self._attended:
                    raise
                self._tell(f"{type(error).__name__}: {error}")

    def _take(self, line: str) -> bool:
        """One line. Returns: False if it was the last."""
        command, _, rest = line.partition(" ")
        if line.startswith("//"):
            self._ask(line[1:])
        elif command == "/quit":
            return False
        elif line.startswith("/"):
            self._obey(command, rest.strip())
        elif line.strip() or not all(speaker.is_chat for speaker in self._speakers):
            self._ask(line)
        return True

    def _obey(self, command: str, rest: str) -> None:
        if command == "/reset":
            self._forget()
        elif command == "/temperature":
            try:
                temperature = float(rest)
            except ValueError:
                raise ConfigError(f"/temperature: must be followed by a number, got {rest!r}") from None
            for speaker in self._speakers:
                speaker.set_temperature(temperature)
            self._tell(f"temperature {temperature:g}")
        elif command == "/system":
            self.instruct(rest)
        else:
            raise ConfigError(f"{command}: must be a command, and there is none of this name: {COMMANDS}")

    def _forget(self) -> None:
        for speaker in self._speakers:
            speaker.reset()
        self._tell("the turns are forgotten")

    def instruct(self, text: str) -> None:
        """Give every model a system message; an empty one takes it away.

        Raises:
            ConfigError: one of them has no chat template.
        """
        for speaker in self._speakers:
            if not speaker.is_chat:
                raise ConfigError(f"/system: needs a chat template, and {speaker.name} has none; begin a text with it")
        for speaker in self._speakers:
            speaker.system = text or None
        self._tell("system message set" if text else "no system message")

    def _ask(self, message: str) -> None:
        heard = [speaker.hear(message) for speaker in self._speakers]
        for speaker, one in zip(self._speakers, heard, strict=True):
            if one.dropped:
                self._tell(f"{speaker.name}: the oldest {one.dropped} of its turns no longer fit and were left out")
        asked = list(zip(self._speakers, self._judges, heard, strict=True))
        answers = [Answering(speaker.name, speaker.answer(one), judge.follow(one)) for speaker, judge, one in asked]
        with stopping_at_signals() as stop:
            show(answers, self._console, stop)
            for (speaker, _, one), answer in zip(asked, answers, strict=True):
                if answer.latest is not None:
                    speaker.remember(one, answer.text)
            for (_, judge, one), answer in zip(asked, answers, strict=True):
                self._tell_of(judge, one, answer, stop)
        if stop.signal is not None and stop.signal != signal.SIGINT:
            raise SystemExit(128 + stop.signal)

    def _tell_of(self, judge: Judge, heard: Heard, answer: Answering, stop: StopRequest) -> None:
        name = f"{answer.name}: " if len(self._speakers) > 1 else ""
        if answer.latest is None or answer.latest.reason is None:
            self._tell(f"({name}stopped)")
        elif not stop:
            self._tell(f"({name}{judge.verdict(heard, answer.latest)})")

    def _tell(self, text: str) -> None:
        self._console.print(Text(visible(text), style="dim"), soft_wrap=True)
