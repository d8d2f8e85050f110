"""Exports of Label Studio, Argilla and OpenAssistant, small ones of each form, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models import Choice, Judgement, Ranks, Rating, Response, Vote, Votes, load_judgements
from lm_gym.tools.files import write_json, write_jsonl

SHOWN = {"prompt": "Hi", "answer1": "x", "answer2": "y"}
LIST = {"prompt": "Hi", "items": [{"id": "u", "body": "x"}, {"id": "v", "body": "y"}, {"id": "w", "title": "z"}]}


def result(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"from_name": kind, "to_name": "answer1,answer2", "type": kind, "value": value}


def annotation(*results: dict[str, Any], by: Any = 7, **rest: Any) -> dict[str, Any]:
    return {"id": 1, "completed_by": by, "result": list(results), **rest}


LEFT, RIGHT = (result("pairwise", {"selected": side}) for side in ("left", "right"))
WHY = result("textarea", {"text": ["clearer"]})


def task(data: dict[str, Any], *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": 3, "data": data, "annotations": list(annotations)}


LABEL_STUDIO: dict[str, tuple[dict[str, Any], list[Judgement]]] = {
    "one comparison": (
        task({**SHOWN, "topic": "t"}, annotation(RIGHT, WHY, by={"id": 7, "email": "w@example.org"})),
        [
            Judgement.of(
                "Hi",
                ("x", "y"),
                Choice("b"),
                comment="clearer",
                annotator="w@example.org",
                columns={"topic": "t", "id": 3},
            )
        ],
    ),
    "several comparisons": (
        task(SHOWN, annotation(LEFT), annotation(RIGHT, WHY, by=8), annotation(RIGHT, was_cancelled=True)),
        [Judgement.of("Hi", ("x", "y"), Votes((Vote("a", None, "7"), Vote("b", "clearer", "8"))), columns={"id": 3})],
    ),
    "a ranking": (
        task(LIST, annotation(result("ranker", {"ranker": ["v", "w", "u"]}))),
        [Judgement.of("Hi", ("x", "y", "z"), Ranks((3, 1, 2)), annotator="7", columns={"id": 3})],
    ),
    "a rating": (
        task({"prompt": "Hi", "response": "x"}, annotation(result("rating", {"rating": 4}))),
        [Judgement.of("Hi", ("x",), Rating(4), annotator="7", columns={"id": 3})],
    ),
    "JSON-MIN": ({**SHOWN, "comparison": {"selected": "left"}}, [Judgement.of("Hi", ("x", "y"), Choice("a"))]),
}


@pytest.mark.parametrize("name", LABEL_STUDIO)
def test_tasks_of_label_studio_are_read(name: str, tmp_path: Path) -> None:
    row, wanted = LABEL_STUDIO[name]
    assert load_judgements(write_json(tmp_path / "export.json", [row])).judgements == wanted


def test_one_overall_rating_is_not_of_several_people() -> None:
    rating = result("rating", {"rating": 4})
    data = {"prompt": "Hi", "response": "x"}
    row = {**task(data, annotation(rating), annotation(rating, by=8)), "overall_rating": 3}
    with pytest.raises(DataError, match="overall_rating: rates one judgement, and this row holds 2"):
        load_judgements([row])


def answers(*given: tuple[str, Any], status: str = "submitted") -> list[dict[str, Any]]:
    return [{"user_id": user, "value": value, "status": status} for user, value in given]


FIELDS = {"prompt": "Hi", "response1": "x", "response2": "y"}
FLAT = {"id": "r1", "status": "completed", **FIELDS, "topic": "t"}
RANKED = [{"rank": 2, "value": "response1"}, {"rank": 1, "value": "response2"}]
ARGILLA: dict[str, tuple[dict[str, Any], list[Judgement]]] = {
    "a flat label and a reason": (
        FLAT
        | {"preference.responses": ["Response 2"], "preference.responses.users": ["w1"]}
        | {"why.responses": ["clearer"], "why.responses.users": ["w1"], "why.responses.status": ["submitted"]},
        [
            Judgement.of(
                "Hi",
                ("x", "y"),
                Choice("b"),
                comment="clearer",
                annotator="w1",
                columns={"id": "r1", "status": "completed", "topic": "t"},
            )
        ],
    ),
    "nested labels": (
        {"id": "r1", "fields": FIELDS, "responses": {"preference": answers(("w1", "response1"), ("w2", "tie"))}},
        [Judgement.of("Hi", ("x", "y"), Votes((Vote("a", None, "w1"), Vote("tie", None, "w2"))), columns={"id": "r1"})],
    ),
    "rankings of version 1": (
        {**FIELDS, "preference": answers(("w1", RANKED)), "external_id": None},
        [Judgement.of("Hi", ("x", "y"), Ranks((2, 1)), annotator="w1", columns={"external_id": None})],
    ),
    "rankings by names": (
        {**FIELDS, "preference.responses": [["response2", "response1"]], "preference.responses.users": ["w1"]},
        [Judgement.of("Hi", ("x", "y"), Ranks((2, 1)), annotator="w1")],
    ),
    "people without names": (
        {**FIELDS, "preference.responses": ["response1", "response2", "response2"]},
        [Judgement.of("Hi", ("x", "y"), Votes((Vote("a"), Vote("b"), Vote("b"))))],
    ),
    "a rating": (
        {"instruction": "Hi", "completion": "x", "quality": answers(("w1", 4), ("w2", 2))},
        [Judgement.of("Hi", ("x",), Rating(stars), annotator=who) for who, stars in (("w1", 4), ("w2", 2))],
    ),
}


@pytest.mark.parametrize("name", ARGILLA)
def test_records_of_argilla_are_read(name: str, tmp_path: Path) -> None:
    row, wanted = ARGILLA[name]
    assert load_judgements(write_jsonl(tmp_path / "records.jsonl", [row])).judgements == wanted


BAD: list[tuple[dict[str, Any], str]] = [
    (task(SHOWN), "an answer of an annotator that says something about the responses, got none"),
    (task(SHOWN, annotation(WHY)), "an answer of an annotator"),
    (task(SHOWN, annotation(result("pairwise", {"selected": "up"}))), "must select left or right, got 'up'"),
    (
        task({"sound": "a.wav"}, annotation(LEFT)),
        "must show one prompt (prompt, instruction, question, ...) and answers",
    ),
    (task(LIST, annotation(result("ranker", {"ranker": ["v"]}))), "a ranking must name every response once"),
    (task(LIST, annotation(result("ranker", {"ranker": {"a": [], "b": []}}))), "a ranking must have one bucket"),
    (task(SHOWN, annotation(result("rating", {"rating": 4}))), "rating: must be about 1 response, got 2"),
    ({"id": 1, "data": "x", "annotations": []}, "data must be an object"),
    ({"id": 1, "data": SHOWN, "annotations": ["x"]}, "annotations must be objects"),
    ({**FIELDS, "preference": answers(("w1", "response1"), status="draft")}, "an answer of an annotator"),
    ({**FIELDS, "preference": answers(("w1", [{"rank": 1, "value": "response1"}]))}, "must give every response a rank"),
    (
        {**FIELDS, "preference": answers(("w1", 1.5))},
        "an answer must be a label, a number, a ranking or a text, got '1.5'",
    ),
    ({"id": 1, "fields": FIELDS, "responses": {"preference": "x"}}, "responses must be a list"),
    ({**FIELDS, "preference.responses": "x"}, "preference.responses must be a list"),
    (task(SHOWN, annotation(LEFT, RIGHT)), "must hold one verdict per person, got 2 of annotator '7'"),
    (
        task({**LIST, "items": [{"id": "v", "body": "x"}, {"id": "v", "body": "y"}]}, annotation(LEFT)),
        "items must have ids of their own, got ['v', 'v']",
    ),
    (
        {**FIELDS, "better": answers(("w1", "response1")), "true": answers(("w1", "response2"))},
        "must hold one verdict per person, got 2 of annotator 'w1'",
    ),
    (
        {**FIELDS, "preference.responses": ["response1", "response2"], "why.responses": ["clearer"]},
        "must hold one verdict per person, got 2 of an annotator without a name",
    ),
    ({**SHOWN, "comparison": None}, "must select left or right, got None"),
    ({**SHOWN, "comparison": {"selected": ["left"]}}, "must select left or right"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_exports_that_say_nothing_usable_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_judgements([row])
    assert message in str(caught.value)


def message(name: str, parent: str | None, text: str, rank: Any = None, **rest: Any) -> dict[str, Any]:
    role = "prompter" if name.startswith("p") else "assistant"
    return {"message_id": name, "parent_id": parent, "text": text, "role": role, "rank": rank, **rest}


MESSAGES = [
    message("a2", "p1", "y", 0, model_name="m"),
    message("p1", None, "Hi", lang="en"),
    message("a1", "p1", "x", 1),
    message("a3", "p1", "never ranked"),
    message("p2", "a1", "So?"),
    message("a4", "p2", "one", 4),
    message("a5", "p2", "two", 2),
    message("a6", "p2", "three", 2),
]
HI = "\n\nHuman: Hi\n\nAssistant:"
FIRST = Judgement(prompt=HI, responses=(Response(text="y", model="m"), Response(text="x")), verdict=Ranks((1, 2)))
SECOND = Judgement.of(HI + " x\n\nHuman: So?\n\nAssistant:", ("one", "two", "three"), Ranks((3, 1, 1)))


def tree(parent: str | None) -> list[dict[str, Any]]:
    return [row | {"replies": tree(row["message_id"])} for row in MESSAGES if row["parent_id"] == parent]


def test_messages_of_open_assistant_are_put_together_whatever_their_order(tmp_path: Path) -> None:
    pair = {"prompt": "p", "chosen": "x", "rejected": "y"}
    loaded = load_judgements(write_jsonl(tmp_path / "m.jsonl", [*MESSAGES, pair]))
    plain = [Judgement(**{**vars(one), "columns": {}}) for one in loaded.judgements]
    assert plain == [Judgement.pair("p", "x", "y"), FIRST, SECOND]
    assert loaded.judgements[1].columns == {"lang": "en"}


def test_the_first_message_of_a_tree_has_no_parent_in_a_table(tmp_path: Path) -> None:
    data = pytest.importorskip("datasets").Dataset.from_list(
        [{"lang": None, "model_name": None, **row, "message_tree_id": "p1"} for row in MESSAGES]
    )
    data.to_parquet(str(tmp_path / "m.parquet"))
    data.to_csv(str(tmp_path / "m.csv"))
    for source in (data, tmp_path / "m.parquet", tmp_path / "m.csv"):
        loaded = load_judgements(source)
        assert [(one.prompt, one.verdict) for one in loaded.judgements] == [
            (one.prompt, one.verdict) for one in (FIRST, SECOND)
        ]


def test_a_parent_that_is_no_text_is_a_bad_row() -> None:
    rows = [row | ({"parent_id": ["p0"]} if row["message_id"] == "p1" else {}) for row in MESSAGES]
    loaded = load_judgements([*rows, {"prompt": "p", "chosen": "x", "rejected": "y"}], skip_bad=True)
    assert "parent_id must be the message_id of another row, or null, got ['p0']" in loaded.skipped[0].reason
    assert loaded.judgements == [Judgement.pair("p", "x", "y")]


def test_trees_of_open_assistant_are_read() -> None:
    row = {"message_tree_id": "t1", "tree_state": "ready_for_export", "prompt": tree(None)[0]}
    loaded = load_judgements([row])
    assert [(one.prompt, one.responses, one.verdict) for one in loaded.judgements] == [
        (one.prompt, one.responses, one.verdict) for one in (FIRST, SECOND)
    ]
    assert loaded.judgements[0].columns == {"message_tree_id": "t1", "tree_state": "ready_for_export"}
    with pytest.raises(DataError, match="a tree of messages must hold ranked replies, got none"):
        load_judgements([{"message_tree_id": "t1", "prompt": MESSAGES[1]}])
    with pytest.raises(DataError, match="a message must have text and a role of prompter or assistant"):
        load_judgements([{"message_tree_id": "t1", "prompt": {"text": "Hi"}}])


def test_messages_without_their_parents_are_bad_rows(tmp_path: Path) -> None:
    lost = [row for row in MESSAGES if row["message_id"] != "a1"]
    path = write_jsonl(tmp_path / "m.jsonl", [*lost, message("p1", None, "twice"), message("a7", "p1", "z", 1)])
    loaded = load_judgements(path, skip_bad=True)
    assert [one.texts for one in loaded.judgements] == [("y", "z")]  # p2 has no parent
    twice, orphan = loaded.skipped
    assert (twice.where, orphan.where) == (f"{path}, line 8", f"{path}, line 4")
    assert "message_id must be text that no other row has, got 'p1'" in twice.reason
    assert "parent_id must be the message_id of a row of the file, got 'a1'" in orphan.reason


EXPORTED = [row for table in (LABEL_STUDIO, ARGILLA) for row, _ in table.values()]


@pytest.mark.parametrize(
    "row", [*EXPORTED, {"message_tree_id": "t", "prompt": tree(None)[0]}], ids=lambda row: "-".join(list(row)[:3])
)
def test_junk_in_a_row_is_refused_by_name(row: dict[str, Any], refuse_junk: Callable[[dict[str, Any]], None]) -> None:
    refuse_junk(row)
