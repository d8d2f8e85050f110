"""A scalar head on any language model, read at the right position.

Hugging Face's decoder classifiers look for the last token whose id is not the pad id. That is wrong as soon
as the pad token also occurs in the text (pad == eos, a text that ends in eos). Here the position comes from
the attention mask, and a checkpoint is saved with a pad id only where no text can contain it. Without a pad
id the plain class reads the very last position: right for a single text, and it refuses a padded batch
instead of misreading it.

Knows: Hugging Face classification models. Does not know: rankings, templates, training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from lm_gym.errors import ConfigError, UnsupportedModelError
from lm_gym.models.loading import load_weights
from lm_gym.models.lora import saved_base
from lm_gym.pretrained.loading import loadable, loading, out_of_the_file
from lm_gym.tools.console.quiet import quiet_transformers
from lm_gym.tools.files import reading
from lm_gym.tools.settings import Place, Seed, checked

__all__ = [
    "ScalarScorer",
    "WeightType",
    "check_padding_invariance",
    "classifier_from",
    "fill_id_of",
    "has_positional_head",
    "longest_input",
    "pad_id_hidden",
    "row_multiple",
]

WeightType = Literal["float32", "bfloat16", "float16"]
"""Types that weights are loaded in."""
INVARIANCE_TOLERANCE = 1e-3
ROW_MULTIPLE = 4
"""A matrix product with a multiple of so many rows rounds every row alike on a CPU; with a remainder it does not."""
# Parts of a classifier that a language model does not have; they start from random weights.
FRESH_PARTS = ("score", "classifier", "pooler", "pre_classifier", "summary", "head.", "out_proj")


class ScalarScorer(nn.Module):
    """A classification model of one label as a function from token ids to one score per row."""

    def __init__(self, model: Any, *, separator_id: int | None = None) -> None:
        """Args:
        model: the classification model.
        separator_id: where rows are pairs of texts, the token that ends the first; models with token types get them.
        """
        super().__init__()
        self.model = model
        types = int(getattr(model.config, "type_vocab_size", 0) or 0)
        self._separator_id = separator_id if types > 1 else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Score N right-padded rows.

        Args:
            input_ids: Shape: (N, T), int64.
            attention_mask: 1 = counts; every row starts with its tokens. Shape: (N, T), int64.

        Returns:
            Shape: (N,), float32.
        """
        if not has_positional_head(self.model):
            types = {} if self._separator_id is None else {"token_type_ids": self._token_types(input_ids)}
            with WholeProducts():
                return self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits[:, 0].float()
        hidden = self.model.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        last = attention_mask.sum(dim=1) - 1
        state = hidden[rows, last].to(next(self.model.score.parameters()).dtype)  # an adapter keeps its head in float32
        with WholeProducts():
            return self.model.score(state)[:, 0].float()

    def _token_types(self, input_ids: Tensor) -> Tensor:
        """0 up to and with the first separator, 1 after it. Shape: (N, T)."""
        separators = torch.eq(input_ids, self._separator_id or 0).long()
        return (separators.cumsum(1) - separators).clamp(max=1)


class WholeProducts(TorchFunctionMode):
    """Inside the block, a linear layer over N states (N, H), as heads and poolers are, gets a whole multiple of rows.

    The layers of the trunk see N x T rows, and T is such a multiple already.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Fill up the rows of a linear layer's input, and cut them off its output; let all else pass."""
        if func is not nn.functional.linear or args[0].dim() != 2 or len(args[0]) % ROW_MULTIPLE == 0:
            return func(*args, **(kwargs or {}))
        states, *rest = args
        filled = nn.functional.pad(states, (0, 0, 0, -len(states) % ROW_MULTIPLE))
        return func(filled, *rest, **(kwargs or {}))[: len(states)]


def row_multiple(width: int) -> int:
    """Rows of this width come in multiples of this many, so that their tokens make whole products."""
    return ROW_MULTIPLE // math.gcd(width, ROW_MULTIPLE)


def has_positional_head(model: Any) -> bool:
    """True for a decoder whose head ``score`` reads the hidden state of one position."""
    return isinstance(getattr(model, "score", None), nn.Module) and model.base_model is not model


def classifier_from(
    base: Any, *, dtype: str, seed: int, use_safetensors: bool | None = None
) -> tuple[Any, tuple[str, ...]]:
    """A fresh one-label classification model on top of a language model.

    Args:
        base: folder (one with an adapter stands for the merged model), GGUF file or hub id of any causal language model
            or encoder, or a loaded ``PreTrainedModel``, which is copied.
        dtype: of the weights, e.g. ``"float32"``.
        seed: of the new head; the global generator is left as it was.
        use_safetensors: True reads no other file of weights; None takes what there is (pickled files as data only).

    Returns: the model in eval mode, and its modules that started from random weights, ``("score",)`` for instance.

    Raises:
        ModelLoadError: there is no model at the handle.
        ArtifactError: its weights are damaged, or of other sizes than its configuration says.
        UnsupportedModelError: an encoder-decoder, or an architecture without a classification model.
    """
    base = checked("reward model base", base, Place | PreTrainedModel)
    seed = checked("reward model: seed of the head", seed, Seed)
    dtype = checked("reward model: dtype", dtype, WeightType)
    if isinstance(base, str | Path) and saved_base(base) is not None:
        base = load_weights(base, dtype=getattr(torch, dtype))  # an adapter's folder: the merged model
    by_name = isinstance(base, str | Path)
    config = _config_of(base) if by_name else copy.deepcopy(base.config)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"reward model base {config.model_type}: must be a decoder or an encoder, got an encoder-decoder; "
            "its classification head reads the eos token by id. Take a causal language model or an encoder."
        )
    config.num_labels = 1
    whole = reading(
        f"reward model base {str(base) if by_name else config.model_type}",
        "must hold whole weights of the sizes in its config.json",
        remedy="copy the folder again, or take another base",
    )
    with whole, torch.random.fork_rng(devices=_cuda_devices()), quiet_transformers(only_errors=True):
        torch.manual_seed(seed)
        try:
            model, missing = _built(loadable(base) if by_name else None, config, getattr(torch, dtype), use_safetensors)
        except ValueError as error:
            raise UnsupportedModelError(
                f"reward model base {config.model_type}: transformers has no sequence classification model for it; "
                f"take another base ({error})"
            ) from error
    if not by_name:
        missing = _copy_weights(base, model)
    lost = [key for key in missing if not any(part in key for part in FRESH_PARTS)]
    if lost:
        raise UnsupportedModelError(
            f"reward model base {config.model_type}: must bring every weight but the head of {type(model).__name__}, "
            f"and lacks {len(lost)}, {lost[0]} for one; it is no trunk of that model"
        )
    return model.eval(), tuple(sorted({key.rpartition(".")[0] for key in missing}))


