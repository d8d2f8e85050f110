"""The two settings objects of the environment: sampling and payment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

import numpy as np

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import (
    Count,
    NotNegative,
    Positive,
    PositiveShare,
    Seed,
    Text,
    Whole,
    checked,
    refuse_unknown,
    settings,
)

__all__ = ["RewardConfig", "SamplingConfig", "ScoreNormalizer", "configs_from_flat"]


@settings
class ScoreNormalizer:
    """One affine map, ``gain * score + bias``, fitted on samples of the reference model.

    It is part of a reward model (``RewardModel.normalizer``) and stored with it; whoever pays or combines scores calls
    it, ``score`` itself never does.
    """

    gain: Positive = 1.0
    """Factor, positive: 1 / standard deviation of the scores it was fitted on."""
    bias: float = 0.0
    """Offset, in units of the normalised score: -mean / standard deviation."""
    fitted_on: str = ""
    """Description of the samples that it was fitted on, for the record."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Normalised scores, float64, of the shape of ``scores``."""
        return self.gain * np.asarray(scores, dtype=np.float64) + self.bias


@settings
class SamplingConfig:
    """Settings of sampling, and of where a response ends.

    ``temperature`` tempers policy and reference alike. The truncations (top_k, top_p, min_p, min_new_tokens) shape
    the policy's behaviour distribution only: the reference is never truncated, so it is always finite.
    """

    temperature: Positive = 1.0
    """Softmax temperature, > 0."""
    top_k: Count | None = None
    """Keep the k most likely tokens; None keeps all."""
    top_p: PositiveShare | None = None
    """Keep the smallest set of tokens whose probability reaches p (nucleus sampling); None keeps all."""
    min_p: PositiveShare | None = None
    """Keep the tokens at least min_p times as likely as the likeliest one; None keeps all."""
    min_new_tokens: Whole = 0
    """The sampler emits no stop token before this many tokens."""
    max_new_tokens: Count = 48
    """Cap on the response length, in tokens, the stop token included."""
    stop_token_ids: tuple[Whole, ...] | None = None
    """Tokens that end a response; None takes those of the reference model, or the tokenizer's EOS without one. With ()
    no token ends one: it goes on to the cap, or to a stop string."""
    stop_strings: tuple[Text, ...] = ()
    """A response ends as soon as its text contains one of these; the scored text ends before it."""
    seed: Seed | None = None
    """Seed of the stream that an env's rollouts draw from; None takes the env's own random generator."""

    def __post_init__(self) -> None:
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"SamplingConfig.min_new_tokens: must be in [0, max_new_tokens = {self.max_new_tokens}], got "
                f"{self.min_new_tokens}"
            )

    @property
    def truncates(self) -> bool:
        """True if the behaviour distribution has a smaller support than the model's."""
        cuts = (self.top_k is not None, self.top_p not in (None, 1.0), self.min_p is not None)
        return any(cuts) or self.min_new_tokens > 0


@settings
class RewardConfig:
    """Settings of payment: ``r_t = -kl_coef * kl_t + [t is the last token] * paid_score``.

    ``paid_score = score_weight * clip(normalizer(score)) - [no stop token] * missing_eos_penalty``.
    """

    kl_coef: NotNegative = 0.1
    """beta, in score units per nat; 0 pays no KL."""
    score_weight: float = 1.0
    """Factor on the (normalised, clipped) score."""
    score_clip: Positive | None = None
    """Clip the normalised score to [-score_clip, score_clip]; None does not clip."""
    normalizer: ScoreNormalizer | None = None
    """Affine map of the raw score, before the clip. None is the reward model's own (``RewardModel.normalizer``, if it
    has one); ``ScoreNormalizer()`` leaves raw scores as they are."""
    missing_eos_penalty: NotNegative = 0.0
    """Taken off the score of a response that the length cap ended; >= 0."""
    score_timeout_s: Positive | None = None
    """Most seconds for one call of the reward model, of any kind; past them a RewardModelError is raised, and
    the call may still be running in a thread of its own. None waits."""
    on_length_limit: Literal["terminate", "truncate"] = "terminate"
    """At the cap: pay the score and terminate, or pay none and truncate (the agent bootstraps). Never both."""

    def __post_init__(self) -> None:
        if self.missing_eos_penalty and self.on_length_limit == "truncate":
            raise ConfigError(
                'RewardConfig.missing_eos_penalty: must be 0 with on_length_limit="truncate", where a capped response '
                f"is paid no score, got {self.missing_eos_penalty!r}"
            )


def configs_from_flat(
    reward: RewardConfig | None, sampling: SamplingConfig | None, flat: Mapping[str, Any]
) -> tuple[RewardConfig, SamplingConfig]:
    """The two config objects from objects, from their fields given flat, or from a mixture of the two kinds.

    Args:
        reward: a RewardConfig, or None to build one from ``flat``.
        sampling: a SamplingConfig, or None to build one from ``flat``.
        flat: keyword arguments such as ``kl_coef=.1, max_new_tokens=16``.

    Raises:
        UnknownSettingError: a key belongs to neither.
        ConfigError: a key belongs to one that was also given as an object.
    """
    reward = checked("environment: reward", reward, RewardConfig | None)
    sampling = checked("environment: sampling", sampling, SamplingConfig | None)
    parts: dict[str, dict[str, Any]] = {"reward": {}, "sampling": {}}
    owner = {f.name: "reward" for f in fields(RewardConfig)} | {f.name: "sampling" for f in fields(SamplingConfig)}
    refuse_unknown("environment", flat, list(owner))
    for key, value in flat.items():
        parts[owner[key]][key] = value
    for name, given in (("reward", reward), ("sampling", sampling)):
        if given is not None and parts[name]:
            raise ConfigError(
                f"environment: give {name}=... or its fields flat, not both; got {name}= and {sorted(parts[name])}"
            )
    return reward or RewardConfig(**parts["reward"]), sampling or SamplingConfig(**parts["sampling"])
