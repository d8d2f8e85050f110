"""Pretraining from scratch: a tokenizer and a small language model from plain text, with no network.

Made for a few minutes on a few CPU cores, so that everything else can be run and tested on a model of one's
own. The loop is that of :mod:`lm_gym.agents.supervised.trainer`, over packed blocks of tokens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lm_gym.errors import ConfigError, DataError
from lm_gym.runs.folder import open_shared_run
from lm_gym.tools.digests import digest_parts
from lm_gym.tools.settings import Bounds, Count, NotNegative, Positive, Seed, Several, Share, checked, settings, shown
from lm_gym.tools.trainer.global_state import restored_global_state

from .documents import (
    Document,
    DocumentRule,
    PackedBlocks,
    Texts,
    encode_documents,
    read_documents,
    split_documents,
    train_tokenizer,
)
from .loop import LoopResult, train_language_model
from .run_folder import identity_of, save_finished
from .trainer import LoopConfig

__all__ = ["PretrainConfig", "PretrainResult", "pretrain"]

logger = logging.getLogger(__name__)

VocabularySize = Annotated[int, Bounds(least=257)]
"""Room for 256 bytes and the end-of-text token."""


@settings
class PretrainConfig(LoopConfig):
    """Settings of pretraining: the model, its tokenizer, the text, the optimiser."""

    architecture: Literal["gpt2", "llama"] = "gpt2"
    """GPT-2 (learned positions) or Llama (rotary positions, gated MLP). Input and output embeddings are
    tied."""
    n_layer: Count = 4
    """Transformer blocks."""
    n_embd: Count = 256
    """Width of the hidden states; a multiple of ``n_head``."""
    n_head: Count = 4
    """Attention heads."""
    context: Several = 256
    """Longest sequence of the model, and length of a training block, in tokens."""
    dropout: Share = 0.0
    """Dropout of the blocks in this training, in [0, 1); saved as 0."""
    vocab_size: VocabularySize = 2048
    """The most tokens the tokenizer may have, >= 257 (256 bytes and the end-of-text token)."""
    documents: DocumentRule = "paragraph"
    """Division of a .txt file into documents: at blank lines ("paragraph"), or none ("file")."""
    validation_fraction: Share = 0.05
    """Part of the bytes that is held out, in [0, 1); documents with the same prompt stay together."""
    epochs: Positive = 10.0
    """Passes over the text, > 0."""
    batch_size: Count = 8
    """Blocks per optimiser step in one process."""
    learning_rate: Positive = 1.5e-3
    """Peak learning rate of AdamW; cosine decay to 0."""
    warmup_fraction: Share = 0.05
    """Part of the steps in which the learning rate rises linearly, in [0, 1)."""
    weight_decay: NotNegative = 0.1
    """AdamW's decay of matrices; biases and norms have none."""
    seed: Seed = 0
    """Weights, split, order of the blocks, and dropout."""
    eval_every: Count | None = 500
    """Steps between evaluations on the held-out documents; None evaluates at the end only."""
    checkpoint_every: Count = 500
    """Steps between checkpoints, of which the last two are kept until the run ends."""

    adam_beta2 = 0.99

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ConfigError(f"PretrainConfig.n_embd: must be a multiple of n_head = {self.n_head}, got {self.n_embd}")
        if self.architecture == "llama" and (self.n_embd // self.n_head) % 2:
            raise ConfigError(
                f"PretrainConfig.n_embd: must give heads of even width for rotary positions, got {self.n_embd} for "
                f"n_head = {self.n_head}"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """Result of a pretraining run."""

    output_dir: str
    """Folder of the model and its tokenizer, for ``from_pretrained``."""
    steps: int
    """Optimiser steps."""
    train_loss: float
    """Mean of the last logged steps, nats/token."""
    validation_loss: float | None
    """Loss on the held-out documents, nats/token; None if nothing is held out."""
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
    texts_or_paths: Texts,
    output_dir: str | Path,
    config: PretrainConfig | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> PretrainResult:
    """Train a tokenizer and a language model from scratch, and save both.

    The same arguments give the same weights, whether the run was killed and resumed or not. Random generators,
    environment variables and accelerate's singletons are as before when this returns or raises.

    Args:
        texts_or_paths: files (.txt, or of rows), texts or rows; see
            :func:`lm_gym.agents.supervised.documents.read_documents`.
        output_dir: a new or empty folder. While the run goes on it holds checkpoints; at the end, the model.
        config: settings; None takes the defaults.
        overwrite: replace the run or the model that an earlier call left in ``output_dir``; nothing else is.
        resume: continue a killed run in ``output_dir`` with the same arguments; a finished one returns its
            result.
        progress: show the steps on standard error: a bar on a terminal, a line now and then elsewhere.

    Raises:
        DataError: a file or a row cannot be used, or there is too little text.
        OutputExistsError: ``output_dir`` holds a run, and neither ``overwrite`` nor ``resume`` was asked for; it
            holds something else; or another process works there.
        ConfigError: ``resume`` with other settings, or texts.
        DivergedError: a loss, a gradient or a weight became NaN or infinite; the run stops before the optimiser
            step, and its last checkpoint stays.
        Interrupted: a signal stopped it; a checkpoint was written.
    """
    config = checked("pretrain: config", config, PretrainConfig | None) or PretrainConfig()
    progress = checked("pretrain: progress", progress, bool)
    texts: Any = texts_or_paths
    if isinstance(texts, bytes) or not isinstance(texts, Iterable | Path):
        raise DataError(f"texts: must be texts or files, got {shown(texts)}")
    documents = read_documents(texts_or_paths, rule=config.documents)
    train, held_out = split_documents(documents, validation_fraction=config.validation_fraction, seed=config.seed)
    tokenizer = train_tokenizer(train, vocab_size=config.vocab_size, max_length=config.context)
    blocks = PackedBlocks(encode_documents(train, tokenizer), length=config.context)
    held_out_ids = encode_documents(held_out, tokenizer)
    validation = list(PackedBlocks(held_out_ids, length=config.context)) if len(held_out_ids) > 1 else None
    model = _new_model(config, tokenizer)
    data = {"text": digest_parts(part for document in documents for part in (*document.parts, "\0"))}
    identity = identity_of("pretraining", config, model, tokenizer, data)
    with (
        restored_global_state(),
        open_shared_run(output_dir, identity, resume=resume, overwrite=overwrite, device=config.device) as run,
    ):
        if run.result is not None:
            logger.info("pretraining run %s: is finished already; nothing to resume", run.folder)
            return PretrainResult(**run.result)
        outcome = train_language_model(
            model,
            blocks,
            validation,
            config=config,
            run=run,
            pad_id=int(tokenizer.eos_token_id),
            progress=progress,
            title="pretraining",
        )
        _without_dropout(model)
        result = _result(output_dir, outcome, model, blocks, held_out, len(held_out_ids))
        save_finished(run, model, tokenizer, asdict(result))
    return result


def _result(
    output_dir: str | Path,
    outcome: LoopResult,
    model: PreTrainedModel,
    blocks: PackedBlocks,
    held_out: Sequence[Document],
    held_out_tokens: int,
) -> PretrainResult:
    return PretrainResult(
        output_dir=str(output_dir),
        steps=outcome.steps,
        train_loss=outcome.train_loss,
        validation_loss=outcome.eval_loss,
        bits_per_byte=_bits_per_byte(outcome.eval_loss, held_out_tokens, held_out),
        vocab_size=model.config.vocab_size,
        parameters=model.num_parameters(),
        train_tokens=len(blocks.ids),
        epochs=outcome.epochs,
        tokens_per_second=round(outcome.epochs * len(blocks.ids) / outcome.seconds, 1),
        seconds=outcome.seconds,
    )


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
    """Save the model without dropout: what trains it next chooses for itself."""
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(model.config, name):
            setattr(model.config, name, 0.0)


def _bits_per_byte(loss: float | None, tokens: int, documents: Sequence[Document]) -> float | None:
    if loss is None:
        return None
    return loss * tokens / (math.log(2) * sum(document.size_bytes() for document in documents))
