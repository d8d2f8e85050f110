"""The language model that ships: small, quiet to load, and fluent in the language of reviews."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_gym.assets import REVIEWS_LM
from lm_gym.reviews import corpus, is_grammatical, prompts, true_score


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(REVIEWS_LM, padding_side="left")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(REVIEWS_LM).eval()


def sample(model, tokenizer, lines: list[str], seed: int) -> list[str]:
    batch = tokenizer(lines, return_tensors="pt", padding=True)
    torch.manual_seed(seed)
    tokens = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=96,
    )
    return tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def test_it_fits_into_a_commit() -> None:
    assert (REVIEWS_LM / "model.safetensors").stat().st_size <= 4_000_000
    assert sum(file.stat().st_size for file in REVIEWS_LM.iterdir()) <= 4_500_000


def test_it_loads_without_a_word() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler(level=logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    try:
        tokenizer = AutoTokenizer.from_pretrained(REVIEWS_LM)
        model = AutoModelForCausalLM.from_pretrained(REVIEWS_LM)
        end = tokenizer.eos_token_id
        model.generate(**tokenizer("Review of a desk lamp:", return_tensors="pt"), max_new_tokens=2)
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert [record.getMessage() for record in records] == []
    assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.pad_token == "<|endoftext|>"
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == config.bos_token_id == config.pad_token_id == end
    assert model.config.n_positions >= 160
    assert len(tokenizer) == model.config.vocab_size <= 1024


def test_any_text_encodes_and_comes_back(tokenizer) -> None:
    for text in ("Ünïcödé 中文 ☃ \t\n", "".join(map(chr, range(256))), " The light is warm."):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_prompt_and_completion_encode_apart_as_together(tokenizer) -> None:
    for row in corpus(200, 21):
        apart = tokenizer(row["prompt"])["input_ids"] + tokenizer(row["completion"])["input_ids"]
        assert apart == tokenizer(row["prompt"] + row["completion"])["input_ids"]


def test_the_tokenizer_is_thrifty(tokenizer) -> None:
    n_tokens = [len(tokenizer(row["completion"])["input_ids"]) for row in corpus(1000, 22)]
    assert np.mean(n_tokens) <= 40
    assert max(n_tokens) <= 96


def test_its_samples_are_english_of_middling_quality(model, tokenizer) -> None:
    held_out = prompts("held_out")
    lines = [held_out[index % len(held_out)] for index in range(200)]
    texts = sample(model, tokenizer, lines, seed=0)
    grammatical = np.mean([is_grammatical(*pair) for pair in zip(lines, texts, strict=True)])
    assert grammatical >= 0.9
    assert np.mean(true_score(lines, texts)) == pytest.approx(0.46, abs=0.06)
    assert np.std(true_score(lines, texts)) > 0.12
    assert len(set(texts)) > 190
