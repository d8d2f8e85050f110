"""Pretraining from scratch: a tokenizer and a small language model from plain text, with no network.

Made for a few minutes on a few CPU cores, so that everything else can be run and tested on a model of one's
own. The loop is that of :mod:`lm_gym.agents.supervised_trainer`, over packed blocks of tokens.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lm_gym.errors import ConfigError
from lm_gym.language_model import load_tokenizer

from .pretraining_text import (
    Document,
    DocumentRule,
    PackedBlocks,
    encode_documents,
    read_documents,
    split_documents,
    train_tokenizer,
)
from .supervised_loop import LoopResult, train_language_model, wants_bf16
from .supervised_run import RunFolder, digest, is_main_process, open_run, save_finished
from .supervised_trainer import LoopSettings

__all__ = ["PretrainConfig", "PretrainResult", "pretrain"]

logger = logging.getLogger(__name__)
_DEFAULT_EPOCHS = 10.0
_MANY_STEPS = 10**9


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A model, a tokenizer and how long they are trained."""

    architecture: Literal["gpt2", "llama"] = "gpt2"
    """GPT-2 (learned positions) or Llama (rotary positions, gated MLP). Input and output embeddings are
    tied."""
    n_layer: int = 4
    """Transformer blocks."""
    n_embd: int = 256
    """Width of the hidden states; a multiple of ``n_head``."""
    n_head: int = 4
    """Attention heads."""
    context: int = 256
    """Longest sequence of the model, and length of a training block, in tokens."""
    dropout: float = 0.0
    """Dropout of the blocks in this training, in [0, 1); saved as 0."""
    vocab_size: int = 2048
    """The most tokens the tokenizer may have, >= 257 (256 bytes and the end-of-text token)."""
    documents: DocumentRule = "paragraph"
    """What one document of a .txt file is: the lines between blank lines, or the whole "file"."""
    validation_fraction: float = 0.05
    """Part of the bytes that is held out, in [0, 1); documents with the same prompt stay together."""
    epochs: float | None = None
    """Passes over the text; None is 10, or as many as fit where ``max_minutes`` or ``max_steps`` is given."""
    max_steps: int | None = None
    """Most optimiser steps; None sets no limit."""
    max_minutes: float | None = None
    """Wall-clock budget from the call to the last step, tokenizer included; the learning rate reaches 0 by
    then. Final evaluation and saving come after. Where a clock decides, two runs are not the same to the
    bit."""
    batch_size: int = 8
    """Blocks per optimiser step on one device."""
    learning_rate: float = 1.5e-3
    """Peak learning rate of AdamW; cosine decay to 0."""
    warmup_fraction: float = 0.05
    """Part of the run in which the learning rate rises linearly, in [0, 1)."""
    weight_decay: float = 0.1
    """AdamW's decay of matrices; biases and norms have none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto" is bf16 autocast on a GPU that has it, else float32. Weights and loss are float32 always."""
    device: Literal["auto", "cpu"] = "auto"
    """"auto" takes an accelerator where there is one."""
    seed: int = 0
    """Weights, split, order of the blocks, and dropout."""
    checkpoint_every: int = 500
    """Steps between checkpoints, each after an evaluation; the last two are kept until the run ends."""

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_embd", "n_head", "batch_size", "checkpoint_every"):
            _require(getattr(self, name) >= 1, self, name, "must be >= 1")
        _require(self.n_embd % self.n_head == 0, self, "n_embd", f"must be a multiple of n_head = {self.n_head}")
        even_heads = self.architecture != "llama" or (self.n_embd // self.n_head) % 2 == 0
        _require(even_heads, self, "n_embd", "must give heads of even width for rotary positions")
        _require(self.context >= 2, self, "context", "must be >= 2")
        _require(self.vocab_size >= 257, self, "vocab_size", "must be >= 257")
        for name in ("dropout", "validation_fraction", "warmup_fraction"):
            _require(0 <= getattr(self, name) < 1, self, name, "must be in [0, 1)")
        for name in ("epochs", "max_steps", "max_minutes"):
            value = getattr(self, name)
            _require(value is None or value > 0, self, name, "must be None or > 0")
        finite = math.isfinite(self.learning_rate) and self.learning_rate > 0
        _require(finite, self, "learning_rate", "must be finite and > 0")
        _require(self.weight_decay >= 0, self, "weight_decay", "must be >= 0")
        _one_of(self, "architecture", "gpt2", "llama")
        _one_of(self, "documents", "paragraph", "file")
        _one_of(self, "precision", "auto", "float32", "bfloat16")
        _one_of(self, "device", "auto", "cpu")


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """What a pretraining run did and reached."""

    output_dir: str
    """Folder of the model and its tokenizer, for ``from_pretrained``."""
    steps: int
    """Optimiser steps."""
    train_loss: float
    """Mean of the last logged steps, nats/token."""
    validation_loss: float | None
    """On the held-out documents, nats/token; None if nothing is held out."""
    bits_per_byte: float | None
    """validation_loss x held-out tokens / (ln 2 x held-out bytes): comparable across tokenizers. End-of-text
    tokens count as tokens and have no bytes."""
    vocab_size: int
    """Tokens of the tokenizer that was learned."""
    parameters: int
    """Weights of the model."""
    train_tokens: int
    """Tokens of the training text, once."""
    epochs: float
    """Passes over it."""
    tokens_per_second: float
    """Training tokens seen per second of training time, evaluations and checkpoints included."""
    seconds: float
    """Training time, resumed runs added up."""


def pretrain(
    texts_or_paths: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    config: PretrainConfig | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> PretrainResult:
    """Train a tokenizer and a language model from scratch, and save both.

    Args:
        texts_or_paths: files (.txt, .jsonl, .jsonl.gz) or texts; see
            :func:`lm_gym.agents.pretraining_text.read_documents`.
        output_dir: a new or empty folder. While the run goes on it holds checkpoints; at the end, the model.
        config: settings; None takes the defaults.
        overwrite: replace what ``output_dir`` holds.
        resume: continue a killed run in ``output_dir`` with the same arguments; a finished one returns its
            result.
        progress: show a bar if standard error is a terminal.

    Raises:
        DataError: a file or a row cannot be used, or there is too little text.
        OutputExistsError: ``output_dir`` holds something, and neither ``overwrite`` nor ``resume`` was asked
            for.
        ConfigError: ``resume`` with other settings or data, or a time budget that is over before the first
            step.
    """
    began = time.monotonic()
    config = config or PretrainConfig()
    _check_budget(config, 0.0)
    documents = read_documents(texts_or_paths, rule=config.documents)
    train, held_out = split_documents(documents, validation_fraction=config.validation_fraction, seed=config.seed)
    data = digest(part for document in documents for part in (*document.parts, "\0"))
    run = open_run(output_dir, kind="pretraining", config=config, data_sha256=data, overwrite=overwrite, resume=resume)
    if run.finished is not None:
        logger.info("pretraining run %s: is finished already; nothing to resume", run.path)
        return PretrainResult(**run.finished)
    tokenizer = _tokenizer(run, train, config)
    blocks = PackedBlocks(encode_documents(train, tokenizer), length=config.context)
    held_out_ids = encode_documents(held_out, tokenizer)
    validation = list(PackedBlocks(held_out_ids, length=config.context)) if len(held_out_ids) > 1 else None
    model = _new_model(config, tokenizer)
    spent = time.monotonic() - began
    _check_budget(config, spent)
    outcome = train_language_model(
        model,
        blocks,
        validation,
        settings=_settings(config, len(blocks)),
        run=run,
        pad_id=int(tokenizer.eos_token_id),
        progress=progress,
        title="pretraining",
        spent_seconds=spent,
    )
    _without_dropout(model)
    result = _result(output_dir, config, outcome, model, blocks, held_out, len(held_out_ids))
    save_finished(run, model, tokenizer, asdict(result))
    return result


def _result(
    output_dir: str | Path,
    config: PretrainConfig,
    outcome: LoopResult,
    model: PreTrainedModel,
    blocks: PackedBlocks,
    held_out: Sequence[Document],
    held_out_tokens: int,
) -> PretrainResult:
    epochs = outcome.steps * config.batch_size / len(blocks)
    return PretrainResult(
        output_dir=str(output_dir),
        steps=outcome.steps,
        train_loss=outcome.train_loss,
        validation_loss=outcome.eval_loss,
        bits_per_byte=_bits_per_byte(outcome.eval_loss, held_out_tokens, held_out),
        vocab_size=model.config.vocab_size,
        parameters=model.num_parameters(),
        train_tokens=len(blocks.ids),
        epochs=round(epochs, 3),
        tokens_per_second=round(epochs * len(blocks.ids) / outcome.seconds, 1),
        seconds=outcome.seconds,
    )


def _tokenizer(run: RunFolder, train: Sequence[Document], config: PretrainConfig) -> PreTrainedTokenizerBase:
    folder = run.path / "tokenizer"
    if (folder / "tokenizer_config.json").is_file() and run.checkpoint() is not None:
        return load_tokenizer(folder)
    tokenizer = train_tokenizer(train, vocab_size=config.vocab_size, max_length=config.context)
    if is_main_process():
        tokenizer.save_pretrained(folder)
    return tokenizer


def _new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    end = int(tokenizer.eos_token_id)
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        if config.architecture == "gpt2":
            return GPT2LMHeadModel(
                GPT2Config(
                    n_layer=config.n_layer,
                    n_embd=config.n_embd,
                    n_head=config.n_head,
                    n_positions=config.context,
                    resid_pdrop=config.dropout,
                    embd_pdrop=config.dropout,
                    attn_pdrop=config.dropout,
                    **shared,
                )
            )
        # A gated MLP has three matrices where a plain one has two: 8/3 of the width costs the same.
        return LlamaForCausalLM(
            LlamaConfig(
                num_hidden_layers=config.n_layer,
                hidden_size=config.n_embd,
                num_attention_heads=config.n_head,
                intermediate_size=32 * math.ceil(config.n_embd * 8 / 3 / 32),
                max_position_embeddings=config.context,
                attention_dropout=config.dropout,
                **shared,
            )
        )


def _without_dropout(model: PreTrainedModel) -> None:
    """The saved model has none: what trains it next should choose for itself."""
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(model.config, name):
            setattr(model.config, name, 0.0)


def _settings(config: PretrainConfig, block_count: int) -> LoopSettings:
    limited = config.max_minutes is not None or config.max_steps is not None
    epochs = config.epochs if config.epochs is not None else None if limited else _DEFAULT_EPOCHS
    by_epochs = _MANY_STEPS if epochs is None else max(1, round(epochs * block_count / config.batch_size))
    return LoopSettings(
        total_steps=min(by_epochs, config.max_steps or _MANY_STEPS),
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_fraction=config.warmup_fraction,
        weight_decay=config.weight_decay,
        adam_beta2=0.99,
        dropout=config.dropout > 0,
        bf16=wants_bf16(config.precision, config.device),
        device=config.device,
        seed=config.seed,
        eval_every=config.checkpoint_every,
        checkpoint_every=config.checkpoint_every,
        max_seconds=None if config.max_minutes is None else 60 * config.max_minutes,
    )


def _check_budget(config: PretrainConfig, spent_seconds: float) -> None:
    if config.max_minutes is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Each process has its own clock, hence its own learning rate: their weights would drift apart.
        raise ConfigError(
            f"PretrainConfig.max_minutes: must be None with several processes, got {config.max_minutes}; use max_steps"
        )
    if config.max_minutes is not None and spent_seconds >= 60 * config.max_minutes:
        raise ConfigError(
            f"PretrainConfig.max_minutes: must leave time for training, got {config.max_minutes}, and reading the "
            f"text and training the tokenizer took {spent_seconds / 60:.2f}; raise it, or give less text"
        )


def _bits_per_byte(loss: float | None, tokens: int, documents: Sequence[Document]) -> float | None:
    if loss is None:
        return None
    return loss * tokens / (math.log(2) * sum(document.size_bytes() for document in documents))


def _one_of(config: PretrainConfig, name: str, *choices: str) -> None:
    _require(getattr(config, name) in choices, config, name, f"must be one of {', '.join(choices)}")


def _require(holds: bool, config: PretrainConfig, name: str, rule: str) -> None:
    if not holds:
        raise ConfigError(f"PretrainConfig.{name}: {rule}, got {getattr(config, name)!r}")
