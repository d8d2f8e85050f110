"""The parts of the objective, by hand and by enumeration."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lm_gym.agents import Objective
from lm_gym.agents.update.functional import clipped_policy_loss, weighted_policy_loss
from lm_gym.agents.update.objectives import kl_term, log_ratios, row_weights
from lm_gym.errors import ConfigError

MASK = torch.tensor([[True, True, True], [True, True, False]])
RATIO = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
ADVANTAGES = torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0])


def test_two_epsilons_by_hand() -> None:
    """Ratios in [0.9, 1.4]: -2 * 1.4, 2 * 1.5, -2 * 0.5, 2 * 0.9, -3 * 1.1."""
    loss, bound = clipped_policy_loss(RATIO.log(), ADVANTAGES, low=0.1, high=0.4)
    torch.testing.assert_close(loss, torch.tensor([-2.8, 3.0, -1.0, 1.8, -3.3]))
    assert bound.tolist() == [True, False, False, True, False]


def test_one_open_side_by_hand() -> None:
    loss, bound = clipped_policy_loss(RATIO.log(), ADVANTAGES, low=None, high=0.2)
    torch.testing.assert_close(loss, torch.tensor([-2.4, 3.0, -1.0, 1.0, -3.3]))
    assert bound.tolist() == [True, False, False, False, False]


def test_dual_clip_bounds_the_loss_of_a_negative_advantage() -> None:
    """At ratio 5 and advantage -2 the loss 10 becomes 3 * 2 = 6, without gradient; a positive one is as it was."""
    log_ratio = torch.tensor([math.log(5.0), math.log(5.0), math.log(2.0)], requires_grad=True)
    advantages = torch.tensor([-2.0, 2.0, -2.0])
    loss, bound = clipped_policy_loss(log_ratio, advantages, low=0.2, high=0.2, dual=3.0)
    torch.testing.assert_close(loss, torch.tensor([6.0, -2.4, 4.0]))
    assert bound.tolist() == [True, True, False]
    loss.sum().backward()
    torch.testing.assert_close(log_ratio.grad, torch.tensor([0.0, 0.0, 4.0]))


def test_weights_keep_the_gradient_of_every_token() -> None:
    """-min(ratio, 1.2) * A * log pi: the gradient of log pi is the weight times the advantage, bound or not."""
    log_probs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    old = torch.tensor([-1.0 - math.log(1.5), -2.0 - math.log(0.5), -0.5])
    advantages = torch.tensor([2.0, 3.0, -1.0])
    loss, bound = weighted_policy_loss(log_probs - old, log_probs, advantages, low=None, high=0.2)
    torch.testing.assert_close(loss, torch.tensor([2.4, 3.0, -0.5]))
    assert bound.tolist() == [True, False, False]
    loss.sum().backward()
    torch.testing.assert_close(log_probs.grad, torch.tensor([-2.4, -1.5, 1.0]))
    both, bound = weighted_policy_loss(log_probs - old, log_probs, advantages, low=0.1, high=0.2)
    torch.testing.assert_close(both, torch.tensor([2.4, 5.4, -0.5]))
    assert bound.tolist() == [True, True, False]


def test_the_sequence_ratio_is_gspos() -> None:
    """Value exp(mean log ratio); a mean over tokens has the gradient of s * A, with s one number per response."""
    old = torch.tensor([[-1.0, -2.0, -1.5], [-0.3, -0.7, 0.0]])
    start = old + torch.tensor([[0.3, -0.1, 0.1], [-0.2, 0.4, 0.0]])
    advantages = torch.tensor([2.0, -1.0])
    ours = start.clone().requires_grad_()
    ratio = log_ratios(ours, old, MASK, level="sequence")
    torch.testing.assert_close(ratio.detach(), torch.tensor([[0.1] * 3, [0.1] * 3]))
    loss, _ = clipped_policy_loss(ratio, advantages[:, None].expand_as(ratio), low=0.5, high=0.5)
    weights = row_weights(MASK.sum(1), aggregation="sequence_mean", tokens=5, sequences=2, longest=9)
    (torch.where(MASK, loss, 0.0) * weights).sum().backward()
    plain = start.clone().requires_grad_()
    change = torch.where(MASK, plain - old, 0.0)
    sequence = (change.sum(1) / MASK.sum(1)).exp()
    (-(sequence * advantages).mean()).backward()
    torch.testing.assert_close(ours.grad, plain.grad)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("token_mean", [1 / 5, 1 / 5]), ("sequence_mean", [1 / 6, 1 / 4]), ("constant", [1 / 20, 1 / 20])],
)
def test_weights_of_rows_by_hand(aggregation: Any, expected: list[float]) -> None:
    """Lengths 3 and 2 of two responses, of at most 10 tokens."""
    found = row_weights(torch.tensor([3, 2]), aggregation=aggregation, tokens=5, sequences=2, longest=10)
    torch.testing.assert_close(found, torch.tensor(expected)[:, None])


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("behaviour", ["on-policy", "off-policy"])
def test_the_kl_in_the_loss_has_the_gradient_of_the_kl(estimator: Any, behaviour: str) -> None:
    """By enumeration over three tokens: sum_a mu(a) term(a) has the gradient of KL(pi || ref), for mu = pi or not."""
    torch.manual_seed(0)
    logits = torch.randn(3, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(3, dtype=torch.float64).log_softmax(0)
    exact = (logits.softmax(0) * (logits.log_softmax(0) - ref)).sum()
    (truth,) = torch.autograd.grad(exact, logits)
    log_probs = logits.log_softmax(0)
    sampled = log_probs.detach() if behaviour == "on-policy" else torch.randn(3, dtype=torch.float64).log_softmax(0)
    (found,) = torch.autograd.grad(
        (sampled.exp() * kl_term(log_probs, sampled, ref, estimator=estimator)).sum(), logits
    )
    torch.testing.assert_close(found, truth)


def test_k3_alone_has_the_gradient_of_the_other_kl() -> None:
    """The published term without the ratio: why this library multiplies by it."""
    torch.manual_seed(0)
    logits = torch.randn(3, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(3, dtype=torch.float64).log_softmax(0)
    log_probs = logits.log_softmax(0)
    difference = ref - log_probs
    (found,) = torch.autograd.grad((log_probs.exp().detach() * (difference.exp() - difference - 1)).sum(), logits)
    (other,) = torch.autograd.grad((ref.exp() * (ref - logits.log_softmax(0))).sum(), logits)
    torch.testing.assert_close(found, other)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dual_clip": 1.0}, "dual_clip: must be > 1, .* got 1.0"),
        ({"dual_clip": 3.0, "rule": "weight"}, "dual_clip: .* under rule='weight'"),
        ({"clip_low": 1.5}, "clip_low: must be at most 1"),
        ({"ratio": "word"}, "ratio: must be"),
    ],
)
def test_what_makes_no_objective_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"Objective.{words}"):
        Objective(**settings)


def test_the_policy_term_takes_the_parts_together() -> None:
    log_probs, old = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -2.0]])
    mask, advantages = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[1.0, -1.0]])

    def loss(**settings: Any) -> Tensor:
        return Objective(**settings).policy_term(log_probs, old, advantages, mask).loss[0]

    torch.testing.assert_close(loss(), torch.tensor([-1.2, 1.0]))
    torch.testing.assert_close(loss(clip_low=None, clip_high=None), torch.tensor([-math.exp(0.5), 1.0]))
    torch.testing.assert_close(loss(ratio="sequence", clip_high=1.0), torch.tensor([-math.exp(0.25), math.exp(0.25)]))
    torch.testing.assert_close(loss(rule="weight"), torch.tensor([1.2, -2.0]))
