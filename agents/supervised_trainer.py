"""``transformers.Trainer`` with this library's loss and order of batches; fine-tuning and pretraining share it.

Departures from a plain ``Trainer``, each for a reason:

- the loss is computed here, in float32, over the counted tokens only, and divided by the number of counted
  tokens of the whole optimiser step (all micro-batches, all processes);
- evaluation weighs tokens, not batches, so ``eval_loss`` does not depend on the batch size;
- one schedule of batches covers all epochs and depends on the seed alone, so a resumed run sees the same
  batches;
- the learning rate can follow a clock, so a run with a time budget ends decayed.

Logged, one line of ``metrics.jsonl`` each time:

| name | formula |
|---|---|
| ``step`` | optimiser steps so far |
| ``epoch`` | passes over the rows so far, fractional |
| ``loss`` | -sum log p(token) / counted tokens per step, mean over the steps since the last line, nats/token |
| ``learning_rate`` | of the last step |
| ``grad_norm`` | L2 norm of the gradient of the last step, before clipping |
| ``seconds`` | training time so far, resumed runs added up |
| ``eval_loss`` | -sum log p(token) / counted tokens over the held-out rows, nats/token |

Shapes: B = rows of a micro-batch, S = their padded length, V = vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer

from .text_rows import TokenizedText

__all__ = [
    "IGNORED",
    "BatchSchedule",
    "LearningRate",
    "LoopSettings",
    "TokenLossTrainer",
    "pad_batch",
    "token_nll",
]

IGNORED = -100
"""Label of a token that is not learned; the value is the one transformers uses."""
Decay = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What the loop needs to know; the two public configs are turned into it."""

    total_steps: int
    """Optimiser steps of the whole run; with a time budget, the most there may be."""
    batch_size: int
    """Rows of one micro-batch on one device."""
    gradient_accumulation: int = 1
    """Micro-batches per optimiser step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    decay: Decay = "cosine"
    """Shape of the learning rate after the warmup."""
    warmup_fraction: float = 0.0
    """Part of the run in which the learning rate rises linearly, in [0, 1)."""
    weight_decay: float = 0.0
    """AdamW's decay of matrices; biases and norms have none."""
    max_grad_norm: float = 1.0
    """Clip the gradient's L2 norm to this; 0 does not clip."""
    adam_beta2: float = 0.999
    """AdamW's decay of the second moment."""
    dropout: bool = False
    """Whether the model's own dropout acts in training."""
    bf16: bool = False
    """bf16 autocast."""
    device: Literal["auto", "cpu"] = "auto"
    """"cpu" ignores an accelerator."""
    seed: int = 0
    """Order of the batches, and dropout."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    eval_every: int | None = None
    """Steps between evaluations; None evaluates at the end only."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    max_seconds: float | None = None
    """Time budget of the optimiser steps; None sets none."""


