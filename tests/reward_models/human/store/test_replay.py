"""The state after a log: each kind of event, what does not fit, and that it is a function of the log alone."""

from __future__ import annotations

import copy
import json
import struct

import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models import Choice
from lm_gym.reward_models.human.store.events import Event
from lm_gym.reward_models.human.store.items import Item
from lm_gym.reward_models.human.store.replay import AnsweredAlreadyError, LabelState

from .log_of_events import ANN, BEN, asked, event, judged, retracted, shown, skipped, uid, undone

LOG = [
    asked(1, 100, policy_version=3, batch="round-1"),
    event(2, "guideline", body={"text": "Be kind.", "version": "g1"}),
    shown(3, 100, ANN, (1, 0), guideline="g1"),
    judged(4, 100, 3, ANN, seconds=2.5, kind="choice", winner="b", comment="shorter"),
    shown(5, 100, BEN),
    skipped(6, 100, 5, BEN),
]


def test_a_log_by_hand() -> None:
    state = LabelState.replay(LOG)
    item = state.items[uid(100)]
    assert (item.item.policy_version, item.item.batch, item.at, item.sequence) == (3, "round-1", 1.0, 1)
    ann, ben = item.answers.values()
    assert ann.judgement is not None
    assert (ann.judgement.verdict, ann.judgement.comment, ann.judgement.annotator) == (Choice("b"), "shorter", ANN)
    assert (ann.showing.order, ann.showing.guideline, ann.seconds, ann.at) == ((1, 0), "g1", 2.5, 4.0)
    assert ben.judgement is None
    assert item.labels == [ann]
    assert item.people == {ANN, BEN}
    assert state.sequence == 6
    assert state.shown_to == {ANN: 1, BEN: 1}


def test_an_answer_that_was_undone_is_given_anew() -> None:
    state = LabelState.replay([*LOG, undone(7, 4)])
    assert state.items[uid(100)].labels == []
    assert list(state.undone) == [uid(4)]
    state.take(judged(8, 100, 3, kind="choice", winner="a"))
    assert [answer.id for answer in state.items[uid(100)].labels] == [uid(8)]
    assert [answer.id for answer in state.history[ANN]] == [uid(8)]


def test_a_retracted_judgement_is_gone_for_good() -> None:
    state = LabelState.replay([*LOG, retracted(7, 4)])
    assert state.items[uid(100)].labels == []
    assert ANN in state.items[uid(100)].people
    with pytest.raises(AnsweredAlreadyError, match="has an answer already"):
        state.take(judged(8, 100, 3))
    with pytest.raises(DataError, match="must name an answer that stands"):
        state.take(retracted(8, 4, None))


def test_the_owner_retracts_what_anybody_said() -> None:
    state = LabelState.replay([*LOG, retracted(7, 4, None)])
    assert list(state.retracted) == [uid(4)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (asked(7, 100), "asked before"),
        (shown(7, 999), "must be about an item that was asked"),
        (shown(7, 100, order=(0, 0)), "each place from 0 to 1 once"),
        (shown(7, 100, order=(True, 0)), "each place from 0 to 1 once"),
        (shown(7, 100, BEN, repeat_of=uid(3)), "their own earlier showing"),
        (judged(7, 100, 3, BEN), "must answer what they were shown"),
        (judged(7, 100, 99), "must answer what they were shown"),
        (judged(7, 100, 3), "has an answer already"),
        (judged(7, 100, 3, seconds=-1.0), "has an answer already"),
        (undone(7, 4, BEN), "must name an answer that stands and is their own"),
        (undone(7, 99), "must name an answer that stands"),
        (retracted(7, 6, BEN), "is a skip; undo it instead"),
        (event(7, "closed", item=uid(5)), "must be about an item that was asked"),
        (event(7, "paid", item=uid(100), body={"value": 1.0}), "lacks a key"),
        (event(7, "guideline", body={}), "lacks a key"),
        (event(7, "rules", body={"overlap": 0}), "overlap"),
    ],
)
def test_an_event_that_does_not_fit_changes_nothing(wrong: Event, message: str) -> None:
    state = LabelState.replay(LOG)
    before = copy.deepcopy(state)
    with pytest.raises(ValueError, match=message):
        state.take(wrong)
    assert state == before


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "thumb", "up": True}, "exactly|must be about 1|must be a choice"),
        ({"kind": "choice", "winner": "c"}, "winner must be one of"),
        ({"kind": "choice"}, "winner"),
        ({"kind": "choice", "winner": "a", "prompt": "another"}, "must not repeat what was asked"),
        ({"kind": "nonsense"}, "must be an object with a kind"),
        ({"kind": "choice", "winner": "a", "stars": 3}, "no key 'stars'"),
    ],
)
def test_an_answer_of_another_form_is_refused(said: dict, message: str) -> None:
    state = LabelState.replay([*LOG, undone(7, 4)])
    with pytest.raises(DataError, match=message):
        state.take(judged(8, 100, 3, **said))


