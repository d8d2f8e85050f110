"""Judgements on disk: every form there and back, and every bad row refused by name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models import (
    BestOf,
    Choice,
    Critique,
    Judgement,
    Ranks,
    Rating,
    Response,
    Thumb,
    Value,
    Vote,
    Votes,
    export_rows,
    judgement_from_row,
    load_judgements,
    save_judgements,
)
from lm_gym.reward_models.judgements.rows import to_row
from lm_gym.tools.files import read_jsonl, write_jsonl

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi\nthere"}]
ANSWERS = {"chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}]}
FOREIGN: dict[str, list[dict[str, Any]]] = {
    "pairs": [{"prompt": "p", "chosen": "good", "rejected": "bad"}],
    "conversations": [
        {
            "prompt": TALK,
            "chosen": [{"role": "assistant", "content": "Hello."}],
            "rejected": [{"role": "assistant", "content": ""}],
        }
    ],
    "transcripts": [
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes",
            "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: no",
        }
    ],
    "unpaired": [{"prompt": "p", "completion": "c", "label": True}, {"prompt": "p", "completion": "d", "label": False}],
    "votes": [
        {
            "prompt": "p",
            "a": "x",
            "b": "y",
            "votes": [
                {"choice": "a", "comment": "clear", "annotator": "w1", "overall_rating": 4},
                {"choice": "tie"},
            ],
        }
    ],
    "rankings": [{"prompt": "p", "responses": ["x", "y", "z"], "ranks": [2, 1, 2]}],
    "triplets": [{"input": "p", "output": "x", "reward": -1.5}],
}
NATIVE = [
    Judgement.of("p", ("x", "y"), Choice("both_bad"), comment="neither", annotator="w1"),
    Judgement.of("p", ("x", "y"), Choice("a"), overall_rating=4),
    Judgement.of("p", ("x", "y"), Choice("b"), margin=0.5, columns={"source": "s", "score_chosen": 7.5}),
    Judgement(
        prompt="p", responses=(Response(text="x", model="m", version="3"), Response(text="y")), verdict=Choice("tie")
    ),
    Judgement.of("p", ("x", "y"), Votes((Vote("a", "why", "w1", 4), Vote("both_bad"), Vote("b", None, "w2")))),
    Judgement.of("p", ("x", "y", "z"), Ranks((1, 1, 3)), overall_rating=0),
    Judgement.of("p", ("x", "y", "z"), BestOf(2)),
    Judgement.of("p", ("",), Thumb(False), origin="product"),
    Judgement.of("p", ("x",), Rating(5)),
    Judgement.of("p", ("x",), Value(0.25)),
    Judgement.of("p", ("x",), Critique(), comment="too long"),
]


@pytest.mark.parametrize("form", FOREIGN)
def test_every_foreign_form_comes_back_as_it_was(form: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", FOREIGN[form])
    loaded = load_judgements(path)
    assert not loaded.skipped
    assert export_rows(loaded.judgements, form) == FOREIGN[form]


def test_own_form_holds_every_kind_whole(tmp_path: Path) -> None:
    path = save_judgements(tmp_path / "all.jsonl", NATIVE)
    assert load_judgements(path).judgements == NATIVE
    assert {one.kind for one in NATIVE} == {row["kind"] for row in read_jsonl(path)}


def test_what_the_foreign_forms_mean() -> None:
    assert judgement_from_row(FOREIGN["pairs"][0]) == Judgement.of("p", ("good", "bad"), Choice("a"))
    talk = judgement_from_row(FOREIGN["conversations"][0])
    assert talk.prompt == "\n\nSystem: Be brief.\n\nHuman: Hi\nthere\n\nAssistant:"
    assert talk.texts == ("Hello.", "")
    told = judgement_from_row(FOREIGN["transcripts"][0])
    assert (told.prompt, told.texts) == ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", ("yes", "no"))
    votes = judgement_from_row(FOREIGN["votes"][0])
    assert isinstance(votes.verdict, Votes)
    assert votes.verdict.share_for_a == 0.75
    assert votes.verdict.votes[0].comment == "clear"
    inside = {
        "chosen": [*TALK, {"role": "assistant", "content": "A"}],
        "rejected": [*TALK, {"role": "assistant", "content": "B"}],
    }
    assert judgement_from_row(inside).texts == ("A", "B")


def test_a_system_message_becomes_part_of_the_prompt() -> None:
    pair = {"chosen": "x", "rejected": "y", "system": "Be brief."}
    plain = judgement_from_row({"prompt": "Why?", **pair})
    assert plain.prompt == "\n\nSystem: Be brief.\n\nHuman: Why?\n\nAssistant:"
    assert plain.columns == {}
    talk = judgement_from_row({"prompt": [{"role": "user", "content": "Why?"}], **ANSWERS, "system": "Be brief."})
    assert talk.prompt == plain.prompt
    inside = judgement_from_row(
        {"chosen": "\n\nHuman: Why?\n\nAssistant: x", "rejected": "\n\nHuman: Why?\n\nAssistant: y"}
        | {"system": "Be brief."}
    )
    assert inside == plain
    triplet = judgement_from_row({"input": "Why?", "output": "x", "reward": 1, "system": "Be brief."})
    assert triplet.prompt == plain.prompt
    assert judgement_from_row({"prompt": "Why?", **pair, "system": ""}).prompt == "Why?"
    with pytest.raises(DataError, match="must have one system message"):
        judgement_from_row({"prompt": TALK, **ANSWERS, "system": "Be long."})
    with pytest.raises(DataError, match="content must be text, got 3"):
        judgement_from_row({"prompt": "Why?", **pair, "system": 3})


def test_no_key_of_a_row_is_lost(tmp_path: Path) -> None:
    rows = [
        {**FOREIGN["pairs"][0], "margin": 0.5, "score_chosen": 8.5, "score_rejected": 2.0, "id": ["a", 1]},
        {**FOREIGN["pairs"][0], "comment": "clear", "annotator": "w1", "score_chosen": 7.0},
        {**FOREIGN["unpaired"][0], "origin": "reddit", "annotator": None},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    loaded = load_judgements(path)
    scored, told, liked = loaded.judgements
    assert scored.margin == 0.5
    assert scored.columns == {"score_chosen": 8.5, "score_rejected": 2.0, "id": ["a", 1]}
    assert (told.comment, told.annotator) == ("clear", "w1")
    assert liked.columns == {"origin": "reddit"}  # no origin of ours
    assert loaded.columns == {"score_chosen": 2, "score_rejected": 1, "id": 1, "origin": 1}
    assert export_rows([scored], "pairs") == rows[:1]
    assert load_judgements(save_judgements(tmp_path / "own.jsonl", loaded.judgements)).judgements == loaded.judgements
    with pytest.raises(DataError, match="'chosen' of its own"):
        export_rows([Judgement.pair("p", "x", "y", columns={"chosen": 1})], "pairs")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "p", "text": "x"}, "keys of a known form"),
    ({"prompt": "p", "chosen": "x"}, "no 'rejected'"),
    (
        {"prompt": "p", "chosen": "x", "rejected": "y", "responses": ["x", "y"], "ranks": [2, 1]},
        "those of pairs and ran",
    ),
    ({"prompt": "p", "chosen": "x", "rejected": "y", "margin": -1}, "margin must be a finite number >= 0"),
    ({"prompt": "p", "completion": "x", "label": True, "margin": 1}, "only a choice with a winner has a margin"),
    ({"kind": "thumb", "prompt": "p", "responses": ["x"], "up": True, "columns": 3}, "columns must be an object"),
    ({"prompt": 3, "chosen": "x", "rejected": "y"}, "prompt must be a list"),
    ({"prompt": "p", "chosen": "same", "rejected": "same"}, "at least 2 different responses"),
    ({"prompt": "p", "responses": ["x", "y"], "ranks": [1, 3]}, "leave no gap"),
    ({"prompt": "p", "responses": ["x", "y"], "ranks": [1]}, "one rank per response"),
    ({"prompt": "p", "completion": "x", "label": 2}, "true or false"),
    ({"input": "p", "output": "x", "reward": float("nan")}, "finite numbers"),
    ({"prompt": "p", "a": "x", "b": "y", "votes": []}, "at least one vote"),
    ({"prompt": "p", "a": "x", "b": "y", "votes": [{"choice": "c"}]}, "winner must be one of"),
    ({"kind": "rating", "prompt": "p", "responses": ["x"], "stars": 6}, "whole number from 0"),
    ({"kind": "rating", "prompt": "p", "responses": ["x"], "stars": 4.5}, "whole number from 0"),
    ({"kind": "best_of", "prompt": "p", "responses": ["x", "y"], "best": 2}, "from 0 to 1"),
    ({"kind": "best_of", "prompt": "p", "responses": ["x"], "best": 0}, "at least 2 responses"),
    ({"kind": "critique", "prompt": "p", "responses": ["x"]}, "must have a comment"),
    ({"kind": "thumb", "prompt": "p", "responses": ["x"], "up": True, "stars": 3}, "no key 'stars'"),
    ({"kind": "smile", "prompt": "p", "responses": ["x"]}, "kind must be one of"),
    ({"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: y"}, "differ earlier"),
    ({"chosen": "x", "rejected": "y"}, "must begin with the same prompt"),
    ({"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "y"}, "must hold a turn of the assistant"),
    ({"prompt": "p", "chosen": "x", "rejected": "y", "annotator": 7}, "annotator must be a string, got 7"),
    ({"prompt": "p", "chosen": "x", "rejected": "y", "comment": ["a"]}, "comment must be a string, got ['a']"),
    ({"prompt": "p", "chosen": "x", "rejected": "y", "overall_rating": 6}, "overall_rating: must be a whole number"),
    (
        {"kind": "rating", "prompt": "p", "responses": ["x"], "stars": 3, "overall_rating": 3},
        "rating: has no overall_rating beside it; its stars are the rating",
    ),
    (
        {"prompt": "p", "a": "x", "b": "y", "votes": [{"choice": "a"}], "overall_rating": 3},
        "votes: has no overall_rating beside it; each vote carries its own",
    ),
    (
        {"prompt": "p", "a": "x", "b": "y", "votes": [{"choice": "a", "overall_rating": 6}]},
        "vote: overall_rating: must be a whole number",
    ),
    (
        {"prompt": "p", "a": "x", "b": "y", "votes": [{"choice": "a", "annotator": {"id": 1}}]},
        "vote: annotator must be a string, got {'id': 1}",
    ),
    ({"kind": ["thumb"], "prompt": "p", "responses": ["x"]}, "kind must be one of"),
    ({"prompt": "p\ud83d", "chosen": "x", "rejected": "y"}, "'prompt': must be Unicode text"),
    ({"input": "p", "output": "x", "reward": 10**5000}, "'reward' must hold finite numbers"),
    ({"input": "p", "output": "x", "reward": float("inf")}, "'reward' must hold finite numbers"),
    ({"prompt": [{"role": "robot", "content": "x"}], "chosen": [], "rejected": []}, "every role must be one of"),
]


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_row_is_an_error_with_its_line_or_is_listed(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = FOREIGN["pairs"][0]
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # to write 10**5000
    path.write_text("\n".join([json.dumps(good), "", json.dumps(row), json.dumps(good)]))
    sys.set_int_max_str_digits(limit)
    with pytest.raises(DataError, match=r"line 3: .* \(--skip-bad of lm-gym reward, or skip_bad=True, lists") as caught:
        load_judgements(path)
    assert message in str(caught.value)
    loaded = load_judgements(path, skip_bad=True)
    assert len(loaded.judgements) == 2
    assert loaded.skipped[0].where == f"{path}, line 3"
    assert message in loaded.skipped[0].reason


@pytest.mark.parametrize(
    "row", [*(rows[0] for rows in FOREIGN.values()), *map(to_row, NATIVE)], ids=lambda row: "-".join(list(row)[:3])
)
def test_junk_in_a_row_is_refused_by_name(row: dict[str, Any], refuse_junk: Callable[[dict[str, Any]], None]) -> None:
    refuse_junk(row)


SAID = {"comment": "clear", "annotator": "w1", "overall_rating": 4, "margin": 0.5}


@pytest.mark.parametrize("form", FOREIGN)
def test_what_was_said_beside_a_row_survives_in_every_form(form: str, tmp_path: Path) -> None:
    said = {key: value for key, value in SAID.items() if (form, key) != ("votes", "overall_rating")}
    if form not in ("pairs", "conversations", "transcripts"):
        said.pop("margin")
    row = {**FOREIGN[form][0], **said}
    loaded = load_judgements([row])
    assert loaded.columns == {}
    assert {key: getattr(loaded.judgements[0], key) for key in said} == said
    assert export_rows(loaded.judgements, form) == [row]
    own = save_judgements(tmp_path / "own.jsonl", loaded.judgements)
    assert load_judgements(own).judgements == loaded.judgements


def test_responses_without_text_are_counted_and_used(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "x", "rejected": ""},
        {"prompt": "p", "completion": " ", "label": False},
        FOREIGN["pairs"][0],
    ]
    loaded = load_judgements(rows)
    assert (len(loaded.judgements), loaded.without_text) == (3, 2)


def test_rows_come_from_lists_data_sets_and_tables(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{**FOREIGN["pairs"][0], **SAID}, {"prompt": "q", "chosen": "4", "rejected": "5", "margin": 1.5}]
    wanted = [Judgement.pair("p", "good", "bad", **SAID), Judgement.pair("q", "4", "5", margin=1.5)]  # type: ignore[arg-type]
    made = datasets.Dataset.from_list(rows)
    for name in ("a.csv", "a.json", "a.parquet"):
        getattr(made, f"to_{name[2:]}")(tmp_path / name)
        assert load_judgements(tmp_path / name).judgements == wanted
    assert load_judgements(rows).judgements == wanted
    assert load_judgements(made).judgements == wanted
    both = load_judgements([tmp_path / "a.csv", str(tmp_path / "a.parquet")])
    assert both.judgements == wanted * 2
    with pytest.raises(DataError, match="judgements, row 1: must be an object with keys, got int"):
        load_judgements([3])
    with pytest.raises(DataError, match="at least one usable row, got 0 bad rows in no files"):
        load_judgements([])
    with pytest.raises(DataError, match=r"judgements, row 1: 'at' must hold text, numbers, .*, got object"):
        load_judgements([{**rows[0], "at": object()}])


def test_a_line_that_is_no_json_is_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "chosen"\n[1]\n' + json.dumps(FOREIGN["pairs"][0]))
    with pytest.raises(DataError, match="line 1: must be one JSON object"):
        load_judgements(path)
    assert [one.where for one in load_judgements(path, skip_bad=True).skipped] == [f"{path}, line 1", f"{path}, line 2"]
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="at least one usable row"):
        load_judgements(path, skip_bad=True)


@pytest.mark.parametrize("form", FOREIGN)
def test_a_form_refuses_what_it_cannot_hold(form: str) -> None:
    with pytest.raises(DataError, match="judgement 1"):
        export_rows([NATIVE[-1]], form)
    if form != "votes":
        said_more = judgement_from_row(FOREIGN[form][0] if form != "conversations" else FOREIGN["transcripts"][0])
        said_more = Judgement.of(said_more.prompt, said_more.texts, said_more.verdict, origin="product")
        with pytest.raises(DataError, match="no room for 'origin'"):
            export_rows([said_more], form)


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(ConfigError, match="form must be one of"):
        export_rows(NATIVE, "csv")


@pytest.mark.skipif("LM_GYM_DATA" not in os.environ, reason="needs LM_GYM_DATA, the folder with the arguments")
def test_the_votes_on_the_arguments_come_back_as_they_were() -> None:
    path = Path(os.environ["LM_GYM_DATA"]) / "arguments" / "votes.jsonl.gz"
    judgements = load_judgements(path).judgements
    assert export_rows(judgements, "votes") == read_jsonl(path)
    comments = sum(vote.comment is not None for one in judgements for vote in one.verdict.votes)  # type: ignore[union-attr]
    assert comments > 10_000
