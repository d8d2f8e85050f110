"""Models and tokenizers of the benchmarks: random weights, words that are numbers, an EOS id out of reach."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lm_gym import LanguageModel

__all__ = ["random_language_model"]


def random_language_model(
    *, vocab: int = 4096, layers: int = 4, width: int = 256, heads: int = 4, positions: int = 1024, seed: int = 0
) -> LanguageModel:
    """A random-weight GPT-2 without dropout; token i is the word "i", and EOS is id ``vocab``, never sampled."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocab,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    words = {str(number): number for number in range(vocab)} | {"<eos>": vocab}
    backend = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    return LanguageModel(GPT2LMHeadModel(config).eval().requires_grad_(False), tokenizer)
