"""Answers: from the places shown to the item's own, stored once, taken back."""

from __future__ import annotations

import uuid

import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models.human.collecting.answering import in_own_places, judge, retract, skip, undo
from lm_gym.reward_models.human.collecting.asking import ask_questions, set_rules
from lm_gym.reward_models.human.collecting.assignment import next_showing
from lm_gym.reward_models.human.store.replay import AnsweredAlreadyError
from lm_gym.reward_models.human.store.rules import LabelRules

ANN, BEN = "person-a", "person-b"


@pytest.mark.parametrize(
    ("said", "order", "own"),
    [
        ({"winner": "a"}, (0, 1), {"winner": "a"}),
        ({"winner": "a"}, (1, 0), {"winner": "b"}),
        ({"winner": "b"}, (1, 0), {"winner": "a"}),
        ({"winner": "tie"}, (1, 0), {"winner": "tie"}),
        ({"winner": "both_bad"}, (1, 0), {"winner": "both_bad"}),
        # shown: own 2, own 0, own 1. The first shown is best, so own 2 is.
        ({"best": 0}, (2, 0, 1), {"best": 2}),
        ({"best": 2}, (2, 0, 1), {"best": 1}),
        # ranks of the shown ones are 1, 3, 2: own 2 is first, own 0 third, own 1 second
        ({"ranks": [1, 3, 2]}, (2, 0, 1), {"ranks": [3, 2, 1]}),
        ({"ranks": [1, 1, 3]}, (2, 0, 1), {"ranks": [1, 3, 1]}),
        ({"stars": 4}, (0,), {"stars": 4}),
    ],
)
def test_places_by_hand(said: dict, order: tuple[int, ...], own: dict) -> None:
    assert in_own_places({"kind": "x", **said, "comment": "c"}, order) == {"kind": "x", **own, "comment": "c"}


@pytest.mark.parametrize(
    "said", [{"best": 3}, {"best": -1}, {"best": "0"}, {"best": True}, {"ranks": [1, 2]}, {"ranks": 5}, {"ranks": None}]
)
def test_places_that_were_not_shown_are_refused(said: dict) -> None:
    with pytest.raises(DataError, match="must be about the 3 responses shown"):
        in_own_places(said, (2, 0, 1))


def test_the_text_that_was_preferred_is_the_one_that_was_seen(store, questions) -> None:
    set_rules(store, LabelRules(repeat_share=0.0))
    ask_questions(store, questions(30), kind="choice")
    for _ in range(30):
        showing = next_showing(store, ANN)
        with store.reading() as state:
            texts = state.items[showing.item].item.question.texts
        side = "ab"[[texts[place] for place in showing.order].index(max(texts))]  # always prefer "n.1"
        judge(store, ANN, showing.id, {"kind": "choice", "winner": side}, seconds=1.5)
    with store.reading() as state:
        labels = [answer for item in state.items.values() for answer in item.labels]
    assert [label.judgement.verdict.winner for label in labels] == ["b"] * 30
    assert {label.showing.order for label in labels} == {(0, 1), (1, 0)}
    assert labels[0].seconds == 1.5


def test_an_answer_that_is_sent_again_is_stored_once(store, questions) -> None:
    ask_questions(store, questions(1), kind="choice")
    showing, id = next_showing(store, ANN), str(uuid.uuid4())
    said = {"kind": "choice", "winner": "a"}
    assert judge(store, ANN, showing.id, said, id=id, seconds=2.0)
    assert not judge(store, ANN, showing.id, said, id=id, seconds=2.0)
    with pytest.raises(AnsweredAlreadyError):
        judge(store, ANN, showing.id, said)
    with pytest.raises(DataError, match="that of another event"):
        judge(store, ANN, showing.id, {"kind": "choice", "winner": "b"}, id=id, seconds=2.0)


def test_nobody_answers_for_another(store, questions) -> None:
    ask_questions(store, questions(1), kind="choice")
    showing = next_showing(store, ANN)
    judge(store, ANN, showing.id, {"kind": "choice", "winner": "a"})
    with store.reading() as state:
        answer = state.answer_of[showing.id].id
    for act in (
        lambda: judge(store, BEN, showing.id, {"kind": "choice", "winner": "a"}),
        lambda: skip(store, BEN, showing.id),
        lambda: undo(store, BEN, answer),
        lambda: retract(store, answer, annotator=BEN),
    ):
        with pytest.raises(DataError, match=r"must be to something that they were shown|that stands"):
            act()
    assert undo(store, BEN) is None


def test_a_refused_answer_leaves_the_item_theirs(store, questions) -> None:
    ask_questions(store, questions(1), kind="choice")
    showing = next_showing(store, ANN)
    with pytest.raises(DataError, match="winner must be one of"):
        judge(store, ANN, showing.id, {"kind": "choice", "winner": "c"})
    assert next_showing(store, ANN) == showing
    assert next_showing(store, BEN) is None


def test_an_undo_that_is_sent_again_undoes_once(store, questions) -> None:
    ask_questions(store, questions(2), kind="choice")
    answers = []
    for _ in range(2):
        showing, id = next_showing(store, ANN), str(uuid.uuid4())
        judge(store, ANN, showing.id, {"kind": "choice", "winner": "a"}, id=id)
        answers.append(id)
    act = str(uuid.uuid4())
    assert undo(store, ANN, answers[1], id=act) == undo(store, ANN, answers[1], id=act)
    with store.reading() as state:
        assert [answer.id for answer in state.history[ANN]] == answers[:1]


def test_what_was_retracted_is_not_asked_of_them_again(store, questions) -> None:
    ask_questions(store, questions(1), kind="choice")
    showing = next_showing(store, ANN)
    judge(store, ANN, showing.id, {"kind": "choice", "winner": "a"})
    with store.reading() as state:
        answer = state.answer_of[showing.id].id
    assert retract(store, answer, annotator=ANN)
    assert next_showing(store, ANN) is None
    assert next_showing(store, BEN) is not None
