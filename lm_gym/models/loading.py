"""The weights of a language model and its tokenizer, read from whatever names them.

A folder, a GGUF file, a hub id, a factory; an adapter's folder stands for its base with the updates merged into it.
Knows: handles. Does not know: what the model is used for, and what was loaded before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lm_gym.errors import ModelLoadError
from lm_gym.models.lora import load_adapter, saved_base
from lm_gym.models.model_checks import made_by
from lm_gym.pretrained.loading import loading
from lm_gym.runs.manifests import MANIFEST, check_manifest
from lm_gym.scoring.handles import import_attribute, is_import_path
from lm_gym.tools.settings import Place, checked

__all__ = ["load_tokenizer", "load_weights", "model_and_tokenizer"]


def model_and_tokenizer(
    handle: Any, tokenizer: Any, *, dtype: torch.dtype, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer by their handles; see :func:`lm_gym.models.language_model.load_language_model`."""
    if isinstance(handle, str) and is_import_path(handle):
        handle = checked(f"model {handle!r}", import_attribute(handle), Callable | PreTrainedModel)
    if isinstance(handle, PreTrainedModel):
        model, own = handle, None
    elif callable(handle):
        model, own = made_by(handle)
    else:
        model = load_weights(handle, dtype=dtype, trust_remote_code=trust_remote_code)
        own = load_tokenizer(handle, trust_remote_code=trust_remote_code) if tokenizer is None else None
    if tokenizer is not None:
        own = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else load_tokenizer(tokenizer)
    if own is None:
        raise ModelLoadError(
            f"language model {type(model).__name__}: came without a tokenizer; pass tokenizer=..., "
            "or return (model, tokenizer) from the factory"
        )
    return model, own


def load_weights(
    handle: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    kind: Any = None,
) -> PreTrainedModel:
    """Load a language model of one's own, to be trained, from a folder, a GGUF file or a hub id.

    An adapter's folder is loaded as its base with the updates merged into it.

    Args: kind: the class that loads it; None takes the one that its configuration asks for.

    Raises:
        ConfigError: the handle is no text or path.
        ModelLoadError: nothing loads from this handle.
        ArtifactError: the folder has a manifest, and a file of weights has changed since it was written; or it holds an
            adapter, and its base has changed or is gone.
    """
    handle = checked("language model", handle, Place)
    if (Path(handle) / MANIFEST).is_file():
        check_manifest(handle)
    if (record := saved_base(handle)) is not None:
        base = load_weights(record["base"], dtype=dtype, trust_remote_code=trust_remote_code, kind=kind)
        merged: PreTrainedModel = load_adapter(base, Path(handle), record).merged()
        return merged.requires_grad_(True)
    model, report = _load(
        kind or _kind_of(handle, trust_remote_code),
        handle,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelLoadError(
            f"language model {str(handle)!r}: must hold every weight of {type(model).__name__}, and lacks "
            f"{len(missing)}, {missing[0]} for one, which would start at random; it is another kind of model, or was "
            "saved with an adapter on it (merge it first)"
        )
    loaded: PreTrainedModel = model
    return loaded


def _kind_of(handle: str | Path, trust_remote_code: bool) -> Any:
    """The class of transformers that loads a model whole: of an encoder-decoder another would take the decoder."""
    name = AutoModelForCausalLM.__name__
    with loading(name, handle, by=name) as source:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    return AutoModelForSeq2SeqLM if getattr(config, "is_encoder_decoder", False) else AutoModelForCausalLM


def load_tokenizer(handle: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder, a GGUF file or a hub id.

    Raises:
        ConfigError: the handle is no text or path.
        ModelLoadError: nothing loads from this handle.
    """
    handle = checked("tokenizer", handle, Place)
    tokenizer: PreTrainedTokenizerBase = _load(AutoTokenizer, handle, trust_remote_code=trust_remote_code)
    if len(tokenizer) < 2:  # what transformers makes up for a folder without tokenizer files
        raise ModelLoadError(
            f"tokenizer {str(handle)!r}: must lie beside the model, and there is none; pass tokenizer=..."
        )
    return tokenizer


def _load(kind: Any, handle: str | Path, **kwargs: Any) -> Any:
    with loading(kind.__name__, handle, by=kind.__name__) as source:
        return kind.from_pretrained(source, **kwargs)
