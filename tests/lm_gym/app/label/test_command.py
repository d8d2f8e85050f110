"""``lm-gym label``: files in, links out, labels out; and a server that stops when it is asked to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lm_gym.app.cli import main
from lm_gym.app.label.questions import read_questions
from lm_gym.errors import DataError
from lm_gym.reward_models import Choice, Judgement, Question, load_judgements
from lm_gym.reward_models.human import (
    LabelRules,
    LabelStore,
    ask_questions,
    find_link,
    import_judgements,
    judge,
    make_link,
    next_showing,
    set_rules,
)
from lm_gym.tools.files import write_jsonl

ROWS = [
    {"prompt": "p0", "responses": ["a", "b"]},
    {"prompt": [{"role": "user", "content": "Hi"}], "responses": ["a", "b", {"text": "c", "model": "m"}]},
    {"prompt": "p2", "responses": ["a"]},
    {"prompt": "p3", "responses": ["a"], "kind": "critique", "overlap": 3},
    {"prompt": "p4", "chosen": "x", "rejected": "y"},
    {"kind": "thumb", "prompt": "p5", "responses": ["a"], "up": True},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "questions.jsonl", ROWS)


def test_rows_become_questions(file: Path) -> None:
    asked = read_questions([file])
    assert [one.kind for one in asked] == ["choice", "ranks", "rating", "critique", "choice", "thumb"]
    assert [one.overlap for one in asked] == [None, None, None, 3, None, None]
    assert asked[1].question.prompt == "\n\nHuman: Hi\n\nAssistant:"
    assert asked[1].question.responses[2].model == "m"
    assert asked[4].question.texts == ("x", "y")
    assert read_questions([file], kind="best_of")[0].kind == "best_of"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "p", "responses": []}, "at least one"),
        ({"prompt": "p", "responses": "ab"}, "must be a list"),
        ({"prompt": 7, "responses": ["a"]}, "must be a string"),
        ({"prompt": "p", "responses": ["a"], "model": "m"}, "no key 'model'"),
        ({"prompt": "p"}, "questions.jsonl"),
    ],
    ids=str,
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, told: str) -> None:
    file = write_jsonl(tmp_path / "questions.jsonl", [ROWS[0], row])
    with pytest.raises(DataError, match=f"line 2.*{told}|{told}.*line 2|questions.jsonl:2.*"):
        read_questions([file])


def test_export_and_revoke(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = tmp_path / "labels.db", tmp_path / "out.jsonl"
    guide = tmp_path / "guide.txt"
    guide.write_text("Prefer truth.\n", encoding="utf-8")
    with LabelStore.open(place) as store:
        token = make_link(store, "Ada")
        import_judgements(store, [Judgement.pair("p", "good", "bad", annotator="Ada", comment="why")])
    prepared = ["label", str(place), "--questions", str(file), "--guideline", str(guide), "--overlap", "2"]
    assert main([*prepared, "--export", str(out)]) == 0
    assert "1 row in" in " ".join(capsys.readouterr().out.split())
    (said,) = load_judgements(out).judgements
    assert (said.texts, said.comment) == (("good", "bad"), "why")
    assert "Ada" not in out.read_text()
    assert main(["label", str(place), "--export", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    again = ["label", str(place), "--export", str(out), "--export-form", "pairs", "--overwrite"]
    assert main(again) == 0
    assert json.loads(out.read_text())["chosen"] == "good"
    assert main(["label", str(place), "--revoke", "Ada"]) == 0
    with LabelStore.open(place) as store:
        link = find_link(store, token)
        assert link is not None
        assert link.revoked is not None
        with store.reading() as state:
            assert state.rules.overlap == 2
            assert state.guideline is not None
            assert state.guideline.text == "Prefer truth."
            assert len(state.items) == 1 + len(ROWS)
        assert next_showing(store, "person-x") is not None
    assert main(["label", str(place), "--revoke", "Ben"]) == 2


def test_what_all_labels_say_together_is_exported(tmp_path: Path) -> None:
    place, out = tmp_path / "labels.db", tmp_path / "posterior.jsonl"
    with LabelStore.open(place) as store:
        ask_questions(store, [Question.of("check", ("x", "y"))], kind="choice", known=[Choice("a")])
        ask_questions(store, [Question.of("r", ("x",))], kind="value")
        set_rules(store, LabelRules(check_share=0.9, repeat_share=0.0))
        while (showing := next_showing(store, "person-a")) is not None:
            said = {"kind": "choice", "winner": "a"} if len(showing.order) == 2 else {"kind": "value", "reward": 1.0}
            judge(store, "person-a", showing.id, said)
        with store.reading() as state:
            assert [len(one.labels) for one in state.items.values()] == [1, 1]
        people = ("Ada", "Ben", "Cy")
        pairs = [Judgement.pair("p", "good", "bad", annotator=name) for name in people]
        rankings = [Judgement.ranking("q", ("x", "y", "z"), (1, 2, 2), annotator=name) for name in people[:2]]
        import_judgements(store, [*pairs, *rankings])
    assert main(["label", str(place), "--export", str(out), "--export-form", "posterior"]) == 0
    pair, *of_ranking = map(json.loads, out.read_text().splitlines())
    assert (pair["kind"], pair["prompt"], pair["responses"], pair["pair"]) == ("choice", "p", ["good", "bad"], None)
    assert (pair["answer"], pair["labels"]) == ("a", 3)
    assert pair["low"] < pair["probability"] < pair["high"]
    assert pair["probability"] > 0.9
    found = [(tuple(row["pair"]), row["answer"], row["labels"]) for row in of_ranking]
    assert found == [((0, 1), "first", 2), ((0, 2), "first", 2), ((1, 2), "tie", 2)]


def test_checks_have_a_known_answer(tmp_path: Path) -> None:
    checks = write_jsonl(tmp_path / "checks.jsonl", [{"prompt": "p", "chosen": "2 + 2 = 4", "rejected": "2 + 2 = 5"}])
    place = tmp_path / "labels.db"
    assert main(["label", str(place), "--checks", str(checks), "--export", str(tmp_path / "none.jsonl")]) == 0
    with LabelStore.open(place) as store, store.reading() as state:
        (item,) = state.items.values()
        assert item.item.known is not None
        assert item.item.known.winner == "a"  # type: ignore[union-attr]


def test_an_annotator_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", str(tmp_path / "labels.db"), "--annotators", "ada", "ada", "--port", "0"]) == 2
    assert "'ada' twice" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_page_answers_until_it_is_stopped(tmp_path: Path, file: Path, number: int) -> None:
    place = tmp_path / "labels.db"
    command = [sys.executable, "-m", "lm_gym.app.cli", "label", str(place), "--questions", str(file), "--port", "0"]
    with subprocess.Popen(
        [*command, "--annotators", "2"], stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        told = "".join(lines)
        links = re.findall(r"http://127\.0\.0\.1:\d+/join/[\w-]{43}", told)
        assert len(set(links)) == 3, told
        assert "annotator-2: " in told
        for link in links:
            with urllib.request.urlopen(link, timeout=10) as response:
                assert response.status == 200
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "stopped; 0 labels in" in rest
    assert "--export labels.jsonl" in rest


def test_a_taken_port_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["label", str(tmp_path / "labels.db"), "--port", port]) == 2
    assert "Address already in use" in " ".join(capsys.readouterr().err.split())
