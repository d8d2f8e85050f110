"""Rows as others publish and export them, small ones of each form, and what they come to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models import (
    Choice,
    Judgement,
    Ranks,
    Response,
    Thumb,
    Value,
    judgement_from_row,
    load_judgements,
)
from lm_gym.tools.files import write_jsonl

GUIDE = next((Path(__file__).parents[4] / "docs").rglob("judgements.md"))
HI = "\n\nHuman: Hi\n\nAssistant:"


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def answered(text: str, *before: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(before or (said("user", "Hi"),)), said("assistant", text)]


def test_a_prompt_in_text_stands_beside_whole_conversations() -> None:
    row = {
        "prompt": "Hi",
        "prompt_id": "7f",
        "chosen": answered("Hello."),
        "rejected": answered("No."),
        "messages": answered("Hello."),
        "score_chosen": 8.5,
        "score_rejected": 3.0,
    }
    one = judgement_from_row(row)
    assert (one.prompt, one.texts, one.verdict) == (HI, ("Hello.", "No."), Choice("a"))
    assert set(one.columns) == {"prompt_id", "messages", "score_chosen", "score_rejected"}
    assert judgement_from_row({**row, "prompt": [said("user", "Hi")]}).prompt == HI
    with pytest.raises(DataError, match="prompt must be part of the conversations in chosen and rejected, got 'Bye'"):
        judgement_from_row({**row, "prompt": "Bye"})
    beside = {"prompt": "Hi", "chosen": [said("assistant", "x")], "rejected": [said("assistant", "y")]}
    assert judgement_from_row(beside) == Judgement.pair("Hi", "x", "y")


def test_the_prompt_of_plain_texts_is_how_they_begin() -> None:
    one = judgement_from_row({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert (one.prompt, one.texts) == ("The sky is", (" blue.", " black."))
    longer = judgement_from_row({"chosen": "Go on and on", "rejected": "Go on and"})
    assert (longer.prompt, longer.texts) == ("Go on", (" and on", " and"))


def test_contents_in_parts_and_turns_of_tools_are_read() -> None:
    parts = [{"type": "text", "text": "Hi"}]
    row = {"prompt": [said("user", parts)], "chosen": answered("x")[1:], "rejected": answered("y")[1:]}
    assert judgement_from_row(row).prompt == HI
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {"at": "sky"}}}]}
    talk = [said("user", "Hi"), call, said("tool", "blue")]
    used = judgement_from_row({"chosen": answered("Blue.", *talk), "rejected": answered("Red.", *talk)})
    assert used.prompt == (
        '\n\nHuman: Hi\n\nAssistant: <tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'
        "\n\nTool: blue\n\nAssistant:"
    )
    assert used.texts == ("Blue.", "Red.")
    with pytest.raises(DataError, match="content parts must be text, got one of type 'image'"):
        judgement_from_row({**row, "prompt": [said("user", [{"type": "image", "image": "sky.png"}])]})


@pytest.mark.parametrize(
    ("label", "up"),
    [(True, True), (0, False), (1, True), (-1, False), (1.0, True), ("1", True), ("False", False), (" Good ", True)],
)
def test_thumbs_are_labelled_in_numbers_and_words(label: Any, up: bool) -> None:
    assert judgement_from_row({"prompt": "p", "completion": "c", "label": label}).verdict == Thumb(up)


@pytest.mark.parametrize("label", [2, "maybe", None, [True], 0.5, "", float("nan")])
def test_other_labels_are_refused(label: Any) -> None:
    with pytest.raises(DataError, match="label must be true or false, 1 or 0, or one of"):
        judgement_from_row({"prompt": "p", "completion": "c", "label": label})


PARTED = [
    # one conversation went on where the other ended
    ("\n\nHuman: Hi\n\nAssistant: a\n\nHuman: So?\n\nAssistant: b", "\n\nHuman: Hi\n\nAssistant: a"),
    # they parted before the last turn of people
    (
        "\n\nHuman: Hi\n\nAssistant: a\n\nHuman: x\n\nAssistant: b",
        "\n\nHuman: Hi\n\nAssistant: c\n\nHuman: y\n\nAssistant: d",
    ),
    # an answer is missing, space and all
    ("\n\nHuman: Hi\n\nAssistant: a", "\n\nHuman: Hi\n\nAssistant:"),
    # the last word is not the assistant's
    ("\n\nHuman: Hi\n\nAssistant: a\n\nHuman: Thanks", "\n\nHuman: Hi\n\nAssistant: b"),
]


@pytest.mark.parametrize(("chosen", "rejected"), PARTED)
def test_transcripts_that_part_early_are_compared_from_there(chosen: str, rejected: str) -> None:
    one = judgement_from_row({"chosen": chosen, "rejected": rejected})
    assert one.prompt == HI
    first, second = (text[len(HI) :].removeprefix(" ") for text in (chosen, rejected))
    assert one.texts == (first, second)


def test_what_no_reading_can_compare_is_listed_and_the_rest_is_used(tmp_path: Path) -> None:
    pairs = [*PARTED, (HI + " a", HI + " a"), ("\n\nHuman: Hi", "\n\nHuman: Hi\n\nAssistant: a")]
    path = write_jsonl(tmp_path / "a.jsonl", [{"chosen": one, "rejected": two} for one, two in pairs])
    loaded = load_judgements(path, skip_bad=True)
    assert len(loaded.judgements) == 4
    assert [row.where for row in loaded.skipped] == [f"{path}, line 5", f"{path}, line 6"]


def choice(texts: tuple[str, str], winner: Any, *, models: Any = (None, None), prompt: str = "Hi", **rest: Any) -> Any:
    responses = tuple(Response(text=text, model=model) for text, model in zip(texts, models, strict=True))
    return Judgement(prompt=prompt, responses=responses, verdict=Choice(winner), **rest)


BATTLE = {"model_a": "m1", "model_b": "m2", "winner": "model_b", "judge": "j9", "turn": 1, "language": "English"}
PUBLISHED: dict[str, tuple[dict[str, Any], Judgement]] = {
    "SHP": (
        {"history": "Hi", "human_ref_A": "x", "human_ref_B": "y", "labels": 0, "score_A": 3, "score_ratio": 2.0},
        choice(("x", "y"), "b", columns={"score_A": 3, "score_ratio": 2.0}),
    ),
    "PKU-SafeRLHF": (
        {
            "prompt": "Hi",
            "response_0": "x",
            "response_1": "y",
            "response_0_source": "m1",
            "response_1_source": "m2",
            "better_response_id": 1,
            "safer_response_id": 0,
            "is_response_0_safe": True,
        },
        choice(("x", "y"), "b", models=("m1", "m2"), columns={"safer_response_id": 0, "is_response_0_safe": True}),
    ),
    "Nectar": (
        {
            "prompt": "\n\nHuman: Hi\n\nAssistant: ",
            "answers": [
                {"answer": "x", "model": "m1", "rank": 3.0},
                {"answer": "y", "model": "m2", "rank": 1.0},
                {"answer": "z", "model": "m3", "rank": 3.0},
            ],
            "turns": 1,
            "good_natured": True,
        },
        Judgement(
            prompt=HI,
            responses=tuple(Response(text=t, model=m) for t, m in (("x", "m1"), ("y", "m2"), ("z", "m3"))),
            verdict=Ranks((2, 1, 2)),
            columns={"turns": 1, "good_natured": True},
        ),
    ),
    "HelpSteer2": (
        {"prompt": "Hi", "response": "x", "helpfulness": 4, "correctness": 3, "verbosity": 1},
        Judgement.of("Hi", ("x",), Value(4), columns={"correctness": 3, "verbosity": 1}),
    ),
    "HelpSteer2 preferences": (
        {
            "prompt": "Hi",
            "response_1": "x",
            "response_2": "y",
            "preference_strength": -2,
            "preference_elaboration": "x is right",
        },
        choice(("x", "y"), "a", comment="x is right", columns={"preference_strength": -2}),
    ),
    "HelpSteer3": (
        {
            "context": [said("user", "Hi")],
            "response1": "x",
            "response2": "y",
            "overall_preference": 0,
            "domain": "code",
        },
        choice(("x", "y"), "tie", prompt=HI, columns={"overall_preference": 0, "domain": "code"}),
    ),
    "Chatbot Arena": (
        {**BATTLE, "conversation_a": answered("x"), "conversation_b": answered("y")},
        choice(
            ("x", "y"),
            "b",
            models=("m1", "m2"),
            prompt=HI,
            annotator="j9",
            columns={"turn": 1, "language": "English"},
        ),
    ),
    "Chatbot Arena, both bad": (
        {"winner": "tie (bothbad)", "conversation_a": answered("x"), "conversation_b": answered("y")},
        choice(("x", "y"), "both_bad", prompt=HI),
    ),
    "Chatbot Arena, as a table": (
        {
            "prompt": '["Hi", "So?"]',
            "response_a": '["a", "x"]',
            "response_b": '["a", null]',
            "winner_model_a": 1,
            "winner_model_b": 0,
            "winner_tie": 0,
        },
        choice(("x", ""), "a", prompt="\n\nHuman: Hi\n\nAssistant: a\n\nHuman: So?\n\nAssistant:"),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_published_data_sets_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    row, wanted = PUBLISHED[name]
    found = judgement_from_row(row)
    assert found == wanted
    beside = judgement_from_row({**row, "comment": "clear", "annotator": "w1"})
    assert beside == Judgement(**{**vars(wanted), "comment": "clear", "annotator": "w1"})
    assert load_judgements(write_jsonl(tmp_path / "a.jsonl", [row])).judgements == [found]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("SHP", {"labels": 2}, "labels must be one of 1, 0, got 2"),
        ("PKU-SafeRLHF", {"better_response_id": True}, "better_response_id must be one of 0, 1, got True"),
        ("Nectar", {"answers": ["x", "y"]}, "answers must be objects with answer and rank"),
        ("Nectar", {"answers": [{"answer": "x", "rank": "first"}] * 2}, "rank must be a finite number, got 'first'"),
        ("Nectar", {"answers": [{"answer": "x", "rank": float("nan")}] * 2}, "rank must be a finite number, got nan"),
        ("HelpSteer2", {"helpfulness": None}, "reward must be a finite number, got None"),
        ("HelpSteer2 preferences", {"preference_strength": 9}, "preference_strength must be a number from -3 to 3"),
        ("Chatbot Arena", {"winner": "m1"}, "winner must be one of model_a, model_b, tie"),
        ("Chatbot Arena", {"conversation_a": answered("x")[:1]}, "the last message must be the assistant's"),
        ("Chatbot Arena, as a table", {"response_b": '["a"]'}, "a turn for each of the 2 prompts, got 1"),
        ("Chatbot Arena, as a table", {"winner_model_b": 1}, "winner must be one of 1 0, 0 1, 0 0, got '1 1'"),
        ("Chatbot Arena, as a table", {"prompt": '["Hi"'}, "must be JSON, got"),
    ],
)
def test_published_rows_with_other_values_are_refused(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        judgement_from_row({**PUBLISHED[name][0], **change})
    assert message in str(caught.value)


OTHERS = [
    {"prompt": "Hi", "chosen": answered("x"), "rejected": answered("y")},
    {"chosen": "The sky is blue", "rejected": "The sky is red", "system": "Be brief.", "margin": 1},
    {"prompt": [said("user", [{"type": "text", "text": "Hi"}])], "completion": "x", "label": 1, "comment": "c"},
]


@pytest.mark.parametrize(
    "row", [*(row for row, _ in PUBLISHED.values()), *OTHERS], ids=lambda row: "-".join(list(row)[:3])
)
def test_junk_in_a_row_is_refused_by_name(row: dict[str, Any], refuse_junk: Callable[[dict[str, Any]], None]) -> None:
    refuse_junk(row)


def test_every_row_that_the_guide_shows_is_read() -> None:
    tables = [line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    rows = [
        json.loads(found) for line in tables for found in re.findall(r"`(\{\".*?\})`(?=[^`]*(?:`[^`]*`[^`]*)*$)", line)
    ]
    rows = [row for row in rows if set(row) not in ({"text", "model", "version"}, {"from", "value"})]
    assert len(rows) > 25
    for row in rows:
        if "message_id" not in row:  # one of a file of messages, which alone ranks nothing
            assert load_judgements([row]).judgements
