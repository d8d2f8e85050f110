"""The folder of a training run's checkpoints: whose it is, and which checkpoint is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_gym.errors import ConfigError
from lm_gym.files import write_json

from .schedule import EncodedItem

__all__ = ["last_whole_checkpoint", "mark_run"]

MARK_FILE = "run.json"
LAST_FILE = "trainer_state.json"  # the trainer writes it after the weights, the optimiser and the generators
UNRELATED = ("progress", "log_every_steps", "checkpoint_every_steps")


def mark_run(folder: str | Path, settings: Mapping[str, Any], items: Sequence[EncodedItem], start: str) -> Path:
    """Make the folder, or check that it belongs to a run of the same settings, data and starting weights.

    Args:
        folder: of the checkpoints.
        settings: of the run, plain values.
        items: what is learned from.
        start: says what the run starts from: a hash of the weights and of what else decides how they act.

    Returns: the folder.

    Raises:
        ConfigError: it belongs to another run.
    """
    folder = Path(folder)
    kept = {key: value for key, value in settings.items() if key not in UNRELATED}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    digest.update(start.encode())
    for item in items:
        digest.update(repr((item.texts, item.targets)).encode())
    run = digest.hexdigest()
    mark = folder / MARK_FILE
    if not mark.is_file():
        if folder.is_dir() and any(folder.glob("checkpoint-*")):
            raise ConfigError(f"checkpoints {folder}: hold no {MARK_FILE}, so their run is unknown; delete the folder")
        write_json(mark, {"run": run})
        return folder
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))["run"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"checkpoints {mark}: must be whole, and cannot be read ({error}); delete the folder"
        ) from error
    if found != run:
        raise ConfigError(
            f"checkpoints {folder}: must come from the same settings, model, tokenizer and judgements, and come from "
            "other ones; delete the folder or choose another"
        )
    return folder


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end, or None."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def _is_whole(path: Path) -> bool:
    try:
        json.loads((path / LAST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
