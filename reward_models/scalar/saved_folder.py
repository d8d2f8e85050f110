"""The folder of a saved scalar model: a Hugging Face checkpoint, or an adapter, its tokenizer, and the record.

Knows: files. Does not know: how the model scores, or how it was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lm_gym.errors import ArtifactError, ModelLoadError
from lm_gym.models import language_model
from lm_gym.models.lora import base_of_artefact, write_base
from lm_gym.pretrained.loading import loading, out_of_the_file
from lm_gym.reward_models.saving.readme import readme_of
from lm_gym.reward_models.saving.record import read_record, write_record
from lm_gym.scoring.handles import REWARD_MODEL_RECORD
from lm_gym.tools.console.quiet import quiet_transformers
from lm_gym.tools.files import reading, replaced_folder, write_json
from lm_gym.tools.settings import Place, checked

from .head_adapter import Adapter, load_adapter
from .heads import WeightType, classifier_from, pad_id_hidden

__all__ = ["load", "load_checkpoint", "load_tokenizer", "refuse_lost_record", "save"]

FORMAT = 2  # 2: every file has a digest
PROBE = " The film, isn't it 10% Good?\nNo: naïve \u00e9t\u00e9 {x}  ."
"""A text whose token ids are kept, so that a tokenizer that reads differently is noticed."""
MARK = "lm_gym_reward_model"
"""Key in config.json that marks the weights of a saved reward model, should its record be lost."""
RECORD_KEYS = ("name", "template", "max_length", "tokenizer", "normalizer", "training", "links", "adapter")


def save(
    directory: str | Path, record: Mapping[str, Any], *, model: Any, tokenizer: Any, adapter: Adapter | None
) -> Path:
    """Write the folder atomically. Returns: the folder.

    Args:
        directory: the folder to write.
        record: ``kind``, and everything of :data:`RECORD_KEYS` but what is read off the other arguments.
        model: the classification model.
        tokenizer: its tokenizer.
        adapter: the adapter on the model, which is then saved in place of the model.
    """
    if adapter is not None:
        adapter.check_can_be_saved(f"reward model {directory}", checked("reward model folder", directory, Place))
    with replaced_folder(directory) as folder:
        _save_weights(folder, model, tokenizer, adapter)
        tokenizer.save_pretrained(folder)
        reading = {"class": type(tokenizer).__name__, "probe": _probe(tokenizer)}
        whole = {
            **record,
            "format": FORMAT,
            "tokenizer": reading,
            "adapter": None if adapter is None else adapter.record(),
        }
        write_record(folder, whole, readme=readme_of(whole))
    return Path(directory)


def _probe(tokenizer: Any) -> list[int]:
    return list(tokenizer(PROBE, verbose=False)["input_ids"])


def _save_weights(folder: Path, model: Any, tokenizer: Any, adapter: Adapter | None) -> None:
    with pad_id_hidden(model, tokenizer), quiet_transformers(only_errors=True):
        if adapter is None:
            model.save_pretrained(folder)
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            write_json(folder / "config.json", settings | {MARK: True})
        else:
            adapter.save(folder)
            write_base(folder, adapter.record())


def load(directory: str | Path, *, dtype: str, kind: str) -> tuple[Any, Any, Adapter | None, dict[str, Any]]:
    """Read and check the folder. Returns: (model, tokenizer, adapter, record).

    Raises:
        ArtifactError: something is missing, has changed, is of another kind, or does not belong together; or there is
            no base of an adapter where its record of the base says.
    """
    folder = Path(checked("reward model folder", directory, Place))
    record = read_record(folder, kind=kind, format_=FORMAT, keys=RECORD_KEYS)
    adapter = None
    if record["adapter"] is None:
        model = _whole_model(folder, dtype)
    else:
        base = record["adapter"].get("base")
        if not isinstance(base, str):
            raise ArtifactError(f"reward model {folder}: must name the base of its adapter, got {base!r}")
        base = base_of_artefact(folder, base)
        model, _ = classifier_from(base, dtype=dtype, seed=0, use_safetensors=True)
        adapter = load_adapter(model, folder, record["adapter"] | {"base": base})
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
            f"reward model {source}: must have the {REWARD_MODEL_RECORD} it was saved with, which says how texts are "
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
    if chosen is transformers.AutoTokenizer:
        return language_model.load_tokenizer(source)
    with loading("tokenizer", source, by=kind) as handle:
        return chosen.from_pretrained(handle)


def _whole_model(source: str | Path, dtype: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    with (
        reading(f"reward model {source}", "must hold a whole checkpoint", remedy="copy the folder again"),
        quiet_transformers(only_errors=True),
    ):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(source),
            dtype=getattr(torch, checked("reward model: dtype", dtype, WeightType)),
            output_loading_info=True,
            use_safetensors=True,
        )
    if report["missing_keys"]:
        raise ArtifactError(
            f"reward model {source}: must hold every weight of {type(model).__name__}, and lacks "
            f"{min(report['missing_keys'])}; copy the folder again"
        )
    return out_of_the_file(model)
