"""Judgements in and out of a store, and people as an annotator."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from lm_gym.errors import DataError
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
    load_judgements,
    save_judgements,
)
from lm_gym.reward_models.human.collecting.annotator import StoreAnnotator
from lm_gym.reward_models.human.collecting.answering import judge, retract, undo
from lm_gym.reward_models.human.collecting.asking import ask_questions, set_rules
from lm_gym.reward_models.human.collecting.assignment import next_showing
from lm_gym.reward_models.human.collecting.exchange import import_judgements, judgements_of
from lm_gym.reward_models.human.store.event_store import LabelStore
from lm_gym.reward_models.human.store.rules import LabelRules

ONE_OF_EACH = [
    Judgement.of("p", ("x", "y"), Choice("b"), comment="why", overall_rating=4, margin=0.5, annotator="person-1"),
    Judgement.of("p", ("x", "y", "z"), Ranks((1, 1, 3)), annotator="person-1", overall_rating=2),
    Judgement.of("p", ("x", "y", "z"), BestOf(2), overall_rating=5),
    Judgement.of("p", ("x",), Thumb(False), origin="product", columns={"session": "9"}, overall_rating=1),
    Judgement.of("p", ("x",), Rating(5), annotator="person-2"),
    Judgement.of("p", ("x",), Value(-1.25), overall_rating=0),
    Judgement.of("p", ("x", "y"), Critique(), comment="both ramble", overall_rating=3),
    Judgement(
        prompt="q", responses=(Response(text="m", model="one"), Response(text="n", version="2")), verdict=Choice("tie")
    ),
]


def test_every_kind_comes_out_as_it_went_in(store, tmp_path) -> None:
    assert import_judgements(store, ONE_OF_EACH)[:2] == (len(ONE_OF_EACH), 0)
    with store.reading() as state:
        found = judgements_of(state)
    assert found == ONE_OF_EACH
    assert load_judgements(save_judgements(tmp_path / "all.jsonl", found)).judgements == ONE_OF_EACH


def test_importing_again_changes_nothing(store) -> None:
    import_judgements(store, ONE_OF_EACH)
    before = store.events()
    assert import_judgements(store, ONE_OF_EACH)[:2] == (0, len(ONE_OF_EACH))
    assert store.events() == before


def test_what_was_retracted_does_not_come_back_by_an_import(store) -> None:
    import_judgements(store, ONE_OF_EACH[:1])
    with store.reading() as state:
        (answer,) = state.answers()
    retract(store, answer.id)
    assert import_judgements(store, ONE_OF_EACH[:1]).known == 1
    with store.reading() as state:
        assert judgements_of(state) == []


def test_another_judgement_of_the_same_person_is_told_of_and_the_first_one_stays(store) -> None:
    one, changed = ONE_OF_EACH[3], replace(ONE_OF_EACH[3], verdict=Thumb(True))
    import_judgements(store, [one])
    found = import_judgements(store, [changed])
    assert (found.stored, found.known, len(found.left_out)) == (0, 0, 1)
    assert "holds another one of the same annotator" in found.left_out[0]
    with store.reading() as state:
        assert judgements_of(state) == [one]
    assert import_judgements(store, [changed], batch="later").stored == 1


def test_votes_are_taken_apart_and_put_together(store) -> None:
    votes = Votes((Vote("a", annotator="person-1"), Vote("b", "no", "person-2", 3), Vote("a"), Vote("tie")))
    asked = Judgement.of("p", ("x", "y"), votes)
    assert import_judgements(store, [asked]).stored == 4
    with store.reading() as state:
        assert judgements_of(state, votes=True) == [asked]
        apart = [(one.verdict.winner, one.overall_rating) for one in judgements_of(state)]
    assert apart == [("a", None), ("b", 3), ("a", None), ("tie", None)]
    same = Judgement.of("p", ("x", "x"), Votes((Vote("a"),)))
    assert import_judgements(store, [same]).left_out == [
        "choice: must compare at least 2 different responses, got 2 times 'x'"
    ]


def test_a_single_choice_is_a_vote_too_and_one_with_a_margin_is_not(store) -> None:
    pairs = [Judgement.pair("p", "x", "y", annotator="person-1"), Judgement.pair("q", "x", "y", margin=0.5)]
    import_judgements(store, pairs)
    with store.reading() as state:
        single, other = judgements_of(state, votes=True)
    assert single.verdict == Votes((Vote("a", annotator="person-1"),))
    assert export_rows([single], "votes")[0]["votes"] == [{"choice": "a", "annotator": "person-1"}]
    assert other == pairs[1]


def test_two_judgements_of_one_person_on_one_question_are_both_kept(store) -> None:
    twice = [ONE_OF_EACH[0], replace(ONE_OF_EACH[0], verdict=Choice("a"))]
    assert import_judgements(store, twice).stored == 2
    with store.reading() as state:
        assert judgements_of(state) == twice


def test_names_do_not_leave_the_store(store) -> None:
    import_judgements(store, [replace(ONE_OF_EACH[0], annotator="Some Body")])
    with store.reading() as state:
        (found,) = judgements_of(state)
    assert found.annotator == store.pseudonym("Some Body")
    assert "Some" not in "".join(event.body_json + str(event.annotator) for event in store.events())


def test_what_is_no_judgement_is_refused_whole(store) -> None:
    with pytest.raises(DataError, match="must be given a list of judgements"):
        import_judgements(store, [ONE_OF_EACH[0], "x"])  # type: ignore[list-item]
    assert store.events() == []


def test_batches_come_out_by_name(store, questions) -> None:
    ask_questions(store, questions(1), kind="choice", batch="round-1")
    judge(store, "person-a", next_showing(store, "person-a").id, {"kind": "choice", "winner": "tie"})
    import_judgements(store, ONE_OF_EACH, batch="file")
    with store.reading() as state:
        assert len(judgements_of(state, batch="round-1")) == 1
        assert judgements_of(state, batch="file") == ONE_OF_EACH
        assert judgements_of(state, batch="other") == []


def test_attention_checks_and_what_was_undone_are_no_labels(store, questions) -> None:
    set_rules(store, LabelRules(check_share=0.9, repeat_share=0.0))
    ask_questions(store, questions(2), kind="choice")
    ask_questions(store, questions(3)[2:], kind="choice", known=[Choice("a")])
    for _ in range(3):
        judge(store, "person-a", next_showing(store, "person-a").id, {"kind": "choice", "winner": "a"})
    with store.reading() as state:
        assert len(state.history["person-a"]) == 3
        assert len(judgements_of(state)) == 2
    undo(store, "person-a")
    with store.reading() as state:
        assert len(judgements_of(state)) == 1


def test_people_answer_as_an_annotator_and_nobody_is_asked_twice(tmp_path, questions) -> None:
    path, asked = tmp_path / "labels.db", []

    def person(count: int) -> None:
        with LabelStore.open(path) as mine:
            while count:
                showing = next_showing(mine, "person-a")
                if showing is not None:
                    judge(mine, "person-a", showing.id, {"kind": "choice", "winner": "tie"})
                    asked.append(showing.item)
                    count -= 1

    class Gone(Exception):
        pass

    def leave(waiting) -> None:
        if waiting.answers == 3:
            raise Gone

    with LabelStore.open(path) as store:
        set_rules(store, LabelRules(repeat_share=0.0))
        ask_questions(store, questions(5), kind="choice", batch="r")
        worker = threading.Thread(target=person, args=(3,))
        worker.start()
        with pytest.raises(Gone):
            StoreAnnotator(store, kind="choice", batch="r", poll_seconds=0.01, on_wait=leave).ask(questions(5))
        worker.join()
        worker = threading.Thread(target=person, args=(2,))
        worker.start()
        seen = []
        found = StoreAnnotator(store, kind="choice", batch="r", poll_seconds=0.01, on_wait=seen.append).ask(
            questions(5)
        )
        worker.join()
    assert [one.prompt for one in found] == [f"prompt {number}" for number in range(5)]
    assert len(asked) == len(set(asked)) == 5
    assert seen[-1] == (5, 5, 5)
