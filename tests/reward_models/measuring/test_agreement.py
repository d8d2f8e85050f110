"""Agreement and calibration: numbers by hand, and against plain searches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models import (
    Choice,
    Judgement,
    Thumb,
    Vote,
    Votes,
    annotator_agreement,
    expected_calibration_error,
    fit_temperature,
    load_judgements,
)
from lm_gym.reward_models.measuring.calibration import cross_fitted


def voted(*winners: str) -> Judgement:
    return Judgement.of("p", ("x", "y"), Votes(tuple(Vote(winner) for winner in winners)))  # type: ignore[arg-type]


def ordinal_alpha(rows: list[list[float]]) -> float:
    """Krippendorff 2011, computed the slow way over all ordered pairs of values."""
    values = sorted({value for row in rows for value in row})
    counts = {value: sum(row.count(value) for row in rows) for value in values}

    def delta(a: float, b: float) -> float:
        low, high = sorted((a, b))
        between = sum(count for value, count in counts.items() if low <= value <= high)
        return (between - (counts[low] + counts[high]) / 2) ** 2

    total = sum(counts.values())
    observed = sum(
        delta(a, b) / (len(row) - 1) for row in rows for i, a in enumerate(row) for j, b in enumerate(row) if i != j
    )
    flat = [value for row in rows for value in row]
    expected = sum(delta(a, b) for i, a in enumerate(flat) for j, b in enumerate(flat) if i != j) / (total - 1)
    return 1 - observed / expected


def test_alpha_is_that_of_the_definition() -> None:
    said = [voted("a", "a", "tie"), voted("b", "b"), voted("a", "b", "b", "tie"), voted("tie", "a")]
    points = {"a": 1.0, "tie": 0.5, "b": 0.0}
    rows = [[points[vote.winner] for vote in one.verdict.votes] for one in said]  # type: ignore[union-attr]
    assert annotator_agreement(said).alpha == pytest.approx(ordinal_alpha(rows))
    assert annotator_agreement([voted("a", "a")]).alpha is None


def test_agreement_with_the_other_voters_by_hand() -> None:
    said = [voted("a", "a", "b"), voted("a", "b"), Judgement.of("p", ("x",), Thumb(True))]
    found = annotator_agreement(said, [0.5, -2.0, 9.0])
    # Pair 1: each a sees (a, b), a split: half; the b sees (a, a): wrong. Pair 2: each sees the other one: wrong.
    assert (found.pairs, found.votes) == (2, 5)
    assert found.people_with_majority == pytest.approx((0.5 + 0.5 + 0 + 0 + 0) / 5)
    # The model says a, then b: a split, a split, right; then against b: right, against a: wrong.
    assert found.model_with_majority == pytest.approx((0.5 + 0.5 + 1 + 1 + 0) / 5)


def test_what_has_no_two_votes_is_refused() -> None:
    with pytest.raises(DataError, match="two votes"):
        annotator_agreement([Judgement.of("p", ("x", "y"), Choice("a"))])
    with pytest.raises(DataError, match="one margin per judgement"):
        annotator_agreement([voted("a", "b")], [])


def test_a_temperature_is_the_likeliest_one() -> None:
    rng = np.random.default_rng(0)
    leads = rng.normal(0, 2, 4000)
    margins = np.where(rng.random(4000) < 1 / (1 + np.exp(-leads)), leads, -leads) * 3
    grid = np.exp(np.linspace(-3, 3, 2001))
    best = grid[np.argmin([np.logaddexp(0, -margins / t).mean() for t in grid])]
    assert fit_temperature(margins) == pytest.approx(best, rel=0.01)
    assert fit_temperature(margins) == pytest.approx(3, rel=0.1)
    assert expected_calibration_error(margins) > 0.08
    assert expected_calibration_error(margins / fit_temperature(margins)) < 0.02


def test_temperatures_at_the_ends() -> None:
    assert fit_temperature(np.array([1.0, 2.0])) == pytest.approx(1e-3)
    assert fit_temperature(np.array([1.0, -1.0])) == pytest.approx(1e3)
    assert fit_temperature(np.array([-1.0])) == pytest.approx(1e3)
    with pytest.raises(DataError, match="at least one pair"):
        fit_temperature(np.array([]))


def test_calibration_error_by_hand() -> None:
    sure = np.log(0.9 / 0.1)
    assert expected_calibration_error(np.array([sure] * 8 + [-sure] * 2)) == pytest.approx(0.1)
    mixed = np.array([sure] * 9 + [-sure] + [0.0] * 10)
    assert expected_calibration_error(mixed) == pytest.approx(0.0, abs=1e-9)


def test_a_group_is_never_scaled_by_its_own_pairs() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(1, 2, 100)
    groups = np.array(["one", "two"] * 50)
    scaled = cross_fitted(margins, groups)
    for own, other in (("one", "two"), ("two", "one")):
        np.testing.assert_allclose(
            scaled[groups == own], margins[groups == own] / fit_temperature(margins[groups == other])
        )
    np.testing.assert_allclose(cross_fitted(margins, np.array(["one"] * 100)), margins)


@pytest.mark.skipif("LM_GYM_DATA" not in os.environ, reason="needs LM_GYM_DATA, the folder with the arguments")
def test_the_real_annotators_agree_as_far_as_they_do() -> None:
    said = load_judgements(Path(os.environ["LM_GYM_DATA"]) / "arguments" / "votes.jsonl.gz").judgements
    longer = [len(one.texts[0].split()) - len(one.texts[1].split()) for one in said]
    found = annotator_agreement(said, longer)
    assert found.pairs > 12_000
    assert found.alpha is not None
    assert 0.2 < found.alpha < 0.6
    assert found.model_with_majority is not None
    assert 0.5 < found.model_with_majority < found.people_with_majority < 0.9
