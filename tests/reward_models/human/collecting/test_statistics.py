"""Statistics of a small store, by hand."""

from __future__ import annotations

import math

import pytest

from lm_gym.reward_models import Choice, Question
from lm_gym.reward_models.human.collecting.asking import ask_questions, record_fit, set_rules
from lm_gym.reward_models.human.collecting.statistics import label_statistics
from lm_gym.reward_models.human.store.events import Event
from lm_gym.reward_models.human.store.replay import LabelState
from lm_gym.reward_models.human.store.rules import LabelRules

ANN, BEN = "person-a", "person-b"


class Log:
    """Events with ids by number."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, kind, **rest) -> str:
        id = f"00000000-0000-0000-0000-{len(self.events):012d}"
        self.events.append(Event(id=id, kind=kind, at=float(len(self.events)), **rest))
        return id

    def item(self, kind: str = "choice", **rest) -> str:
        id = f"00000000-0000-0000-0001-{len(self.events):012d}"
        responses = {"choice": ["one", "two"], "ranks": ["one", "two", "three"]}.get(kind, ["one"])
        self.add("asked", item=id, body={"kind": kind, "prompt": "p", "responses": responses, **rest})
        return id

    def answer(self, item: str, who: str, said: dict | None, order=(0, 1), seconds=2.0, repeat_of=None) -> str:
        body = {"order": list(order), "seed": 0, "repeat_of": repeat_of, "guideline": None}
        showing = self.add("shown", item=item, annotator=who, body=body)
        kind, what = ("skipped", {}) if said is None else ("judged", {"said": said})
        self.add(kind, item=item, annotator=who, target=showing, body={**what, "seconds": seconds})
        return showing

    def statistics(self):
        return label_statistics(LabelState.replay(self.events))


def wins(winner: str) -> dict:
    return {"kind": "choice", "winner": winner}


def test_a_store_by_hand() -> None:
    log = Log()
    first, second, third = log.item(), log.item(), log.item()
    check = log.item(known={"kind": "choice", "winner": "a"})
    showing = log.answer(first, ANN, wins("a"), (0, 1), 1.0)  # the left one
    log.answer(first, BEN, wins("a"), (1, 0), 5.0)  # the right one
    log.answer(second, ANN, wins("b"), (1, 0), 3.0)  # left
    log.answer(second, BEN, wins("a"), (0, 1), 7.0)  # left
    log.answer(third, ANN, wins("tie"), (0, 1), 2.0)
    log.answer(third, BEN, None)
    log.answer(check, ANN, wins("b"))
    log.answer(check, BEN, wins("a"))
    log.answer(first, ANN, wins("b"), (1, 0), repeat_of=showing)  # left again: the other response
    found = log.statistics()
    assert (found.bias.decided, found.bias.first_share) == (4, 0.75)
    assert (found.consistency.pairs, found.consistency.same, found.consistency.to_the_same_side) == (1, 0, 1)
    # Two items with two labels: equal, and different. Values a a / a b: D_o = 1/2, D_e = 2 * 3 * 1 / (4 * 3) = 1/2.
    assert (found.agreement["choice"].items, found.agreement["choice"].share) == (2, 0.5)
    assert found.agreement["choice"].alpha == pytest.approx(0.0)
    assert found.seconds == pytest.approx((1.5, 3.0, 6.0))  # of 1, 2, 3, 5, 7
    ann, ben = found.annotators
    assert (ann.annotator, ann.labels, ann.skipped, ann.checks, ann.checks_passed) == (ANN, 3, 0, 1, 0)
    assert (ben.annotator, ben.labels, ben.skipped, ben.checks, ben.checks_passed) == (BEN, 2, 1, 1, 1)
    assert (ann.repeats, ann.repeats_same, ann.with_others) == (1, 0, 0.5)
    (disputed,) = found.disputed
    assert (disputed.item, disputed.votes) == (second, {"a": 1, "b": 1})
    assert disputed.entropy == pytest.approx(math.log(2))


def test_those_who_slow_down_and_drift() -> None:
    log = Log()
    for number, seconds in enumerate([1, 1, 1, 2, 2, 2, 3, 3, 3]):
        showing = log.answer(log.item("rating"), ANN, {"kind": "rating", "stars": 2}, (0,), float(seconds))
        if number == 4:
            again, item = showing, log.events[-1].item
    log.answer(item, ANN, {"kind": "rating", "stars": 5}, (0,), 2.0, repeat_of=again)
    found = log.statistics()
    assert found.drift == 3.0
    assert found.annotators[0].slowing == 3.0
    assert found.bias.decided == 0


RANKS = {"kind": "ranks", "ranks": [1, 1, 2]}


@pytest.mark.parametrize(
    ("said", "alike"),
    [
        ({"kind": "ranks", "ranks": [1, 1, 3]}, True),  # the same, counted on by size
        ({"kind": "ranks", "ranks": [1, 2, 3]}, False),
        ({"kind": "best_of", "best": 0}, False),  # above the second, which was its equal
        ({"kind": "best_of", "best": 2}, False),
    ],
)
def test_rankings_are_alike_by_what_they_say_and_not_by_how_it_is_written(said: dict, alike: bool) -> None:
    log, order = Log(), (0, 1, 2)
    item, check = log.item("ranks"), log.item("ranks", known=RANKS)
    showing = log.answer(item, ANN, RANKS, order)
    log.answer(item, ANN, said, (2, 1, 0), repeat_of=showing)
    log.answer(check, ANN, {**said, "overall_rating": 3}, order)
    (ann,) = log.statistics().annotators
    assert (ann.repeats, ann.repeats_same) == (1, alike)
    assert (ann.checks, ann.checks_passed) == (1, alike)


def test_a_pick_of_the_known_best_passes_a_check() -> None:
    log = Log()
    check = log.item("ranks", known={"kind": "ranks", "ranks": [2, 1, 3]})
    log.answer(check, ANN, {"kind": "best_of", "best": 1}, (0, 1, 2))
    log.answer(check, BEN, {"kind": "best_of", "best": 0}, (0, 1, 2))
    assert {one.annotator: one.checks_passed for one in log.statistics().annotators} == {ANN: 1, BEN: 0}


def test_numbers_are_alike_where_they_are_equal() -> None:
    log = Log()
    item = log.item("value")
    showing = log.answer(item, ANN, {"kind": "value", "reward": 1.0}, (0,))
    log.answer(item, ANN, {"kind": "value", "reward": 2.0}, (0,), repeat_of=showing)
    assert log.statistics().annotators[0].repeats_same == 0


def test_nothing_yet() -> None:
    found = Log().statistics()
    assert (found.agreement, found.annotators, found.disputed, found.seconds) == ({}, (), (), None)


def test_statistics_follow_the_labels(store) -> None:
    from lm_gym.reward_models.human.collecting.answering import judge, undo
    from lm_gym.reward_models.human.collecting.assignment import next_showing

    set_rules(store, LabelRules(repeat_share=0.0))
    ask_questions(store, [Question.of("p", ("x", "y"))], kind="choice")
    ask_questions(store, [Question.of("q", ("x", "y"))], kind="choice", known=[Choice("a")])
    for labels in (1, 0):
        if labels:
            judge(store, ANN, next_showing(store, ANN).id, wins("a"))
        else:
            undo(store, ANN)
        with store.reading() as state:
            assert sum(one.labels for one in label_statistics(state).annotators) == labels


def test_fits_are_said_once(store) -> None:
    for _ in range(2):
        record_fit(store, version="round-1", labels=96, accuracy=0.7, pairs=40)
    with store.reading() as state:
        assert [(fit.version, fit.labels, fit.accuracy, fit.pairs) for fit in state.fits] == [("round-1", 96, 0.7, 40)]
    with pytest.raises(ValueError, match="accuracy"):
        record_fit(store, version="x", labels=1, accuracy=1.5, pairs=1)
