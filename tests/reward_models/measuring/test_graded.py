"""Thumbs, ratings and rewards are measured too."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from lm_gym.reward_models import Judgement, Rating, Thumb, Value, reward_card
from lm_gym.reward_models.measuring.graded import _auroc, graded_measures


def by_number(prompts: list[str], completions: list[str]) -> list[float | None]:
    return [None if text == "unknown" else float(text) if text.isdigit() else 0.0 for text in completions]


def test_numbers_by_hand() -> None:
    said = [
        *(Judgement.of("p", (text,), Thumb(up)) for text, up in (("3", True), ("1", False), ("2", True), ("2", False))),
        *(Judgement.of("p", (text,), Rating(stars)) for text, stars in (("1", 0), ("2", 3), ("5", 2), ("9", 5))),
        *(Judgement.of("p", (text,), Value(reward)) for text, reward in (("1", 7.0), ("2", -3.0))),
        Judgement.of("p", ("unknown",), Thumb(True)),
        Judgement.pair("p", "2", "1"),
    ]
    found = graded_measures(by_number, said)
    assert found is not None
    assert (found.thumbs, found.ratings, found.values) == (4, 4, 2)
    assert found.thumbs_auroc == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert found.rating_correlation == pytest.approx(0.8)
    assert found.value_correlation == pytest.approx(-1)
    assert reward_card(by_number, said).graded == found


def test_many_thumbs_are_not_held_each_against_each() -> None:
    rng = np.random.default_rng(0)
    scores, up = rng.integers(0, 9, 6_000), np.arange(6_000) % 2 == 0
    _auroc(scores[:9], up[:9])  # imports
    tracemalloc.start()
    area, error = _auroc(scores, up)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000  # each against each: 72 MB
    assert area == pytest.approx(0.5, abs=0.02)
    assert error == pytest.approx((1 / 12 * (1 / 3_000 + 1 / 3_000)) ** 0.5, rel=0.01)


def test_one_class_and_no_grades_have_no_number() -> None:
    found = graded_measures(by_number, [Judgement.of("p", ("1",), Thumb(True))])
    assert found is not None
    assert (found.thumbs, found.thumbs_auroc, found.rating_correlation) == (1, None, None)
    assert graded_measures(by_number, [Judgement.pair("p", "2", "1")]) is None
