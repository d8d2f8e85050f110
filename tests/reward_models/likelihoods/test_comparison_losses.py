from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from lm_gym.errors import DataError
from lm_gym.reward_models import bradley_terry_nll, plackett_luce_nll, score_centering_penalty


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def test_a_ranking_of_three_by_hand() -> None:
    scores = torch.tensor([[math.log(2.0), math.log(3.0), math.log(1.0)]])
    nll, comparable = plackett_luce_nll(scores, torch.tensor([[2, 1, 3]]), ones(1, 3))
    # P = 3 / (3 + 2 + 1) * 2 / (2 + 1) = 1/3, over two choices.
    assert nll.tolist() == pytest.approx([math.log(3) / 2])
    assert comparable.tolist() == [True]


def test_a_tie_by_hand() -> None:
    scores = torch.tensor([[math.log(2.0), math.log(3.0), math.log(1.0)]])
    nll, _ = plackett_luce_nll(scores, torch.tensor([[1, 1, 2]]), ones(1, 3))
    # The tied two do not meet: 2 / (2 + 1) and 3 / (3 + 1).
    assert nll.tolist() == pytest.approx([-(math.log(2 / 3) + math.log(3 / 4)) / 2])


def test_a_pair_is_bradley_terry() -> None:
    scores = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ranks = torch.tensor([[1, 2], [2, 1]]).repeat(10, 1)
    nll, _ = plackett_luce_nll(scores, ranks, ones(20, 2))
    chosen = torch.where(ranks[:, 0] == 1, scores[:, 0], scores[:, 1])
    rejected = torch.where(ranks[:, 0] == 1, scores[:, 1], scores[:, 0])
    torch.testing.assert_close(nll, bradley_terry_nll(chosen, rejected))
    assert bradley_terry_nll(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(math.log(2))


def test_bradley_terry_is_finite_for_hopeless_scores() -> None:
    assert bradley_terry_nll(torch.tensor([-500.0]), torch.tensor([500.0])).item() == pytest.approx(1000.0)


def test_likelihoods_of_all_orders_sum_to_one() -> None:
    scores = torch.randn(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    orders = torch.tensor(list(permutations(range(1, 5))))
    nll, _ = plackett_luce_nll(scores.expand(24, 4), orders, ones(24, 4))
    assert torch.exp(-3 * nll).sum().item() == pytest.approx(1.0)


def test_masked_places_change_nothing() -> None:
    scores = torch.tensor([[0.3, -1.0, 2.0, 99.0]])
    mask = torch.tensor([[True, True, True, False]])
    padded, _ = plackett_luce_nll(scores, torch.tensor([[2, 1, 3, 0]]), mask)
    plain, _ = plackett_luce_nll(scores[:, :3], torch.tensor([[2, 1, 3]]), ones(1, 3))
    torch.testing.assert_close(padded, plain)


def test_a_row_that_compares_nothing_has_no_loss_and_no_gradient() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    nll, comparable = plackett_luce_nll(scores, torch.tensor([[1, 1, 1], [1, 2, 3]]), ones(2, 3))
    nll.sum().backward()
    assert comparable.tolist() == [False, True]
    assert nll[0].item() == 0.0
    assert scores.grad is not None
    assert scores.grad[0].tolist() == [0.0, 0.0, 0.0]
    assert torch.isfinite(scores.grad).all()


def test_order_of_responses_does_not_matter() -> None:
    scores, ranks = torch.randn(1, 5), torch.tensor([[3, 1, 2, 5, 4]])
    order = torch.tensor([4, 2, 0, 1, 3])
    first, _ = plackett_luce_nll(scores, ranks, ones(1, 5))
    second, _ = plackett_luce_nll(scores[:, order], ranks[:, order], ones(1, 5))
    torch.testing.assert_close(first, second)


def test_gradients() -> None:
    scores = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    ranks = torch.tensor([[1, 2, 3, 4], [2, 1, 2, 3], [1, 2, 0, 0]])
    mask = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])
    assert torch.autograd.gradcheck(lambda s: plackett_luce_nll(s, ranks, mask)[0], (scores,))
    assert torch.autograd.gradcheck(lambda s: score_centering_penalty(s, mask), (scores,))


def test_known_utilities_are_recovered_from_drawn_rankings() -> None:
    truth = torch.tensor([1.5, 0.5, 0.0, -0.5, -1.5])
    generator = torch.Generator().manual_seed(3)
    gumbel = -torch.log(-torch.log(torch.rand(4000, 5, generator=generator)))
    ranks = torch.argsort(torch.argsort(-(truth + gumbel), dim=1), dim=1) + 1
    scores = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = plackett_luce_nll(scores.expand(4000, 5), ranks, ones(4000, 5))[0].mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    learned = scores.detach() - scores.detach().mean()
    # Four standard errors of a utility from 4000 rankings of five are about 0.1.
    torch.testing.assert_close(learned, truth, atol=0.1, rtol=0)


def test_centering_by_hand() -> None:
    scores = torch.tensor([[1.0, 3.0, 50.0], [-1.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert score_centering_penalty(scores, mask).tolist() == [4.0, 0.0]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"one shape \(B, K\)"):
        plackett_luce_nll(torch.zeros(2, 3), torch.zeros(2, 2), ones(2, 3))
    with pytest.raises(DataError, match="must have one shape"):
        bradley_terry_nll(torch.zeros(2), torch.zeros(3))
