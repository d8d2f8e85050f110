"""The folder of a saved preference model: a Hugging Face checkpoint and a record that says how to read it.

Knows: files. The record holds a SHA-256 of the tokenizer's files and the size of each weight file, so that a
folder that was cut short or mixed with another one is refused instead of scoring differently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lm_gym.errors import ArtifactError
from lm_gym.files import replaced_folder, write_json
from lm_gym.handles import REWARD_MODEL_CARD
from lm_gym.quiet import quiet_transformers

from .heads import pad_id_hidden

if TYPE_CHECKING:
    from .preference import PreferenceRewardModel

__all__ = ["load", "read_record", "save"]

FORMAT = 1
RECORD_KEYS = ("name", "template", "max_length", "tokenizer", "weights", "normalizer", "training", "links")
# The one tokenizer file that holds settings and not vocabulary; other tools rewrite it harmlessly.
TOKENIZER_SETTINGS = "tokenizer_config.json"


def save(reward_model: PreferenceRewardModel, directory: str | Path) -> Path:
    """Write the folder atomically. Returns: the folder."""
    with replaced_folder(directory) as folder:
        with pad_id_hidden(reward_model.model, reward_model.tokenizer), quiet_transformers(only_errors=True):
            reward_model.model.save_pretrained(folder)
        files = [Path(name) for name in reward_model.tokenizer.save_pretrained(folder)]
        names = sorted({path.name for path in files if path.is_file() and path.name != TOKENIZER_SETTINGS})
        normalizer = reward_model.normalizer
        record = {
            "kind": reward_model.kind,
            "format": FORMAT,
            "name": reward_model.name,
            "template": reward_model.template,
            "max_length": reward_model.max_length,
            "tokenizer": {"files": names, "sha256": _digest(folder, names)},
            "weights": {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))},
            "normalizer": None if normalizer is None else asdict(normalizer),
            "training": reward_model.training,
            "links": reward_model.links,
        }
        write_json(folder / REWARD_MODEL_CARD, record)
    return Path(directory)


def load(directory: str | Path, *, dtype: str, kind: str) -> tuple[Any, Any, dict[str, Any]]:
    """Read and check the folder. Returns: (model, tokenizer, record).

    Raises:
        ArtifactError: something is missing, cut short, of another kind, or does not belong together.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = Path(directory)
    record = read_record(folder, kind=kind, format_=FORMAT, keys=RECORD_KEYS)
    _check_files(folder, record)
    try:
        with quiet_transformers(only_errors=True):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=getattr(torch, dtype), output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise ArtifactError(
            f"reward model {folder}: must hold a whole checkpoint; loading it failed: {error}"
        ) from error
    if report["missing_keys"]:
        raise ArtifactError(
            f"reward model {folder}: must hold every weight of {type(model).__name__}, and lacks "
            f"{min(report['missing_keys'])}; copy the folder again"
        )
    return model, tokenizer, record


def read_record(folder: Path, *, kind: str, format_: int, keys: Sequence[str]) -> dict[str, Any]:
    """Read the record of a saved reward model.

    Raises:
        ArtifactError: it is missing, cut short, of another kind or format, or lacks a key.
    """
    path = folder / REWARD_MODEL_CARD
    if not path.is_file():
        raise ArtifactError(f"reward model {folder}: must be a folder with {REWARD_MODEL_CARD}, and has none")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"reward model {path}: must be whole JSON, and is not ({error}); save the model again"
        ) from error
    if not isinstance(record, dict) or (record.get("kind"), record.get("format")) != (kind, format_):
        raise ArtifactError(f"reward model {path}: must say kind {kind!r} and format {format_}, got {str(record)[:80]}")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ArtifactError(
            f"reward model {path}: must have the key {missing[0]!r}, and has none; save the model again"
        )
    return record


def _check_files(folder: Path, record: dict[str, Any]) -> None:
    for name in ("config.json", *record["weights"], *record["tokenizer"]["files"]):
        if not (folder / name).is_file():
            raise ArtifactError(f"reward model {folder}: must hold {name}, and it is missing; save or copy it again")
    for name, size in record["weights"].items():
        found = (folder / name).stat().st_size
        if found != size:
            raise ArtifactError(
                f"reward model {folder / name}: must have the {size} bytes it was saved with, got {found}; "
                "the file was cut short or replaced, copy the folder again"
            )
    if _digest(folder, record["tokenizer"]["files"]) != record["tokenizer"]["sha256"]:
        raise ArtifactError(
            f"reward model {folder}: must keep the tokenizer it was saved with, and its files "
            f"({', '.join(record['tokenizer']['files'])}) have changed; scores would differ silently"
        )


def _digest(folder: Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()
