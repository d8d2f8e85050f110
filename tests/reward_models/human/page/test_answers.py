"""Questions out and answers in, over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from lm_gym.reward_models import Judgement, Question
from lm_gym.reward_models.human import (
    LabelRules,
    LabelStore,
    ask_questions,
    judgements_of,
    record_fit,
    set_guideline,
    set_rules,
)
from lm_gym.reward_models.human.page.overview import Overview


def labels(store: LabelStore) -> list[Judgement]:
    with store.reading() as state:
        return judgements_of(state)


def test_a_choice_is_about_the_texts_that_were_shown(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    """Of 12 items some are shown swapped; the text that was picked wins in every one."""
    ask("choice", count=12)
    picked, swapped = [], 0
    for number in range(12):
        found = page.next()
        side = "ab"[number % 2]
        picked.append(found["responses"]["ab".index(side)])
        swapped += found["responses"][0].endswith(".1")
        assert page.answer({"kind": "choice", "winner": side}, found["showing"]).json()["stored"]
    assert 0 < swapped < 12
    said = labels(store)
    assert [one.texts["ab".index(one.verdict.winner)] for one in said] == picked


def test_a_ranking_is_about_the_texts_that_were_shown(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("ranks", count=6, responses=3)
    wanted = []
    for _ in range(6):
        found = page.next()
        wanted.append(dict(zip(found["responses"], (2, 3, 1), strict=True)))
        assert page.answer({"kind": "ranks", "ranks": [2, 3, 1]}, found["showing"]).status_code == 200
    assert [dict(zip(one.texts, one.verdict.ranks, strict=True)) for one in labels(store)] == wanted


def test_the_best_alone_answers_a_ranking(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("ranks", responses=3)
    found = page.next()
    assert page.answer({"kind": "best_of", "best": 2}, found["showing"]).status_code == 200
    (said,) = labels(store)
    assert said.texts[said.verdict.best] == found["responses"][2]


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("thumb", {"kind": "thumb", "up": False}),
        ("rating", {"kind": "rating", "stars": 4}),
        ("value", {"kind": "value", "reward": -1.5}),
        ("critique", {"kind": "critique"}),
    ],
)
def test_one_answer_is_judged(page: Any, store: LabelStore, ask: Callable[..., Any], kind: str, verdict: Any) -> None:
    ask(kind, responses=1)
    assert page.answer(verdict, comment="because", seconds=2.5).json()["again"] is False
    (said,) = labels(store)
    assert (said.kind, said.comment) == (kind, "because")
    assert all(getattr(said.verdict, name) == value for name, value in verdict.items())


def test_comment_rating_and_time_are_kept(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("choice")
    page.answer({"kind": "choice", "winner": "both_bad"}, comment="both wrong", overall_rating=1, seconds=7.25)
    (said,) = labels(store)
    assert (said.comment, said.overall_rating) == ("both wrong", 1)
    with store.reading() as state:
        assert [one.seconds for one in state.answers()] == [7.25]


@pytest.mark.parametrize(
    ("kind", "responses", "verdict"),
    [
        ("ranks", 3, {"kind": "ranks", "ranks": [2, 1, 2]}),
        ("ranks", 3, {"kind": "best_of", "best": 1}),
        ("thumb", 1, {"kind": "thumb", "up": True}),
        ("value", 1, {"kind": "value", "reward": 0.5}),
        ("critique", 1, {"kind": "critique"}),
    ],
)
def test_an_overall_rating_beside_any_other_kind_is_kept(
    page: Any, store: LabelStore, ask: Callable[..., Any], kind: str, responses: int, verdict: Any
) -> None:
    ask(kind, responses=responses)
    assert page.answer(verdict, comment="because", overall_rating=3).status_code == 200
    assert [one.overall_rating for one in labels(store)] == [3]


def test_an_overall_rating_beside_a_rating_is_refused(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("rating", responses=1)
    assert page.answer({"kind": "rating", "stars": 3}, overall_rating=3).status_code in (400, 422)
    assert labels(store) == []


def test_an_answer_that_is_sent_again_is_stored_once(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("choice")
    body = {"id": str(uuid.uuid4()), "showing": page.next()["showing"], "kind": "judged"}
    body["verdict"] = {"kind": "choice", "winner": "a"}
    assert [page.post("/api/answers", body).json()["again"] for _ in range(3)] == [False, True, True]
    assert len(labels(store)) == 1


def test_a_second_answer_from_another_tab_is_a_conflict(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("choice")
    showing = page.next()["showing"]
    assert page.answer({"kind": "choice", "winner": "tie"}, showing).status_code == 200
    assert page.answer({"kind": "choice", "winner": "a"}, showing).status_code == 409
    assert [one.verdict.winner for one in labels(store)] == ["tie"]


def test_asked_again_the_question_is_the_same(page: Any, ask: Callable[..., Any]) -> None:
    ask("choice", count=3)
    first = page.next()
    assert page.next() == first
    assert page.next()["progress"] == {"done": 0, "skipped": 0, "left": 3, "last_answer": None}


def test_undo_brings_the_question_back(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("choice", count=2)
    first = page.next()
    stored = page.answer({"kind": "choice", "winner": "a"}, first["showing"]).json()
    page.next()
    body = {"id": str(uuid.uuid4()), "target": stored["progress"]["last_answer"]}
    assert page.post("/api/undo", body).json()["progress"]["done"] == 0
    assert page.post("/api/undo", body).status_code == 200, "sent again"
    assert page.post("/api/undo", body | {"id": str(uuid.uuid4())}).status_code == 409
    again = page.next()
    assert (again["showing"], again["responses"]) == (first["showing"], first["responses"])
    assert labels(store) == []


def test_skips_are_counted_and_not_shown_again(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("choice", count=2)
    first = page.next()
    assert page.answer(None, first["showing"], kind="skipped", comment="two languages").status_code == 200
    assert page.next()["showing"] != first["showing"]
    assert page.next()["progress"] == {
        "done": 0,
        "skipped": 1,
        "left": 1,
        "last_answer": page.next()["progress"]["last_answer"],
    }
    assert labels(store) == []


def test_nothing_is_left_at_the_end(page: Any, ask: Callable[..., Any]) -> None:
    ask("thumb", responses=1)
    page.answer({"kind": "thumb", "up": True})
    found = page.next()
    assert (found["item"], found["waiting"], found["responses"]) == (None, True, [])


def test_a_pause_gives_the_item_to_another(page: Any, visit: Callable[..., Any], ask: Callable[..., Any]) -> None:
    ask("choice")
    mine = page.next()["showing"]
    other = visit("Ben")
    assert other.next()["item"] is None
    assert page.post("/api/release").status_code == 200
    assert other.next()["item"] is not None
    assert other.next()["showing"] != mine


def test_no_name_of_a_model_reaches_the_page(page: Any, ask: Callable[..., Any]) -> None:
    ask("choice", count=2)
    found = page.post("/api/next")
    assert page.next()["responses"]
    everything = found.text + page.client.get("/").text + page.client.get("/api/progress").text
    assert "secret" not in everything


def test_a_transcript_is_shown_as_a_conversation(page: Any, store: LabelStore) -> None:
    prompt = "\n\nSystem: Be brief.\n\nHuman: Why?\n\nAssistant:"
    ask_questions(store, [Question.of(prompt, ["So.", "No."])], kind="choice")
    found = page.next()
    assert found["conversation"] == [{"role": "system", "text": "Be brief."}, {"role": "user", "text": "Why?"}]
    assert found["prompt"] == prompt


def test_the_guideline_stands_beside_and_is_recorded(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("choice")
    version = set_guideline(store, "Prefer what is true.")
    found = page.next()
    assert found["guideline"] == {"text": "Prefer what is true.", "version": version}
    with store.reading() as state:
        assert state.showings[found["showing"]].guideline == version


def test_the_overview_is_the_owners(page: Any, visit: Callable[..., Any], ask: Callable[..., Any]) -> None:
    ask("choice", count=3)
    page.answer({"kind": "choice", "winner": "a"}, seconds=4.0)
    assert page.client.get("/api/overview").status_code == 403
    assert page.client.get("/overview").status_code == 403
    owner = visit("owner", role="owner")
    numbers = owner.client.get("/api/overview").json()["numbers"]
    counts = {"items": 3, "settled": 1, "labels": 1, "recent": 1, "skips": 0, "taken_back": 0, "annotators": 1}
    assert numbers["counts"] == counts
    assert [(one["name"], one["labels"], one["seconds"]) for one in numbers["annotators"]] == [("Ada", 1, 4.0)]
    assert [(one["name"], one["kind"]) for one in numbers["stream"]] == [("Ada", "choice")]
    assert numbers["statistics"]["bias"]["first_share"] == 1.0
    assert numbers["reward_models"] == []
    assert "/api/answers" in owner.client.get("/openapi.json").json()["paths"]
    assert page.client.get("/openapi.json").status_code == 403


def test_the_overview_shows_disputes_and_reward_models(
    store: LabelStore, visit: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    set_rules(store, LabelRules(repeat_share=0, check_share=0, overlap=2, sure=1.0))
    ask("choice")
    for name, wanted in (("Ada", "0.0"), ("Ben", "0.1")):
        page = visit(name)
        found = page.next()
        page.answer({"kind": "choice", "winner": "ab"[found["responses"].index(wanted)]}, found["showing"])
    record_fit(store, version="1", labels=2, accuracy=0.75, pairs=40)
    found = visit("owner", role="owner").client.get("/api/overview").json()["numbers"]
    (disputed,) = found["statistics"]["disputed"]
    assert (disputed["prompt"], disputed["votes"]) == ("prompt 0", {"a": 1, "b": 1})
    assert found["statistics"]["agreement"]["choice"]["share"] == 0.0
    (fit,) = found["reward_models"]
    assert (fit["labels"], fit["accuracy"]) == (2, 0.75)
    assert 0.59 < fit["low"] < 0.60, "Wilson: (0.75 + z2/80 - z sqrt(0.75 * 0.25/40 + z2/6400)) / (1 + z2/40)"
    assert 0.85 < fit["high"] < 0.87
    assert "secret" not in str(found)


def test_the_overview_leaves_the_store_to_its_annotators(store: LabelStore, ask: Callable[..., Any]) -> None:
    """Made from 0.5 s to 1 s, it is not made again before 11 s: a twentieth of the time goes into it."""
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    overview = Overview(store, clock=clock)
    assert overview.numbers()["counts"]["items"] == 0
    ask("choice")
    assert overview.numbers()["counts"]["items"] == 0
    now[0] = 10.0
    assert overview.numbers()["counts"]["items"] == 0
    assert overview.numbers()["counts"]["items"] == 1


@pytest.mark.parametrize(
    ("kind", "responses", "verdict"),
    [
        ("ranks", 3, {"kind": "ranks", "ranks": [1, 2, 3]}),
        ("ranks", 3, {"kind": "best_of", "best": 1}),
        ("best_of", 3, {"kind": "best_of", "best": 1}),
        ("thumb", 1, {"kind": "thumb", "up": True}),
        ("critique", 1, {"kind": "critique"}),
        ("value", 1, {"kind": "value", "reward": 2.0}),
    ],
    ids=lambda one: one["kind"] if isinstance(one, dict) else str(one),
)
def test_an_overall_rating_stands_beside_every_kind_but_one(
    page: Any, store: LabelStore, ask: Callable[..., Any], kind: str, responses: int, verdict: Any
) -> None:
    ask(kind, responses=responses)
    assert page.answer(verdict, comment="why", overall_rating=2).status_code == 200
    assert [(one.overall_rating, one.comment) for one in labels(store)] == [(2, "why")]


def test_a_rating_has_no_rating_beside_it(page: Any, store: LabelStore, ask: Callable[..., Any]) -> None:
    ask("rating", responses=1)
    assert page.answer({"kind": "rating", "stars": 3}, overall_rating=3).status_code == 422
    assert labels(store) == []
