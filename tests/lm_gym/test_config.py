"""The settings objects: ranges, and settings given flat."""

import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from lm_gym import RewardConfig, SamplingConfig, ScoreNormalizer
from lm_gym.config import configs_from_flat
from lm_gym.errors import ConfigError

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("config", "field", "wrong", "rule"),
    [
        (SamplingConfig, "temperature", 0.0, "must be a finite number > 0"),
        (SamplingConfig, "temperature", -1.0, "must be a finite number > 0"),
        (SamplingConfig, "temperature", NAN, "must be a finite number > 0"),
        (SamplingConfig, "temperature", INF, "must be a finite number > 0"),
        (SamplingConfig, "top_k", 0, "must be None or a whole number >= 1"),
        (SamplingConfig, "top_p", 0.0, r"must be None or a finite number in \(0, 1\]"),
        (SamplingConfig, "top_p", 1.1, r"must be None or a finite number in \(0, 1\]"),
        (SamplingConfig, "top_p", NAN, r"must be None or a finite number in \(0, 1\]"),
        (SamplingConfig, "min_p", -0.1, r"must be None or a finite number in \(0, 1\]"),
        (SamplingConfig, "max_new_tokens", 0, "must be a whole number >= 1"),
        (SamplingConfig, "min_new_tokens", -1, "must be a whole number >= 0"),
        (SamplingConfig, "min_new_tokens", 49, r"must be in \[0, max_new_tokens = 48\]"),
        (
            SamplingConfig,
            "stop_strings",
            ("a", ""),
            "must be a tuple or list, in which each is a text that is not empty",
        ),
        (SamplingConfig, "stop_strings", (1,), "must be a tuple or list, in which each is a text that is not empty"),
        (RewardConfig, "kl_coef", -0.1, "must be a finite number >= 0"),
        (RewardConfig, "kl_coef", NAN, "must be a finite number >= 0"),
        (RewardConfig, "kl_coef", INF, "must be a finite number >= 0"),
        (RewardConfig, "score_weight", NAN, "must be a finite number"),
        (RewardConfig, "score_clip", 0.0, "must be None or a finite number > 0"),
        (RewardConfig, "score_clip", NAN, "must be None or a finite number > 0"),
        (RewardConfig, "missing_eos_penalty", -1.0, "must be a finite number >= 0"),
        (RewardConfig, "on_length_limit", "stop", 'must be "terminate" or "truncate"'),
        (ScoreNormalizer, "gain", 0.0, "must be a finite number > 0"),
        (ScoreNormalizer, "gain", NAN, "must be a finite number > 0"),
        (ScoreNormalizer, "bias", INF, "must be a finite number"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_rule_and_value(
    config: Any, field: str, wrong: Any, rule: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^{config.__name__}\.{field}: {rule}, got "):
        config(**{field: wrong})


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("temperature", "hot"), ("max_new_tokens", 2.5), ("top_k", 2.5), ("top_p", "0.9"), ("min_new_tokens", 0.5)],
)
def test_a_setting_of_another_type_is_named_too(field: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^SamplingConfig\.{field}: "):
        SamplingConfig(**{field: wrong})


def test_a_single_stop_string_is_not_taken_apart_into_letters() -> None:
    with pytest.raises(ConfigError, match=r"^SamplingConfig\.stop_strings: .* got 'END'"):
        SamplingConfig(stop_strings="END")  # type: ignore[arg-type]


def test_a_penalty_contradicts_truncation() -> None:
    with pytest.raises(ConfigError, match='missing_eos_penalty: must be 0 with on_length_limit="truncate"'):
        RewardConfig(missing_eos_penalty=0.5, on_length_limit="truncate")


@pytest.mark.parametrize(
    ("settings", "truncates"),
    [
        ({}, False),
        ({"temperature": 0.5}, False),
        ({"top_p": 1.0}, False),
        ({"top_k": 3}, True),
        ({"top_p": 0.9}, True),
        ({"min_p": 0.1}, True),
        ({"min_new_tokens": 1}, True),
    ],
)
def test_what_counts_as_truncated_sampling(settings: dict[str, Any], truncates: bool) -> None:
    assert SamplingConfig(**settings).truncates is truncates


def test_configs_are_frozen_and_stop_strings_become_a_tuple() -> None:
    config = SamplingConfig(stop_strings=["a", "b"])  # type: ignore[arg-type]
    assert config.stop_strings == ("a", "b")
    with pytest.raises(FrozenInstanceError):
        config.temperature = 2.0  # type: ignore[misc]


def test_flat_settings_find_their_config() -> None:
    reward, sampling = configs_from_flat(None, None, {"kl_coef": 0.3, "max_new_tokens": 7})
    assert reward == RewardConfig(kl_coef=0.3)
    assert sampling == SamplingConfig(max_new_tokens=7)


def test_an_object_and_flat_settings_of_the_other_kind_mix() -> None:
    given = RewardConfig(kl_coef=0.3)
    reward, sampling = configs_from_flat(given, None, {"temperature": 0.5})
    assert reward is given
    assert sampling.temperature == 0.5


@pytest.mark.parametrize(
    ("reward", "sampling", "flat", "text"),
    [
        (
            RewardConfig(),
            None,
            {"kl_coef": 0.1},
            r"give reward=\.\.\. or its fields flat, not both; got .*\['kl_coef'\]",
        ),
        (None, SamplingConfig(), {"top_k": 3}, r"give sampling=\.\.\. or its fields flat, not both; got .*\['top_k'\]"),
        (None, None, {"max_new_token": 3}, r"no setting is named 'max_new_token' .* Did you mean 'max_new_tokens'\?"),
        (None, None, {"zzz": 3}, r"no setting is named 'zzz' .*There are kl_coef, "),
    ],
)
def test_flat_settings_that_contradict_or_are_unknown(
    reward: Any, sampling: Any, flat: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        configs_from_flat(reward, sampling, flat)


def test_no_field_belongs_to_both_configs() -> None:
    assert not {f.name for f in fields(RewardConfig)} & {f.name for f in fields(SamplingConfig)}
