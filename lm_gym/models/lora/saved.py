"""The folder of a saved adapter, and the base that it needs: what names it, where it may lie, what is refused.

Knows: files, and the settings that peft writes. Does not know: models, training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.runs.folder import unfinished_run_of
from lm_gym.runs.manifests import BASE_RECORD
from lm_gym.scoring.handles import is_import_path
from lm_gym.tools.files import lies_in, read_json, write_json
from lm_gym.tools.settings import shown

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "BASE_RECORD",
    "adapter_record",
    "base_of_artefact",
    "check_apart_from_base",
    "check_is_low_rank_alone",
    "lasting_base",
    "lasting_handle",
    "saved_base",
    "write_base",
]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LANGUAGE_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
MERGE = (
    "merge it into its base first (peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)"
    ".merge_and_unload().save_pretrained(other)), and give that folder"
)
FREE = (
    *("task_type", "peft_type", "peft_version", "base_model_name_or_path", "inference_mode", "auto_mapping"),
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
    *("init_lora_weights", "eva_config", "loftq_config", "corda_config", "lora_ga_config", "megatron_core"),
)
"""Settings of peft under which the updates are low-rank ones beside the base's own weights, whatever they are."""
FIRST_WEIGHTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the base as it is; others (PiSSA, OLoRA, LoftQ, ...) take a part of it away."""


def adapter_record(handle: str | Path) -> dict[str, Any] | None:
    """The record of an adapter on a language model that lies in a folder, ``base`` and ``base_sha256``.

    An adapter that other tools saved names its base without a fingerprint.

    Returns: None for any other handle. Whether the base is there, :func:`saved_base` looks.

    Raises:
        ArtifactError: the record is damaged, or it is an adapter of another kind of model.
    """
    folder = Path(handle)
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    again = "save the adapter again"
    config = read_json(folder / ADAPTER_CONFIG, remedy=again)
    if not isinstance(config, dict):
        raise ArtifactError(f"{folder / ADAPTER_CONFIG}: must be a JSON object, got {shown(config)}; {again}")
    if (folder / BASE_RECORD).is_file():
        record = read_json(folder / BASE_RECORD, remedy=again)
    else:
        record = {"base": config.get("base_model_name_or_path"), "base_sha256": None}
    if not isinstance(record, dict) or not isinstance(record.get("base"), str) or "base_sha256" not in record:
        raise ArtifactError(f"adapter {folder}: must name its base and its fingerprint, got {shown(record)}; {again}")
    if config.get("task_type") not in LANGUAGE_TASKS:
        raise ArtifactError(
            f"adapter {folder}: must be one on a language model to stand for one, got task_type = "
            f"{config.get('task_type')!r}; give the folder of a language model"
        )
    return record


def saved_base(handle: str | Path) -> dict[str, Any] | None:
    """:func:`adapter_record`, with a base that can be loaded. Returns: None for a handle of anything else.

    Raises:
        ArtifactError: see :func:`adapter_record`; or the base is not where it was, it is the folder itself, or it is
            code (an artefact names none).
    """
    record = adapter_record(handle)
    if record is None:
        return None
    folder = Path(handle)
    _check_base_is_there(folder, record["base"], BASE_RECORD if (folder / BASE_RECORD).is_file() else ADAPTER_CONFIG)
    return record


def base_of_artefact(folder: Path, base: str) -> str:
    """Where the base of an adapter lies that is a part of a larger artefact: its own record of the base says so.

    Args: base: its place when the artefact was saved, for a folder without that record.

    Raises:
        ArtifactError: the record is damaged, or see :func:`saved_base`.
    """
    path = folder / BASE_RECORD
    found = read_json(path, remedy="save the model again") if path.is_file() else {"base": base}
    if not isinstance(found, dict) or not isinstance(found.get("base"), str):
        raise ArtifactError(f"{path}: must be a JSON object with the place of the base, got {shown(found)}; write it")
    _check_base_is_there(folder, found["base"], BASE_RECORD)
    return found["base"]


def _check_base_is_there(folder: Path, base: str, own: str) -> None:
    """Refuse a base that cannot be loaded. Args: own: name of the file that says where it is."""
    if not base or is_import_path(base):
        raise ArtifactError(
            f"adapter {folder}: its base must be a folder, a GGUF file or a hub id, and not code, which no artefact "
            f"may name, got {base!r}; save the base as a folder, and write its place into {own}"
        )
    if not Path(base).exists() and (Path(base).is_absolute() or base.startswith(".")):
        looked = "" if Path(base).is_absolute() else f" below the working directory {Path.cwd()}"
        raise ArtifactError(
            f"adapter {folder}: its base must be where it was, {base}, and there is nothing{looked}; put it back, or "
            f"write its new place into {own}"
        )
    if folder.resolve() in _places(base):
        raise ArtifactError(
            f"adapter {folder}: its base must be another model, and {base} leads back to the adapter itself, which was "
            f"saved in its place; put the base elsewhere, and write its place into {own}"
        )


def write_base(folder: Path, record: Mapping[str, Any]) -> None:
    """Name the base beside an adapter, for :func:`saved_base`. Args: record: see :func:`adapter_record`."""
    write_json(folder / BASE_RECORD, {"format": 1, **record})


def lasting_handle(base: Any) -> str | None:
    """Handle of a base that an artefact can keep: a full path or a hub id, None for an object or code."""
    if not isinstance(base, str | Path) or is_import_path(str(base)):
        return None
    return str(Path(base).resolve()) if Path(base).exists() else str(base)


def lasting_base(base: Any) -> str | None:
    """:func:`lasting_handle` of the base that an adapter is put on, which has to stay for as long as the adapter.

    Raises:
        ConfigError: it lies in the folder of a run that goes on, which replaces and deletes what is in it.
    """
    handle = lasting_handle(base)
    run = None if handle is None or not Path(handle).exists() else unfinished_run_of(handle)
    if run is not None:
        raise ConfigError(
            f"adapter: its base must stay where it is, and {handle} lies in {run}, a run that is not finished and will "
            "replace or delete it; let the run end first, or copy the model to a folder of its own and start from that"
        )
    return handle


def check_apart_from_base(subject: str, base: str | None, folder: str | Path) -> None:
    """Refuse to write an adapter, or a run that makes one, where its base would be lost.

    Args:
        subject: of an error.
        base: of the adapter, as its record has it.
        folder: that is to be replaced.

    Raises:
        ConfigError: the base, or the base of that one, lies in it.
    """
    for place in _places(base):
        if lies_in(place, folder):
            raise ConfigError(
                f"{subject}: must not take the place of the base of its adapter, without which the adapter is nothing, "
                f"got {folder}, and the base is {place}; choose another folder"
            )


def check_is_low_rank_alone(subject: str, config: Any, error: type[Exception], *, whole_modules: bool = False) -> None:
    """Refuse updates that could not be switched off, saved, merged and taken back as low-rank ones can.

    Args:
        subject: of an error.
        config: peft's settings of the updates.
        error: class of the error.
        whole_modules: True allows modules that are trained in full beside them.
    """
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        raise error(f"{subject}: must be low-rank updates (LORA), and is {kind}; {MERGE} if it can be merged")
    plain = type(config)()
    free = (*FREE, "modules_to_save") if whole_modules else FREE
    other = {
        one.name: getattr(config, one.name)
        for one in fields(config)
        if one.name not in free and getattr(config, one.name) != getattr(plain, one.name)
    }
    if config.init_lora_weights not in FIRST_WEIGHTS:
        other["init_lora_weights"] = config.init_lora_weights
    if other:
        told = ", ".join(f"{name} = {shown(value)}" for name, value in sorted(other.items()))
        raise error(
            f"{subject}: must be low-rank updates beside a base that stays as it is, and has {told}, with which the "
            f"model without its adapter would not be the base; {MERGE}"
        )


def _places(base: str | None) -> list[Path]:
    """Where a base lies, then the base of that one if it is an adapter's folder, and so on; none for a hub id."""
    found: list[Path] = []
    while base is not None and Path(base).exists() and (place := Path(base).resolve()) not in found:
        found.append(place)
        record = adapter_record(place)
        base = None if record is None else record["base"]
    return found
