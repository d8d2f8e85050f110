"""Numbers worked out by hand, then identities, then properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_gym.agents.update.functional import (
    clipped_policy_loss,
    clipped_value_loss,
    discounted_returns,
    entropy,
    explained_variance,
    full_kl,
    gae,
    kl_k1,
    kl_k2,
    kl_k3,
    masked_mean,
    masked_var,
    masked_whiten,
)

MASK = torch.tensor([[True, True, True], [True, True, False]])
REWARDS = torch.tensor([[1.0, 0.0, 2.0], [-1.0, 3.0, 99.0]])
VALUES = torch.tensor([[0.5, 1.0, 1.5], [2.0, 1.0, 99.0]])
NO_BOOTSTRAP = torch.zeros(2)


def test_returns_by_hand() -> None:
    found = discounted_returns(REWARDS, MASK, NO_BOOTSTRAP, gamma=0.5)
    # row 0: 2; 0 + .5*2 = 1; 1 + .5*1 = 1.5.  row 1: 3; -1 + .5*3 = .5
    torch.testing.assert_close(found, torch.tensor([[1.5, 1.0, 2.0], [0.5, 3.0, 0.0]]))


def test_returns_bootstrap_where_truncated() -> None:
    found = discounted_returns(REWARDS, MASK, torch.tensor([0.0, 4.0]), gamma=0.5)
    # row 1: 3 + .5*4 = 5; -1 + .5*5 = 1.5
    torch.testing.assert_close(found, torch.tensor([[1.5, 1.0, 2.0], [1.5, 5.0, 0.0]]))


def test_gae_by_hand() -> None:
    advantages, targets = gae(REWARDS, VALUES, MASK, NO_BOOTSTRAP, gamma=0.5, lam=0.8)
    # row 0: d2 = 2 - 1.5 = .5; d1 = 0 + .75 - 1 = -.25; d0 = 1 + .5 - .5 = 1
    #        A2 = .5; A1 = -.25 + .4*.5 = -.05; A0 = 1 + .4*-.05 = .98
    # row 1: d1 = 3 - 1 = 2; d0 = -1 + .5 - 2 = -2.5; A1 = 2; A0 = -2.5 + .4*2 = -1.7
    torch.testing.assert_close(advantages, torch.tensor([[0.98, -0.05, 0.5], [-1.7, 2.0, 0.0]]))
    torch.testing.assert_close(targets, torch.tensor([[1.48, 0.95, 2.0], [0.3, 3.0, 0.0]]))


def test_gae_bootstraps_where_truncated() -> None:
    advantages, targets = gae(REWARDS, VALUES, MASK, torch.tensor([0.0, 4.0]), gamma=0.5, lam=0.8)
    # row 1: d1 = 3 + .5*4 - 1 = 4; d0 = -2.5; A1 = 4; A0 = -2.5 + .4*4 = -.9
    torch.testing.assert_close(advantages, torch.tensor([[0.98, -0.05, 0.5], [-0.9, 4.0, 0.0]]))
    torch.testing.assert_close(targets, torch.tensor([[1.48, 0.95, 2.0], [1.1, 5.0, 0.0]]))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), gamma=st.floats(0.0, 1.0))
def test_lambda_1_is_monte_carlo(seed: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    bootstrap = torch.randn(3, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.randint(1, 6, (3, 1), generator=generator)
    _, targets = gae(rewards, values, mask, bootstrap, gamma=gamma, lam=1.0)
    torch.testing.assert_close(targets, discounted_returns(rewards, mask, bootstrap, gamma=gamma))


def test_lambda_0_is_the_one_step_error() -> None:
    advantages, _ = gae(REWARDS, VALUES, MASK, NO_BOOTSTRAP, gamma=1.0, lam=0.0)
    torch.testing.assert_close(advantages, torch.tensor([[1.5, 0.5, 0.5], [-2.0, 2.0, 0.0]]))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), columns=st.integers(0, 3))
def test_padding_changes_nothing(seed: int, columns: int) -> None:
    """Extra columns, and whatever stands in them."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(2, 3, generator=generator) for _ in range(2))
    bootstrap = torch.randn(2, generator=generator)
    padded = [torch.cat([grid, torch.full((2, columns), 1e6)], 1) for grid in (rewards, values)]
    wide = torch.cat([MASK, torch.zeros((2, columns), dtype=torch.bool)], 1)
    for short, long in zip(gae(rewards, values, MASK, bootstrap), gae(*padded, wide, bootstrap), strict=True):
        torch.testing.assert_close(long[:, :3], short)
        assert (long[:, 3:] == 0).all()
    white, wide_white = masked_whiten(rewards, MASK), masked_whiten(padded[0], wide)
    torch.testing.assert_close(wide_white[:, :3], white)


