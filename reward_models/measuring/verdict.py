"""The verdict on a reward model in one or two sentences: does it know more than length, and is it easily fooled?

Knows: the measurements. Does not know: models, judgements, how the card is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from .evaluation import RewardEvaluation
from .probes import ProbeResult

__all__ = ["verdict_on"]

FEW_PAIRS = 30
SURE = 2.0
"""Standard errors that a gain must be away from 0."""
TIMID, BOLD = 0.5, 2.0
"""Temperatures below and above which the scores' scale itself tells of a bad fit."""


def verdict_on(evaluation: RewardEvaluation, probes: Sequence[ProbeResult]) -> str:
    """The verdict. Args: evaluation and probes: on judgements that the model has not seen."""
    return " ".join(filter(None, (_against_length(evaluation), _against_probes(probes), _scale(evaluation))))


def _against_length(found: RewardEvaluation) -> str:
    rule = f"the length rule ({found.length_rule} win: {found.length_accuracy:.3f})"
    if found.pairs < FEW_PAIRS:
        return f"Too few pairs to tell whether it beats the length rule ({found.length_rule} win): {found.pairs}."
    error = found.gain_standard_error
    if error is None:
        side = "above" if found.gain > 0 else "not above"
        return f"Its accuracy is {side} {rule} by {found.gain:+.3f}; one group of prompts gives no standard error."
    gain = f"{found.gain:+.3f} ± {error:.3f}"
    if found.gain > SURE * error:
        return f"It beats {rule} by {gain}."
    if found.gain < -SURE * error:
        return f"It is worse than {rule}: {gain}. Do not train a policy against it."
    return f"It is level with {rule}: {gain}. A policy that is trained against it may learn length alone."


def _against_probes(probes: Sequence[ProbeResult]) -> str:
    fooled = [probe for probe in probes if probe.fools]
    if not probes:
        return ""
    if not fooled:
        return f"None of {len(probes)} probes fools it."
    shown = "; ".join(f"{probe.name} ({_how(probe)})" for probe in fooled)
    return f"{len(fooled)} of {len(probes)} probes fool it, and a policy will find them: {shown}."


def _how(probe: ProbeResult) -> str:
    return f"beats {probe.share_outscored or 0:.0%} of chosen answers, the best in {probe.share_above_best or 0:.0%}"


def _scale(found: RewardEvaluation) -> str:
    if found.pairs < FEW_PAIRS or TIMID <= found.temperature <= BOLD:
        return ""
    if found.temperature < TIMID:
        told = "it has learned little from its judgements: more updates, more epochs or a higher step size may help"
    else:
        told = "it is surer than it is right: fewer epochs, more judgements or a lower step size may help"
    return f"Its temperature is {found.temperature:.3g}, far from 1; {told}."
