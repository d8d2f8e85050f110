"""Texts scored per second, against the plain library call on the same model.

Random weights of the shape of MiniLM (6 layers of width 384). Four pairs, each taken in turns:

- ``batch``: ``PreferenceRewardModel.score`` against tokenizer and model called on the same batch of 32 texts;
- ``mixed``: the same against ``transformers.pipeline`` with its batch size 32, on texts of mixed lengths;
- ``pair``: ``CrossEncoderRewardModel.score`` against ``CrossEncoder.predict``;
- ``embedding``: ``EmbeddingRewardModel.score`` against ``SentenceTransformer.encode``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from lm_gym.reward_models import (
    CrossEncoderRewardModel,
    EmbeddingRewardModel,
    EmbeddingTrainingConfig,
    Judgement,
    PreferenceRewardModel,
    SentenceFeatures,
)
from lm_gym.tools.console.quiet import quiet_transformers

VOCAB, LONGEST = 8192, 256


def checkpoint(folder: Path) -> Path:
    """A classifier of one label with a tokenizer that reads numbers as words."""
    vocab = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])}
    vocab |= {str(number): number + 4 for number in range(VOCAB - 4)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=LONGEST, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=12,
        num_labels=1,
    )
    with quiet_transformers():
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def seconds(run: Callable[[], Any]) -> float:
    """Of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def ratio(ours: Callable[[], Any], plain: Callable[[], Any], repeats: int) -> float:
    """Texts per second of ours over those of the plain call: the median over turns."""
    ours(), plain()
    return statistics.median(seconds(plain) / seconds(ours) for _ in range(repeats))


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)

    def words(count: int) -> str:
        return " ".join(map(str, rng.integers(VOCAB - 4, size=count)))

    prompts = [words(20)] * 128
    mixed = [words(int(length)) for length in rng.integers(8, 200, size=128)]
    even = [words(100) for _ in range(32)]
    with tempfile.TemporaryDirectory() as temporary, quiet_transformers():
        folder = checkpoint(Path(temporary))
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        settings = {"max_length": LONGEST, "device": "cpu"}
        scorer = PreferenceRewardModel(model, tokenizer, **settings)
        pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", batch_size=32)
        library = CrossEncoder(str(folder), device="cpu")
        paired = CrossEncoderRewardModel(library.model, tokenizer, template="pair", **settings)
        modules = [base := Transformer(str(folder), max_seq_length=LONGEST), Pooling(base.get_embedding_dimension())]
        encoder = SentenceTransformer(modules=modules, device="cpu")
        features = SentenceFeatures(encoder, source="random")
        judgements = [Judgement.pair("p", words(9), words(9)) for _ in range(8)]
        embedding = EmbeddingRewardModel.train(judgements, features, EmbeddingTrainingConfig())
        joined = [scorer.encoder.template.join(p, r) for p, r in zip(prompts, mixed, strict=True)]
        same = [scorer.encoder.template.join(p, r) for p, r in zip(prompts, even, strict=False)]

        @torch.inference_mode()
        def plain_batch() -> Any:
            return model(**tokenizer(same, padding=True, return_tensors="pt")).logits[:, 0].numpy()

        def embed() -> Any:
            embedding._embed._store.clear()
            return embedding.score(prompts, mixed)

        report = {
            "benchmark": "scoring rate, ours over the library's plain call",
            "batch": ratio(lambda: scorer.score(prompts[:32], even), plain_batch, options.repeats),
            "mixed": ratio(
                lambda: scorer.score(prompts, mixed), lambda: pipe(joined, function_to_apply="none"), options.repeats
            ),
            "pair": ratio(
                lambda: paired.score(prompts, mixed),
                lambda: library.predict(list(zip(prompts, mixed, strict=True)), show_progress_bar=False),
                options.repeats,
            ),
            "embedding": ratio(embed, lambda: encoder.encode(mixed, show_progress_bar=False), options.repeats),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
