"""One training run on disk: its folder, its checkpoints, and the finished model that takes their place.

While a run goes on, its folder holds ``training_run.json`` (what was asked for), ``metrics.jsonl`` and
``checkpoints/``. When it ends, the folder is replaced in one step by the model, its tokenizer, the metrics
and the card with the result, so ``from_pretrained`` loads a whole model from it or nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_gym.errors import ConfigError, OutputExistsError
from lm_gym.files import output_folder, replaced_folder, write_json
from lm_gym.quiet import quiet_transformers

__all__ = ["RunFolder", "digest", "is_main_process", "open_run", "save_finished"]

CARD = "training_run.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
COMPLETE = "complete.json"


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """An open run."""

    path: Path
    """Where the finished model goes."""
    card: dict[str, Any]
    """What was asked for: kind, config, digest of the data."""
    is_new: bool = False
    """Whether this call began the run: then there is no checkpoint to look for."""
    finished: dict[str, Any] | None = None
    """The stored result, if the run that is resumed is over."""

    def checkpoint(self) -> tuple[Path, dict[str, Any]] | None:
        """The last whole checkpoint and its note (step, seconds); None if there is none yet."""
        if self.is_new:
            return None
        notes = [(json.loads(note.read_text()), note.parent) for note in self.path.glob(f"{CHECKPOINTS}/*/{COMPLETE}")]
        if not notes:
            return None
        note, folder = max(notes, key=lambda pair: pair[0]["step"])
        return folder, note


def is_main_process() -> bool:
    """Whether this process writes the files: under torchrun and accelerate every process runs the same code."""
    return os.environ.get("RANK", "0") == "0"


def digest(parts: Iterable[str | bytes]) -> str:
    """A SHA-256 of the parts in order, for telling one run's data from another's."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def open_run(
    output_dir: str | Path, *, kind: str, config: Any, data_sha256: str, overwrite: bool, resume: bool
) -> RunFolder:
    """Start a run in a new folder, or take up the one that is there.

    Args:
        kind: which trainer the run belongs to.
        config: the dataclass of its settings.
        data_sha256: see :func:`digest`.
        overwrite: replace whatever the folder holds.
        resume: continue the run in the folder; start it if the folder is new or empty.

    Raises:
        OutputExistsError: the folder holds something, and neither was asked for, or it holds no run to
            resume.
        ConfigError: both were asked for, or the run in the folder had other settings or data.
    """
    path = Path(output_dir)
    card = {"kind": kind, "config": dataclasses.asdict(config), "data_sha256": data_sha256}
    card = json.loads(json.dumps(card))
    if overwrite and resume:
        raise ConfigError(f"{kind} run {path}: overwrite and resume must not both be True; choose one")
    if resume and path.is_dir() and any(path.iterdir()):
        stored = _stored_card(path, kind)
        _check_same_run(path, stored, card)
        return RunFolder(path=path, card=card, finished=stored.get("result"))
    if is_main_process():
        output_folder(path, overwrite=overwrite)
        write_json(path / CARD, card)
    return RunFolder(path=path, card=card, is_new=True)


def _stored_card(path: Path, kind: str) -> dict[str, Any]:
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputExistsError(
            f"output folder {path}: must hold a {kind} run to resume, and its {CARD} cannot be read ({error}); "
            "choose another path, or pass overwrite=True to replace what is there"
        ) from error
    return dict(card)


def _check_same_run(path: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    before, now = _flat(stored), _flat(asked)
    changed = [
        f"{key} (was {before.get(key)!r}, is {now.get(key)!r})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            f"run {path}: resume must continue with the same settings and data, got other {', '.join(changed)}; "
            "restore them, or start another run in another folder"
        )


def _flat(card: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": card.get("kind"), "data_sha256": card.get("data_sha256"), **(card.get("config") or {})}


def save_finished(
    run: RunFolder, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, result: Mapping[str, Any]
) -> None:
    """Replace the run's folder by the finished model, tokenizer, metrics and card, in one step."""
    if not is_main_process():
        return
    _align_special_tokens(model, tokenizer)
    with quiet_transformers(), replaced_folder(run.path) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if (run.path / METRICS).is_file():
            shutil.copy(run.path / METRICS, folder / METRICS)
        write_json(folder / CARD, run.card | {"result": dict(result)})


def _align_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make ``generate`` stop at the token that was learned as the end; other end tokens of the model stay."""
    config = model.generation_config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = [end for end in ends if end is not None and end < model.config.get_text_config().vocab_size]
    if tokenizer.eos_token_id not in ends:
        ends = [*ends, int(tokenizer.eos_token_id)]
    config.eos_token_id = ends[0] if len(ends) == 1 else ends
    if config.pad_token_id is None:
        pad = tokenizer.pad_token_id
        config.pad_token_id = int(pad if pad is not None else tokenizer.eos_token_id)
