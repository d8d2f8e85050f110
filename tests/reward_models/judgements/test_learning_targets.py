"""From verdicts to targets, by hand."""

from __future__ import annotations

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
    Thumb,
    Value,
    Vote,
    Votes,
)
from lm_gym.reward_models.judgements.learning_targets import (
    Opinion,
    Pair,
    Ranked,
    Targets,
    count_idle,
    count_judged_both_ways,
    counts_of,
    items_of,
    require_lesson,
)


def test_everything_about_one_prompt_is_one_item_and_a_ranking_is_its_own() -> None:
    said = [
        Judgement.of("p", ("x", "y"), Choice("b")),
        Judgement.of("q", ("x",), Thumb(True)),
        Judgement.of("p", ("y", "z"), Votes((Vote("a"), Vote("a"), Vote("tie"), Vote("both_bad"), Vote("b")))),
        Judgement.of("p", ("z",), Rating(3)),
        Judgement.of("p", ("x", "y", "z"), Ranks((1, 2, 2))),
        Judgement.of("p", ("w",), Value(-4)),
        Judgement.ranking("p", ("x", "z"), (2, 1)),
        Judgement.of("p", ("x", "y", "z"), BestOf(1)),
    ]
    ranks, ranking, best, rest, other = items_of(said)
    assert [item.prompt for item in (ranks, ranking, best, rest, other)] == ["p", "p", "p", "p", "q"]
    assert ranks.targets.rankings == (Ranked((0, 1, 2), (1, 2, 2)),)
    assert ranking.targets.rankings == (Ranked((0, 1), (2, 1)),)
    assert best.targets.rankings == (Ranked((0, 1, 2), (2, 1, 2)),)
    assert rest.responses == ("x", "y", "z", "w")
    assert rest.targets == Targets(
        pairs=(Pair(0, 1, (0.0, 0.0, 1.0)), Pair(1, 2, (0.4, 0.4, 0.2))),
        ratings=(Opinion(2, 3.0),),
        values=(Opinion(3, -4.0),),
    )
    assert other.targets == Targets(thumbs=(Opinion(0, 1.0),))
    assert counts_of([rest, other]) == {"rankings": 0, "pairs": 2, "thumbs": 1, "ratings": 1, "values": 1}


def test_both_bad_is_a_tie_and_two_thumbs_down_and_a_rating_is_of_the_preferred() -> None:
    (item,) = items_of([Judgement.of("p", ("x", "y"), Choice("both_bad"))])
    assert item.targets == Targets(pairs=(Pair(0, 1, (0.0, 1.0, 0.0)),), thumbs=(Opinion(0, 0.0), Opinion(1, 0.0)))
    (item,) = items_of([Judgement.of("p", ("x", "y"), Choice("b"), overall_rating=4)])
    assert item.targets.ratings == (Opinion(1, 4.0),)
    (item,) = items_of([Judgement.of("p", ("x", "y"), Choice("tie"), overall_rating=2)])
    assert item.targets.ratings == (Opinion(0, 2.0), Opinion(1, 2.0))


RATED = {
    "winner": (Judgement.of("p", ("x", "y"), Choice("b"), overall_rating=4), {"y": [4.0]}),
    "both bad": (Judgement.of("p", ("x", "y"), Choice("both_bad"), overall_rating=1), {"x": [1.0], "y": [1.0]}),
    "best-ranked": (Judgement.of("p", ("x", "y", "z"), Ranks((2, 1, 3)), overall_rating=3), {"y": [3.0]}),
    "first place shared": (
        Judgement.of("p", ("x", "y", "z"), Ranks((1, 2, 1)), overall_rating=3),
        {"x": [3.0], "z": [3.0]},
    ),
    "one text twice": (Judgement.of("p", ("x", "y", "x"), Ranks((1, 2, 1)), overall_rating=3), {"x": [3.0]}),
    "all tied": (Judgement.of("p", ("x", "y"), Ranks((1, 1)), overall_rating=2), {"x": [2.0], "y": [2.0]}),
    "pick": (Judgement.of("p", ("x", "y", "z"), BestOf(2), overall_rating=5), {"z": [5.0]}),
    "thumb": (Judgement.of("p", ("x",), Thumb(True), overall_rating=4), {"x": [4.0]}),
    "value": (Judgement.of("p", ("x",), Value(0.5), overall_rating=4), {"x": [4.0]}),
    "critique": (Judgement.of("p", ("x",), Critique(), comment="so", overall_rating=0), {"x": [0.0]}),
    "critique of two": (
        Judgement.of("p", ("x", "y"), Critique(), comment="so", overall_rating=0),
        {"x": [0.0], "y": [0.0]},
    ),
    "votes, each with its own": (
        Judgement.of("p", ("x", "y"), Votes((Vote("a", overall_rating=4), Vote("b", overall_rating=2), Vote("a")))),
        {"x": [4.0], "y": [2.0]},
    ),
    "a vote for a tie": (
        Judgement.of("p", ("x", "y"), Votes((Vote("tie", overall_rating=3),))),
        {"x": [3.0], "y": [3.0]},
    ),
    "votes on one text twice": (
        Judgement.of("p", ("x", "x"), Votes((Vote("tie", overall_rating=3),))),
        {"x": [3.0]},
    ),
}


