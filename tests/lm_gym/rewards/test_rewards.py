"""The reward as a pure function, against numbers worked out by hand."""

import numpy as np
import pytest

from lm_gym import RewardConfig, ScoreNormalizer, Scores, token_rewards
from lm_gym.rewards import paid_scores

LOG_PROBS = np.array([[-1.0, -2.0, -0.5], [-3.0, -0.25, 7.0]])
REF_LOG_PROBS = np.array([[-1.5, -1.0, -0.5], [-2.0, -1.25, 9.0]])
MASK = np.array([[True, True, True], [True, True, False]])
LAST = np.array([[False, False, True], [False, True, False]])
PAID = np.array([2.0, -1.0])


def test_reward_is_minus_beta_times_kl_plus_the_score_on_the_last_token() -> None:
    result = token_rewards(
        log_probs=LOG_PROBS, ref_log_probs=REF_LOG_PROBS, response_mask=MASK, last_token=LAST, paid=PAID, kl_coef=0.2
    )
    # kl: .5, -1, 0 | -1, 1
    np.testing.assert_allclose(result.rewards, [[-0.1, 0.2, 2.0], [0.2, -1.2, 0.0]], atol=1e-15)
    np.testing.assert_allclose(result.kl, [[0.5, -1.0, 0.0], [-1.0, 1.0, 0.0]], atol=1e-15)


def test_without_policy_log_probs_only_the_reference_term_is_paid() -> None:
    result = token_rewards(
        log_probs=None, ref_log_probs=REF_LOG_PROBS, response_mask=MASK, last_token=LAST, paid=PAID, kl_coef=0.2
    )
    np.testing.assert_allclose(result.rewards, [[-0.3, -0.2, 1.9], [-0.4, -1.25, 0.0]], atol=1e-15)
    assert result.kl is None


@pytest.mark.parametrize("log_probs", [None, LOG_PROBS])
def test_without_a_reference_only_the_score_is_paid(log_probs: np.ndarray | None) -> None:
    result = token_rewards(
        log_probs=log_probs, ref_log_probs=None, response_mask=MASK, last_token=LAST, paid=PAID, kl_coef=0.2
    )
    np.testing.assert_array_equal(result.rewards, [[0.0, 0.0, 2.0], [0.0, -1.0, 0.0]])
    assert result.kl is None


def test_kl_coef_zero_pays_the_score_alone_and_still_reports_the_kl() -> None:
    result = token_rewards(
        log_probs=LOG_PROBS, ref_log_probs=REF_LOG_PROBS, response_mask=MASK, last_token=LAST, paid=PAID, kl_coef=0.0
    )
    np.testing.assert_array_equal(result.rewards, [[0.0, 0.0, 2.0], [0.0, -1.0, 0.0]])
    np.testing.assert_allclose(result.kl, [[0.5, -1.0, 0.0], [-1.0, 1.0, 0.0]])


def test_what_stands_off_the_mask_is_never_paid() -> None:
    spoiled, spoiled_ref = LOG_PROBS.copy(), REF_LOG_PROBS.copy()
    spoiled[1, 2], spoiled_ref[1, 2] = np.nan, np.nan
    last = LAST.copy()
    last[1, 2] = True
    result = token_rewards(
        log_probs=spoiled, ref_log_probs=spoiled_ref, response_mask=MASK, last_token=last, paid=PAID, kl_coef=0.2
    )
    assert result.rewards[1, 2] == 0.0
    assert np.isfinite(result.rewards).all()


def test_inputs_are_not_changed() -> None:
    arrays = [LOG_PROBS.copy(), REF_LOG_PROBS.copy(), MASK.copy(), LAST.copy(), PAID.copy()]
    token_rewards(
        log_probs=arrays[0],
        ref_log_probs=arrays[1],
        response_mask=arrays[2],
        last_token=arrays[3],
        paid=arrays[4],
        kl_coef=0.2,
    )
    for array, original in zip(arrays, (LOG_PROBS, REF_LOG_PROBS, MASK, LAST, PAID), strict=True):
        np.testing.assert_array_equal(array, original)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("log_probs", LOG_PROBS[:, :2]),
        ("ref_log_probs", REF_LOG_PROBS[:1]),
        ("last_token", LAST[:, 0]),
        ("paid", PAID[:1]),
        ("response_mask", MASK[0]),
    ],
)
def test_wrong_shapes_are_refused_by_name(name: str, wrong: np.ndarray) -> None:
    arguments = {
        "log_probs": LOG_PROBS,
        "ref_log_probs": REF_LOG_PROBS,
        "response_mask": MASK,
        "last_token": LAST,
        "paid": PAID,
    }
    with pytest.raises(ValueError, match=rf"^{name}: must have shape"):
        token_rewards(**(arguments | {name: wrong}), kl_coef=0.1)


SCORES = Scores(value=np.array([4.0, -3.0, 1.0, 0.0], np.float32), valid=np.array([True, True, True, False]))
CAPPED = np.array([False, False, True, True])


@pytest.mark.parametrize(
    ("config", "paid"),
    [
        (RewardConfig(), [4.0, -3.0, 1.0, 0.0]),
        (RewardConfig(score_weight=0.8), [3.2, -2.4, 0.8, 0.0]),
        (RewardConfig(score_clip=2.0), [2.0, -2.0, 1.0, 0.0]),
        (RewardConfig(missing_eos_penalty=0.5), [4.0, -3.0, 0.5, 0.0]),
        (RewardConfig(on_length_limit="truncate"), [4.0, -3.0, 0.0, 0.0]),
        # The map comes before the clip, the clip before the weight; an abstention never meets the bias.
        (RewardConfig(normalizer=ScoreNormalizer(gain=0.5, bias=1.0)), [3.0, -0.5, 1.5, 0.0]),
        (
            RewardConfig(normalizer=ScoreNormalizer(gain=0.5, bias=1.0), score_clip=1.2, score_weight=10.0),
            [12.0, -5.0, 12.0, 0.0],
        ),
        (RewardConfig(score_weight=0.0), [0.0, 0.0, 0.0, 0.0]),
    ],
    ids=["plain", "weight", "clip", "penalty", "truncate", "normalizer", "all", "zero"],
)
def test_paid_scores_by_hand(config: RewardConfig, paid: list[float]) -> None:
    np.testing.assert_allclose(paid_scores(SCORES, CAPPED, config, None), paid, atol=1e-7)


def test_paid_scores_refuses_another_number_of_rows() -> None:
    with pytest.raises(ValueError, match=r"^hit_length_limit: must have shape \(4,\), got \(3,\)"):
        paid_scores(SCORES, CAPPED[:3], RewardConfig(), None)


def test_the_models_normalizer_is_used_unless_the_config_has_one() -> None:
    own, other = ScoreNormalizer(gain=0.5, bias=1.0), ScoreNormalizer(gain=2.0)
    assert paid_scores(SCORES, CAPPED, RewardConfig(), own).tolist() == [3.0, -0.5, 1.5, 0.0]
    assert paid_scores(SCORES, CAPPED, RewardConfig(normalizer=other), own).tolist() == [8.0, -6.0, 2.0, 0.0]
    assert paid_scores(SCORES, CAPPED, RewardConfig(normalizer=ScoreNormalizer()), own).tolist() == [4, -3, 1, 0]
