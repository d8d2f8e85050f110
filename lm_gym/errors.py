"""Every error that the library raises on purpose: one tree, so that a caller can catch all of it or one branch.

A message names the subject, the rule, what was found and the remedy, in that order. The built-in base of each
class (``ValueError``, ``TypeError``, ...) is the one that a caller who has never heard of this tree would expect.
"""

from __future__ import annotations

__all__ = [
    "ActionError",
    "ArtifactError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "EpisodeOverError",
    "LmGymError",
    "MissingExtraError",
    "ModelLoadError",
    "OutputExistsError",
    "PromptError",
    "RewardModelError",
    "UnknownSettingError",
    "UnsupportedModelError",
    "WriteError",
]


class LmGymError(Exception):
    """Base of every error of this library."""


class ConfigError(LmGymError, ValueError):
    """A setting is out of range, unknown, or contradicts another one."""


class UnknownSettingError(ConfigError, TypeError):
    """No setting, or render mode, has the name that was given; a ``TypeError`` too, as for any unexpected keyword."""


class DataError(LmGymError, ValueError):
    """A row or a file of training data cannot be used; the message gives file and line where there are any."""


class PromptError(DataError):
    """A prompt is empty, too long, or its source cannot be read."""


class ActionError(LmGymError, ValueError):
    """An action lies outside the action space (token id, shape, or log-probability)."""


class EpisodeOverError(LmGymError, RuntimeError):
    """``step`` was called on an episode that has ended, or before the first ``reset``."""


class RewardModelError(LmGymError, RuntimeError):
    """A reward model raised, or returned something that is not one finite score (or abstention) per row."""


class ModelLoadError(LmGymError, OSError):
    """A language model or tokenizer could not be loaded from the handle that was given."""


class UnsupportedModelError(LmGymError, TypeError):
    """A model loads, but cannot do what is asked of it (recurrent cache, encoder-decoder, other vocabulary)."""


class ArtifactError(LmGymError, OSError):
    """A saved artefact is missing a file, is cut short, or was written by something else."""


class OutputExistsError(LmGymError, FileExistsError):
    """An output folder already holds a run, and overwriting was not asked for."""


class WriteError(LmGymError, OSError):
    """A file or folder could not be written (a full disk, no permission); what it was to replace is whole."""


class DivergedError(LmGymError, FloatingPointError):
    """A loss, a gradient or a weight became NaN or infinite; training stopped before the step, the weights intact."""


class MissingExtraError(LmGymError, ImportError):
    """An optional dependency is needed; the message names the extra that installs it."""
