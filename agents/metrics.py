"""Every metric that an iteration logs, with its formula: one table for code, README and test."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lm_gym.envs.rollout import PhaseTimer
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.processes import ONE_PROCESS, Processes
from lm_gym.tools.settings import shown

__all__ = ["METRICS", "TAGS", "checked_metrics", "episode_metrics", "phase_metrics", "tag"]

METRICS = {
    "score": "mean score of the counted episodes, on the reward model's own scale",
    "score_deviation": "standard deviation of it over episodes",
    "kl": "mean over episodes of sum_t (log pi - log pi_ref), nats",
    "episode_return": "mean over episodes of the summed rewards, KL included",
    "entropy": "mean per-token entropy of the sampling distribution, nats",
    "response_length": "mean response tokens, the stop token included",
    "eos_share": "share of responses that a stop token or stop string ended",
    "invalid_episodes": "episodes left out because the reward model abstained",
    "soft_bellman_error": "root of the mean squared error of the soft Bellman equation (soft Q-learning), score units",
    "regression_error": "root of the mean squared error of beta log pi / pi_ref = R - V over responses, score units",
    "preference_margin": "mean over pairs of beta times the log-ratio to the reference of the better less the worse",
    "preference_accuracy": "share of pairs whose margin is above 0",
    "kept_share": "share of responses that are learned from (rejection sampling)",
    "uniform_groups": "share of responses whose whole group is paid alike, KL apart, and teaches nothing",
    "kl_coef": "beta that the rewards were paid with",
    "learning_rate": "Adam's step size in this iteration",
    "policy_loss": "mean per-token clipped surrogate loss; mean over responses, or pairs, of the loss of other methods",
    "kl_loss": "mean per-token KL to the reference in the loss, where the objective has it there, nats",
    "value_loss": "mean per-token clipped value loss",
    "explained_variance": "1 - Var[return - value] / Var[return], before the update",
    "approx_kl": "mean per-token k3 KL of the updated policy to the one that collected, nats",
    "clip_fraction": "share of tokens where the policy clip binds",
    "value_clip_fraction": "share of tokens where the value clip binds",
    "ratio_mean": "mean of pi / pi_old over tokens and steps",
    "ratio_max": "largest pi / pi_old",
    "ratio_error": "mean over steps of the largest |pi / pi_old - 1|",
    "first_pass_ratio_error": "largest |pi / pi_old - 1| before the first optimiser step",
    "log_prob_drift": "largest |teacher-forced - sampled| log-probability, nats",
    "grad_norm": "mean L2 norm of the gradient before clipping",
    "optimizer_steps": "optimiser steps taken (fewer after a target-KL stop)",
    "tokens_per_second_rollout": "response tokens / seconds of decoding",
    "tokens_per_second_score": "response tokens / seconds of reference and reward model",
    "tokens_per_second_update": "response tokens / seconds of the update",
    "peak_memory_mb": "peak device memory (CUDA), else peak resident memory of the process, MiB",
}
"""Name -> formula. All token means are over counted response tokens."""

TAGS = {
    "score": "reward/score",
    "score_deviation": "reward/score_deviation",
    "episode_return": "reward/episode_return",
    "invalid_episodes": "reward/invalid_episodes",
    "uniform_groups": "reward/uniform_groups",
    "soft_bellman_error": "value/soft_bellman_error",
    "regression_error": "value/regression_error",
    "preference_margin": "preference/margin",
    "preference_accuracy": "preference/accuracy",
    "kept_share": "reward/kept_share",
    "kl": "kl/mean",
    "kl_coef": "kl/coef",
    "approx_kl": "kl/approx_of_update",
    "entropy": "policy/entropy",
    "policy_loss": "policy/loss",
    "clip_fraction": "policy/clip_fraction",
    "ratio_mean": "policy/ratio_mean",
    "ratio_max": "policy/ratio_max",
    "ratio_error": "policy/ratio_error",
    "first_pass_ratio_error": "policy/first_pass_ratio_error",
    "log_prob_drift": "policy/log_prob_drift",
    "kl_loss": "kl/in_loss",
    "value_loss": "value/loss",
    "value_clip_fraction": "value/clip_fraction",
    "explained_variance": "value/explained_variance",
    "response_length": "response/length",
    "eos_share": "response/eos_share",
    "learning_rate": "optimizer/learning_rate",
    "grad_norm": "optimizer/grad_norm",
    "optimizer_steps": "optimizer/steps",
    "tokens_per_second_rollout": "speed/rollout",
    "tokens_per_second_score": "speed/score",
    "tokens_per_second_update": "speed/update",
    "peak_memory_mb": "speed/peak_memory_mb",
}
"""Name -> tag, by whose first part trackers group their charts."""


HELD_OUT = {
    "eval_score": "score",
    "eval_reference_score": "reference_score",
    "eval_kl": "kl",
    "eval_return": "episode_return",
    "eval_win_rate": "win_rate",
    "eval_response_length": "response_length",
}
"""Metric of an iteration that was evaluated on held-out prompts -> field of :class:`lm_gym.Evaluation`."""


def tag(name: str) -> str:
    """The tag of a metric: that of ``TAGS``, ``eval/...`` of an evaluation, ``custom/...`` of any other without one."""
    if name.startswith("eval_"):
        return f"eval/{name.removeprefix('eval_')}"
    return TAGS.get(name, name if "/" in name else f"custom/{name}")


def episode_metrics(episodes: Episodes, *, processes: Processes = ONE_PROCESS) -> dict[str, float]:
    """Metrics that follow from the episodes of all processes alone; NaN where there is nothing to take a mean of."""
    kl = np.full(len(episodes), math.nan) if episodes.kl is None else episodes.kl.sum(axis=1)
    mine = {
        "score": np.where(episodes.score_valid, episodes.scores, math.nan),
        "kl": kl,
        "episode_return": episodes.rewards.sum(axis=1),
        "response_length": episodes.response_lengths,
        "eos_share": np.array([reason != "length" for reason in episodes.stop_reasons]),
        "abstained": episodes.abstained,
    }
    parts = processes.gather(mine)
    every = {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in mine}
    abstained = every.pop("abstained").astype(bool)
    counted = {name: values[~abstained & ~np.isnan(values)] for name, values in every.items()}
    return {
        **{name: float(values.mean()) if values.size else math.nan for name, values in counted.items()},
        "score_deviation": float(counted["score"].std()) if counted["score"].size else math.nan,
        "invalid_episodes": float(abstained.sum()),
    }


def phase_metrics(timer: PhaseTimer, tokens: int, device: torch.device) -> dict[str, float]:
    """Throughput by phase and peak memory. Args: tokens: response tokens of the iteration."""
    seconds = timer.seconds
    scoring = seconds["reference"] + seconds["score"]
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        unit = 1 if sys.platform == "darwin" else 2**10  # getrusage(2): bytes on macOS, KiB on Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return {
        "tokens_per_second_rollout": tokens / max(seconds["rollout"], 1e-9),
        "tokens_per_second_score": tokens / max(scoring, 1e-9),
        "tokens_per_second_update": tokens / max(seconds["update"], 1e-9),
        "peak_memory_mb": peak,
    }


def checked_metrics(subject: str, metrics: Any) -> dict[str, float]:
    """What an agent or a user's function measured: numbers of Python's under names.

    Args: subject: of the error, such as ``"train: Reinforce.learn"``.

    Raises:
        ConfigError: it is no mapping of names to numbers; a NaN is one, for what is undefined.
    """
    if not isinstance(metrics, Mapping):
        raise ConfigError(f"{subject}: must return metrics, a dict of names and numbers, got {shown(metrics)}")
    for name, value in metrics.items():
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not isinstance(name, str) or not number:
            raise ConfigError(
                f"{subject}: must return metrics, a dict of names and numbers, got {shown(value)} under {shown(name)}; "
                "a tensor of one element becomes a number by float(x)"
            )
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in metrics.items()}
