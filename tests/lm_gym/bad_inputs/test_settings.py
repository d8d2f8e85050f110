"""Every field of every settings class, against values of the wrong type, sign, size and spelling."""

import math
import types
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from lm_gym import AdaptiveKL, RewardConfig, SamplingConfig, ScoreNormalizer
from lm_gym.agents import Objective, PPOConfig, PretrainConfig, SupervisedConfig, SurrogateConfig
from lm_gym.agents.algorithms.names import ALGORITHMS
from lm_gym.app.options import (
    FileRun,
    RewardOptions,
    SampleOptions,
    TrainOptions,
    TrainResponseOptions,
    UpdateOptions,
)
from lm_gym.app.pipeline.plan import LoopPlan
from lm_gym.errors import ConfigError, UnknownSettingError
from lm_gym.models.lora import LoraSettings
from lm_gym.reward_models import EmbeddingTrainingConfig, LossConfig, RecordedAnnotator, RewardTrainingConfig, Split

OPTIONS = (FileRun, RewardOptions, SampleOptions, TrainOptions, TrainResponseOptions, UpdateOptions)
"""Settings whose errors name the option of the command line."""
CLASSES = (
    *OPTIONS,
    LoopPlan,
    AdaptiveKL,
    EmbeddingTrainingConfig,
    LoraSettings,
    LossConfig,
    Objective,
    PretrainConfig,
    RewardConfig,
    RewardTrainingConfig,
    SamplingConfig,
    ScoreNormalizer,
    SupervisedConfig,
    SurrogateConfig,
)


NEEDED: dict[Any, dict[str, Any]] = {
    AdaptiveKL: {"target": 1.0},
    FileRun: {"data": ()},
    LoopPlan: {
        **{"title": "", "summary": "", "base": Path(), "annotator": RecordedAnnotator(())},
        **{"train_prompts": ("a",), "held_out_prompts": ("b",)},
    },
    RewardOptions: {"model": "m", "data": ()},
    TrainOptions: {"model": "m", "reward_model": "oracle", "data": Path()},
}
"""Values of the fields that have no default."""


class Foreign:
    """An object that no setting takes; its name is the same in every process, as the names of tests must be."""

    def __repr__(self) -> str:
        return "<foreign>"


BAD_FOR: dict[Any, tuple[Any, ...]] = {
    int: (1.5, True, "3", math.nan, [1], -(2**70)),
    float: (math.nan, math.inf, -math.inf, "1e-3", True, 1j, [0.5], 10**400),
    bool: ("no", 0, 1.0),
    str: (3, b"text", ["text"], "\ud800"),
    "literal": ("nonsense", 3, ["linear"], True),
    "tuple": (3, {"a": 1}, (Foreign(),), "END"),
    "class": ({}, 3, "default"),
}
"""Values that no field of a type takes; further ones come from its bounds."""


