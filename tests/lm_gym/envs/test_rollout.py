"""The fused rollout pays what stepping would, token by token."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_models import (
    ARCHITECTURES,
    MAX_LENGTH,
    PROMPTS,
    SamplingPolicy,
    ScriptedPolicy,
    V,
    make_model,
    make_tokenizer,
    single_env,
    text_score,
    vector_env,
)

from lm_gym import (
    Episodes,
    LanguageModel,
    Reference,
    ScoreNormalizer,
    evaluate,
)
from lm_gym.envs.rollout import PhaseTimer
from lm_gym.errors import ConfigError, PromptError, RewardModelError, UnsupportedModelError
from lm_gym.policy import Generation

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.9, "temperature": 1.3},
    "min_p": {"min_p": 0.05},
    "min_new_tokens": {"min_new_tokens": 3},
    "stop strings": {"stop_strings": ("a", "t b"), "temperature": 2.0},
    "truncate": {"on_length_limit": "truncate"},
    "penalty": {"missing_eos_penalty": 0.6, "score_clip": 2.0, "score_weight": 0.8},
    "normalizer": {"normalizer": ScoreNormalizer(gain=0.3, bias=-0.2), "kl_coef": 0.2},
    "everything": {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_new_tokens": 2, "stop_strings": ("b",)},
}


@pytest.fixture(scope="module")
def policy() -> SamplingPolicy:
    """Another model than the reference, so that the KL is not zero."""
    return SamplingPolicy(LanguageModel(make_model(seed=1), make_tokenizer()))


def arguments(reference: Reference, settings: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    fixed = {"action_mode": "token_and_log_prob", "max_new_tokens": 7, "kl_coef": 0.1}
    return (reference, PROMPTS, text_score), fixed | settings


def assert_stepping_pays_the_same(episodes: Episodes, reference: Reference, settings: dict[str, Any]) -> None:
    positional, keywords = arguments(reference, settings)
    env = single_env(*positional, **keywords)
    for row in range(len(episodes)):
        env.reset(seed=0, options={"prompt": episodes.prompts[row]})
        length = int(episodes.response_lengths[row])
        for column in range(length):
            token, log_prob = episodes.response_ids[row, column], episodes.log_probs[row, column]
            _, reward, terminated, truncated, info = env.step({"token": token, "log_prob": log_prob})
            assert reward == pytest.approx(episodes.rewards[row, column], abs=1e-4)
            assert info["ref_log_prob"] == pytest.approx(episodes.ref_log_probs[row, column], abs=1e-4)
            assert info["kl"] == pytest.approx(episodes.kl[row, column], abs=1e-4)
            assert (terminated or truncated) == (column == length - 1)
        assert terminated == episodes.terminated[row]
        assert truncated == episodes.truncated[row]
        assert info["response"] == episodes.responses[row]
        assert info["stop_reason"] == episodes.stop_reasons[row]
        assert info.get("score", 0.0) == pytest.approx(float(episodes.scores[row]), abs=1e-6)
        assert ("score" in info) == bool(episodes.score_valid[row])


def rolled(reference: Reference, policy: Any, settings: dict[str, Any], rows: int = 12) -> Episodes:
    positional, keywords = arguments(reference, settings)
    env = vector_env(2, *positional, **keywords)
    env.reset(seed=4)
    return env.rollout(policy, rows)


@pytest.mark.parametrize("name", SETTINGS)
def test_rollout_equals_stepping_under_every_setting(name: str, reference: Reference, policy: SamplingPolicy) -> None:
    episodes = rolled(reference, policy, SETTINGS[name])
    assert len(set(episodes.response_lengths.tolist())) > 1
    assert_stepping_pays_the_same(episodes, reference, SETTINGS[name])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rollout_equals_stepping_for_every_architecture(
    architecture: str, reference_of: Callable[[str], Reference], model_of: Callable[[str], LanguageModel]
) -> None:
    reference = reference_of(architecture)
    other = LanguageModel(make_model(architecture, seed=5), reference.tokenizer)
    settings = {"temperature": 1.4, "top_k": 20}
    episodes = rolled(reference, SamplingPolicy(other), settings)
    assert np.abs(episodes.kl).max() > 0.5
    assert_stepping_pays_the_same(episodes, reference, settings)


def test_stop_settings_really_met_their_stop_reasons(reference: Reference, policy: SamplingPolicy) -> None:
    """The comparison above would be empty if no response ended in that way."""
    assert "stop_string" in rolled(reference, policy, SETTINGS["stop strings"]).stop_reasons
    assert rolled(reference, policy, SETTINGS["truncate"]).truncated.any()
    assert {"eos", "length"} <= set(rolled(reference, policy, SETTINGS["plain"]).stop_reasons)


def test_masks_come_from_the_sampler_and_not_from_token_ids(reference: Reference) -> None:
    # EOS is the pad token: the mask counts the one that was drawn and none of the fill after it.
    episodes = rolled(reference, ScriptedPolicy([[3, 0], [1, 2, 3, 4, 5, 6, 7], [0]]), {}, rows=3)
    assert episodes.response_mask.sum(axis=1).tolist() == [2, 7, 1]
    assert (episodes.rewards[~episodes.response_mask] == 0).all()
    assert (episodes.ref_log_probs[~episodes.response_mask] == 0).all()
    assert episodes.rewards[2, 0] != 0


def test_rollout_uses_the_current_kl_coef(reference: Reference) -> None:
    positional, keywords = arguments(reference, {})
    env = vector_env(1, *positional, **keywords)
    env.reset(seed=0)
    script = ScriptedPolicy([[3, 4, 0]])
    first = env.rollout_on(script, ["a b"])
    env.kl_coef = 0.7
    second = env.rollout_on(script, ["a b"])
    np.testing.assert_allclose(second.rewards[:, :2], 7 * first.rewards[:, :2], rtol=1e-6)


def test_rows_being_stepped_are_left_alone_by_a_rollout(reference: Reference, policy: SamplingPolicy) -> None:
    positional, keywords = arguments(reference, {})
    paid = []
    for interrupted in (False, True):
        env = vector_env(2, *positional, **keywords)
        env.reset(seed=0)
        rewards = []
        for token in (3, 4, 5):
            rewards.append(env.step({"token": np.full(2, token), "log_prob": np.full(2, -1.0)})[1])
            if interrupted:
                env.rollout(policy, 3)
        paid.append(np.stack(rewards))
    np.testing.assert_array_equal(paid[0], paid[1])


def test_rollouts_repeat_under_a_seed_and_differ_without(reference: Reference, policy: SamplingPolicy) -> None:
    positional, keywords = arguments(reference, {})
    env = vector_env(2, *positional, **keywords)
    runs = []
    for seed in (1, 1, 2):
        env.reset(seed=seed)
        runs.append([env.rollout(policy, 6), env.rollout(policy, 6)])
    assert runs[0][0].prompts == runs[1][0].prompts
    for first, again in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(first.response_ids, again.response_ids)
        np.testing.assert_array_equal(first.rewards, again.rewards)
    assert runs[0][0].responses != runs[0][1].responses
    assert runs[0][0].responses != runs[2][0].responses


def test_rollout_on_answers_the_given_prompts_in_order(reference: Reference) -> None:
    positional, keywords = arguments(reference, {})
    env = vector_env(5, *positional, **keywords)
    episodes = env.rollout_on(ScriptedPolicy([[1, 0], [2, 0]]), ["b b", "c"])
    assert episodes.prompts == ("b b", "c")
    assert episodes.prompt_lengths.tolist() == [2, 1]
    assert episodes.responses == (" a", " b")


def test_only_the_models_context_limits_a_prompt_of_rollout_on(reference: Reference) -> None:
    positional, keywords = arguments(reference, {})
    env = vector_env(1, *positional, **keywords)
    env.reset(seed=0)
    longest = MAX_LENGTH - env.task.sampling.max_new_tokens
    full = [[1] * env.task.sampling.max_new_tokens]
    assert env.rollout_on(ScriptedPolicy(full), ["a " * longest]).prompt_lengths.tolist() == [longest]
    with pytest.raises(PromptError, match=f"must have at most max_prompt_tokens = {longest} tokens, got {longest + 1}"):
        env.rollout_on(ScriptedPolicy(full), ["a " * (longest + 1)])


def test_the_reward_model_is_called_once_for_the_whole_batch(reference: Reference, policy: SamplingPolicy) -> None:
    calls: list[int] = []

    def spy(prompts: list[str], completions: list[str]) -> list[float]:
        calls.append(len(completions))
        return [0.0] * len(completions)

    env = vector_env(2, reference, PROMPTS, spy, max_new_tokens=5)
    env.reset(seed=0)
    env.rollout(policy, 9)
    assert calls == [9]


def test_a_failing_reward_model_is_named(reference: Reference, policy: SamplingPolicy) -> None:
    def broken(prompts: list[str], completions: list[str]) -> list[float]:
        raise KeyError("lost")

    env = vector_env(2, reference, PROMPTS, broken, max_new_tokens=5)
    env.reset(seed=0)
    with pytest.raises(
        RewardModelError, match="reward model broken: raised KeyError while scoring 2 responses: 'lost'"
    ):
        env.rollout(policy)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([1, 2], r"stopped early in row 0 \(2 tokens, \[1, 2\] at the end\)"),
        ([1, 0, 2, 0], r"ran past it in row 0 \(4 tokens, \[0, 2, 0\] at the end\)"),
        ([1, 4, 2, 0], "ran past it in row 0"),  # "d" is a stop string
        ([], r"stopped early in row 0 \(0 tokens"),
    ],
)
def test_a_sampler_that_does_not_keep_the_stop_rule_is_named(
    tokens: list[int], words: str, reference: Reference
) -> None:
    env = vector_env(1, reference, PROMPTS, max_new_tokens=5, stop_strings=("d",))
    env.reset(seed=0)
    with pytest.raises(UnsupportedModelError, match=rf"sampler ScriptedPolicy: must end a response.*{words}"):
        env.rollout(ScriptedPolicy([tokens]) if tokens else ScriptedPolicy([tokens, [1]]), 1 if tokens else 2)


@pytest.mark.parametrize("setting", [{"top_k": 3}, {"min_new_tokens": 2}])
def test_truncated_sampling_without_keep_sets_is_refused_for_training(
    setting: dict[str, Any], reference: Reference
) -> None:
    sampler = ScriptedPolicy([[1, 2, 0]])
    sampler.stores_keep_sets = False
    env = vector_env(1, reference, PROMPTS, max_new_tokens=4, **setting)
    env.reset(seed=0)
    with pytest.raises(UnsupportedModelError, match=r"must store the keep set of each token.*stores_keep_sets = False"):
        env.rollout(sampler)
    assert evaluate(sampler, env, ["a"]).n == 1  # nothing is learned from an evaluation
    plain = vector_env(1, reference, PROMPTS, max_new_tokens=4)
    plain.reset(seed=0)
    assert len(plain.rollout(sampler)) == 1


def generated(**changes: Any) -> Generation:
    """Two responses of three tokens, changed in some fields."""
    fields = {
        "ids": np.array([[1, 2, 0], [3, 4, 5]]),
        "mask": np.ones((2, 3), dtype=bool),
        "log_probs": np.full((2, 3), -1.0, dtype=np.float32),
    }
    return Generation(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": np.array([[1, 2, 0]])}, r"ids of shape \(2, T\).*got ids of shape \(1, 3\)"),
        ({"log_probs": np.zeros((2, 2), dtype=np.float32)}, r"log-probabilities of shape \(2, 3\).*got \(2, 2\)"),
        ({"ids": np.ones((2, 3))}, "ids of an integer type, got float64"),
        ({"mask": np.ones((2, 3))}, "a mask of bool, got float64"),
        ({"mask": np.array([[True, False, True], [True, True, True]])}, "got a gap in row 0"),
        ({"ids": np.array([[1, 2, V], [1, 2, 3]])}, rf"tokens in \[0, {V}\), got {V} in row 0"),
        ({"ids": np.array([[1, 2, 3], [-1, 2, 3]])}, rf"tokens in \[0, {V}\), got -1 in row 1"),
        ({"log_probs": np.full((2, 3), np.nan)}, "log-probabilities that are finite and at most 0, got nan in row 0"),
        ({"log_probs": np.full((2, 3), -np.inf)}, "got -inf in row 0"),
        ({"log_probs": np.full((2, 3), 0.5)}, "got 0.5 in row 0"),
    ],
)
def test_a_generation_that_breaks_its_contract_is_named(
    changes: dict[str, Any], words: str, reference: Reference
) -> None:
    class Foreign(ScriptedPolicy):
        def generate(self, prompts: Any, sampling: Any) -> Generation:
            return generated(**changes)

    env = vector_env(1, reference, PROMPTS, max_new_tokens=3)
    env.reset(seed=0)
    with pytest.raises(UnsupportedModelError, match=f"sampler Foreign: must .*{words}"):
        env.rollout(Foreign([[1]]), 2)


def test_a_sampler_that_promises_keep_sets_and_gives_none_is_named(reference: Reference) -> None:
    env = vector_env(1, reference, PROMPTS, max_new_tokens=3, top_k=5)
    env.reset(seed=0)
    with pytest.raises(UnsupportedModelError, match=r"sampler ScriptedPolicy: must .*keep set.*got none"):
        env.rollout(ScriptedPolicy([[1, 2, 0]]))


def test_what_is_neither_policy_nor_sampler_is_named(reference: Reference) -> None:
    env = vector_env(1, reference, PROMPTS, max_new_tokens=3)
    env.reset(seed=0)
    with pytest.raises(UnsupportedModelError, match=r"rollout: needs a Policy .* or a Sampler .* got object"):
        env.rollout(object())  # type: ignore[arg-type]


def test_responses_to_one_prompt_stand_side_by_side(reference: Reference, policy: SamplingPolicy) -> None:
    env = vector_env(1, reference, PROMPTS, max_new_tokens=4)
    env.reset(seed=0)
    episodes = env.rollout(policy, 12, samples_per_prompt=3)
    assert episodes.group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for first in range(0, 12, 3):
        assert len(set(episodes.prompts[first : first + 3])) == 1
    given = env.rollout_on(policy, ["a", "b"], samples_per_prompt=2)
    assert given.prompts == ("a", "a", "b", "b")
    assert given.group.tolist() == [0, 0, 1, 1]


def test_a_policy_of_another_vocabulary_is_refused(reference: Reference) -> None:
    positional, keywords = arguments(reference, {})
    env = vector_env(1, *positional, **keywords)
    env.reset(seed=0)
    with pytest.raises(
        UnsupportedModelError,
        match=f"sampler ScriptedPolicy: must share the reference's vocabulary of {V} tokens, got 99",
    ):
        env.rollout(ScriptedPolicy([[1]], vocab_size=99))


@pytest.mark.parametrize("call", ["rollout", "rollout_on"])
def test_a_rollout_of_no_episodes_is_refused(call: str, reference: Reference, policy: SamplingPolicy) -> None:
    positional, keywords = arguments(reference, {})
    env = vector_env(1, *positional, **keywords)
    env.reset(seed=0)
    with pytest.raises(
        ConfigError,
        match=r"rollout: (needs at least one prompt|num_episodes: must be None or a whole number >= 1, got 0)",
    ):
        env.rollout(policy, 0) if call == "rollout" else env.rollout_on(policy, [])


def test_the_timer_collects_the_three_phases(reference: Reference, policy: SamplingPolicy) -> None:
    positional, keywords = arguments(reference, {})
    env = vector_env(2, *positional, **keywords)
    env.reset(seed=0)
    timer = PhaseTimer()
    env.rollout(policy, timer=timer)
    assert set(timer.seconds) == {"rollout", "reference", "score"}
    assert min(timer.seconds.values()) > 0


def test_without_a_reference_a_rollout_pays_the_score_alone(policy: SamplingPolicy) -> None:
    env = vector_env(2, None, PROMPTS, text_score, tokenizer=make_tokenizer(), kl_coef=0.0, max_new_tokens=5)
    env.reset(seed=0)
    episodes = env.rollout(policy, 4)
    assert episodes.ref_log_probs is None
    assert episodes.kl is None
    np.testing.assert_allclose(episodes.rewards.sum(axis=1), episodes.scores, rtol=1e-6)


def test_without_a_reference_a_policy_may_have_a_vocabulary_padded_beyond_the_tokenizer() -> None:
    env = vector_env(2, None, PROMPTS, text_score, tokenizer=make_tokenizer(V - 4), kl_coef=0.0)
    env.reset(seed=0)
    assert len(env.rollout(ScriptedPolicy([[1, 0], [2, 0]], vocab_size=V))) == 2
