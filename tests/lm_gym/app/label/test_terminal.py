"""``lm-gym label --terminal``: keys and lines, on a pseudo-terminal and without one."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lm_gym.app.cli import main
from lm_gym.app.label.terminal import Labelling, ranking_of
from lm_gym.errors import DataError
from lm_gym.reward_models import Judgement, Question
from lm_gym.reward_models.human import LabelRules, LabelStore, ask_questions, judgements_of, set_guideline, set_rules
from lm_gym.reward_models.judgements.record import Response
from lm_gym.tools.console.terminal import plain_console


@pytest.mark.parametrize(
    ("text", "count", "ranks"),
    [
        ("312", 3, [2, 3, 1]),
        ("3 1 2", 3, [2, 3, 1]),
        ("3=12", 3, [1, 3, 1]),
        ("1=2=3", 3, [1, 1, 1]),
        ("1,2=3", 3, [1, 2, 2]),
        ("10 9 8 7 6 5 4 3 2 1", 10, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
    ],
)
def test_a_ranking_as_a_line(text: str, count: int, ranks: list[int]) -> None:
    assert ranking_of(text, count) == {"kind": "ranks", "ranks": ranks}


def test_the_best_alone_as_a_line() -> None:
    assert ranking_of(" 2 ", 3) == {"kind": "best_of", "best": 1}


@pytest.mark.parametrize("text", ["", "12", "1123", "4", "0", "=12", "12=", "1==2", "abc", "1 2 3 4"])
def test_what_is_no_ranking(text: str) -> None:
    with pytest.raises(DataError, match="a ranking names"):
        ranking_of(text, 3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore.open(tmp_path / "labels.db") as made:
        set_rules(made, LabelRules(repeat_share=0, check_share=0))
        yield made


def label(store: LabelStore, keys: str, lines: list[str], width: int = 100) -> str:
    """Answer with some keys and lines; more keys than there are end it."""
    file, pressed, written = io.StringIO(), iter(keys), iter(lines)
    console = plain_console(file=file, width=width)
    Labelling(
        store, store.pseudonym("Ada"), console, key=lambda: next(pressed, "q"), line=lambda _: next(written)
    ).run()
    return file.getvalue()


def ask(store: LabelStore, kind: Any, *texts: str, prompt: str = "p") -> None:
    responses = tuple(Response(text=text, model="secret-model") for text in texts)
    ask_questions(store, [Question(prompt=prompt, responses=responses)], kind=kind)


def labels(store: LabelStore) -> list[Judgement]:
    with store.reading() as state:
        return judgements_of(state)


def test_every_kind(store: LabelStore) -> None:
    for kind, texts in {"choice": "ab", "thumb": "a", "rating": "a", "best_of": "abc", "ranks": "abc"}.items():
        ask(store, kind, *texts)
    ask(store, "critique", "a")
    ask(store, "value", "a")
    told = label(store, "?0" + "n" + "4" + "3" + "\n" + "\n\n" + "\n\n", ["312", "", "too long", "x", "-2.5"])
    said = labels(store)
    assert [one.kind for one in said] == ["choice", "thumb", "rating", "best_of", "ranks", "critique", "value"]
    assert said[0].verdict.winner == "tie"  # type: ignore[union-attr]
    assert said[1].verdict.up is False  # type: ignore[union-attr]
    assert said[2].verdict.stars == 4  # type: ignore[union-attr]
    assert said[5].comment == "too long"
    assert said[6].verdict.reward == -2.5  # type: ignore[union-attr]
    assert "could not convert" in told
    assert "Nothing to answer" in told
    assert "secret" not in told


def test_what_was_seen_is_what_is_meant(store: LabelStore) -> None:
    for number in range(8):
        ask(store, "choice", f"left {number}", f"right {number}", prompt=f"p{number}")
    told = label(store, "1" * 8, [], width=60)
    shown = [line for line in told.splitlines() if "left" in line or "right" in line][::2]
    said = labels(store)
    picked = [one.texts["ab".index(one.verdict.winner)] for one in said]  # type: ignore[union-attr]
    assert [text in line for text, line in zip(picked, shown, strict=True)] == [True] * 8
    assert {text.split()[0] for text in picked} == {"left", "right"}


def test_comment_rating_skip_and_undo(store: LabelStore) -> None:
    for number in range(3):
        ask(store, "choice", "a", "b", prompt=f"p{number}")
    told = label(store, "u" + "c" + "r4" + "1" + "s" + "u" + "2" + "0", ["because"])
    assert "Nothing to undo." in told
    said = labels(store)
    assert [one.prompt for one in said] == ["p0", "p1", "p2"]
    assert [(one.comment, one.overall_rating) for one in said] == [("because", 4), (None, None), (None, None)]


def test_hostile_texts_and_a_chat(store: LabelStore) -> None:
    set_guideline(store, "[bold]Prefer truth[/bold]")
    ask(store, "thumb", "\x1b[2Jgone \u202eevil [red]x", prompt="\n\nHuman: Why\x07?\n\nAssistant:")
    told = label(store, "q", [])
    assert "User: Why\\x07?" in told
    assert "\\x1b[2Jgone \\u202eevil [red]x" in told
    assert "[bold]Prefer truth[/bold]" in told
    assert "\x1b" not in told


def test_it_needs_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["label", str(tmp_path / "labels.db"), "--terminal"]) == 2
    assert "must be a terminal" in " ".join(capsys.readouterr().err.split())


def test_on_a_terminal(store: LabelStore) -> None:
    """Keys without Enter, a line with it, and Ctrl-C, as a person types them."""
    pexpect = pytest.importorskip("pexpect", reason="needs pexpect")
    for number in range(3):
        ask(store, "choice", "a", "b", prompt=f"prompt {number}")
    ask(store, "ranks", "a", "b", "c", prompt="prompt 3")
    command = ["-m", "lm_gym.app.cli", "label", store.place, "--terminal", "--name", "Ada"]
    child = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=60, dimensions=(40, 100))
    child.expect("prompt 0")
    child.expect("q stop")
    child.send("c")
    child.expect("comment: ")
    child.sendline("one word 12")
    child.send("1")
    child.expect("prompt 1")
    child.send("s")
    child.expect("prompt 2")
    child.send("u")
    child.expect("prompt 1")
    child.send("0")
    child.expect("prompt 2")
    child.send("9")
    child.expect("prompt 3")
    child.send("\r")
    child.expect("ranking: ")
    child.sendline("213")
    child.expect("Nothing to answer")
    child.expect("stopped; 4 labels")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert [one.comment for one in labels(store)] == ["one word 12", None, None, None]


def test_ctrl_c_at_a_question(store: LabelStore) -> None:
    pexpect = pytest.importorskip("pexpect", reason="needs pexpect")
    ask(store, "choice", "a", "b")
    command = ["-m", "lm_gym.app.cli", "label", store.place, "--terminal"]
    child = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=60)
    child.expect("q stop")
    child.sendintr()
    child.expect("stopped; 0 labels")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_keys_that_come_early_are_not_lost(store: LabelStore) -> None:
    pexpect = pytest.importorskip("pexpect", reason="needs pexpect")
    for number in range(5):
        ask(store, "choice", f"a{number}", f"b{number}")
    command = ["-m", "lm_gym.app.cli", "label", store.place, "--terminal"]
    child = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=60)
    child.expect("q stop")
    child.send("11111")
    child.expect("stopped; 5 labels|5 labels")
    child.expect(pexpect.EOF)
    child.close()
    assert len(labels(store)) == 5