def token_nll(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of the counted tokens, summed per row, in float32.

    Args:
        logits: position t predicts token t + 1. Shape: (B, S, V).
        labels: token ids, or IGNORED. Shape: (B, S).

    Returns:
        nats, and counted tokens, per row. Shapes: (B,), (B,).
    """
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    counts = targets != IGNORED
    # Only counted positions are widened to float32: prompts and pads cost no (.., V) memory.
    losses = functional.cross_entropy(logits[counts].float(), targets[counts], reduction="none")
    rows = counts.nonzero()[:, 0]
    nats = torch.zeros(len(labels), dtype=losses.dtype, device=losses.device).index_add(0, rows, losses)
    return nats, counts.sum(dim=1)


def pad_batch(rows: Sequence[TokenizedText], pad_id: int) -> dict[str, Tensor]:
    """Right-pad rows to one length.

    Returns: ``input_ids``, ``labels`` and ``attention_mask`` (1 = counts). Shape of each: (B, S), int64.
    """
    size = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), size), pad_id, dtype=torch.int64)
    labels = torch.full((len(rows), size), IGNORED, dtype=torch.int64)
    attention_mask = torch.zeros((len(rows), size), dtype=torch.int64)
    for index, row in enumerate(rows):
        ids = torch.as_tensor(row.input_ids, dtype=torch.int64)
        counts = torch.as_tensor(row.loss_mask)
        input_ids[index, : len(ids)] = ids
        labels[index, : len(ids)] = torch.where(counts, ids, IGNORED)
        attention_mask[index, : len(ids)] = 1
    labels[:, 0] = IGNORED  # nothing predicts the first token
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


class BatchSchedule(Sampler[list[int]]):
    """Every batch of the whole run, as lists of row indices: a function of the seed, whatever was run before.

    In each epoch the rows are shuffled, sorted by length inside chunks of 50 batches (so that little is
    padded), and the batches are shuffled again.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, total_batches: int, seed: int) -> None:
        """Args: lengths of the rows in tokens; Shape: (rows,). The rest as in :class:`LoopSettings`."""
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.drop_last = False
        self.total_batches = total_batches
        self.seed = seed

    def __len__(self) -> int:
        return self.total_batches

    def __iter__(self) -> Iterator[list[int]]:
        epoch = given = 0
        while given < self.total_batches:
            for batch in self.epoch(epoch)[: self.total_batches - given]:
                yield batch
                given += 1
            epoch += 1

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of one pass over the rows; each row is in exactly one."""
        rng = np.random.default_rng((self.seed, number))
        order = rng.permutation(len(self.lengths))
        chunk = self.batch_size * 50
        batches: list[list[int]] = []
        for start in range(0, len(order), chunk):
            part = order[start : start + chunk]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size].tolist() for i in range(0, len(part), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]


@dataclass
class LearningRate:
    """Warmup, then decay to 0, along the steps or the clock: whichever is further."""

    settings: LoopSettings
    """The run's."""
    spent_seconds: float = 0.0
    """Training time of earlier processes of this run."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; a test may pass its own."""
    started: float = field(init=False)
    """The clock's value when this process began to count."""

    def __post_init__(self) -> None:
        self.started = self.clock()

    def seconds(self) -> float:
        """Training time so far."""
        return self.spent_seconds + self.clock() - self.started

    def progress(self, step: int) -> float:
        """How much of the run is over, in [0, 1]."""
        by_clock = self.seconds() / self.settings.max_seconds if self.settings.max_seconds else 0.0
        return min(1.0, max(step / self.settings.total_steps, by_clock))

    def factor(self, step: int) -> float:
        """What the peak learning rate is multiplied by in optimiser step ``step``, counted from 0."""
        progress, warmup = self.progress(step), self.settings.warmup_fraction
        if progress < warmup:
            return min(1.0, (progress + 1 / self.settings.total_steps) / warmup)
        left = 1 - (progress - warmup) / (1 - warmup)
        if self.settings.decay == "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))
        return left if self.settings.decay == "linear" else 1.0

    def is_over(self) -> bool:
        """Whether the time budget, if there is one, is spent."""
        return self.settings.max_seconds is not None and self.seconds() >= self.settings.max_seconds


class TokenLossTrainer(Trainer):
    """``Trainer`` with the loss, the order, the evaluation and the learning rate of this module."""

    control: Any
    lr_scheduler: Any

    def __init__(
        self, *, settings: LoopSettings, rate: LearningRate, train_rows: Any, pad_id: int, **options: Any
    ) -> None:
        """Args: settings and rate of the run; train_rows, a sequence of TokenizedText; options go to
        Trainer."""
        super().__init__(
            train_dataset=train_rows,
            data_collator=lambda rows: pad_batch(rows, pad_id),
            compute_loss_func=self._step_loss,
            **options,
        )
        self.settings = settings
        self.rate = rate

    @staticmethod
    def _step_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        nats, counts = token_nll(outputs.logits, labels)
        return nats.sum() / (counts.sum() if num_items_in_batch is None else num_items_in_batch)

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer, with dropout off unless it was asked for."""
        if not self.settings.dropout:
            model.eval()  # Trainer has just called train(); eval() is the one switch that every model honours
        return super().compute_loss(model, *args, **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One pass over the whole run's schedule."""
        settings = self.settings
        schedule = BatchSchedule(
            [len(row.input_ids) for row in self.train_dataset],
            batch_size=settings.batch_size * max(1, self.args.n_gpu),
            total_batches=settings.total_steps * settings.gradient_accumulation * self.args.world_size,
            seed=settings.seed,
        )
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_sampler=schedule,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate as a plain function of the step: a scheduler's checkpoint must not hold a
        clock."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: self.rate.factor(step)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean negative log-likelihood per counted token, in nats, over all processes."""
        self.model.eval()
        nats = counts = 0.0
        for batch in self.get_eval_dataloader(eval_dataset):
            labels = batch.pop("labels")
            with self.accelerator.autocast():
                logits = self.model(**batch).logits
            row_nats, row_counts = self.accelerator.gather_for_metrics(token_nll(logits, labels))
            nats += float(row_nats.double().sum())
            counts += float(row_counts.sum())
        metrics = {f"{metric_key_prefix}_loss": nats / counts}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
