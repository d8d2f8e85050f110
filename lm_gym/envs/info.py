"""The ``info`` dictionary of one row: Python floats and strings, deterministic, keys left out where undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from lm_gym.envs.mdp import Outcome, Transition

__all__ = ["NUMERIC_KEYS", "InfoKeys", "shown_info", "step_info"]

InfoKeys = Literal["all", "numeric"]
NUMERIC_KEYS = (
    "ref_log_prob",
    "log_prob",
    "kl",
    "score",
    "score_valid",
    "score_std",
    "episode_return",
    "episode_length",
)
"""Keys of ``info_keys="numeric"``."""


def shown_info(info: Mapping[str, Any], keys: InfoKeys) -> dict[str, Any]:
    """An ``info`` as the setting ``info_keys`` has it.

    Args:
        info: of a reset or a step of one row.
        keys: "all" leaves it as it is; "numeric" gives the same ``np.float64`` keys on every reset and step, with 0
            where one is undefined, and no text, for libraries that stack infos.
    """
    if keys == "all":
        return dict(info)
    return {key: np.float64(info.get(key, 0.0)) for key in NUMERIC_KEYS}


def step_info(transition: Transition, row: int, log_prob: float | None) -> dict[str, Any]:
    """Return the ``info`` of one row after a step.

    Args:
        transition: of the step.
        row: number of the row.
        log_prob: of its action, in nats, if the action carried one.

    Returns: ``ref_log_prob``, ``log_prob``, ``kl`` (nats) where known, and at the end of an episode those of
        :class:`lm_gym.envs.mdp.Outcome`.
    """
    info: dict[str, Any] = {}
    if transition.ref_log_probs is not None:
        info["ref_log_prob"] = float(transition.ref_log_probs[row])
    if log_prob is not None:
        info["log_prob"] = float(log_prob)
    if transition.kl is not None:
        info["kl"] = float(transition.kl[row])
    outcome = transition.outcomes[row]
    if outcome is not None:
        info.update(_outcome_info(outcome))
    return info


def _outcome_info(outcome: Outcome) -> dict[str, Any]:
    info: dict[str, Any] = {
        "response": outcome.response,
        "stop_reason": outcome.stop_reason,
        "episode_return": outcome.episode_return,
        "episode_length": float(outcome.episode_length),
    }
    if outcome.scored:
        info["score_valid"] = float(outcome.score_valid)
    if outcome.score_valid:
        info["score"] = outcome.score
    if outcome.score_std is not None:
        info["score_std"] = outcome.score_std
    return info
