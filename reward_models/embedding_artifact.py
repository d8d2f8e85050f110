"""The folder of a saved embedding reward model: its encoder, its head, and a record that says how to read them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from lm_gym.errors import ArtifactError
from lm_gym.files import replaced_folder, write_json, write_text
from lm_gym.handles import REWARD_MODEL_CARD
from lm_gym.quiet import quiet_transformers

from .artifact import read_record
from .embedding_cache import SentenceFeatures
from .model_card import model_card

if TYPE_CHECKING:
    from .embedding import EmbeddingRewardModel

__all__ = ["load", "save"]

KIND, FORMAT = "embedding", 2  # 2: of texts that are too long the end is read
ENCODER, HEAD_FILE = "encoder", "head.safetensors"
RECORD_KEYS = (
    *("name", "reads", "hidden", "features", "encoder", "encoder_source", "normalizer", "training", "links"),
    "head_bytes",
)


def save(model: EmbeddingRewardModel, directory: str | Path) -> Path:
    """Write the folder atomically. Returns: the folder."""
    with replaced_folder(directory) as folder:
        with quiet_transformers():
            model.features.encoder.save(str(folder / ENCODER), create_model_card=False)
        save_file({name: tensor.contiguous() for name, tensor in model.head.state_dict().items()}, folder / HEAD_FILE)
        record = {
            "kind": KIND,
            "format": FORMAT,
            "name": model.name,
            "reads": model.reads,
            "hidden": model.head.hidden,
            "features": len(model.head.mean),
            "encoder": model.features.fingerprint,
            "encoder_source": model.features.source,
            "normalizer": None if model.normalizer is None else asdict(model.normalizer),
            "training": model.training,
            "links": model.links,
            "head_bytes": (folder / HEAD_FILE).stat().st_size,
        }
        write_json(folder / REWARD_MODEL_CARD, record)
        write_text(folder / "README.md", model_card(record))
    return Path(directory)


def load(directory: str | Path, *, device: str | None) -> tuple[dict[str, Any], dict[str, Tensor], SentenceFeatures]:
    """Read and check the folder. Returns: record, weights of the head, encoder.

    Raises:
        ArtifactError: something is missing, cut short, of another kind, or does not belong together.
    """
    folder = Path(directory)
    record = read_record(folder, kind=KIND, format_=FORMAT, keys=RECORD_KEYS)
    path = folder / HEAD_FILE
    found = path.stat().st_size if path.is_file() else 0
    if found != record["head_bytes"]:
        raise ArtifactError(
            f"reward model {path}: must have the {record['head_bytes']} bytes it was saved with, got {found}; "
            "copy the folder again"
        )
    try:
        features = SentenceFeatures.from_pretrained(folder / ENCODER, device=device)
    except OSError as error:
        raise ArtifactError(f"reward model {folder}: must hold a whole encoder; {error}") from error
    if features.fingerprint != record["encoder"]:
        raise ArtifactError(
            f"reward model {folder}: must keep the encoder it was trained on, and its weights have changed; "
            "scores would differ silently"
        )
    return record, load_file(path), features