def test_one_annotator_gives_one_label_on_an_item() -> None:
    """A second tab may hold an older showing of the same item."""
    state = LabelState.replay([asked(1, 100), shown(2, 100), shown(3, 100), judged(4, 100, 2)])
    with pytest.raises(AnsweredAlreadyError, match="answered the item"):
        state.take(judged(5, 100, 3))


def test_what_is_shown_again_on_purpose_is_no_second_label() -> None:
    state = LabelState.replay([asked(1, 100), shown(2, 100), judged(3, 100, 2), shown(4, 100, repeat_of=uid(2))])
    state.take(judged(5, 100, 4, kind="choice", winner="b"))
    item = state.items[uid(100)]
    assert [answer.id for answer in item.labels] == [uid(3)]
    assert len(item.answers) == 2


def test_a_pick_of_the_first_answers_a_ranking() -> None:
    state = LabelState.replay([asked(1, 100, "ranks", ("x", "y", "z")), shown(2, 100, order=(0, 1, 2))])
    state.take(judged(3, 100, 2, kind="best_of", best=2))
    assert state.items[uid(100)].labels[0].judgement.places == (2, 2, 1)


def test_rewards_of_a_replay_are_equal_to_the_bit() -> None:
    value = 0.1 + 0.2
    body = {"value": value, "source": "people", "delay_seconds": 1 / 3, "policy_version": 4, "answers": [uid(4)]}
    log = [*LOG, event(7, "paid", item=uid(100), body=body)]
    again = [Event.read(json.dumps(json.loads(one.body_json)), **_fields(one)) for one in log]
    first, second = LabelState.replay(log), LabelState.replay(again)
    assert first == second
    assert struct.pack("d", second.payments[0].value) == struct.pack("d", value)
    assert second.payments[0].delay_seconds == 1 / 3


def _fields(one: Event) -> dict:
    return {name: getattr(one, name) for name in ("id", "kind", "at", "item", "annotator", "target")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "1"}, "must be a UUID"),
        ({"id": uid(1).replace("-", "")}, "must be a UUID"),
        ({"kind": "deleted"}, "kind must be one of"),
        ({"item": None}, "must name its item"),
        ({"at": float("nan")}, "finite number of seconds"),
        ({"body": {"x": float("inf")}}, "finite numbers"),
        ({"body": {"x": "\ud83d"}}, "surrogate"),
        ({"body": []}, "body must be an object"),
        ({"body": {"x": object()}}, "must hold text"),
    ],
)
def test_an_event_checks_itself(change: dict, message: str) -> None:
    good = {"id": uid(1), "kind": "closed", "at": 0.0, "item": uid(2)}
    assert Event(**good)
    with pytest.raises(DataError, match=message):
        Event(**{**good, **change})


def test_the_time_of_arrival_is_no_part_of_what_was_said() -> None:
    assert judged(4, 100, 3).content == event(4, "judged", at=99.0, **_rest(judged(4, 100, 3))).content
    assert judged(4, 100, 3).content != judged(4, 100, 3, kind="choice", winner="b").content


def _rest(one: Event) -> dict:
    return {"item": one.item, "annotator": one.annotator, "target": one.target, "body": one.body}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"kind": "choice", "responses": ["a", "a"]}, "2 different responses"),
        ({"kind": "choice", "responses": ["a"]}, "must hold 2 responses, got 1"),
        ({"kind": "ranks", "responses": ["a"]}, "at least 2"),
        ({"kind": "thumb", "responses": ["a", "b"]}, "must hold 1 response, got 2"),
        ({"kind": "votes", "responses": ["a", "b"]}, "kind must be one of"),
        ({"kind": "thumb", "responses": ["a"], "overlap": 0}, "overlap must be a whole number >= 1"),
        ({"kind": "thumb", "responses": ["a"], "policy_version": "3"}, "policy_version must be a whole number"),
        ({"kind": "thumb", "responses": ["a"], "colour": "red"}, "must have kind, prompt and responses"),
        ({"kind": "thumb", "responses": []}, "at least one response"),
        ({"kind": "thumb", "responses": ["a"], "known": {"kind": "rating", "stars": 3}}, "must be a thumb"),
    ],
)
def test_an_item_checks_itself(row: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Item.from_row(uid(1), {"prompt": "p", **row})


def test_an_item_is_read_back_whole() -> None:
    row = {
        "kind": "choice",
        "prompt": "p\n\x00 \u202e",
        "responses": [{"text": "a", "model": "m", "version": "2"}, "b"],
        "known": {"kind": "choice", "winner": "b"},
        "batch": "x",
        "overlap": 3,
        "priority": -1,
        "reward_model_version": "r1",
    }
    item = Item.from_row(uid(1), row)
    assert item.known == Choice("b")
    assert item.question.responses[0].model == "m"
    assert item.to_row() == row
