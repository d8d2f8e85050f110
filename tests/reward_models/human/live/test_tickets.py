"""Tickets: each class of outcome, staleness, reuse, and the audit."""

from __future__ import annotations

import struct

import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models import Choice, Rating, Thumb, Value
from lm_gym.reward_models.human import (
    HumanQuestions,
    LabelRules,
    LabelState,
    LabelStore,
    audit,
    close_items,
    judge,
    judgements_of,
    next_showing,
    retract,
    set_rules,
    skip,
    value_of,
)

ANN, BEN = "person-a", "person-b"


def rate(store: LabelStore, who: str, stars: int) -> str:
    showing = next_showing(store, who)
    assert showing is not None
    judge(store, who, showing.id, {"kind": "rating", "stars": stars})
    with store.reading() as state:
        return state.answer_of[showing.id].id


@pytest.mark.parametrize(
    ("verdict", "value"),
    [
        (Thumb(True), 1.0),
        (Thumb(False), -1.0),
        (Rating(0), -1.0),
        (Rating(5), 1.0),
        (Rating(3), 0.2),
        (Value(7.5), 7.5),
    ],
)
def test_what_a_verdict_is_worth(verdict, value: float) -> None:
    assert value_of(verdict) == pytest.approx(value)


def test_a_comparison_is_no_reward() -> None:
    with pytest.raises(DataError, match="must be a thumb, rating, value"):
        value_of(Choice("a"))


def test_a_value_an_abstention_a_timeout_and_a_retraction(store, clock) -> None:
    questions = HumanQuestions(store, timeout_seconds=60)
    tickets = questions.ask(["p"] * 4, ["good", "odd", "late", "regretted"])
    assert [one.state for one in questions.outcomes(tickets)] == ["open"] * 4
    rate(store, ANN, 5)
    skip(store, ANN, next_showing(store, ANN).id)
    close_items(store, [tickets[2].item], reason="nothing")
    states = [one.state for one in questions.outcomes(tickets)]
    assert states == ["value", "abstained", "abstained", "open"]
    retract(store, rate(store, ANN, 1))
    (late,) = questions.ask(["p"], ["never seen"])
    clock.now += 61
    assert [one.state for one in questions.outcomes([*tickets, late])] == [
        "value",
        "abstained",
        "abstained",
        "retracted",
        "timeout",
    ]


def test_the_mean_of_several_people_and_what_there_is_when_time_is_over(store, clock) -> None:
    set_rules(store, LabelRules(overlap=2, sure=1.0, repeat_share=0.0))
    questions = HumanQuestions(store, timeout_seconds=60)
    tickets = questions.ask(["p", "p"], ["x", "y"])
    rate(store, ANN, 5)
    assert questions.outcomes(tickets)[0].state == "open"
    rate(store, BEN, 2)
    assert questions.outcomes(tickets)[0].value == pytest.approx((1.0 - 0.2) / 2)
    rate(store, ANN, 0)
    clock.now += 61
    second = questions.outcomes(tickets)[1]
    assert (second.state, second.value, len(second.answers)) == ("value", -1.0, 1)


def test_an_answer_for_an_old_policy_is_kept_and_not_paid(store) -> None:
    questions = HumanQuestions(store, max_staleness=2)
    tickets = questions.ask(["p"], ["x"], policy_version=10)
    rate(store, ANN, 4)
    assert questions.outcomes(tickets, policy_version=12)[0].state == "value"
    late = questions.outcomes(tickets, policy_version=13)
    assert late[0].state == "stale"
    questions.pay(tickets, late, policy_version=13)
    with store.reading() as state:
        assert [(one.value, one.source) for one in audit(state)] == [(None, "nobody")]
        assert len(judgements_of(state)) == 1


def test_the_same_text_is_asked_once_and_for_ever(store) -> None:
    questions = HumanQuestions(store)
    one, same, other = questions.ask(["p", "p", "q"], ["x", "x", "x"], policy_version=1)
    assert one.item == same.item != other.item
    rate(store, ANN, 3)
    again = HumanQuestions(store).ask(["p"], ["x"], policy_version=7)
    assert questions.outcomes(again)[0].state == "value"
    with store.reading() as state:
        assert len(state.items) == 2
        assert state.items[one.item].item.policy_version == 1


def test_live_questions_go_before_ordinary_ones(store) -> None:
    from lm_gym.reward_models import Question
    from lm_gym.reward_models.human import ask_questions

    ask_questions(store, [Question.of("p", ("x", "y"))], kind="choice")
    (ticket,) = HumanQuestions(store).ask(["p"], ["x"])
    assert next_showing(store, ANN).item == ticket.item


def test_the_audit_tells_each_reward_and_a_replay_pays_the_same_to_the_bit(store, clock) -> None:
    questions = HumanQuestions(store)
    tickets = questions.ask(["p", "p"], ["x", "y"], policy_version=3)
    answer = rate(store, ANN, 3)
    skip(store, ANN, next_showing(store, ANN).id)
    clock.now += 12.5
    outcomes = questions.outcomes(tickets)
    questions.pay(tickets, outcomes, policy_version=4)
    retract(store, answer)
    with store.reading() as state:
        paid, abstained = audit(state)
    assert (paid.prompt, paid.response, paid.source, paid.people) == ("p", "x", "people", (ANN,))
    assert (paid.delay_seconds, paid.policy_version) == (12.5, 4)
    assert (abstained.value, abstained.source, abstained.people) == (None, "nobody", ())
    again = list(audit(LabelState.replay(store.events())))
    assert again == [paid, abstained]
    assert struct.pack("d", again[0].value) == struct.pack("d", outcomes[0].value)
