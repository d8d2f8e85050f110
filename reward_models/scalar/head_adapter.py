"""Low-rank adapters on reward models: which modules are trained in full beside the updates, and in which type.

A saved adapter without its head would score at random, without a word of warning. So every module that did not come
from the base (the head, and an encoder's pooler where the base had none) is trained in full, saved and checked.

Knows: heads. Does not know: peft (that is ``lm_gym.models.lora``), text, training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_gym.models import lora
from lm_gym.models.lora import Adapter, LoraSettings, lasting_base

from .heads import has_positional_head

__all__ = ["Adapter", "LoraSettings", "add_adapter", "lasting_base", "load_adapter"]


def add_adapter(
    model: Any, settings: LoraSettings, *, fresh: Sequence[str], base: str | None, seed: int = 0
) -> Adapter:
    """Freeze a classification model but for its head, and add low-rank updates, in place.

    Args:
        model: a one-label classification model.
        settings: of the updates.
        fresh: its modules whose weights did not come from the base; they are trained in full.
        base: path or hub id of the rest.
        seed: of the updates' first weights; the global generator is left as it was.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: no layer has one of the names.
    """
    heads = [name for name, part in model.named_children() if part is not model.base_model and list(part.parameters())]
    own = [*heads, *(name for name in fresh if name.split(".")[0] not in heads)]
    return lora.add_adapter(
        model, settings, task="SEQ_CLS", base=base, trained_in_full=own, in_float32=_wide_head(model), seed=seed
    )


def load_adapter(model: Any, folder: Path, record: Mapping[str, Any]) -> Adapter:
    """Put a saved adapter, and the head saved with it, on a model that was built on its base.

    Args:
        model: a one-label classification model on the base's weights; its head may be anything.
        folder: of the artefact.
        record: result of :meth:`Adapter.record`.

    Raises:
        ArtifactError: a file is missing or cut short, a weight is missing, or the base is another one.
        MissingExtraError: peft is not installed.
    """
    return lora.load_adapter(model, folder, record, in_float32=_wide_head(model), whole_modules=True)


def _wide_head(model: Any) -> tuple[str, ...]:
    """The head of a decoder, which may be of another type than the rest; an encoder's own class needs one type."""
    return ("score",) if has_positional_head(model) else ()
