"""Who is shown what next: leases, overlap, priorities, what is shown again, attention checks."""

from __future__ import annotations

from collections import Counter

import pytest

from lm_gym.reward_models import Choice, Thumb
from lm_gym.reward_models.human.collecting.answering import judge, skip, undo
from lm_gym.reward_models.human.collecting.asking import ask_questions, close_items, set_guideline, set_rules
from lm_gym.reward_models.human.collecting.assignment import next_showing, release
from lm_gym.reward_models.human.store.rules import LabelRules

ANN, BEN, CAT = "person-a", "person-b", "person-c"
A_WINS = {"kind": "choice", "winner": "a"}
PLAIN = {"repeat_share": 0.0, "check_share": 0.0}


@pytest.fixture(autouse=True)
def _plain_rules(store) -> None:
    set_rules(store, LabelRules(**PLAIN))


def test_two_people_get_two_items(store, questions) -> None:
    first, second = ask_questions(store, questions(2), kind="choice")
    assert next_showing(store, ANN).item == first
    assert next_showing(store, BEN).item == second
    assert next_showing(store, CAT) is None


def test_a_reload_shows_the_same_again(store, questions) -> None:
    ask_questions(store, questions(3), kind="choice")
    assert next_showing(store, ANN) == next_showing(store, ANN)
    with store.reading() as state:
        assert len(state.showings) == 1


def test_a_lease_that_ran_out_is_given_to_others(store, questions, clock) -> None:
    (item,) = ask_questions(store, questions(1), kind="choice")
    mine = next_showing(store, ANN)
    clock.now += 599.9
    assert next_showing(store, BEN) is None
    clock.now += 0.2
    assert next_showing(store, BEN).item == item
    clock.now += 601
    assert next_showing(store, ANN) == mine  # the page may still show it: it is not shown a second time
    assert judge(store, ANN, mine.id, A_WINS)
    assert next_showing(store, ANN) is None


def test_looking_again_keeps_the_lease(store, questions, clock) -> None:
    ask_questions(store, questions(1), kind="choice")
    next_showing(store, ANN)
    clock.now += 500
    next_showing(store, ANN)
    clock.now += 500
    assert next_showing(store, BEN) is None


def test_a_pause_lets_the_item_go(store, questions) -> None:
    (item,) = ask_questions(store, questions(1), kind="choice")
    next_showing(store, ANN)
    release(store, ANN)
    assert next_showing(store, BEN).item == item


def test_overlap_asks_several_people_and_none_twice(store, questions) -> None:
    set_rules(store, LabelRules(overlap=3, sure=1.0, **PLAIN))
    (item,) = ask_questions(store, questions(1), kind="choice")
    for who in (ANN, BEN, CAT):
        showing = next_showing(store, who)
        assert showing.item == item
        judge(store, who, showing.id, A_WINS)
        assert next_showing(store, who) is None
    assert next_showing(store, "person-d") is None


def test_an_item_begun_is_finished_first_and_a_higher_priority_goes_before(store, questions) -> None:
    set_rules(store, LabelRules(overlap=2, sure=1.0, **PLAIN))
    first, second, _third = ask_questions(store, questions(3), kind="choice")
    showing = next_showing(store, ANN)
    judge(store, ANN, showing.id, A_WINS)
    other = next_showing(store, CAT)
    judge(store, CAT, other.id, A_WINS)
    assert (showing.item, other.item) == (first, first)
    assert next_showing(store, BEN).item == second
    urgent = ask_questions(store, questions(4)[3:], kind="choice", priority=5)
    assert next_showing(store, ANN).item == urgent[0]


def test_a_closed_item_is_shown_to_nobody(store, questions) -> None:
    first, second = ask_questions(store, questions(2), kind="choice")
    assert next_showing(store, ANN).item == first
    close_items(store, [first], reason="the reward model is sure")
    assert next_showing(store, ANN).item == second


def test_a_skipped_item_goes_to_others_until_enough_passed_it(store, questions) -> None:
    (item,) = ask_questions(store, questions(1), kind="choice")
    for who in (ANN, BEN, CAT):
        showing = next_showing(store, who)
        assert showing.item == item
        skip(store, who, showing.id)
        assert next_showing(store, who) is None
    assert next_showing(store, "person-d") is None


def test_undo_puts_the_item_before_them_again(store, questions) -> None:
    ask_questions(store, questions(3), kind="choice")
    first = next_showing(store, ANN)
    judge(store, ANN, first.id, A_WINS)
    second = next_showing(store, ANN)
    assert undo(store, ANN) == first
    assert next_showing(store, ANN) == first
    judge(store, ANN, first.id, {"kind": "choice", "winner": "b"})
    assert next_showing(store, ANN) == second