def test_masked_moments_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 1e9]])
    assert masked_mean(values, MASK) == 3.0
    assert masked_var(values, MASK) == 2.0  # population: (4 + 1 + 0 + 1 + 4) / 5
    scale = math.sqrt(2.0)
    expected = torch.tensor([[-2.0, -1.0, 0.0], [1.0, 2.0, 0.0]]) / scale
    torch.testing.assert_close(masked_whiten(values, MASK), expected)
    unshifted = torch.where(MASK, expected + 3.0, 0.0)
    torch.testing.assert_close(masked_whiten(values, MASK, shift_mean=False), unshifted)


def test_masked_moments_of_nothing_and_of_nan_off_the_mask() -> None:
    nothing = torch.zeros((1, 2), dtype=torch.bool)
    assert masked_mean(torch.tensor([[math.nan, math.nan]]), nothing) == 0.0
    values = torch.tensor([[1.0, 3.0, 2.0], [4.0, 5.0, math.nan]])
    assert masked_mean(values, MASK) == 3.0
    assert torch.isfinite(masked_whiten(values, MASK)).all()


def test_kl_estimators_by_hand() -> None:
    log_probs, ref = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    torch.testing.assert_close(kl_k1(log_probs, ref), torch.tensor([math.log(2.0)]))
    torch.testing.assert_close(kl_k2(log_probs, ref), torch.tensor([math.log(2.0) ** 2 / 2]))
    torch.testing.assert_close(kl_k3(log_probs, ref), torch.tensor([0.5 - 1 + math.log(2.0)]))


def test_kl_by_enumeration() -> None:
    """k1 and k3 have the KL as their mean under pi; k2 has not; none of them is free of variance."""
    logits = torch.tensor([0.3, -1.2, 0.9, 2.0], dtype=torch.float64)
    ref_logits = torch.tensor([1.0, 0.5, -0.7, 0.1], dtype=torch.float64)
    log_probs, ref = torch.log_softmax(logits, 0), torch.log_softmax(ref_logits, 0)
    probs = log_probs.exp()
    by_hand = sum(p * math.log(p / q) for p, q in zip(probs.tolist(), ref.exp().tolist(), strict=True))
    assert full_kl(logits, ref_logits).item() == pytest.approx(by_hand)
    assert (probs * kl_k1(log_probs, ref)).sum().item() == pytest.approx(by_hand)
    assert (probs * kl_k3(log_probs, ref)).sum().item() == pytest.approx(by_hand)
    assert (probs * kl_k2(log_probs, ref)).sum().item() != pytest.approx(by_hand, rel=1e-3)
    assert (kl_k1(log_probs, ref) < 0).any()
    assert (kl_k3(log_probs, ref) >= 0).all()
    assert entropy(logits).item() == pytest.approx(-(probs * log_probs).sum().item())


def test_entropy_of_a_truncated_distribution() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf], [5.0, -math.inf, -math.inf]])
    torch.testing.assert_close(entropy(logits), torch.tensor([math.log(2.0), 0.0]))


