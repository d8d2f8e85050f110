"""Builds the tiny language model of the built-in task from nothing but the task's grammar.

    python -m lm_gym.assets.build_reviews_lm --out DIR --seed 0

A byte-level BPE tokenizer (any text encodes) and a small GPT-2 are trained on the corpus, reviews of
all qualities, so the model writes sound English of mixed merit and leaves room to improve. Every row
is seen once: the corpus is drawn as long as training lasts. The loss counts completion tokens and
the end-of-text token only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from lm_gym.errors import ConfigError
from lm_gym.files import replaced_folder
from lm_gym.reviews import corpus

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

__all__ = ["BuildConfig", "build", "build_model", "build_tokenizer", "main", "train"]

END_OF_TEXT = "<|endoftext|>"
_IGNORED = -100
_WINDOW = 32
_SEED_STRIDE = 100_003
_USUAL_TOKENS = 35


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Everything that decides what is built."""

    out: Path
    """Folder to write; replaced as a whole, and only once everything has been built."""
    seed: int = 0
    """Seed of the corpus and of the weights."""
    vocab_size: int = 1024
    """Tokens, the 256 bytes and the end-of-text token included."""
    n_tokenizer_rows: int = 20_000
    """Corpus rows that the tokenizer is trained on."""
    n_layer: int = 2
    """Transformer blocks."""
    n_head: int = 4
    """Attention heads of each block."""
    n_embd: int = 128
    """Width of the residual stream."""
    n_positions: int = 192
    """Longest prompt and response together, in tokens."""
    n_steps: int = 12_000
    """Optimiser steps."""
    batch_size: int = 32
    """Reviews for each step."""
    learning_rate: float = 4e-3
    """Peak of the schedule: linear warm-up over the first 5% of the steps, then a cosine to zero."""
    weight_decay: float = 0.01
    """Decoupled decay of the matrices."""
    n_threads: int = 2
    """CPU threads."""

    def __post_init__(self) -> None:
        """Check the ranges that would otherwise fail late or silently."""
        for name in ("n_tokenizer_rows", "n_steps", "batch_size", "n_threads"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"BuildConfig.{name}: must be at least 1, got {value}; raise it")
        if self.vocab_size < 257:
            raise ConfigError(
                f"BuildConfig.vocab_size: must hold 256 bytes and the end of text, got {self.vocab_size}; "
                "pass 257 or more"
            )


def build_tokenizer(config: BuildConfig) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer on the corpus; the end-of-text token is also bos and pad."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = corpus(config.n_tokenizer_rows, config.seed)
    tokenizer.train_from_iterator((row["prompt"] + row["completion"] for row in rows), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=config.n_positions,
        clean_up_tokenization_spaces=False,
    )


def build_model(config: BuildConfig, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """A GPT-2 with fresh weights and no dropout, sized by ``config``."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(config.seed)
    end = tokenizer.eos_token_id
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=config.n_positions,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            # The same function as GPT-2's "gelu_new", in one kernel instead of eight.
            activation_function="gelu_pytorch_tanh",
        )
    )


def _schedule(step: int, n_steps: int) -> float:
    warm_up = max(1, n_steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


def _encode(row: dict[str, str], tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    prompt: list[int] = tokenizer(row["prompt"])["input_ids"]
    completion: list[int] = tokenizer(row["completion"] + END_OF_TEXT)["input_ids"]
    return prompt + completion, [_IGNORED] * len(prompt) + completion


def _pad(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [_IGNORED] * (width - len(labels)) for _, labels in rows])
    return input_ids, labels


def _batches(config: BuildConfig, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``input_ids`` and ``labels`` without end, both (batch, longest row of the batch).

    Right padding may be attended to: no position that counts stands to the right of a pad. Rows of
    like length share a batch, which saves a third of the work.
    """
    import torch

    shuffle = torch.Generator().manual_seed(config.seed)
    for window in count(1):
        rows = corpus(config.batch_size * _WINDOW, config.seed * _SEED_STRIDE + window)
        encoded = sorted((_encode(row, tokenizer) for row in rows), key=lambda pair: len(pair[0]))
        longest = len(encoded[-1][0])
        if longest > config.n_positions:
            raise ConfigError(
                f"BuildConfig.n_positions: must hold every row of the corpus, got {config.n_positions} and a row of "
                f"{longest} tokens; raise it, or raise vocab_size"
            )
        for index in torch.randperm(_WINDOW, generator=shuffle).tolist():
            first = index * config.batch_size
            yield _pad(encoded[first : first + config.batch_size], tokenizer.pad_token_id)


def train(config: BuildConfig, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> float:
    """Trains ``model`` in place with AdamW; shows progress.

    Returns the running mean of the loss at the end, in nats per completion token.
    """
    import torch
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from torch.nn.functional import cross_entropy

    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, config.n_steps))
    batches = _batches(config, tokenizer)
    running = 0.0
    model.train()
    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("train", total=config.n_steps, loss="")
        for step in range(config.n_steps):
            input_ids, labels = next(batches)
            logits = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits
            total = cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED, reduction="sum"
            )
            # A mean over each batch would count the tokens of short reviews for more, end of text above all.
            loss = total / (config.batch_size * _USUAL_TOKENS)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            keep = min(0.98, step / (step + 1))
            n_counted = int((labels[:, 1:] != _IGNORED).sum())
            running = keep * running + (1.0 - keep) * total.item() / n_counted
            progress.update(task, advance=1, loss=f"{running:.4f} nats per token")
    model.eval()
    return running


def build(config: BuildConfig) -> float:
    """Builds tokenizer and model and writes them to ``config.out``; returns the last training loss.

    The folder appears, or is replaced, only when everything has been written. Sets the CPU threads of
    the process to ``config.n_threads``.
    """
    import torch

    torch.set_num_threads(config.n_threads)
    tokenizer = build_tokenizer(config)
    model = build_model(config, tokenizer)
    loss = train(config, model, tokenizer)
    with replaced_folder(config.out) as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)
    return loss


def main() -> None:
    """Reads the settings from the command line and builds."""
    import tyro

    build(tyro.cli(BuildConfig, description=__doc__))


if __name__ == "__main__":
    main()
