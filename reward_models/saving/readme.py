"""The README.md of a saved reward model: its kind, its training data, its measurements.

Knows: the record of an artefact. Does not know: models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["readme_of"]

HEAD = """---
library_name: lm-gym
tags: [reward-model]
---
# Reward model {name}

A reward model of kind `{kind}`: one scalar for a response to a prompt, higher is better.

```python
from lm_gym import load_reward_model

scores = load_reward_model("path/to/this/folder").score(["a prompt"], ["a response"])
```
"""
MEASURED = {
    "accuracy": "accuracy on pairs that it was not fitted to",
    "length_accuracy": "the strongest rule of length, on the same pairs",
    "pairs": "pairs measured",
    "nll": "negative log-likelihood, nats",
    "ece": "expected calibration error",
    "ece_at_temperature": "the same at a temperature fitted on other groups",
}


def readme_of(record: Mapping[str, Any]) -> str:
    """The text of a README.md. Args: record: of a scalar or an embedding model, as it is saved."""
    training = record["training"]
    return "\n".join([HEAD.format(**record), *_how_it_reads(record), *_fitted(training), *_measured(training)]) + "\n"


def _how_it_reads(record: Mapping[str, Any]) -> list[str]:
    lines = ["## What it reads", ""]
    if "template" in record:
        lines.append(f"Template `{record['template']}`, at most {record['max_length']} tokens.")
    if "reads" in record:
        lines.append(f"Features of a frozen sentence encoder (`{record['encoder_source']}`) of: {record['reads']}.")
        if record["surface"]:
            lines.append(f"And {len(record['surface'])} surface features: {', '.join(record['surface'])}.")
    if record.get("adapter"):
        lines.append(f"An adapter on `{record['adapter']['base']}`, which must be there when this folder is loaded.")
    normalizer = record["normalizer"]
    lines += ["", "Scores are raw. "]
    if normalizer is None:
        lines[-1] += "No normaliser was fitted."
    else:
        lines[-1] += (
            f"The environment applies `{normalizer['gain']:.4g} * score + {normalizer['bias']:.4g}`, "
            f"fitted on {normalizer['fitted_on']}."
        )
    return [*lines, ""]


def _fitted(training: Mapping[str, Any]) -> list[str]:
    if "judgements" not in training:
        return ["## What it was fitted to", "", "Not recorded.", ""]
    targets = ", ".join(f"{count} {name}" for name, count in training.get("targets", {}).items() if count)
    lines = ["## What it was fitted to", "", f"{training['judgements']} judgements: {targets}."]
    if training.get("judged_both_ways"):
        lines.append(f"{training['judged_both_ways']} pairs of responses were judged both ways.")
    if training.get("texts_cut"):
        lines.append(f"{training['texts_cut']} of {training['texts']} texts were too long and lost their beginning.")
    return [*lines, ""]


def _measured(training: Mapping[str, Any]) -> list[str]:
    found = training.get("evaluation")
    if not found:
        return ["## How far it can be trusted", "", "Nothing was measured on judgements it had not seen."]
    rows = [f"| {text} | {_number(found[name])} |" for name, text in MEASURED.items() if found.get(name) is not None]
    return ["## How far it can be trusted", "", "| measure | value |", "|---|---|", *rows]


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
