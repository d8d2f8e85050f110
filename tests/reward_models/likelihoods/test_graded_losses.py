"""Losses of judgements beside comparisons: numbers by hand, gradients, sums to one."""

from __future__ import annotations

import math

import pytest
import torch

from lm_gym.errors import DataError
from lm_gym.reward_models.likelihoods.graded_losses import (
    davidson_nll,
    ordinal_nll,
    rao_kupper_nll,
    soft_bradley_terry_nll,
    thumb_nll,
    value_error,
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_soft_bradley_terry_by_hand() -> None:
    got = soft_bradley_terry_nll(torch.tensor([0.7, 0.7, 0.0]), torch.tensor([1.0, 0.6, 0.5]))
    full, other = -math.log(sigmoid(0.7)), -math.log(sigmoid(-0.7))
    assert got.tolist() == pytest.approx([full, 0.6 * full + 0.4 * other, math.log(2)])


def test_rao_kupper_by_hand_and_sums_to_one() -> None:
    first, second, theta = math.exp(0.9), math.exp(0.2), 1.5
    wins = first / (first + theta * second), second / (second + theta * first)
    tie = (theta**2 - 1) * first * second / ((first + theta * second) * (theta * first + second))
    assert sum(wins) + tie == pytest.approx(1)
    got = rao_kupper_nll(
        torch.tensor([0.7] * 3, dtype=torch.double), torch.eye(3).double(), torch.tensor(math.log(theta)).double()
    )
    assert got.exp().reciprocal().tolist() == pytest.approx([wins[0], tie, wins[1]])


def test_davidson_by_hand() -> None:
    first, second, nu = math.exp(0.9), math.exp(0.2), 0.8
    parts = [first, nu * math.sqrt(first * second), second]
    got = davidson_nll(
        torch.tensor([0.7] * 3, dtype=torch.double), torch.eye(3).double(), torch.tensor(math.log(nu)).double()
    )
    assert got.exp().reciprocal().tolist() == pytest.approx([part / sum(parts) for part in parts])


def test_thumb_by_hand() -> None:
    got = thumb_nll(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor(-0.3))
    assert got.tolist() == pytest.approx([-math.log(sigmoid(0.7)), -math.log(sigmoid(-0.7))])


def test_ordinal_by_hand_and_sums_to_one() -> None:
    thresholds = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.double)
    got = ordinal_nll(torch.full((4,), 0.4, dtype=torch.double), torch.arange(4), thresholds).neg().exp()
    below = [sigmoid(t - 0.4) for t in thresholds.tolist()]
    assert got.tolist() == pytest.approx([below[0], below[1] - below[0], below[2] - below[1], 1 - below[2]])
    assert float(got.sum()) == pytest.approx(1)


def test_ordinal_is_finite_far_out() -> None:
    scores = torch.tensor([-200.0, 200.0], requires_grad=True)
    loss = ordinal_nll(scores, torch.tensor([1, 1]), torch.tensor([-1.0, 1.0])).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([-1.0, 1.0])


def test_value_error_by_hand() -> None:
    got = value_error(torch.tensor([1.0, -0.5]), torch.tensor([30.0, 10.0]), center=20.0, scale=5.0)
    assert got.tolist() == pytest.approx([(1 - 2) ** 2, (-0.5 + 2) ** 2])


LOSSES = {
    "soft_bradley_terry": lambda s: soft_bradley_terry_nll(s, torch.tensor([0.2, 1.0, 0.5]).double()),
    "rao_kupper": lambda s: rao_kupper_nll(
        s, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.2, 0.3, 0.5]]).double(), s[0].abs() + 0.1
    ),
    "davidson": lambda s: davidson_nll(s, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.2, 0.3, 0.5]]).double(), s[1]),
    "thumb": lambda s: thumb_nll(s, torch.tensor([1.0, 0, 1]).double(), s[2]),
    "ordinal": lambda s: ordinal_nll(s, torch.tensor([0, 2, 3]), s[0] + torch.tensor([0.0, 1.0, 1.5]).double()),
    "value": lambda s: value_error(s, torch.tensor([3.0, 1, 2]).double(), center=1.0, scale=2.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str) -> None:
    scores = torch.tensor([0.3, -1.2, 0.8], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(LOSSES[name], (scores,))


def test_shapes_and_scales_are_checked() -> None:
    with pytest.raises(DataError, match="one shape"):
        thumb_nll(torch.zeros(3), torch.zeros(2), torch.tensor(0.0))
    with pytest.raises(DataError, match=r"must lie in 0\.\.2"):
        ordinal_nll(torch.zeros(1), torch.tensor([3]), torch.tensor([0.0, 1.0]))