def test_only_k1_in_the_reward_has_the_gradient_of_the_kl() -> None:
    """With the reward held fixed, E[grad log pi * k] equals grad KL for k1 and for no other estimator."""
    logits = torch.tensor([0.3, -1.2, 0.9, 2.0], dtype=torch.float64, requires_grad=True)
    ref_logits = torch.tensor([1.0, 0.5, -0.7, 0.1], dtype=torch.float64)
    (truth,) = torch.autograd.grad(full_kl(logits, ref_logits), logits)

    def reward_gradient(estimator: object) -> torch.Tensor:
        log_probs, ref = torch.log_softmax(logits, 0), torch.log_softmax(ref_logits, 0)
        fixed = estimator(log_probs, ref).detach()  # type: ignore[operator]
        return torch.autograd.grad((log_probs.exp() * fixed).sum(), logits)[0]

    torch.testing.assert_close(reward_gradient(kl_k1), truth)
    for estimator in (kl_k2, kl_k3):
        assert not torch.allclose(reward_gradient(estimator), truth, rtol=0.1, atol=1e-3)


def test_clipped_policy_loss_by_hand() -> None:
    """Ratios 1.5 and 0.5 with either sign of the advantage, and one inside the clip."""
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0])
    loss, clipped = clipped_policy_loss(ratio.log(), advantages, low=0.2, high=0.2)
    torch.testing.assert_close(loss, torch.tensor([-2.4, 3.0, -1.0, 1.6, -3.3]))
    assert clipped.tolist() == [True, False, False, True, False]


def test_clipped_policy_loss_has_no_gradient_where_the_clip_binds() -> None:
    log_probs = torch.tensor([math.log(1.5), math.log(1.1)], requires_grad=True)
    loss, _ = clipped_policy_loss(log_probs, torch.tensor([1.0, 1.0]), low=0.2, high=0.2)
    loss.sum().backward()
    torch.testing.assert_close(log_probs.grad, torch.tensor([0.0, -1.1]))


def test_clipped_value_loss_by_hand() -> None:
    """Old value 1, target 2; new values 1.1 (inside the clip of .2), 1.5 (clipped to 1.2) and 0.5 (clipped to .8)."""
    values = torch.tensor([1.1, 1.5, 0.5], requires_grad=True)
    loss, clipped = clipped_value_loss(values, torch.ones(3), torch.full((3,), 2.0), clip=0.2)
    torch.testing.assert_close(loss.detach(), torch.tensor([0.405, 0.32, 1.125]))
    assert clipped.tolist() == [False, True, False]
    loss.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([-0.9, 0.0, -1.5]))
    unclipped, flags = clipped_value_loss(values, torch.ones(3), torch.full((3,), 2.0), clip=None)
    torch.testing.assert_close(unclipped.detach(), torch.tensor([0.405, 0.125, 1.125]))
    assert not flags.any()


def test_explained_variance_by_hand() -> None:
    targets = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]])
    assert explained_variance(targets, targets, MASK) == 1.0
    assert explained_variance(torch.full((2, 3), 7.0), targets, MASK) == 0.0
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]])
    # errors 0 0 0 0 5: variance 25/5 - 1 = 4 against 2
    torch.testing.assert_close(explained_variance(values, targets, MASK), torch.tensor(-1.0))
    assert explained_variance(values, torch.ones(2, 3), MASK) == 0.0


def test_inputs_are_never_changed() -> None:
    inputs = [tensor.clone() for tensor in (REWARDS, VALUES, MASK)]
    gae(REWARDS, VALUES, MASK, NO_BOOTSTRAP)
    masked_whiten(REWARDS, MASK)
    discounted_returns(REWARDS, MASK, NO_BOOTSTRAP)
    for before, after in zip(inputs, (REWARDS, VALUES, MASK), strict=True):
        assert np.array_equal(before.numpy(), after.numpy())


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"mask: must be bool of shape \(B, T\), got torch.float32"):
        gae(REWARDS, VALUES, MASK.float(), NO_BOOTSTRAP)
    with pytest.raises(ValueError, match=r"values: must have the mask's shape \(2, 3\), got \(2, 2\)"):
        gae(REWARDS, VALUES[:, :2], MASK, NO_BOOTSTRAP)
    with pytest.raises(ValueError, match="targets: must have the mask's shape"):
        explained_variance(VALUES, VALUES[:1], MASK)
