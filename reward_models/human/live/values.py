"""The reward that a person's verdict on one response is."""

from __future__ import annotations

from typing import Literal, get_args

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.record import Rating, Thumb, Value, Verdict
from lm_gym.tools.settings import shown

__all__ = ["LiveKind", "value_of"]

LiveKind = Literal["thumb", "rating", "value"]
"""Kinds of question whose answer is a reward: about one response, on a scale."""


def value_of(verdict: Verdict) -> float:
    """The reward of a verdict: +1 or -1 for a thumb, (stars - 2.5) / 2.5 for 0 to 5 stars, a value as it is.

    Raises:
        DataError: the verdict is about several responses, or on no scale.
    """
    if isinstance(verdict, Thumb):
        return 1.0 if verdict.up else -1.0
    if isinstance(verdict, Rating):
        return (verdict.stars - 2.5) / 2.5
    if isinstance(verdict, Value):
        return float(verdict.reward)
    raise DataError(f"live reward: must be a {', '.join(get_args(LiveKind))}, got {shown(verdict)}")
