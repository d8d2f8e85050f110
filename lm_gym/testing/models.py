"""Tiny language models with random weights and a tokenizer of single letters: built in memory, nothing is downloaded.

Knows: six architectures whose caches and positions differ (GPT-2: learned positions; Llama and Qwen2: rotary,
grouped-query; BLOOM: ALiBi, no position ids; and two encoder-decoders, T5 with relative and BART with learned
positions). The wide default initialisation makes the next-token distributions far
from uniform, so that a mistake in a mask or a position shows.

Shapes: V = vocabulary.
"""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from lm_gym.models.language_model import LanguageModel
from lm_gym.tools.settings import Count, NotNegative, Seed, Several, checked

__all__ = ["Architecture", "tiny_language_model", "tiny_tokenizer"]

Architecture = Literal["gpt2", "llama", "qwen2", "bloom", "t5", "bart"]
_BART_SIDE = {"layers": 2, "ffn_dim": 64, "attention_heads": 4}


def tiny_tokenizer(vocab_size: int = 16, *, ends_prompts: bool = False) -> PreTrainedTokenizerFast:
    """One token per word: id 0 is EOS and pad, the others are "a", "b", ..., "z", "a1", "b1", ...; joined by spaces.

    Args:
        vocab_size: V, EOS included, >= 2.
        ends_prompts: put EOS after every text that is encoded with special tokens, as the tokenizers of
            encoder-decoders do.

    Raises:
        ConfigError: fewer than two tokens.
    """
    vocab_size = checked("tiny_tokenizer: vocab_size", vocab_size, Several)
    words = [
        ascii_lowercase[number % 26] + (str(number // 26) if number >= 26 else "") for number in range(vocab_size - 1)
    ]
    vocabulary = {word: number for number, word in enumerate(["<eos>", *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends_prompts:
        core.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")


def tiny_language_model(
    architecture: Architecture = "gpt2",
    *,
    vocab_size: int = 16,
    max_length: int = 32,
    seed: int = 0,
    initializer_range: float = 0.3,
) -> LanguageModel:
    """A frozen two-layer model of width 32 with random weights, on the CPU, in float32.

    Args:
        architecture: "gpt2", "llama", "qwen2", "bloom", "t5" or "bart".
        vocab_size: V, EOS (id 0) included.
        max_length: positions, in tokens (BLOOM and T5 have no limit; BART has as many for each of prompt and response).
        seed: of the weights; PyTorch's own random state is left as it is.
        initializer_range: standard deviation of the weights; the larger, the less uniform the distributions.

    Raises:
        ConfigError: unknown architecture, or fewer than two tokens.
    """
    architecture = checked("tiny_language_model: architecture", architecture, Architecture)
    max_length = checked("tiny_language_model: max_length", max_length, Count)
    seed = checked("tiny_language_model: seed", seed, Seed)
    initializer_range = checked("tiny_language_model: initializer_range", initializer_range, NotNegative)
    tokenizer = tiny_tokenizer(vocab_size, ends_prompts=architecture in ("t5", "bart"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make = _encoder_decoder if architecture in ("t5", "bart") else _model
        model = make(architecture, vocab_size, max_length, initializer_range)
    return LanguageModel(model.eval().requires_grad_(False), tokenizer)


def _model(architecture: Architecture, vocab_size: int, max_length: int, initializer_range: float) -> PreTrainedModel:
    shared: dict[str, Any] = {
        "vocab_size": vocab_size,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": initializer_range,
    }
    if architecture == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_positions=max_length, n_embd=32, n_layer=2, n_head=2, **shared))
    if architecture == "bloom":
        return BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, pad_token_id=0, **shared))
    shared |= {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": max_length,
    }
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**shared))
    return Qwen2ForCausalLM(Qwen2Config(**shared))


def _encoder_decoder(
    architecture: Architecture, vocab_size: int, max_length: int, initializer_range: float
) -> PreTrainedModel:
    shared: dict[str, Any] = {
        "vocab_size": vocab_size,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "d_model": 32,
    }
    if architecture == "t5":  # its factor multiplies deviations of about 1 / sqrt(width)
        sizes = {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8}
        return T5ForConditionalGeneration(T5Config(initializer_factor=5 * initializer_range, **sizes, **shared))
    sides = {f"{side}_{size}": value for side in ("encoder", "decoder") for size, value in _BART_SIDE.items()}
    return BartForConditionalGeneration(
        BartConfig(max_position_embeddings=max_length, init_std=initializer_range, **sides, **shared)
    )
