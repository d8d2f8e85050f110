"""Tiny random models and a word tokenizer, built from configs; nothing is downloaded."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = [
    *("the", "a", "film", "was", "is", "very", "not", "good", "bad", "great", "dull", "plain", "review", "movie"),
    *("write", "of", "brilliant", "awful", "fine", "one", "two", "three", "four", "five", "six", "seven", "eight"),
    *("nine", "ten", "and", "or", "but", "{", "}", ":", ".", ",", "!", "like"),
]
SPECIALS = ["<eos>", "<unk>", "<pad>", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(autouse=True, scope="session")
def _small_machine() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_tokenizer(**specials: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {word: number for number, word in enumerate([*SPECIALS, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **specials)


def decoder_tokenizer() -> Any:
    """A tokenizer whose pad token is its eos token, as many decoders have it."""
    return make_tokenizer(eos_token="<eos>", pad_token="<eos>")


def encoder_tokenizer() -> Any:
    from tokenizers import processors

    tokenizer = make_tokenizer(pad_token="<pad>", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    return tokenizer


def _tiny_model(kind: str, seed: int = 0) -> Any:
    """A random model of a few thousand weights: "gpt2", "llama" (grouped queries) or "bert"."""
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
    )

    vocab = len(SPECIALS) + len(WORDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "gpt2":
            config = GPT2Config(
                vocab_size=vocab,
                n_positions=64,
                n_embd=32,
                n_layer=2,
                n_head=2,
                bos_token_id=0,
                eos_token_id=0,
                initializer_range=0.2,
            )
            return GPT2LMHeadModel(config)
        sizes = {
            "vocab_size": vocab,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,
        }
        if kind == "llama":
            return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, bos_token_id=0, eos_token_id=0, **sizes))
        return BertForMaskedLM(BertConfig(pad_token_id=2, **sizes))


def _tokenizer_for(kind: str) -> Any:
    return encoder_tokenizer() if kind == "bert" else decoder_tokenizer()


def _save_base(kind: str, folder: Path) -> Path:
    from lm_gym.tools.console.quiet import quiet_transformers

    with quiet_transformers(only_errors=True):
        _tiny_model(kind).save_pretrained(folder)
    _tokenizer_for(kind).save_pretrained(folder)
    return folder


def _reward_of(kind: str, **settings: Any) -> Any:
    from lm_gym.reward_models import PreferenceRewardModel

    return PreferenceRewardModel.from_base(_tiny_model(kind), _tokenizer_for(kind), device="cpu", **settings)


VALUES = {"good": 1.0, "great": 2.0, "bad": -1.0, "awful": -2.0}


def _word_score(prompts: list[str], completions: list[str]) -> list[float]:
    """A truth that a tiny model can learn: the sum of its words' values."""
    return [sum(VALUES.get(word, 0.0) for word in text.split()) for text in completions]


def _judged_texts(count: int, responses: int, seed: int) -> list[Any]:
    """Noise-free rankings of random texts under the word score, ties kept."""
    from lm_gym.reward_models import Judgement

    rng = random.Random(seed)
    rankings: list[Any] = []
    while len(rankings) < count:
        texts = sorted({" ".join(rng.choices([*VALUES, "plain", "film"], k=5)) for _ in range(responses)})
        scores = _word_score([], texts)
        ranks = tuple(1 + sum(other > score for other in scores) for score in scores)
        if len(set(ranks)) > 1:
            rankings.append(Judgement.ranking("write a review :", texts, ranks))
    return rankings


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    return _tiny_model


@pytest.fixture(scope="session")
def tokenizer_for() -> Callable[[str], Any]:
    return _tokenizer_for


@pytest.fixture(scope="session")
def save_base() -> Callable[[str, Path], Path]:
    """Puts a base language model with its tokenizer on disk, as a user would have it."""
    return _save_base


@pytest.fixture(scope="session")
def reward_of() -> Callable[..., Any]:
    """Makes an untrained PreferenceRewardModel on a tiny model of the kind."""
    return _reward_of


@pytest.fixture(scope="session")
def word_score() -> Callable[..., list[float]]:
    return _word_score


@pytest.fixture(scope="session")
def judged_texts() -> Callable[..., list[Any]]:
    return _judged_texts


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real judgements, where there is one."""
    folder = os.environ.get("LM_GYM_DATA")
    if not folder or not Path(folder, "arguments", "rankings.jsonl").is_file():
        pytest.skip("LM_GYM_DATA names no folder with arguments/rankings.jsonl")
    return Path(folder)
