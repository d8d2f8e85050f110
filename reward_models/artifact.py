"""The folder of a saved preference model: a Hugging Face checkpoint, or an adapter, and a record of how to read it.

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

from lm_gym.errors import ArtifactError, ModelLoadError
from lm_gym.files import replaced_folder, write_json, write_text
from lm_gym.handles import REWARD_MODEL_CARD
from lm_gym.quiet import quiet_transformers

from .heads import classifier_from, out_of_the_file, pad_id_hidden
from .lora import ADAPTER_CONFIG, Adapter, load_adapter
from .model_card import model_card

if TYPE_CHECKING:
    from .preference import PreferenceRewardModel

__all__ = ["load", "load_checkpoint", "load_tokenizer", "read_record", "refuse_lost_record", "save"]

FORMAT = 1
PROBE = " The film, isn't it 10% Good?\nNo: naïve \u00e9t\u00e9 {x}  ."
"""A text whose token ids are kept, so that a tokenizer that reads differently is noticed."""
MARK = "lm_gym_reward_model"
"""In config.json: says that the weights belong to an artefact, should its record be lost."""
RECORD_KEYS = ("name", "template", "max_length", "tokenizer", "weights", "normalizer", "training", "links")
# The one tokenizer file that holds settings and not vocabulary; other tools rewrite it harmlessly.
TOKENIZER_SETTINGS = "tokenizer_config.json"


def save(reward_model: PreferenceRewardModel, directory: str | Path) -> Path:
    """Write the folder atomically. Returns: the folder."""
    with replaced_folder(directory) as folder:
        _save_weights(reward_model, folder)
        normalizer = reward_model.normalizer
        record = {
            "kind": reward_model.kind,
            "format": FORMAT,
            "name": reward_model.name,
            "template": reward_model.template,
            "max_length": reward_model.max_length,
            "tokenizer": _tokenizer_record(reward_model.tokenizer, folder),
            "weights": {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))},
            "normalizer": None if normalizer is None else asdict(normalizer),
            "training": reward_model.training,
            "links": reward_model.links,
            "adapter": None if reward_model.adapter is None else reward_model.adapter.record(),
        }
        write_json(folder / REWARD_MODEL_CARD, record)
        write_text(folder / "README.md", model_card(record))
    return Path(directory)


def _tokenizer_record(tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Save a tokenizer. Returns: what tells at load that it is the same, and reads alike."""
    files = [Path(name) for name in tokenizer.save_pretrained(folder)]
    names = sorted({path.name for path in files if path.is_file() and path.name != TOKENIZER_SETTINGS})
    kind = type(tokenizer).__name__
    return {"files": names, "sha256": _digest(folder, names), "class": kind, "probe": _probe(tokenizer)}


def _probe(tokenizer: Any) -> list[int]:
    return list(tokenizer(PROBE, verbose=False)["input_ids"])


def _save_weights(reward_model: PreferenceRewardModel, folder: Path) -> None:
    with pad_id_hidden(reward_model.model, reward_model.tokenizer), quiet_transformers(only_errors=True):
        if reward_model.adapter is None:
            reward_model.model.save_pretrained(folder)
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            write_json(folder / "config.json", settings | {MARK: True})
        else:
            reward_model.adapter.save(folder)


def load(directory: str | Path, *, dtype: str, kind: str) -> tuple[Any, Any, Adapter | None, dict[str, Any]]:
    """Read and check the folder. Returns: (model, tokenizer, adapter, record).

    Raises:
        ArtifactError: something is missing, cut short, of another kind, or does not belong together.
        ModelLoadError: the base of an adapter does not load.
    """
    folder = Path(directory)
    record = {"adapter": None} | read_record(folder, kind=kind, format_=FORMAT, keys=RECORD_KEYS)
    _check_files(folder, record)
    adapter = None
    if record["adapter"] is None:
        model = _whole_model(folder, dtype)
    else:
        base = record["adapter"].get("base")
        if not isinstance(base, str):
            raise ArtifactError(f"reward model {folder}: must name the base of its adapter, got {base!r}")
        model, _ = classifier_from(base, dtype=dtype, seed=0, use_safetensors=True)
        adapter = load_adapter(model, folder, record["adapter"])
    try:
        tokenizer = load_tokenizer(folder, record["tokenizer"].get("class", "AutoTokenizer"))
    except ModelLoadError as error:
        raise ArtifactError(f"reward model {folder}: must hold a whole tokenizer; {error}") from error
    if (ids := _probe(tokenizer)) != record["tokenizer"].get("probe", ids):
        raise ArtifactError(
            f"reward model {folder}: its tokenizer must read texts as it did when it was saved, and reads {PROBE!r} "
            f"otherwise ({type(tokenizer).__name__} of another transformers); scores would differ silently"
        )
    return model, tokenizer, adapter, record


def load_checkpoint(source: str | Path, *, dtype: str) -> tuple[Any, Any]:
    """A classification model that other tools saved. Returns: (model, tokenizer).

    Raises:
        ModelLoadError: nothing loads from there.
        ArtifactError: weights are missing, or it is an artefact of this library that lost its record.
    """
    model, tokenizer = _whole_model(source, dtype), load_tokenizer(source)
    refuse_lost_record(model, source)
    return model, tokenizer


def refuse_lost_record(model: Any, source: str | Path) -> None:
    """Raises: ArtifactError: the model comes from an artefact of this library whose record is not there."""
    if getattr(model.config, MARK, False):
        raise ArtifactError(
            f"reward model {source}: must have the {REWARD_MODEL_CARD} it was saved with, which says how texts are "
            "joined, and has none; copy the folder again"
        )


def load_tokenizer(source: str | Path, kind: str = "AutoTokenizer") -> Any:
    """The tokenizer beside some weights.

    Args:
        source: folder or hub id.
        kind: its class in transformers; the automatic one goes by the model's type, which may have another.

    Raises:
        ModelLoadError: there is none that loads.
    """
    import transformers

    chosen = getattr(transformers, kind, transformers.AutoTokenizer)
    try:
        return chosen.from_pretrained(str(source))
    except Exception as error:  # each tokenizer class has its own
        raise ModelLoadError(
            f"reward model base {str(source)!r}: has no tokenizer that loads; pass tokenizer=... ({error})"
        ) from error


def _whole_model(source: str | Path, dtype: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet_transformers(only_errors=True):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                str(source), dtype=getattr(torch, dtype), output_loading_info=True, use_safetensors=True
            )
    except Exception as error:
        raise ArtifactError(
            f"reward model {source}: must hold a whole checkpoint; loading it failed: {error}"
        ) from error
    if report["missing_keys"]:
        raise ArtifactError(
            f"reward model {source}: must hold every weight of {type(model).__name__}, and lacks "
            f"{min(report['missing_keys'])}; copy the folder again"
        )
    return out_of_the_file(model)


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
    settings = "config.json" if record["adapter"] is None else ADAPTER_CONFIG
    for name in (settings, *record["weights"], *record["tokenizer"]["files"]):
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
