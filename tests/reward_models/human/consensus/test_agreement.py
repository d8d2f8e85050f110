"""Agreement beyond chance, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models.human.consensus.agreement import agreement_of_counts, krippendorff_alpha


def test_alpha_by_hand() -> None:
    """Two people, four items, values 0 0 / 0 0 / 1 1 / 0 1. Observed disagreement: 1 of 4 items, so D_o = 1/4. Of the 8
    values five are 0 and three are 1: D_e = 2 * 5 * 3 / (8 * 7) = 15/28. alpha = 1 - (1/4) / (15/28) = 8/15."""
    counts = np.array([[2, 0], [2, 0], [0, 2], [1, 1]])
    assert krippendorff_alpha(counts, level="nominal") == pytest.approx(8 / 15)
    found = agreement_of_counts(counts, level="nominal")
    assert (found.items, found.labels, found.share) == (4, 8, 0.75)
    assert found.alpha == pytest.approx(8 / 15)


def test_three_labels_by_hand() -> None:
    """Of three labels a, a, b one pair in three is equal."""
    assert agreement_of_counts(np.array([[2, 1]]), level="nominal").share == pytest.approx(1 / 3)


def test_those_who_always_disagree_are_below_chance() -> None:
    counts = np.array([[1, 1]] * 10)
    found = agreement_of_counts(counts, level="nominal")
    assert found.share == 0.0
    assert found.alpha < 0


def test_an_order_counts() -> None:
    near, far = np.array([[1, 1, 0], [0, 1, 1]] * 5), np.array([[1, 0, 1], [0, 2, 0]] * 5)
    assert krippendorff_alpha(near, level="ordinal") > krippendorff_alpha(far, level="ordinal")


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """People who copy a fair coin with probability .8 each: alpha of a large sample, their correlation, is .36."""
    rng, held = np.random.default_rng(0), 0
    for number in range(60):
        truth = rng.integers(2, size=60)
        said = [np.where(rng.random(60) < 0.8, truth, 1 - truth) for _ in range(3)]
        counts = np.stack([sum(one == value for one in said) for value in (0, 1)], axis=1)
        found = agreement_of_counts(counts, level="nominal", seed=number)
        held += found.low <= 0.36 <= found.high
    assert held >= 50  # 57 expected of 60


def test_without_two_labels_there_is_nothing_to_say() -> None:
    found = agreement_of_counts(np.array([[1, 0], [0, 1]]), level="nominal")
    assert (found.items, found.share, found.alpha) == (0, None, None)
    same = agreement_of_counts(np.array([[2, 0], [3, 0]]), level="nominal")
    assert (same.share, same.alpha, same.low) == (1.0, None, None)


@pytest.mark.parametrize("counts", [[[0.5, 1]], [1, 2], [[-1, 2]]])
def test_what_is_no_table_is_refused(counts: list) -> None:
    with pytest.raises(DataError, match="counts must be a table"):
        agreement_of_counts(np.array(counts), level="nominal")
