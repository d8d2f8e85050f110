"""Progress of long calls: a bar on a terminal, lines elsewhere, at a pace that a log can bear."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lm_gym.tools.console import progress
from lm_gym.tools.console.progress import StepProgress, counted, duration


class Clock:
    """Stands still until it is told otherwise."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def console_of(file: io.StringIO, *, terminal: bool = False) -> Console:
    return Console(file=file, force_terminal=terminal, width=200)


def lines_of(clock: Clock, *, steps: int, seconds: float, each_step: bool, first: int = 0) -> list[str]:
    file = io.StringIO()
    shown = StepProgress("PPO", unit="iteration", each_step=each_step, console=console_of(file))
    shown.start(steps, first)
    for step in range(first + 1, steps + 1):
        clock.now += seconds
        shown.advance_to(step, f"score {step}")
    shown.stop()
    return file.getvalue().splitlines()


def test_without_a_terminal_every_step_has_a_line_with_the_time_left(clock: Clock) -> None:
    assert lines_of(clock, steps=3, seconds=60.0, each_step=True) == [
        "PPO: iteration 1 of 3, score 1, 2 min 00 s left",
        "PPO: iteration 2 of 3, score 2, 1 min 00 s left",
        "PPO: iteration 3 of 3, score 3",
    ]


def test_fast_steps_have_a_line_every_two_seconds_and_the_first_and_last_one(clock: Clock) -> None:
    lines = lines_of(clock, steps=10, seconds=0.9, each_step=True)
    assert [line.split(",")[0].split()[2] for line in lines] == ["1", "4", "7", "10"]


def test_steps_that_nobody_reads_one_by_one_have_a_line_every_fifteen_seconds(clock: Clock) -> None:
    lines = lines_of(clock, steps=100, seconds=0.5, each_step=False)
    assert [line.split(",")[0].split()[2] for line in lines] == ["30", "60", "90"]
    assert not lines_of(clock, steps=20, seconds=0.5, each_step=False)


def test_time_left_of_a_resumed_run_counts_the_steps_of_this_call(clock: Clock) -> None:
    assert lines_of(clock, steps=12, seconds=10.0, each_step=True, first=10)[0].endswith("score 11, 10 s left")


def test_a_terminal_gets_a_bar_and_no_line_and_no_markup() -> None:
    file = io.StringIO()
    shown = StepProgress("PPO [INST]", unit="iteration", each_step=True, console=console_of(file, terminal=True))
    shown.start(2)
    shown.advance_to(2, "score [/b]", "and more")
    shown.stop()
    assert "2/2" in file.getvalue()
    assert "PPO [INST]" in file.getvalue()
    assert "score [/b]" in file.getvalue()
    assert "iteration 2 of 2" not in file.getvalue()
    assert "and more" not in file.getvalue()


def test_invisible_progress_shows_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for visible in (False, True):
        with counted("scoring", 40, visible=visible) as advance:
            clock.now += 20
            advance(10)
            clock.now += 1
            advance(30)
        assert capsys.readouterr().err == ("scoring: 10 of 40, 1 min 00 s left\n" if visible else "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min"), (1e400, "–")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
