"""Checks that a language model can be decoded row by row: run a few tokens both ways and compare.

What is accepted here computes the same distribution token by token with a cache, by teacher forcing and by a plain call
of the model; what cannot is refused when it is given, by name and with a reason.

Shapes: B = rows, S = sequence positions, H = hidden width, N = any flat count of positions, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from lm_gym.errors import ConfigError, LmGymError, ModelLoadError, UnsupportedModelError
from lm_gym.models.decoding.encoder_decoder import EncoderDecoder
from lm_gym.tools.settings import shown

__all__ = ["check_can_be_decoded", "check_is_no_wrapper", "checked_device", "made_by"]


class Model(Protocol):
    """The model that the checks run: see ``lm_gym.models.language_model.LanguageModel``."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool
    start_id: int | None
    takes_positions: bool

    @property
    def device(self) -> torch.device: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def pad_id(self) -> int: ...

    def autocast(self) -> AbstractContextManager[Any]: ...

    def new_cache(self) -> DynamicCache: ...

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, cache: Cache | None = None
    ) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


def checked_device(device: Any) -> torch.device:
    """The device of a name. Raises: ConfigError: it names none, or one that is not there."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise ConfigError(
            f'device: must be "auto" or the name of a device of torch, such as "cpu" or "cuda:0", got {shown(device)}'
        ) from None
    missing = {
        "cuda": found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count(),
        "mps": found.type == "mps" and not torch.backends.mps.is_available(),
    }
    if missing.get(found.type):
        raise ConfigError(
            f"device: must be there, and torch sees {torch.cuda.device_count()} GPUs of CUDA here and "
            f'{"an" if torch.backends.mps.is_available() else "no"} MPS, got {shown(device)}; pass "auto" or "cpu"'
        )
    return found


def made_by(factory: Callable[[], Any]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """What the factory of a language model makes: a model, with its tokenizer or without.

    Raises:
        ModelLoadError: it fails, or makes something else.
        UnsupportedModelError: it is not a factory but peft's wrapper around a model, or makes one.
    """
    check_is_no_wrapper(factory)
    try:
        made = factory()
    except LmGymError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code
        raise ModelLoadError(
            f"language model factory {shown(factory)}: must return (model, tokenizer) when it is called without "
            f"arguments, and raised {type(error).__name__}: {error}"
        ) from error
    model, tokenizer = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    check_is_no_wrapper(model)
    known = isinstance(model, PreTrainedModel)
    if not known or not (tokenizer is None or isinstance(tokenizer, PreTrainedTokenizerBase)):
        raise ModelLoadError(
            f"language model factory {shown(factory)}: must return a model of transformers and its tokenizer, got "
            f"{shown(made)}"
        )
    return model, tokenizer


def check_is_no_wrapper(model: object) -> None:
    """Refuse peft's wrapper around a model, whose parts are not where a model of transformers has them.

    Raises:
        UnsupportedModelError: it is one.
    """
    if any(kind.__module__.partition(".")[0] == "peft" for kind in type(model).__mro__):
        raise UnsupportedModelError(
            f"language model {type(model).__name__}: must be a model of transformers itself, got peft's wrapper around "
            "one; add the adapter by lm_gym.models.lora.add_adapter, which changes the model in place, and give that "
            "model (that of a wrapper is wrapper.get_base_model())"
        )


@torch.no_grad()
def check_can_be_decoded(model: Model) -> None:
    """Run a few tokens in each way that the library does; the model is left in the mode that it was in.

    Raises:
        UnsupportedModelError: no head, recurrent state, a head whose logits are not reproduced, tokens that are placed
            by their slot in a cache that rows share, a tokenizer that closes the texts which a causal model continues,
            or an encoder-decoder without a start token.
    """
    name = type(model.model).__name__
    if model.model.get_output_embeddings() is None:
        raise UnsupportedModelError(
            f"language model {name}: must have a head that gives each token of the vocabulary a logit, and has none; "
            "use a causal language model or a whole encoder-decoder"
        )
    with _in_eval_mode(model.model):
        if model.is_encoder_decoder:
            _check_encoder_decoder(model)
            return
        _check_texts_stay_open(model)
        _check_cache_kind(model.model)
        probe = torch.arange(4, device=model.device).unsqueeze(0) % model.vocab_size
        _check_head(model, probe)
        if not model.takes_positions:
            _check_places(model, probe)


def _check_encoder_decoder(model: Model) -> None:
    """Compare two rows of unlike prompts, at once and token by token, with a plain call of the model on each."""
    name = type(model.model).__name__
    if model.start_id is None:
        raise UnsupportedModelError(
            f"language model {name}: an encoder-decoder must name the token that a response is written after, and "
            "names none; set model.config.decoder_start_token_id (of a multilingual model, that of the language)"
        )
    # The pad token among them: what a token is may not depend on where pads stand.
    probe = np.array([1, 2, model.pad_id, 3, 1]) % model.vocab_size
    prompts, responses = [probe, probe[:2]], [probe[1:4], probe[1:4]]
    try:
        expected = torch.cat([_plain_logits(model, *row) for row in zip(prompts, responses, strict=True)])
        decoder = EncoderDecoder(model, 2)
        at_once = model.logits(decoder.teacher_forced(prompts, responses).before)
        states = [decoder.prefill([0, 1], prompts)]
        states += [decoder.advance(np.full(2, token), np.ones(2, dtype=bool)) for token in responses[0][:-1]]
        stepped = model.logits(torch.stack(states, dim=1).flatten(0, 1))
    except (TypeError, AttributeError, LookupError, ValueError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"language model {name}: must have an encoder of text, and a decoder of text with a key-value cache, and "
            f"running them failed: {error}; this architecture is not supported"
        ) from error
    for way, found in (("at once", at_once), ("token by token", stepped)):
        if not _alike(model, found, expected):
            raise UnsupportedModelError(
                f"language model {name}: logits of rows that are run {way} must be the model's own, and differ from "
                f"them by {(found - expected).abs().max():.3g}; this architecture is not supported"
            )


def _alike(model: Model, found: Tensor, expected: Tensor) -> bool:
    """True if two ways to the same logits differ by rounding alone, which follows the largest of them.

    Raises:
        UnsupportedModelError: they are no numbers.
    """
    if not (found.isfinite().all() and expected.isfinite().all()):
        raise UnsupportedModelError(
            f"language model {type(model.model).__name__}: must give finite logits, got NaN or infinity, as damaged "
            "weights do, or a training that diverged; take another checkpoint"
        )
    with model.autocast():
        exact = model.model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
    slack = 1e-3 if exact else 0.1
    return bool((found - expected).abs().max() <= slack * expected.abs().max().clamp(min=1.0))


def _plain_logits(model: Model, prompt: np.ndarray, response: np.ndarray) -> Tensor:
    """Logits of each token of a response, by one call. Shape: (T, V), float32."""
    ids, written = (torch.from_numpy(row)[None].to(model.device) for row in (prompt, response))
    start = torch.full_like(written[:, :1], model.start_id or 0)
    with model.autocast():
        logits: Tensor = model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=torch.cat([start, written[:, :-1]], dim=1),
        ).logits[0]
    return logits.float()


def _check_texts_stay_open(model: Model) -> None:
    """Refuse a tokenizer that writes EOS behind a prompt: what a causal model says after it is another text's start."""
    whole, body = (model.tokenizer("a", add_special_tokens=each)["input_ids"] for each in (True, False))
    if body and whole[-len(body) :] != body:
        last = model.tokenizer.convert_ids_to_tokens(whole[-1])
        raise UnsupportedModelError(
            f"tokenizer {type(model.tokenizer).__name__}: must put no token behind a text, which the causal model goes "
            f"on with, and puts {last!r} there; set tokenizer.add_eos_token "
            "= False, or give the tokenizer another post-processor"
        )


