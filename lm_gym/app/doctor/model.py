"""A model folder, GGUF file or hub id, loaded to see that it can be, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_gym.errors import LmGymError
from lm_gym.scoring.handles import REWARD_MODEL_RECORD, load_reward_model
from lm_gym.tools.settings import Place, checked

__all__ = ["examined"]

BYTES = 4
"""Of a weight in float32."""
TRAINING_COPIES = 5
"""Policy, gradients, the two moments of Adam, and the frozen reference."""


def examined(handle: str) -> dict[str, Any]:
    """Load a language model or a saved reward model; an error is part of the answer."""
    try:
        if (Path(checked("model", handle, Place)) / REWARD_MODEL_RECORD).is_file():
            return {"model": handle, "loads": True, **_reward_model(handle)}
        return {"model": handle, "loads": True, **_language_model(handle)}
    except LmGymError as error:
        return {"model": handle, "loads": False, "error": f"{type(error).__name__}: {error}"}


def _reward_model(handle: str) -> dict[str, Any]:
    model = load_reward_model(handle)
    return {"kind": "reward model", "class": type(model).__name__, "columns": list(model.columns)}


def _language_model(handle: str) -> dict[str, Any]:
    from lm_gym.app.run_models import language_model_of
    from lm_gym.models.language_model import load_language_model

    loaded = load_language_model(language_model_of(handle))
    weights = sum(weight.numel() for weight in loaded.model.parameters())
    return {
        "kind": "language model",
        "class": type(loaded.model).__name__,
        "device": str(loaded.device),
        "weights": weights,
        "vocabulary": loaded.vocab_size,
        "context": loaded.max_length,
        "chat_template": bool(getattr(loaded.tokenizer, "chat_template", None)),
        "bytes_to_sample": BYTES * weights,
        "bytes_to_train": TRAINING_COPIES * BYTES * weights,
    }
