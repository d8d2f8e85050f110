"""The folder of a saved embedding reward model: its encoder, the weights of its head, and the record.

Knows: files. Does not know: how the head scores, or how it was fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from lm_gym.errors import ArtifactError, ModelLoadError
from lm_gym.reward_models.saving.readme import readme_of
from lm_gym.reward_models.saving.record import read_record, write_record
from lm_gym.tools.console.quiet import quiet_transformers
from lm_gym.tools.files import reading, replaced_folder
from lm_gym.tools.settings import Place, checked

from .sentence_features import SentenceFeatures
from .surface import SURFACE_NAMES

__all__ = ["load", "save"]

KIND, FORMAT = "embedding", 4
"""2: of texts that are too long the end is read; 3: every file has a digest; 4: names of surface features."""
ENCODER, HEAD_FILE = "encoder", "head.safetensors"
RECORD_KEYS = ("name", "reads", "surface", "hidden", "features", "encoder_source", "normalizer", "training", "links")


def save(
    directory: str | Path, record: Mapping[str, Any], *, features: SentenceFeatures, head: Mapping[str, Tensor]
) -> Path:
    """Write the folder atomically. Returns: the folder.

    Args:
        directory: the folder to write.
        record: everything of :data:`RECORD_KEYS` but ``encoder_source``.
        features: the encoder.
        head: the weights of the head.
    """
    with replaced_folder(directory) as folder:
        with quiet_transformers():
            features.encoder.save(str(folder / ENCODER), create_model_card=False)
        save_file({name: tensor.contiguous() for name, tensor in head.items()}, folder / HEAD_FILE)
        whole = {**record, "kind": KIND, "format": FORMAT, "encoder_source": features.source}
        write_record(folder, whole, readme=readme_of(whole))
    return Path(directory)


def load(directory: str | Path, *, device: str | None) -> tuple[dict[str, Any], dict[str, Tensor], SentenceFeatures]:
    """Read and check the folder. Returns: record, weights of the head, encoder.

    Raises:
        ArtifactError: something is missing, has changed, or is of another kind.
    """
    folder = Path(checked("reward model folder", directory, Place))
    record = read_record(folder, kind=KIND, format_=FORMAT, keys=RECORD_KEYS)
    if record["surface"] not in (None, list(SURFACE_NAMES)):
        raise ArtifactError(
            f"reward model {folder}: must read the surface features of this version, and it was fitted to others; "
            "fit it again"
        )
    try:
        features = SentenceFeatures.from_pretrained(folder / ENCODER, device=device)
    except ModelLoadError as error:
        raise ArtifactError(f"reward model {folder}: must hold a whole encoder; {error}") from error
    with reading(folder / HEAD_FILE, remedy="save the reward model again"):
        return record, load_file(folder / HEAD_FILE), features