def test_orders_are_shuffled_per_annotator_and_named_by_their_seed(store, questions) -> None:
    set_rules(store, LabelRules(overlap=2, sure=1.0, **PLAIN))
    ask_questions(store, questions(60), kind="choice")
    orders: Counter = Counter()
    for who in (ANN, BEN):
        for _ in range(60):
            showing = next_showing(store, who)
            orders[who, showing.order] += 1
            judge(store, who, showing.id, A_WINS)
    assert all(18 <= orders[who, order] <= 42 for who in (ANN, BEN) for order in ((0, 1), (1, 0)))  # 3 sigma of 60
    with store.reading() as state:
        pairs = [[one.order for one in item.showings] for item in state.items.values()]
        assert 15 <= sum(first != second for first, second in pairs) <= 45
        assert all(one.seed is not None for one in state.showings.values())


def test_a_twentieth_is_shown_again_with_the_sides_swapped(store, questions) -> None:
    set_rules(store, LabelRules(check_share=0.0, repeat_gap=10))
    ask_questions(store, questions(400), kind="choice")
    shown = []
    while (showing := next_showing(store, ANN)) is not None:
        shown.append(showing)
        judge(store, ANN, showing.id, A_WINS)
    place = {showing.id: number for number, showing in enumerate(shown)}
    again = [showing for showing in shown if showing.repeat_of is not None]
    assert 8 <= len(again) <= 34  # 420 draws of .05: 21, 3 sigma of 4.5
    for showing in again:
        before = shown[place[showing.repeat_of]]
        assert (showing.item, showing.order) == (before.item, before.order[::-1])
        assert place[showing.id] - place[before.id] > 10
    assert len({showing.item for showing in again}) == len(again)
    with store.reading() as state:
        assert sum(len(item.labels) for item in state.items.values()) == 400


def test_a_ranking_is_shown_again_in_reverse(store, questions) -> None:
    set_rules(store, LabelRules(check_share=0.0, repeat_gap=0, repeat_share=0.99))
    ask_questions(store, questions(2, responses=4), kind="ranks")
    first = next_showing(store, ANN)
    judge(store, ANN, first.id, {"kind": "best_of", "best": 0})
    again = next_showing(store, ANN)
    assert (again.item, again.order, again.seed) == (first.item, first.order[::-1], None)


def test_attention_checks_go_to_everyone_and_are_no_labels(store, questions) -> None:
    set_rules(store, LabelRules(repeat_share=0.0, check_share=0.2))
    ask_questions(store, questions(60), kind="choice")
    checks = ask_questions(store, questions(64)[60:], kind="choice", known=[Choice("a")] * 4)
    for who in (ANN, BEN):
        seen = []
        for _ in range(30):
            showing = next_showing(store, who)
            seen.append(showing.item)
            judge(store, who, showing.id, A_WINS)
        assert set(checks) & set(seen)
        assert len(seen) == len(set(seen))


def test_without_items_of_their_own_checks_alone_are_not_shown(store, questions) -> None:
    ask_questions(store, questions(3), kind="choice", known=[Choice("a")] * 3)
    assert next_showing(store, ANN) is None


def test_the_guideline_of_the_day_is_named(store, questions) -> None:
    set_rules(store, LabelRules(overlap=2, sure=1.0, **PLAIN))
    ask_questions(store, questions(1), kind="choice")
    assert next_showing(store, ANN).guideline is None
    version = set_guideline(store, "Prefer what is true.")
    assert set_guideline(store, "Prefer what is true.") == version
    assert next_showing(store, BEN).guideline == version


def test_asking_again_adds_nothing(store, questions) -> None:
    ids = ask_questions(store, questions(3), kind="choice", batch="x")
    assert ask_questions(store, questions(4), kind="choice", batch="x")[:3] == ids
    assert not set(ids) & set(ask_questions(store, questions(3), kind="choice", batch="y"))
    with store.reading() as state:
        assert len(state.items) == 7
    with pytest.raises(ValueError, match="must hold one per question, got 1 for 2"):
        ask_questions(store, questions(2), kind="choice", known=[Thumb(True)])


def test_a_new_server_goes_on_as_the_old_one_would(tmp_path, questions, clock) -> None:
    from lm_gym.reward_models.human.store.event_store import LabelStore

    orders = []
    for restart in (False, True):
        path = tmp_path / f"{restart}.db"
        store = LabelStore.open(path, clock=clock)
        set_rules(store, LabelRules(repeat_share=0.3, repeat_gap=2, check_share=0.0))
        ask_questions(store, questions(20), kind="choice")
        seen = []
        while (showing := next_showing(store, ANN)) is not None:
            seen.append((showing.item, showing.order, showing.repeat_of is None))
            judge(store, ANN, showing.id, A_WINS)
            if restart:
                store.close()
                store = LabelStore.open(path, clock=clock)
        store.close()
        orders.append(seen)
    assert orders[0] == orders[1]
    assert any(not fresh for _, _, fresh in orders[0])
