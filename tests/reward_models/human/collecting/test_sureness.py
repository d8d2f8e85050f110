"""An item stops consuming people when its answer is sure."""

from __future__ import annotations

import pytest

from lm_gym.reward_models.human.collecting.answering import judge, retract
from lm_gym.reward_models.human.collecting.asking import ask_questions, set_rules
from lm_gym.reward_models.human.collecting.assignment import next_showing, people_wanted
from lm_gym.reward_models.human.collecting.sureness import is_sure, label_posteriors
from lm_gym.reward_models.human.store.rules import LabelRules

PLAIN = {"repeat_share": 0.0, "check_share": 0.0}


def answer(store, who: str, winner: str) -> str:
    """The next item, with a winner in the item's own places."""
    showing = next_showing(store, who)
    side = winner if winner not in "ab" else "ab"[showing.order.index("ab".index(winner))]
    judge(store, who, showing.id, {"kind": "choice", "winner": side})
    return showing.item


def test_people_that_agree_settle_an_item_before_all_are_asked(store, questions) -> None:
    set_rules(store, LabelRules(overlap=10, sure=0.95, **PLAIN))
    ask_questions(store, questions(1), kind="choice")
    asked = 0
    while next_showing(store, f"person-{asked}") is not None:
        answer(store, f"person-{asked}", "b")
        asked += 1
    assert 2 <= asked < 6
    with store.reading() as state:
        (found,) = label_posteriors(state)
        (item,) = state.items.values()
        assert is_sure(state, item)
        assert people_wanted(state, item) == 0
    assert (found.answer, found.labels) == ("b", asked)
    assert found.low <= found.probability <= found.high
    assert found.probability >= 0.93  # the sampler's, beside the quick one's .95


def test_people_that_disagree_are_all_asked(store, questions) -> None:
    set_rules(store, LabelRules(overlap=6, sure=0.95, **PLAIN))
    ask_questions(store, questions(1), kind="choice")
    for number in range(6):
        answer(store, f"person-{number}", "ab"[number % 2])
    assert next_showing(store, "person-7") is None
    with store.reading() as state:
        (found,) = label_posteriors(state)
    assert found.probability < 0.8


def test_one_label_is_never_sure_and_a_retraction_makes_it_unsure_again(store, questions) -> None:
    set_rules(store, LabelRules(overlap=3, sure=0.6, **PLAIN))
    ask_questions(store, questions(1), kind="choice")
    answer(store, "person-a", "a")
    with store.reading() as state:
        (item,) = state.items.values()
        assert people_wanted(state, item) == 2
    answer(store, "person-b", "a")
    with store.reading() as state:
        (item,) = state.items.values()
        assert people_wanted(state, item) == 0
        last = next(reversed(item.answers))
    retract(store, last)
    with store.reading() as state:
        (item,) = state.items.values()
        assert people_wanted(state, item) > 0


def test_an_overlap_of_all_is_kept_where_no_probability_is_enough(store, questions) -> None:
    set_rules(store, LabelRules(overlap=5, sure=1.0, **PLAIN))
    ask_questions(store, questions(1), kind="choice")
    for number in range(5):
        answer(store, f"person-{number}", "a")
    assert next_showing(store, "person-9") is None


@pytest.mark.parametrize(
    ("kind", "said", "keys"),
    [
        ("rating", {"kind": "rating", "stars": 4}, {(None, "4")}),
        ("thumb", {"kind": "thumb", "up": False}, {(None, "down")}),
        ("ranks", {"kind": "ranks", "ranks": [1, 1, 3]}, None),
        ("ranks", {"kind": "best_of", "best": 0}, None),
        ("critique", {"kind": "critique", "comment": "so so"}, set()),
    ],
)
def test_every_kind_is_read_as_its_classes(store, questions, kind: str, said: dict, keys: set | None) -> None:
    set_rules(store, LabelRules(overlap=2, **PLAIN))
    ask_questions(store, questions(1, responses=3 if kind == "ranks" else 1), kind=kind)
    showing = next_showing(store, "person-a")
    judge(store, "person-a", showing.id, said)
    with store.reading() as state:
        found = label_posteriors(state)
        places = next(iter(state.items.values())).labels[0].judgement.places
    if keys is not None:
        assert {(one.pair, one.answer) for one in found} == keys
        return
    by_hand = {
        (i, j): "tie" if places[i] == places[j] else "first" if places[i] < places[j] else "second"
        for i, j in ((0, 1), (0, 2), (1, 2))
        if said["kind"] == "ranks" or 1 in (places[i], places[j])
    }
    assert {one.pair: one.answer for one in found} == by_hand