def _check_cache_kind(model: PreTrainedModel) -> None:
    layers = DynamicCache(config=model.config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    if getattr(model, "_is_stateful", False) or not plain:
        raise UnsupportedModelError(
            f"language model {type(model).__name__}: must keep a key-value cache with one slot per token, "
            "got a recurrent or compressed state, which cannot be shifted when a row resets; "
            "use a transformer with plain or sliding-window attention"
        )


def _check_head(model: Model, probe: Tensor) -> None:
    """Compare the plain way with this library's way, with a cache."""
    name = type(model.model).__name__
    try:
        with model.autocast():
            expected = model.model(input_ids=probe, attention_mask=torch.ones_like(probe)).logits[0].float()
        cache = model.new_cache()
        actual = model.logits(model.hidden(probe, cache=cache)[0])
        begun = model.logits(model.hidden(probe[:, :2])[0])
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"language model {name}: must keep a key-value cache and have a trunk that returns hidden states, and "
            f"running it failed: {error}; this architecture is not supported"
        ) from error
    if cache.get_seq_length() != probe.shape[1]:
        raise UnsupportedModelError(
            f"language model {name}: must keep a key-value cache with one slot per token, got "
            f"{cache.get_seq_length()} slots for {probe.shape[1]} tokens; this architecture is not supported"
        )
    if not _alike(model, actual[:2], begun):
        raise UnsupportedModelError(
            f"language model {name}: the logits after a token must not depend on the tokens that follow, and they do; "
            "it is an encoder, which cannot write; use a causal language model or a whole encoder-decoder"
        )
    if not torch.allclose(actual, expected, rtol=1e-2, atol=1e-2):
        raise UnsupportedModelError(
            f"language model {name}: logits must be head(trunk(x)), scaled or soft-capped as its config says, and "
            f"differ from the model's own by {(actual - expected).abs().max():.3g}; use another architecture"
        )


def _check_places(model: Model, probe: Tensor) -> None:
    """Compare tokens alone with the same behind two hidden slots: without position ids, the mask must place them."""
    shifted = nn.functional.pad(probe, (2, 0), value=model.pad_id)
    mask = nn.functional.pad(torch.ones_like(probe), (2, 0))
    alone, behind = model.logits(model.hidden(probe)[:, -1]), model.logits(model.hidden(shifted, mask)[:, -1])
    slack = 1e-3 if model.model.dtype == torch.float32 else 5e-2
    if not torch.allclose(alone, behind, rtol=slack, atol=slack):
        raise UnsupportedModelError(
            f"language model {type(model.model).__name__}: must place a token by position ids or by the mask, and it "
            "goes by the token's slot in the cache, which shifts when a row resets; use a decoder-only architecture, "
            "or the whole encoder-decoder (AutoModelForSeq2SeqLM) where this is the decoder of one"
        )


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off within the block; every part is left in the mode that it was in."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
