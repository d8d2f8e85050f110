"""The algorithm of ``lm-gym train``: its class by name, and its config from the options that were given."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lm_gym.agents.algorithms.names import ALGORITHMS
from lm_gym.agents.update.learning import LearningAgent
from lm_gym.agents.update.optimizer import OptimizerConfig
from lm_gym.app.options import UpdateOptions
from lm_gym.errors import ConfigError

__all__ = ["algorithm_of"]

FIELDS = ("samples_per_prompt", "epochs", "minibatches", "clip", "gamma", "gae_lambda", "entropy_coef")
"""Options that are left to the algorithm where they are not given, and are fields of some configs."""


def algorithm_of(update: UpdateOptions, *, seed: int) -> tuple[type[LearningAgent], OptimizerConfig]:
    """Class and config of an algorithm.

    Args:
        update: of the command; what is None keeps the algorithm's own default.
        seed: of the minibatches.

    Raises:
        ConfigError: an option was given that the algorithm has no use for, or a count does not fit another.
    """
    kind = ALGORITHMS[update.agent]
    own: dict[str, Any] = {field.name: field.default for field in fields(kind.config_type)}
    given = {name: value for name in FIELDS if (value := getattr(update, name)) is not None}
    if unknown := sorted(given.keys() - own.keys()):
        option = "--" + unknown[0].replace("_", "-")
        raise ConfigError(
            f"{option}: must be a setting of the agent, and {update.agent} has none of the name, got "
            f"{given[unknown[0]]}; leave it out, or take another --agent"
        )
    if "minibatches" in own and "minibatches" not in given:
        given["minibatches"] = min(own["minibatches"], update.episodes)
    return kind, kind.config_type(
        episodes_per_iteration=update.episodes,
        learning_rate=update.learning_rate,
        seed=seed,
        **given,
    )