@pytest.mark.parametrize("name", RATED)
def test_an_overall_rating_is_of_what_no_other_is_preferred_to(name: str) -> None:
    judgement, wanted = RATED[name]
    (item,) = items_of([judgement])
    found: dict[str, list[float]] = {}
    for one in item.targets.ratings:
        found.setdefault(item.responses[one.place], []).append(one.number)
    assert found == wanted
    assert count_idle([judgement]) == {}


def test_an_overall_rating_changes_no_other_target() -> None:
    for judgement, _ in RATED.values():
        verdict = judgement.verdict
        if isinstance(verdict, Votes):
            verdict = Votes(tuple(replace(vote, overall_rating=None) for vote in verdict.votes))
        bare = items_of([replace(judgement, verdict=verdict, overall_rating=None)])
        (item,) = items_of([judgement])
        assert replace(item.targets, ratings=()) == (bare[0].targets if bare else Targets())


def test_what_teaches_nothing_is_left_out_and_counted() -> None:
    idle = [
        Judgement.of("p", ("x",), Critique(), comment="so so"),
        Judgement.of("p", ("x", "y"), Ranks((1, 1))),
        Judgement.of("p", ("x", "x"), Votes((Vote("a"),))),
    ]
    assert items_of(idle) == []
    assert count_idle([*idle, Judgement.of("p", ("x", "y"), Choice("a"))]) == {"critique": 1, "ranks": 1, "votes": 1}


def test_a_margin_goes_with_its_pair() -> None:
    (item,) = items_of([Judgement.pair("p", "x", "y", margin=0.5), Judgement.pair("p", "y", "z")])
    assert item.targets.pairs == (Pair(0, 1, (1.0, 0.0, 0.0), 0.5), Pair(1, 2, (1.0, 0.0, 0.0)))
    assert item.targets.restricted([1, 0]).pairs == (Pair(1, 0, (1.0, 0.0, 0.0), 0.5),)


def test_contradictory_votes_are_half_and_half() -> None:
    (item,) = items_of([Judgement.of("p", ("x", "y"), Votes((Vote("a"), Vote("b"))))])
    assert item.targets.pairs == (Pair(0, 1, (0.5, 0.0, 0.5)),)


def test_a_part_keeps_what_lies_inside_it() -> None:
    whole = Targets(
        rankings=(Ranked((0, 1, 2, 3), (1, 2, 3, 4)), Ranked((0, 1, 2), (2, 1, 2))),
        pairs=(Pair(0, 1, (1.0, 0.0, 0.0)), Pair(3, 1, (0.0, 0.0, 1.0))),
        thumbs=(Opinion(3, 1.0), Opinion(0, 0.0)),
    )
    assert whole.restricted([3, 1]) == Targets(
        rankings=(Ranked((1, 0), (2, 4)),), pairs=(Pair(0, 1, (0.0, 0.0, 1.0)),), thumbs=(Opinion(0, 1.0),)
    )
    assert len(whole) == 6


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        ([], "critiques"),
        ([Judgement.of("p", ("x",), Thumb(True)), Judgement.of("p", ("y",), Thumb(True))], "every thumb is 1"),
        ([Judgement.of("p", ("x", "y"), Choice("tie"))], "all 1 comparisons are ties"),
        ([Judgement.of("p", ("x",), Rating(3)), Judgement.of("p", ("x", "y"), Choice("tie"))], "every rating is 3 and"),
        ([Judgement.of("p", ("x",), Value(0.5))], "every reward is 0.5"),
    ],
)
def test_judgements_of_one_class_are_refused(judgements: list[Judgement], message: str) -> None:
    with pytest.raises(DataError, match="tell responses apart") as caught:
        require_lesson(items_of(judgements))
    assert message in str(caught.value)


def test_one_class_beside_another_kind_is_enough() -> None:
    require_lesson(items_of([Judgement.of("p", ("x",), Thumb(True)), Judgement.of("p", ("x", "y"), Choice("a"))]))


def test_pairs_that_were_judged_both_ways_are_counted() -> None:
    def said(first: str, second: str, winner: str) -> Judgement:
        return Judgement.of("p", (first, second), Choice(winner))  # type: ignore[arg-type]

    split = Judgement.of("p", ("e", "f"), Votes((Vote("a"), Vote("b"), Vote("tie"))))
    agreed = Judgement.of("p", ("g", "h"), Votes((Vote("a"), Vote("a"), Vote("tie"))))
    judgements = [said("x", "y", "a"), said("y", "x", "a"), said("x", "y", "a"), said("x", "z", "b"), split, agreed]
    assert count_judged_both_ways(judgements) == 2  # x and y; e and f
    assert count_judged_both_ways([*judgements, Judgement.ranking("p", ("x", "z", "y"), (1, 2, 3))]) == 3  # and x and z
    assert count_judged_both_ways([Judgement.ranking("other", ("x", "z"), (1, 2)), said("x", "z", "b")]) == 0
