"""A language model as the rest of the library sees it: hidden states, logits, and how its text begins and ends.

Causal models and encoder-decoders. Knows: how to load a model and tokenizer from a handle (once per process), where
trunk and head meet, which token ids start and stop a response, device and precision. Does not know: how a sequence is
decoded (:mod:`lm_gym.models.decoder`), prompts, rewards, sampling.

Shapes: B = rows, S = sequence positions, H = hidden width, V = vocabulary, N = any flat count of positions.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache

from lm_gym.errors import ConfigError, UnsupportedModelError
from lm_gym.models.decoding.caches import GrowingCache
from lm_gym.models.decoding.facts import (
    head_scale,
    is_encoder_decoder,
    longest_sequence,
    positions_in_words,
    start_token_id,
    stop_token_ids,
)
from lm_gym.models.loading import load_tokenizer, load_weights, model_and_tokenizer
from lm_gym.models.lora import Adapter
from lm_gym.models.model_checks import check_can_be_decoded, check_is_no_wrapper, checked_device
from lm_gym.models.response_text import ResponseText
from lm_gym.pretrained.handles import gguf_digest, gguf_of
from lm_gym.scoring.handles import ModelHandle
from lm_gym.tools.settings import Place, checked

__all__ = [
    "DType",
    "LanguageModel",
    "frozen",
    "load_language_model",
    "load_tokenizer",
    "load_weights",
    "own_copy",
    "resolve_device",
]

DType = Literal["auto", "float32", "bfloat16"]
logger = logging.getLogger(__name__)
_loaded: WeakValueDictionary[tuple[Any, ...], LanguageModel] = WeakValueDictionary()


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is CUDA where there is one, else MPS, else the CPU; anything else is taken at its word.

    Raises:
        ConfigError: it is no device, or not there.
    """
    if str(device) != "auto":
        return checked_device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class LanguageModel:
    """A transformer that writes text and its tokenizer, split into trunk and head.

    The head may be applied to any subset of positions, which is what keeps ``(B, S, V)`` tensors from existing.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: DType = "float32",
        adapter: Adapter | None = None,
    ) -> None:
        """Store and check; loads nothing.

        Args:
            model: any ``AutoModelForCausalLM`` or ``AutoModelForSeq2SeqLM`` on its device.
            tokenizer: its tokenizer; must have an EOS token.
            dtype: "auto" adds bf16 autocast where the hardware has it, "float32" computes in the weights' own type.
            adapter: the low-rank updates on the model, if there are.

        Raises:
            ConfigError: the adapter is on another model, or more than its low-rank updates learns.
            UnsupportedModelError: a wrapper of peft, no head, recurrent state, no EOS token, a head whose logits this
                class does not reproduce, or a decoder-only model that places tokens by their slot in the cache or whose
                tokenizer puts EOS behind a prompt.
        """
        check_is_no_wrapper(model)
        model = checked("language model", model, PreTrainedModel)
        tokenizer = checked("tokenizer", tokenizer, PreTrainedTokenizerBase)
        if tokenizer.eos_token_id is None:
            raise UnsupportedModelError(
                f"tokenizer {type(tokenizer).__name__}: must have an EOS token, since that is how a response ends; "
                "set tokenizer.eos_token"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.dtype: DType = checked("dtype", dtype, DType)
        self.adapter = checked("adapter", adapter, Adapter | None)
        if self.adapter is not None:
            self.adapter.check_is_on(model)
        self.is_base = False  # True for the view that base() makes
        self.trunk: nn.Module = model.base_model
        self.is_encoder_decoder = is_encoder_decoder(model)
        self.start_id = start_token_id(model) if self.is_encoder_decoder else None
        self.eos_ids = stop_token_ids(model, tokenizer)
        self.response_text = ResponseText(tokenizer, apart=self.is_encoder_decoder)
        parameters = inspect.signature(self.trunk.forward).parameters
        self.takes_positions = "position_ids" in parameters
        self._head_scale = head_scale(model)
        check_can_be_decoded(self)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def vocab_size(self) -> int:
        """Number of logits, V; a tokenizer may know fewer tokens."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def hidden_size(self) -> int:
        """Width of the states that enter the head, H."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    @property
    def max_length(self) -> int | None:
        """Longest sequence for which stepping and teacher forcing agree, in tokens; None if unbounded (ALiBi, T5).

        Prompt and response of a causal model are one sequence, those of an encoder-decoder are two: what is left for a
        prompt, :meth:`lm_gym.models.decoder.Decoder.longest_prompt` says.

        That is as many tokens as there are positions, and for a long-rope model as its original context has: past it
        ``transformers`` turns every position by other factors, chosen anew by the length of each forward pass.
        """
        return longest_sequence(self.model)

    @property
    def positions(self) -> str:
        """What prompt and response must fit, in words."""
        return positions_in_words(self.model)

    @property
    def max_cache_slots(self) -> int | None:
        """Slots that one forward pass may see, those of the cache included; None for no limit.

        GPT-Neo's causal mask and MPT's ALiBi are laid out for as many slots as there are positions.
        """
        return self.max_length if self.model.config.model_type in ("gpt_neo", "mpt") else None

    @property
    def pad_id(self) -> int:
        """An id that the model can embed, for places that no mask counts; it may equal an EOS id."""
        pad = self.tokenizer.pad_token_id
        pad = self.tokenizer.eos_token_id if pad is None else pad
        # A pad token added to the tokenizer alone lies beyond the embedding; under a mask any id will do.
        return int(pad) if int(pad) < self.vocab_size else 0

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """A block for this model's forward passes: in mixed precision, and without the updates of :meth:`base`.

        Log-softmax stays in float32 outside it. Under an adapter, passes of several threads take turns.
        """
        mixed = self.dtype == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        with (
            torch.autocast("cuda", dtype=torch.bfloat16) if mixed else nullcontext(),
            self.adapter.off() if self.adapter is not None and self.is_base else self.turns,
        ):
            yield

    @property
    def turns(self) -> AbstractContextManager[None]:
        """A block in which no other thread runs this model without its updates, to be entered as often as one likes."""
        return nullcontext() if self.adapter is None else self.adapter.turns

    def base(self) -> LanguageModel:
        """The model that its adapter was added to: a view of the same weights, which turns the adapter off as it runs.

        Raises:
            ConfigError: there is no adapter.
        """
        if self.adapter is None:
            raise ConfigError(
                f"language model {type(self.model).__name__}: must have an adapter to be its own reference without it, "
                "and has none; load it with lora=LoraSettings(), or load a reference of its own by load_language_model"
            )
        view = copy.copy(self)
        view.is_base = True
        return view

    def weights(self) -> dict[str, Tensor]:
        """The weights that a pass reads, by name and not copied: those of :meth:`base` under the base's own names."""
        if self.adapter is not None and self.is_base:
            return self.adapter.base_state()
        return self.model.state_dict(keep_vars=True)

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Run the trunk of a causal model.

        Args:
            input_ids: Shape: (B, S), int64.
            attention_mask: True where a slot of cache plus input counts. Shape: (B, S_cache + S). None counts all,
                which is right for right-padded input: causal attention never looks at a pad from a real token.
            position_ids: Shape: (B, S); dropped for models that place tokens by the mask (ALiBi).
            cache: extended in place by S slots.

        Returns: the states that enter the head. Shape: (B, S, H).
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        kwargs: dict[str, Any] = {"attention_mask": attention_mask.long(), "use_cache": cache is not None}
        if cache is not None:
            kwargs["past_key_values"] = cache
        if self.takes_positions and position_ids is not None:
            kwargs["position_ids"] = position_ids
        with self.autocast():
            return self.trunk(input_ids=input_ids, **kwargs).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head. Args: hidden of shape (N, H). Returns: Shape: (N, V), float32."""
        with self.autocast():
            logits = self.model.get_output_embeddings()(hidden * self._head_scale)
        return self._finish(logits.float())

    def _finish(self, logits: Tensor) -> Tensor:
        config = self.model.config.get_text_config()
        scale = getattr(config, "logit_scale", None)
        if scale is not None:
            logits = logits * scale
        divisor = getattr(config, "logits_scaling", None)
        if divisor is not None:
            logits = logits / divisor
        cap = getattr(config, "final_logit_softcapping", None)
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        bias = dict(self.model.named_buffers(recurse=False)).get("final_logits_bias")  # of BART and its kin
        return logits if bias is None else logits + bias

    def new_cache(self) -> DynamicCache:
        """An empty cache that keeps every slot, whatever window a layer looks through; for passes without autograd."""
        return GrowingCache()


def own_copy(shared: LanguageModel) -> LanguageModel:
    """Copy a language model: what is loaded by handle is shared, and may be a reference's.

    Its adapter is copied with it; a copy of :meth:`LanguageModel.base` has none.
    """
    if shared.adapter is None:
        return LanguageModel(copy.deepcopy(shared.model), shared.tokenizer, dtype=shared.dtype)
    adapter = copy.deepcopy(shared.adapter)
    if shared.is_base:
        return LanguageModel(adapter.unloaded(), shared.tokenizer, dtype=shared.dtype)
    return LanguageModel(adapter.model, shared.tokenizer, dtype=shared.dtype, adapter=adapter)


def frozen(language_model: LanguageModel) -> LanguageModel:
    """The language model itself if it is frozen, else a frozen copy of it as it is now.

    A model that somebody may be training is never changed: whoever wants its weights shared instead of copied freezes
    it first (``model.eval().requires_grad_(False)``). :meth:`LanguageModel.base` is frozen while its own weights are,
    whatever its adapter learns.
    """
    if not _learns(language_model.model, language_model.weights().values()):
        return language_model
    copied = own_copy(language_model)
    _freeze(copied.model)
    return copied


def _learns(model: nn.Module, weights: Iterable[Tensor]) -> bool:
    """True if somebody may be training it: dropout is on, or a weight takes gradients."""
    return any(part.training for part in model.modules()) or any(weight.requires_grad for weight in weights)


def _freeze(model: PreTrainedModel) -> None:
    model.zero_grad(set_to_none=True)
    model.eval().requires_grad_(False)


def load_language_model(
    handle: ModelHandle | LanguageModel | PreTrainedModel,
    *,
    tokenizer: str | PreTrainedTokenizerBase | None = None,
    device: str | torch.device = "auto",
    dtype: DType = "auto",
    trust_remote_code: bool = False,
    shared: bool = True,
) -> LanguageModel:
    """Load a frozen language model from a handle; the same handle is loaded once per process and shared.

    Args:
        handle: a folder, a GGUF file, a hub id, ``"module:factory"``, a callable that returns ``(model, tokenizer)``,
            or a model (one that somebody may be training is copied, see :func:`frozen`).
        tokenizer: tokenizer or its handle, where the model's own folder has none.
        device: "auto" or a torch device.
        dtype: "auto" and "float32" keep float32 weights ("auto" with bf16 autocast on hardware that has it);
            "bfloat16" stores bf16 weights.
        trust_remote_code: run code that ships with a hub model. Off unless you say so.
        shared: False loads a model anew, for the caller alone, who may change it.

    Raises:
        ConfigError: handle, tokenizer, device or dtype is of a kind that names none.
        ModelLoadError: nothing loads from this handle.
        UnsupportedModelError: it loads and cannot be used; see :class:`LanguageModel`.
    """
    if isinstance(handle, LanguageModel):
        return frozen(handle)
    handle = checked("model", handle, Place | Callable | PreTrainedModel)
    tokenizer = checked("tokenizer", tokenizer, Place | PreTrainedTokenizerBase | None)
    dtype = checked("dtype", dtype, DType)
    trust_remote_code = checked("trust_remote_code", trust_remote_code, bool)
    where = resolve_device(device)
    key = (_hashable(handle), _hashable(tokenizer), str(device), dtype)
    found = _loaded.get(key) if shared and key[0] is not None else None
    if found is None:
        weights = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        model, own = model_and_tokenizer(handle, tokenizer, dtype=weights, trust_remote_code=trust_remote_code)
        if isinstance(handle, PreTrainedModel) and _learns(model, model.parameters()):
            model = copy.deepcopy(model)
        _freeze(model.to(where))
        found = LanguageModel(model, own, dtype=dtype)
        if shared and key[0] is not None:
            _loaded[key] = found
    return found


def _hashable(handle: Any) -> Any:
    """Key of a handle among the loaded models; None for a live model, which is never shared by name."""
    if isinstance(handle, PreTrainedModel):
        return None
    if handle is None or isinstance(handle, PreTrainedTokenizerBase):
        return ("tokenizer", id(handle))
    if isinstance(handle, partial):  # a deep copy of one is another object that stands for the same call
        return ("partial", handle.func, repr(handle.args), repr(sorted(handle.keywords.items())))
    if isinstance(handle, str | Path) and (gguf := gguf_of(handle)) is not None:
        return ("gguf", gguf_digest(gguf))
    if isinstance(handle, str | Path) and Path(handle).is_dir():
        # A folder that was written anew is another model, even while one from its old files is alive.
        return (str(handle), max((file.stat().st_mtime_ns for file in Path(handle).iterdir()), default=0))
    return str(handle) if isinstance(handle, Path) else handle
