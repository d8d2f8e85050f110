"""Handles: strings and callables that stand for models in ``gym.make`` arguments, and the reward models they lead to.

Gymnasium deep-copies those arguments, so a model passed there would be copied up to four times. A handle is a path,
a hub id, a name registered under an entry point, ``"module:attribute"``, or a callable; it is resolved when the
environment is built. Language models are loaded in ``lm_gym.models.language_model``.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lm_gym.errors import ArtifactError, ConfigError, ModelLoadError, RewardModelError
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.binding import callable_name, required_names, signature_of
from lm_gym.scoring.protocol import RewardModel

__all__ = [
    "REWARD_MODEL_GROUP",
    "REWARD_MODEL_RECORD",
    "ModelHandle",
    "import_attribute",
    "is_import_path",
    "load_reward_model",
]

ModelHandle = str | Path | Callable[[], Any]
REWARD_MODEL_GROUP = "lm_gym.reward_models"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SAFE_FILES = ("*.json", "*.jinja", "*.md", "*.model", "*.safetensors", "*.txt")
REWARD_MODEL_RECORD = "lm_gym_reward_model.json"
"""Name of the record in a saved reward model's folder; its ``kind`` is a name in the entry-point group."""


def is_import_path(handle: str) -> bool:
    """True for a string of the form ``package.module:attribute`` that is no path on disk."""
    module, colon, attribute = handle.partition(":")
    named = bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))
    return named and not Path(handle).exists()


def import_attribute(handle: str) -> Any:
    """Import ``package.module:attribute``.

    Raises:
        ConfigError: the module or the attribute does not exist.
    """
    module, _, attribute = handle.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"handle {handle!r}: must name an importable module:attribute; {error}") from error


def load_reward_model(handle: str | Path | RewardModelLike) -> RewardModel:
    """Resolve the handle of a reward model.

    Args:
        handle: a reward model or reward function; the folder of a saved one, or of a one-label classification model
            or cross-encoder that other tools saved; a name registered in the entry-point group
            ``lm_gym.reward_models``; ``"module:attribute"``, where the attribute is a reward model, a reward function,
            or a callable without required arguments that makes one; or a hub id, ``"owner/name"``, of such a folder.
            No code and no pickled file is fetched from the hub.

    Raises:
        ConfigError, ArtifactError, RewardModelError: it names nothing, the folder is broken, or it is no reward model.
        ModelLoadError: the hub does not have it, or cannot be reached.
    """
    if not isinstance(handle, str | Path):
        return as_reward_model(handle)
    if isinstance(handle, str) and is_import_path(handle):
        return _from_attribute(import_attribute(handle), handle)
    if Path(handle).is_dir():
        return _from_folder(Path(handle))
    kinds = _registered()
    if str(handle) in kinds:
        kind = kinds[str(handle)].load()
        if needed := required_names(inspect.signature(kind)):
            raise ConfigError(
                f"reward model {str(handle)!r}: must need no arguments to go by its name, and needs {needed}; "
                "give the folder of a saved one"
            )
        return as_reward_model(kind())
    if isinstance(handle, str) and HUB_ID.fullmatch(handle):
        return _from_folder(_fetched(handle))
    raise ConfigError(
        f"reward model {str(handle)!r}: must be a saved reward model's folder, a hub id, module:attribute, or one of "
        f"the registered names {sorted(kinds)}"
    )


def _registered() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=REWARD_MODEL_GROUP)}


def _from_attribute(attribute: Any, handle: str) -> RewardModel:
    is_class = inspect.isclass(attribute)
    if is_class and (needed := required_names(inspect.signature(attribute))):
        raise ConfigError(f"reward model {handle!r}: a class must need no arguments to be made, and it needs {needed}")
    if is_class or (not hasattr(attribute, "score") and callable(attribute) and _is_factory(attribute)):
        attribute = attribute()
    return as_reward_model(attribute)


def _is_factory(attribute: Callable[..., Any]) -> bool:
    """Callable without arguments, and not a reward function that takes whatever it is given."""
    signature = signature_of(callable_name(attribute), attribute)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return not required_names(signature) and inspect.Parameter.VAR_KEYWORD not in kinds


def _fetched(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(SAFE_FILES)))
    except Exception as error:  # the hub, the network and the cache each have their own
        raise ModelLoadError(
            f"reward model {hub_id!r}: there is no such folder, and the hub has no such model or cannot be reached "
            f"({str(error).partition(chr(10))[0]}); give the path of a local folder"
        ) from error


def _from_folder(folder: Path) -> RewardModel:
    kinds = _registered()
    if not (folder / REWARD_MODEL_RECORD).is_file() and (kind := _kind_of_checkpoint(folder)):
        return kinds[kind].load().from_checkpoint(folder)
    record = folder / REWARD_MODEL_RECORD
    try:
        kind = json.loads(record.read_text(encoding="utf-8"))["kind"]
        if not isinstance(kind, str):
            raise TypeError(f"'kind' is {kind!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"reward model folder {folder}: must hold a whole {REWARD_MODEL_RECORD} with a 'kind'; reading it failed: "
            f"{error}. Save the reward model again with its save() method."
        ) from error
    if kind not in kinds:
        raise RewardModelError(
            f"reward model folder {folder}: its kind {kind!r} must be one of the registered names {sorted(kinds)}; "
            "install the package that brings it"
        )
    return kinds[kind].load().load(folder)


def _kind_of_checkpoint(folder: Path) -> str | None:
    """Kind of reward model that reads the classification model in a folder of other tools; None if it holds none."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        classifies = any("SequenceClassification" in name for name in settings["architectures"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not classifies:
        return None
    # sentence-transformers up to 5 marks a cross-encoder in config.json, from 6 on by a file of its own.
    paired = "sentence_transformers" in settings or (folder / "config_sentence_transformers.json").is_file()
    return "cross-encoder" if paired else "preference"
