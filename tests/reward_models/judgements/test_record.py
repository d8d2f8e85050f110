"""The record, and the ranking that is read off it."""

from __future__ import annotations

import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models import BestOf, Choice, Judgement, Ranks, Thumb, Vote, Votes


def places(verdict, texts=("x", "y", "z")) -> tuple[int, ...] | None:
    return Judgement.of("p", texts, verdict).places


def test_the_order_that_each_verdict_implies() -> None:
    two = ("x", "y")
    assert places(Choice("a"), two) == (1, 2)
    assert places(Choice("b"), two) == (2, 1)
    assert places(Choice("both_bad"), two) == (1, 1)
    assert places(Votes((Vote("a"), Vote("tie"), Vote("b"), Vote("a"))), two) == (1, 2)
    assert places(Votes((Vote("a"), Vote("b"))), two) == (1, 1)
    assert places(BestOf(2)) == (2, 2, 1)
    assert places(Ranks((1, 3, 1))) == (1, 3, 1)
    assert places(Thumb(True), ("x",)) is None


def test_pairs_leave_out_ties_and_copies() -> None:
    assert list(Judgement.ranking("p", ("a", "b", "c"), (2, 1, 2)).pairs()) == [(1, 0), (1, 2)]
    assert list(Judgement.ranking("p", ("a", "b", "a"), (1, 2, 3)).pairs()) == [(0, 1), (1, 2)]
    assert list(Judgement.pair("p", "good", "bad").pairs()) == [(0, 1)]
    for idle in (Ranks((1, 1)), Choice("tie"), Votes((Vote("a"), Vote("b")))):
        assert not Judgement.of("p", ("a", "b"), idle).compares
    assert not Judgement.of("p", ("x", "x"), Votes((Vote("a"),))).compares
    assert not Judgement.of("p", ("x",), Thumb(True)).compares


@pytest.mark.parametrize("ranks", [(1, 2, 3), (3, 1, 2), (1, 1, 2), (1, 1, 3), (1, 2, 2), (1, 1, 1)])
def test_places_are_a_ranking_with_either_way_of_counting_ties(ranks: tuple[int, ...]) -> None:
    assert Judgement.ranking("p", ("a", "b", "c"), ranks).places == ranks


@pytest.mark.parametrize("ranks", [(0, 1, 2), (1, 3, 4), (1, 2, 4), (2, 2, 3), (1.0, 2.0, 3.0), (True, 2, 3)])
def test_other_numbers_are_not_a_ranking(ranks: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="places that start at 1 and leave no gap"):
        Judgement.ranking("p", ("a", "b", "c"), ranks)


@pytest.mark.parametrize(
    ("verdict", "margin", "message"),
    [
        (Choice("tie"), 1.0, "only a choice with a winner has a margin"),
        (Ranks((1, 2)), 1.0, "only a choice with a winner has a margin"),
        (Choice("a"), -1.0, "margin must be a finite number >= 0, got -1.0"),
        (Choice("a"), float("nan"), "margin must be a finite number >= 0, got nan"),
    ],
)
def test_a_margin_stands_beside_a_winner(verdict, margin: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Judgement.of("p", ("x", "y"), verdict, margin=margin)
