"""Fine-tuning of encoder-decoders: prompts are read, completions are learned, and the folder is theirs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from lm_gym.agents import LanguageModelPolicy, SupervisedConfig, supervised_finetune
from lm_gym.agents.supervised.rows import TokenizedText, tokenize_rows
from lm_gym.agents.supervised.trainer import IGNORED, pad_pairs, token_nll
from lm_gym.errors import DataError, UnsupportedModelError
from lm_gym.testing import tiny_language_model, tiny_tokenizer

ROWS = [
    {"prompt": "a b", "completion": "c"},
    {"prompt": "c", "completion": "d e f"},
    {"prompt": "e f g h", "completion": "a"},
]


def model_of(architecture: Any) -> Any:
    model = tiny_language_model(architecture)
    return model.model.requires_grad_(True), model.tokenizer


def test_pairs_by_hand() -> None:
    rows = [
        TokenizedText(input_ids=(5, 6, 0, 7, 0), loss_mask=(False, False, False, True, True)),
        TokenizedText(input_ids=(8, 9, 9, 0), loss_mask=(False, True, True, True)),
    ]
    batch = pad_pairs(rows, pad_id=1, start_id=2)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 0], [8, 1, 1]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "decoder_input_ids": [[2, 7, 0, 1], [2, 9, 9, 0]],
        "labels": [[IGNORED, 7, 0, IGNORED], [IGNORED, 9, 9, 0]],
    }


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_the_loss_is_that_of_the_models_own_labels(architecture: str) -> None:
    model, tokenizer = model_of(architecture)
    texts = tokenize_rows(ROWS, tokenizer, apart=True).rows
    batch = pad_pairs(texts, pad_id=0, start_id=0)
    labels = batch.pop("labels")
    with torch.no_grad():
        nats, counts = token_nll(model(**batch).logits, labels)
        assert counts.tolist() == [2, 4, 2]
        for row, mean in zip(ROWS, nats / counts, strict=True):
            own = tokenizer(row["prompt"], text_target=row["completion"], return_tensors="pt")
            assert mean.item() == pytest.approx(model(**own).loss.item(), abs=1e-5)


def bart_like() -> PreTrainedTokenizerFast:
    """Texts between ``<s>`` (the word "a", made special) and EOS, with a language (the word "b") after a text."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "a", "additional_special_tokens": ["b"]})
    specials = [("<eos>", 0), ("a", 1), ("b", 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="a $A <eos> b", special_tokens=specials
    )
    return tokenizer


def test_a_target_begins_as_its_tokenizer_says_and_ends_by_one_stop_token() -> None:
    row = {"prompt": "c d", "completion": "e"}
    (text,) = tokenize_rows([row], bart_like(), apart=True).rows
    assert list(text.input_ids) == [1, 3, 4, 0, 2, 1, 5, 0]
    assert list(text.loss_mask) == [False] * 5 + [True] * 3


def test_each_side_has_the_limit_for_itself() -> None:
    tokenizer = tiny_tokenizer(ends_prompts=True)
    row = {"prompt": "a b c d", "completion": "e f g"}  # 5 tokens, and 4 behind the start token
    assert tokenize_rows([row], tokenizer, apart=True, max_length=5).truncated_count == 0
    with pytest.raises(DataError, match="row 1: must have at most max_length = 4 tokens, got 5"):
        tokenize_rows([row], tokenizer, apart=True, max_length=4)
    cut = tokenize_rows([row], tokenizer, apart=True, max_length=3, on_long_row="truncate")
    assert list(cut.rows[0].input_ids) == [3, 4, 0, 5, 6]
    assert int(np.sum(cut.rows[0].loss_mask)) == 2
    assert cut.truncated_count == 1


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_overfits_saves_and_answers(architecture: str, tmp_path: Path) -> None:
    model, tokenizer = model_of(architecture)
    config = SupervisedConfig(max_steps=40, batch_size=3, learning_rate=1e-2, checkpoint_every=100)
    out = tmp_path / "model"
    result = supervised_finetune(model, ROWS, out, config, tokenizer=tokenizer, eval_rows=ROWS, progress=False)
    assert result.eval_loss is not None
    assert result.eval_loss < 0.2
    assert result.perplexity == pytest.approx(math.exp(result.eval_loss))
    loaded = AutoModelForSeq2SeqLM.from_pretrained(out)
    assert type(loaded) is type(model)
    policy = LanguageModelPolicy.from_pretrained(out, device="cpu")
    answers = policy.respond([row["prompt"] for row in ROWS], top_k=1, max_new_tokens=6, seed=0)
    assert answers == [row["completion"] for row in ROWS]


def test_a_model_without_a_start_token_is_refused(tmp_path: Path) -> None:
    model, tokenizer = model_of("t5")
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    with pytest.raises(UnsupportedModelError, match="must name the token that a response is written after"):
        supervised_finetune(model, ROWS, tmp_path / "out", tokenizer=tokenizer, progress=False)
