"""Held-out evaluation, by hand and against scipy."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PROMPTS, SamplingPolicy, ScriptedPolicy, length_score, make_model, make_tokenizer, vector_env

from lm_gym import Evaluation, LanguageModel, Reference, TextGenerationVectorEnv, evaluate
from lm_gym.errors import ConfigError, LmGymError
from lm_gym.tools.intervals import wilson_interval


def env_of(reference: Reference | None, reward_model: Any = length_score, **settings: Any) -> TextGenerationVectorEnv:
    settings = {"max_new_tokens": 4, "kl_coef": 0.1} | settings
    env = vector_env(2, reference, PROMPTS, reward_model, **settings)
    env.reset(seed=0)
    return env


def scripted(reference: Reference, ours: list[list[int]], theirs: list[list[int]], reward: Any = length_score) -> Any:
    """An evaluation of written-down responses on both sides."""
    env = env_of(reference, reward)
    prompts = ["a b", "c", "d", "e"][: len(ours)]
    first = evaluate(ScriptedPolicy(theirs), env, prompts)
    return evaluate(ScriptedPolicy(ours), env, prompts, reference_episodes=first.episodes)


def test_score_win_rate_length_and_eos_share_by_hand(reference: Reference) -> None:
    # Scores ours 3, 1, 2, 4 and theirs 1, 1, 3, 2: two wins, a tie, a loss.
    ours = [[1, 2, 3, 0], [1, 0], [1, 2, 0], [1, 2, 3, 4]]
    theirs = [[1, 0], [2, 0], [1, 2, 3, 0], [3, 4, 0]]
    result = scripted(reference, ours, theirs)
    assert isinstance(result, Evaluation)
    assert result.score == pytest.approx(2.5)
    assert result.score_deviation == pytest.approx(math.sqrt(1.25))
    assert result.win_rate == pytest.approx(0.625)
    low, high = wilson_interval(0.625, 4)
    assert (result.win_rate_low, result.win_rate_high) == pytest.approx((low, high))
    assert result.response_length == pytest.approx((4 + 2 + 3 + 4) / 4)
    assert result.eos_share == pytest.approx(0.75)
    assert (result.n, result.invalid) == (4, 0)
    assert result.kl == pytest.approx(result.episodes.kl.sum(axis=1).mean())
    expected = 2.5 - 0.1 * result.kl
    assert result.episode_return == pytest.approx(expected)


def picky(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
    """Will not judge a response that begins with "a"."""
    return [None if text.startswith(" a") else float(len(text.split())) for text in completions]


def test_rows_that_either_side_abstained_on_are_left_out_and_counted(reference: Reference) -> None:
    ours = [[1, 0], [2, 3, 0], [2, 0], [3, 4, 5, 0]]
    theirs = [[2, 0], [1, 0], [3, 4, 0], [2, 0]]
    result = scripted(reference, ours, theirs, picky)
    assert (result.n, result.invalid) == (2, 2)
    assert result.score == pytest.approx((1 + 3) / 2)
    assert result.win_rate == pytest.approx(0.5)


def test_when_nothing_counts_the_numbers_are_nan(reference: Reference) -> None:
    result = scripted(reference, [[1, 0]], [[2, 0]], picky)
    assert (result.n, result.invalid) == (0, 1)
    for value in (result.score, result.score_deviation, result.win_rate, result.win_rate_low, result.episode_return):
        assert math.isnan(value)


def test_a_capped_response_is_measured_where_training_would_truncate_it(reference: Reference) -> None:
    """Else the mean would be over those that ended alone, and there might be none."""
    env = env_of(reference, on_length_limit="truncate")
    result = evaluate(ScriptedPolicy([[1, 2, 3, 4], [1, 2, 3, 4]]), env, ["a", "b"])
    assert (result.n, result.invalid) == (2, 0)
    assert result.score == 4.0
    assert result.eos_share == 0.0
    assert env.rollout_on(ScriptedPolicy([[1, 2, 3, 4], [1, 0]]), ["a", "b"]).truncated.tolist() == [True, False]


def test_every_mean_is_over_the_same_rows(reference: Reference) -> None:
    ours, theirs = [[1, 0], [2, 3, 0], [2, 3, 4, 5]], [[2, 0], [2, 0], [2, 0]]
    result = scripted(reference, ours, theirs, picky)
    counted = result.episodes[[1, 2]]
    assert result.n == 2
    assert result.score == pytest.approx((2 + 4) / 2)
    assert result.response_length == pytest.approx((3 + 4) / 2)
    assert result.eos_share == pytest.approx(1 / 2)
    assert result.kl == pytest.approx(counted.kl.sum(axis=1).mean())
    assert result.episode_return == pytest.approx(counted.rewards.sum(axis=1).mean())


def test_the_return_is_paid_at_the_coefficient_of_the_moment(reference: Reference) -> None:
    env = env_of(reference)
    env.kl_coef = 2.0
    result = evaluate(ScriptedPolicy([[1, 0]]), env, ["a"])
    assert result.episode_return == pytest.approx(1.0 - 2.0 * result.kl)


def test_without_a_reference_there_is_no_kl_and_no_win_rate() -> None:
    env = env_of(None, tokenizer=make_tokenizer(), kl_coef=0.0)
    result = evaluate(ScriptedPolicy([[1, 0], [1, 2, 0]]), env, ["a", "b"])
    assert result.score == pytest.approx(1.5)
    assert math.isnan(result.kl)
    assert math.isnan(result.win_rate)
    assert result.reference_episodes is None


def test_the_env_goes_on_as_if_nothing_had_happened(reference: Reference) -> None:
    policy = SamplingPolicy(LanguageModel(make_model(seed=1), make_tokenizer()))
    paid = []
    for interrupted in (False, True):
        env = env_of(reference)
        state = env.np_random.bit_generator.state
        torch.manual_seed(0)
        if interrupted:
            evaluate(policy, env, list(PROMPTS))
        assert env.np_random.bit_generator.state == state
        rewards = [env.step(np.array([token, 0]))[1] for token in (3, 4, 5, 6, 7)]
        paid.append((np.stack(rewards), env.rollout(policy, 4).responses, torch.rand(1).item()))
    np.testing.assert_array_equal(paid[0][0], paid[1][0])
    assert paid[0][1:] == paid[1][1:]


def test_the_seed_decides_and_policy_and_reference_draw_differently(reference: Reference) -> None:
    policy = SamplingPolicy(reference.language_model)
    env = env_of(reference)
    first, again, other = (evaluate(policy, env, list(PROMPTS) * 4, seed=seed) for seed in (1, 1, 2))
    assert first.episodes.responses == again.episodes.responses
    assert first.reference_episodes.responses == again.reference_episodes.responses  # type: ignore[union-attr]
    assert first.episodes.responses != other.episodes.responses
    # The policy is the reference here: only the seeds can tell them apart.
    assert first.episodes.responses != first.reference_episodes.responses  # type: ignore[union-attr]
    assert first.kl == pytest.approx(0.0, abs=1e-3)


def test_no_prompts_are_refused(reference: Reference) -> None:
    with pytest.raises(ConfigError, match="evaluate: needs at least one held-out prompt, got none"):
        evaluate(ScriptedPolicy([[1]]), env_of(reference), [])


@pytest.mark.parametrize("prompts", [["c"], ["c", "d", "e"], ["c", "a b"]])
def test_reference_episodes_of_other_prompts_are_refused(prompts: list[str], reference: Reference) -> None:
    env = env_of(reference)
    earlier = evaluate(ScriptedPolicy([[1, 0], [2, 0]]), env, ["a b", "c"]).episodes
    with pytest.raises(LmGymError, match="reference_episodes"):
        evaluate(ScriptedPolicy([[1, 0]] * len(prompts)), env, prompts, reference_episodes=earlier)
