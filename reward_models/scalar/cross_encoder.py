"""Cross-encoders of sentence-transformers as reward models: prompt and response read as a pair of texts.

Departure from the library: its default activation for one label is a sigmoid, which squeezes large scores together;
a reward is the raw output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from lm_gym.errors import ConfigError, ModelLoadError
from lm_gym.pretrained.loading import loading, out_of_the_file
from lm_gym.scoring.handles import REWARD_MODEL_RECORD
from lm_gym.tools.extras import require
from lm_gym.tools.settings import Count, Place, checked, shown

from .heads import WeightType
from .preference import DEFAULT_MAX_LENGTH, PreferenceRewardModel
from .saved_folder import refuse_lost_record
from .text_encoding import PAIR_TEMPLATE

__all__ = ["CrossEncoderRewardModel"]


class CrossEncoderRewardModel(PreferenceRewardModel):
    """A :class:`PreferenceRewardModel` that reads pairs; it loads checkpoints of ``CrossEncoder`` as they are."""

    kind: ClassVar[str] = "cross-encoder"

    @classmethod
    def from_base(cls, base: Any, tokenizer: Any = None, *, template: str = PAIR_TEMPLATE, **settings: Any) -> Self:
        """Put a fresh head on an encoder; see :meth:`PreferenceRewardModel.from_base`.

        Raises:
            ConfigError: a template other than the pair.
        """
        _require_pair(template)
        return super().from_base(base, tokenizer, template=template, **settings)

    @classmethod
    def from_checkpoint(
        cls,
        source: str | Path,
        *,
        template: str | None = None,
        max_length: int | None = None,
        dtype: str = "float32",
        name: str | None = "cross-encoder",
        device: str = "auto",
    ) -> Self:
        """Load a checkpoint that ``sentence_transformers.CrossEncoder`` loads.

        Args:
            source: folder or hub id.
            template: the pair, or None for it.
            max_length: most tokens of a pair; None takes the library's, at most 1024.
            dtype: of the weights.
            name: of the model, in error messages.
            device: of the model.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            ModelLoadError: nothing loads from this handle, or it has no head of its own.
            ArtifactError: it is an artefact of this library that lost its record.
            ConfigError: it has more than one label, or another template is asked for.
        """
        _require_pair(template or PAIR_TEMPLATE)
        source = checked("cross-encoder", source, Place)
        max_length = checked("cross-encoder: max_length", max_length, Count | None)
        library = require("sentence_transformers", extra="embeddings", purpose="a cross-encoder reward model")
        weights = getattr(torch, checked("cross-encoder: dtype", dtype, WeightType))
        settings = {"dtype": weights, "use_safetensors": True}
        with loading("cross-encoder", source, by="CrossEncoder") as handle:
            loaded = library.CrossEncoder(handle, device="cpu", model_kwargs=settings)
        refuse_lost_record(loaded.model, source)
        if not any("SequenceClassification" in name for name in loaded.model.config.architectures or ()):
            raise ModelLoadError(
                f"cross-encoder {str(source)!r}: must hold a trained head, and holds "
                f"{loaded.model.config.architectures}, on which the library puts a random one; put a fresh head on it "
                "with from_base and fit that"
            )
        out_of_the_file(loaded.model)
        longest = max_length or min(loaded.max_seq_length or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)
        name = str(source) if name is None else name
        return cls(loaded.model, loaded.tokenizer, max_length=longest, template=PAIR_TEMPLATE, name=name, device=device)

    @classmethod
    def load(cls, directory: str | Path, *, dtype: str = "float32", device: str = "auto") -> Self:
        """Read a folder that :meth:`save` wrote, or one that ``CrossEncoder`` did.

        Raises:
            ArtifactError, ModelLoadError, ConfigError: see :meth:`PreferenceRewardModel.load` and
                :meth:`from_checkpoint`.
        """
        if (Path(checked("reward model folder", directory, Place)) / REWARD_MODEL_RECORD).is_file():
            return super().load(directory, dtype=dtype, device=device)
        return cls.from_checkpoint(directory, dtype=dtype, device=device)


def _require_pair(template: str) -> None:
    if template != PAIR_TEMPLATE:
        raise ConfigError(f"CrossEncoderRewardModel: reads pairs of texts, got the template {shown(template)}")
