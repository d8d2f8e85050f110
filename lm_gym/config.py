"""The two settings objects of the environment: sampling and payment."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from lm_gym.errors import ConfigError

__all__ = ["RewardConfig", "SamplingConfig", "ScoreNormalizer", "configs_from_flat"]


@dataclass(frozen=True, kw_only=True)
class ScoreNormalizer:
    """One affine map, ``gain * score + bias``, fitted on samples of the reference model.

    It is part of a reward model (``RewardModel.normalizer``) and stored with it; whoever pays or combines scores calls
    it, ``score`` itself never does.
    """

    gain: float = 1.0
    """Factor, positive: 1 / standard deviation of the scores it was fitted on."""
    bias: float = 0.0
    """Offset, in units of the normalised score: -mean / standard deviation."""
    fitted_on: str = ""
    """Description of the samples that it was fitted on, for the record."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ConfigError(f"ScoreNormalizer.gain: must be positive and finite, got {self.gain}")
        if not math.isfinite(self.bias):
            raise ConfigError(f"ScoreNormalizer.bias: must be finite, got {self.bias}")

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Normalised scores, float64, of the shape of ``scores``."""
        return self.gain * np.asarray(scores, dtype=np.float64) + self.bias


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of sampling, and of where a response ends.

    ``temperature`` tempers policy and reference alike. The truncations (top_k, top_p, min_p, min_new_tokens) shape
    the policy's behaviour distribution only: the reference is never truncated, so it is always finite.
    """

    temperature: float = 1.0
    """Softmax temperature, > 0."""
    top_k: int | None = None
    """Keep the k most likely tokens; None keeps all."""
    top_p: float | None = None
    """Keep the smallest set of tokens whose probability reaches p (nucleus sampling); None keeps all."""
    min_p: float | None = None
    """Keep the tokens at least min_p times as likely as the likeliest one; None keeps all."""
    min_new_tokens: int = 0
    """The sampler emits no stop token before this many tokens."""
    max_new_tokens: int = 48
    """Cap on the response length, in tokens, the stop token included."""
    stop_token_ids: tuple[int, ...] | None = None
    """Tokens that end a response; None takes those of the reference model, or the tokenizer's EOS without one. With ()
    no token ends one: it goes on to the cap, or to a stop string."""
    stop_strings: tuple[str, ...] = ()
    """A response ends as soon as its text contains one of these; the scored text ends before it."""
    seed: int | None = None
    """Seed of the stream that an env's rollouts draw from; None takes the env's own random generator."""

    def __post_init__(self) -> None:
        _require(not isinstance(self.stop_strings, str), self, "stop_strings", "must be a tuple of strings")
        object.__setattr__(self, "stop_strings", tuple(self.stop_strings))
        if self.stop_token_ids is not None:
            ids = tuple(self.stop_token_ids)
            _require(all(map(_is_int, ids)), self, "stop_token_ids", "must be None or token ids")
            object.__setattr__(self, "stop_token_ids", tuple(int(token) for token in ids))
        _require(_is_real(self.temperature) and self.temperature > 0, self, "temperature", "must be > 0")
        top_k_fits = self.top_k is None or (_is_int(self.top_k) and self.top_k >= 1)
        _require(top_k_fits, self, "top_k", "must be None or >= 1")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            _require(value is None or (_is_real(value) and 0 < value <= 1), self, name, "must be None or in (0, 1]")
        cap_fits = _is_int(self.max_new_tokens) and self.max_new_tokens >= 1
        _require(cap_fits, self, "max_new_tokens", "must be >= 1")
        _require(
            _is_int(self.min_new_tokens) and 0 <= self.min_new_tokens <= self.max_new_tokens,
            self,
            "min_new_tokens",
            f"must be in [0, max_new_tokens = {self.max_new_tokens}]",
        )
        seed_fits = self.seed is None or (_is_int(self.seed) and self.seed >= 0)
        _require(seed_fits, self, "seed", "must be None or >= 0")
        for text in self.stop_strings:
            _require(isinstance(text, str) and text != "", self, "stop_strings", "must be non-empty strings")

    @property
    def truncates(self) -> bool:
        """True if the behaviour distribution has a smaller support than the model's."""
        cuts = (self.top_k is not None, self.top_p not in (None, 1.0), self.min_p is not None)
        return any(cuts) or self.min_new_tokens > 0


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Settings of payment: ``r_t = -kl_coef * kl_t + [t is the last token] * paid_score``.

    ``paid_score = score_weight * clip(normalizer(score)) - [no stop token] * missing_eos_penalty``.
    """

    kl_coef: float = 0.1
    """beta, in score units per nat; 0 pays no KL."""
    score_weight: float = 1.0
    """Factor on the (normalised, clipped) score."""
    score_clip: float | None = None
    """Clip the normalised score to [-score_clip, score_clip]; None does not clip."""
    normalizer: ScoreNormalizer | None = None
    """Affine map of the raw score, before the clip. None is the reward model's own (``RewardModel.normalizer``, if it
    has one); ``ScoreNormalizer()`` leaves raw scores as they are."""
    missing_eos_penalty: float = 0.0
    """Taken off the score of a response that the length cap ended; >= 0."""
    score_timeout_s: float | None = None
    """Most seconds for one call of the reward model, of any kind; past them a RewardModelError is raised, and
    the call may still be running in a thread of its own. None waits."""
    on_length_limit: Literal["terminate", "truncate"] = "terminate"
    """At the cap: pay the score and terminate, or pay none and truncate (the agent bootstraps). Never both."""

    def __post_init__(self) -> None:
        _require(_is_real(self.kl_coef) and self.kl_coef >= 0, self, "kl_coef", "must be finite and >= 0")
        _require(_is_real(self.score_weight), self, "score_weight", "must be finite")
        clip_fits = self.score_clip is None or (_is_real(self.score_clip) and self.score_clip > 0)
        _require(clip_fits, self, "score_clip", "must be None or > 0")
        _require(
            _is_real(self.missing_eos_penalty) and self.missing_eos_penalty >= 0,
            self,
            "missing_eos_penalty",
            "must be finite and >= 0",
        )
        limit_fits = self.score_timeout_s is None or (_is_real(self.score_timeout_s) and self.score_timeout_s > 0)
        _require(limit_fits, self, "score_timeout_s", "must be None or > 0")
        _require(
            self.on_length_limit in ("terminate", "truncate"),
            self,
            "on_length_limit",
            'must be "terminate" or "truncate"',
        )
        _require(
            self.missing_eos_penalty == 0 or self.on_length_limit == "terminate",
            self,
            "missing_eos_penalty",
            'must be 0 with on_length_limit="truncate", where a capped response is paid no score',
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
        ConfigError: a key belongs to neither, or to one that was also given as an object.
    """
    parts: dict[str, dict[str, Any]] = {"reward": {}, "sampling": {}}
    owner = {f.name: "reward" for f in fields(RewardConfig)} | {f.name: "sampling" for f in fields(SamplingConfig)}
    for key, value in flat.items():
        if key not in owner:
            near = difflib.get_close_matches(key, sorted(owner), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"environment: no setting is named {key!r}.{hint}")
        parts[owner[key]][key] = value
    for name, given in (("reward", reward), ("sampling", sampling)):
        if given is not None and parts[name]:
            raise ConfigError(
                f"environment: give {name}=... or its fields flat, not both; got {name}= and {sorted(parts[name])}"
            )
    return reward or RewardConfig(**parts["reward"]), sampling or SamplingConfig(**parts["sampling"])


def _require(holds: bool, config: Any, name: str, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{type(config).__name__}.{name}: {rule}, got {getattr(config, name)!r}")


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and math.isfinite(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