def kinds_of(annotation: Any) -> set[Any]:
    """The types in an annotation, by their key above."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kinds_of(parts[0])
    if origin in (Union, types.UnionType):
        return set().union(*(kinds_of(part) for part in parts if part is not type(None)))
    if origin in (Literal, tuple):
        return {"literal" if origin is Literal else "tuple"}
    return {annotation if annotation in BAD_FOR else "class"}


def bad_values(field: Field[Any], annotation: Any) -> list[Any]:
    annotation = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    (kind, *others) = kinds_of(annotation)
    if others:  # a name or a tuple of names
        return [3, {"a": 1}, (Foreign(),), b"text"]
    values = list(BAD_FOR[kind])
    optional = type(None) in get_args(annotation)
    if not optional:
        values.append(None)
    if kind in (int, float) and (field.default is MISSING or (field.default or 0) >= 0) and "bias" not in field.name:
        values.append(-1 if kind is int else -0.5)
    return [value for value in values if not _is_good(field.name, value)]


SIGNED = ("score_weight", "entropy_coef", "value_center", "bias", "threshold")
"""Numbers that may be negative."""


def _is_good(name: str, value: Any) -> bool:
    return value == -0.5 and name in SIGNED


OWN = {cls: cls.__annotations__ for cls in {kind.config_type: None for kind in ALGORITHMS.values()}}
"""Settings of algorithms, of which those that stand in the class itself are looked at: the others are in CLASSES."""
CASES = [
    pytest.param(cls, field.name, value, id=f"{cls.__name__}.{field.name}={value!r}"[:80])
    for cls in (*CLASSES, *OWN)
    for field in fields(cls)
    if field.name in OWN.get(cls, {field.name})
    for value in bad_values(field, get_type_hints(cls, include_extras=True)[field.name])
]


@pytest.mark.parametrize(("cls", "name", "value"), CASES)
def test_a_setting_of_the_wrong_kind_or_size_is_refused_by_name(cls: Any, name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**NEEDED.get(cls, {}) | {name: value})
    message = str(caught.value)
    subject = "--" + name.replace("_", "-") if cls in OPTIONS else f"{cls.__name__}.{name}"
    assert message.startswith(f"{subject}: must be ")
    assert f", got {repr(value)[:150]}" in message


BOUNDS: list[tuple[Any, dict[str, Any]]] = [
    (PPOConfig, {"epochs": 0}),
    (PPOConfig, {"minibatches": 0}),
    (PPOConfig, {"minibatches": 65}),
    (PPOConfig, {"samples_per_prompt": 3}),
    (PPOConfig, {"learning_rate": 0}),
    (PPOConfig, {"gamma": 1.01}),
    (PPOConfig, {"gae_lambda": 2}),
    (PPOConfig, {"seed": 2**32}),
    (PPOConfig, {"value_clip": 0}),
    (SamplingConfig, {"temperature": 0}),
    (SamplingConfig, {"top_k": 0}),
    (SamplingConfig, {"top_p": 0}),
    (SamplingConfig, {"top_p": 1.5}),
    (SamplingConfig, {"min_p": 0.0}),
    (SamplingConfig, {"max_new_tokens": 0}),
    (SamplingConfig, {"min_new_tokens": 49}),
    (SamplingConfig, {"stop_strings": ("",)}),
    (SamplingConfig, {"stop_strings": ("\ud800",)}),
    (SamplingConfig, {"stop_strings": None}),
    (SamplingConfig, {"stop_token_ids": (-1,)}),
    (SamplingConfig, {"stop_token_ids": (1.0,)}),
    (RewardConfig, {"score_clip": 0}),
    (RewardConfig, {"score_timeout_s": 0}),
    (RewardConfig, {"missing_eos_penalty": 1.0, "on_length_limit": "truncate"}),
    (ScoreNormalizer, {"gain": 0}),
    (AdaptiveKL, {"target": 0}),
    (AdaptiveKL, {"horizon": 0, "target": 1}),
    (SupervisedConfig, {"epochs": 0}),
    (SupervisedConfig, {"max_length": 1}),
    (SupervisedConfig, {"eval_every": 0}),
    (SupervisedConfig, {"checkpoint_every": 0}),
    (SupervisedConfig, {"warmup_fraction": 1}),
    (SupervisedConfig, {"instruction_template": "no field"}),
    (PretrainConfig, {"vocab_size": 256}),
    (PretrainConfig, {"n_embd": 5}),
    (PretrainConfig, {"n_embd": 12, "architecture": "llama"}),
    (PretrainConfig, {"context": 1}),
    (PretrainConfig, {"dropout": 1}),
    (RewardTrainingConfig, {"max_responses": 1}),
    (RewardTrainingConfig, {"epochs": 0}),
    (RewardTrainingConfig, {"checkpoint_every_steps": 0}),
    (LossConfig, {"label_smoothing": 0.5}),
    (LossConfig, {"margin": 1, "tie_model": "davidson"}),
    (LossConfig, {"value_scale": 0}),
    (EmbeddingTrainingConfig, {"hidden": 0}),
    (EmbeddingTrainingConfig, {"max_iterations": 0}),
    (LoraSettings, {"rank": 0}),
    (LoopPlan, {"answers_per_prompt": 1}),
    (LoopPlan, {"rounds": 0}),
    (LoopPlan, {"rounds": 2, "annotator": None, "judgements": Split([], [])}),
    (LoopPlan, {"kl_horizon": 0}),
    (LoopPlan, {"train_prompts": ("",)}),
    (LoraSettings, {"dropout": 1.0}),
    (LoraSettings, {"target_modules": ()}),
    (LoraSettings, {"target_modules": ""}),
]


@pytest.mark.parametrize(("cls", "given"), BOUNDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_setting_out_of_its_bounds_is_refused_by_name(cls: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^{cls.__name__}\.{next(iter(given))}: must .*got "):
        cls(**NEEDED.get(cls, {}) | given)


TYPOS = [
    (LoopPlan, "kl_targets", "kl_target"),
    (TrainOptions, "iteration", "iterations"),
    (PPOConfig, "learning_rat", "learning_rate"),
    (PPOConfig, "num_minibatches", "minibatches"),
    (SamplingConfig, "max_new_token", "max_new_tokens"),
    (RewardConfig, "klcoef", "kl_coef"),
    (SupervisedConfig, "epoch", "epochs"),
    (PretrainConfig, "n_layers", "n_layer"),
    (RewardTrainingConfig, "item_per_step", "items_per_step"),
    (LossConfig, "tie_mode", "tie_model"),
    (EmbeddingTrainingConfig, "l_2", "l2"),
    (LoraSettings, "ranks", "rank"),
    (AdaptiveKL, "horizont", "horizon"),
    (ScoreNormalizer, "gains", "gain"),
]


@pytest.mark.parametrize(("cls", "typo", "meant"), TYPOS)
def test_a_misspelt_setting_is_told_the_nearest_name(cls: Any, typo: str, meant: str) -> None:
    with pytest.raises(UnknownSettingError, match=rf"^{cls.__name__}: .*{typo}.* Did you mean {meant!r}\?$"):
        cls(**{typo: 1})