def _config_of(base: str | Path) -> Any:
    from transformers import AutoConfig

    with loading("reward model base", base, by="AutoConfig") as handle:
        return AutoConfig.from_pretrained(handle)


def _built(handle: str | None, config: Any, dtype: torch.dtype, use_safetensors: bool | None) -> tuple[Any, list[str]]:
    from transformers import AutoModelForSequenceClassification

    if handle is None:
        return AutoModelForSequenceClassification.from_config(config, dtype=dtype), []
    model, report = AutoModelForSequenceClassification.from_pretrained(
        handle, config=config, dtype=dtype, output_loading_info=True, use_safetensors=use_safetensors
    )
    return out_of_the_file(model), sorted(report["missing_keys"])


def _copy_weights(base: Any, model: Any) -> list[str]:
    if type(base) is type(model) and base.config.num_labels == 1:
        model.load_state_dict(base.state_dict())
        return []
    trunk = f"{model.base_model_prefix}."
    missing = model.base_model.load_state_dict(base.base_model.state_dict(), strict=False).missing_keys
    return [*(trunk + key for key in missing), *(key for key in model.state_dict() if not key.startswith(trunk))]


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count()))


def genuine_pad_id(tokenizer: Any) -> int | None:
    """The pad id if it means padding only; None if there is none or it doubles as another special token."""
    pad = tokenizer.pad_token_id
    names = ("eos", "bos", "unk", "cls", "sep", "mask")
    return None if pad in {getattr(tokenizer, f"{name}_token_id", None) for name in names} else pad


def fill_id_of(model: Any, tokenizer: Any) -> int:
    """The id that fills batches up.

    A decoder reads nothing right of the text, so any id does; an encoder may derive positions from the pad
    id.

    Raises:
        ConfigError: an encoder whose tokenizer has no pad token.
    """
    pad = tokenizer.pad_token_id
    if has_positional_head(model):
        return pad if pad is not None and pad < model.config.vocab_size else 0
    if pad is None:
        raise ConfigError(
            f"reward model {type(model).__name__}: an encoder needs a tokenizer with a pad token, got none; "
            "set tokenizer.pad_token to the one that the model was trained with"
        )
    return int(pad)


@contextmanager
def pad_id_hidden(model: Any, tokenizer: Any) -> Iterator[None]:
    """Inside the block the config of a decoder names a pad id only if no text can contain it."""
    config, before = model.config, model.config.pad_token_id
    try:
        if has_positional_head(model):
            config.pad_token_id = genuine_pad_id(tokenizer)
        yield
    finally:
        config.pad_token_id = before


def check_padding_invariance(model: Any, fill_id: int) -> None:
    """Score a few ids alone and filled up on the right.

    Raises:
        UnsupportedModelError: the two differ, so scores would depend on the batch; a recurrent or
            right-aligned architecture.
    """
    device, vocab = model.device, model.config.vocab_size
    ids = [number for number in range(min(vocab, 8)) if number != fill_id] or [fill_id]
    short = torch.tensor([ids], device=device)
    padded = torch.tensor([[*ids, fill_id, fill_id]], device=device)
    mask = torch.ones_like(padded)
    mask[:, len(ids) :] = 0
    scorer = ScalarScorer(model.eval())
    with torch.inference_mode():
        alone = scorer(short, torch.ones_like(short)).item()
        filled = scorer(padded, mask).item()
    if abs(alone - filled) > INVARIANCE_TOLERANCE * max(1.0, abs(alone)):
        raise UnsupportedModelError(
            f"reward model {type(model).__name__}: a score must not depend on padding, and it went from "
            f"{alone:.4f} to {filled:.4f}; take a causal language model or an encoder with an attention mask"
        )


def longest_input(model: Any, tokenizer: Any, at_most: int) -> int:
    """Most tokens that model and tokenizer can take, and never more than ``at_most``."""
    limits = [at_most, tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        embeddings = getattr(model.base_model, "embeddings", None)
        table = getattr(embeddings, "position_embeddings", None)
        offset = getattr(table, "padding_idx", None)  # RoBERTa counts positions from its pad id on
        limits.append(positions if offset is None else positions - offset - 1)
    return int(min(limits))
