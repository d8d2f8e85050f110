"""Held-out evaluation: score, KL, and how often a policy's response beats the reference's to the same prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from lm_gym.envs.rollout import collect, sampler_of
from lm_gym.envs.wrappers import AnyEnv, vector_env_of
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.models.generate import LanguageModelSampler
from lm_gym.policy import Policy, Sampler
from lm_gym.prompts import Prompt
from lm_gym.tools.intervals import wilson_interval
from lm_gym.tools.settings import Bounds, checked

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A policy on held-out prompts, one response each.

    Every mean is over the same n rows: those that the reward model scored, for policy and reference both.
    """

    score: float
    """Mean score, on the reward model's scale."""
    reference_score: float
    """Mean score of the reference's responses to the same prompts; NaN without a reference."""
    score_deviation: float
    """Standard deviation of the score over responses."""
    kl: float
    """Mean k1 of a whole response, in nats; NaN without a reference."""
    episode_return: float
    """Mean summed reward at the env's ``kl_coef`` of this moment."""
    response_length: float
    """Mean response tokens."""
    eos_share: float
    """Share of responses that a stop token or stop string ended."""
    win_rate: float
    """Share of prompts where the policy outscores the reference, ties counting half; NaN without a reference."""
    win_rate_low: float
    """Lower end of the 95 % Wilson interval of the win rate."""
    win_rate_high: float
    """Upper end of it."""
    n: int
    """Prompts that count."""
    invalid: int
    """Prompts where the reward model abstained on either side."""
    episodes: Episodes
    """The policy's responses."""
    reference_episodes: Episodes | None
    """The reference's; hand them to the next call to compare against the same texts."""


def evaluate(
    policy: Policy | Sampler,
    env: AnyEnv,
    prompts: Sequence[Prompt | str | Mapping[str, Any]],
    *,
    seed: int = 0,
    reference_episodes: Episodes | None = None,
) -> Evaluation:
    """One response per prompt from the policy and from the reference, scored by the env's reward model.

    The env's own random state is not touched. A response that the length cap ended is scored too, also where
    ``on_length_limit="truncate"`` pays it nothing in training.

    Args:
        policy: or a sampler.
        env: gives rules, reference and reward model; single or vector, bare or in wrappers that change no reward.
        prompts: held out from training; tokenised, texts, or rows with the columns that the reward model needs.
        seed: of the draws; policy and reference draw with different ones.
        reference_episodes: from an earlier call on the same prompts, to save generating them again.

    Raises:
        ConfigError: no prompts, or one lacks a column that the reward model needs, or a wrapper may change the reward.
    """
    env = vector_env_of(env, "evaluate")
    seed = checked("evaluate: seed", seed, Annotated[int, Bounds(least=0, below=2**31)])
    theirs: Episodes | None = checked("evaluate: reference_episodes", reference_episodes, Episodes | None)
    loaded = env.as_prompts(prompts)
    if not loaded:
        raise ConfigError("evaluate: needs at least one held-out prompt, got none")
    task = replace(env.task, reward=replace(env.task.reward, on_length_limit="terminate"))

    def collected(sampler: Sampler, seed: int) -> Episodes:
        return collect(task, sampler, loaded, env.reward_model, kl_coef=env.kl_coef, seed=seed)

    ours = collected(sampler_of(policy), 2 * seed)
    if theirs is None and env.reference is not None:
        theirs = collected(LanguageModelSampler(env.reference.language_model), 2 * seed + 1)
    _check_same_prompts(ours, theirs)
    counted = ours.score_valid if theirs is None else ours.score_valid & theirs.score_valid
    n = int(counted.sum())
    wins = _win_rate(ours.scores[counted], theirs.scores[counted]) if theirs is not None and n else math.nan
    low, high = wilson_interval(wins, n)
    stopped = np.array([reason != "length" for reason in ours.stop_reasons])

    def mean(values: np.ndarray) -> float:
        return float(values[counted].mean()) if n else math.nan

    return Evaluation(
        score=mean(ours.scores),
        reference_score=math.nan if theirs is None else mean(theirs.scores),
        score_deviation=float(ours.scores[counted].std()) if n else math.nan,
        kl=math.nan if ours.kl is None else mean(ours.kl.sum(axis=1)),
        episode_return=mean(ours.rewards.sum(axis=1)),
        response_length=mean(ours.response_lengths),
        eos_share=mean(stopped),
        win_rate=wins,
        win_rate_low=low,
        win_rate_high=high,
        n=n,
        invalid=int(np.sum(ours.abstained | (False if theirs is None else theirs.abstained))),
        episodes=ours,
        reference_episodes=theirs,
    )


def _check_same_prompts(ours: Episodes, theirs: Episodes | None) -> None:
    if theirs is not None and theirs.prompts != ours.prompts:
        raise ConfigError(
            f"evaluate: reference_episodes must answer the same prompts in the same order, got {len(theirs)} for "
            f"{len(ours)} prompts; leave them out to have them generated"
        )


def _win_rate(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.mean((ours > theirs) + 0.5 * (ours == theirs)))
