"""``transformers.Trainer`` with this library's loss and order of batches; fine-tuning and pretraining share it.

Departures from a plain ``Trainer``, each for a reason:

- the loss is computed here, in float32, over the counted tokens only, and divided by the number of counted
  tokens of the whole optimiser step (all micro-batches, all processes);
- evaluation weighs tokens, not batches, so ``eval_loss`` does not depend on the batch size;
- one schedule of batches covers all epochs and depends on the seed alone, so a resumed run sees the same
  batches;
- a loss or a gradient that is NaN or infinite raises before the optimiser step (``Trainer`` logs the loss as 0 and
  takes the step);
- dropout is off unless it is asked for.

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
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler

from lm_gym.tools.settings import Count, NotNegative, Positive, Seed, Share, settings
from lm_gym.tools.trainer.finite_trainer import FiniteTrainer

from .rows import TokenizedText

__all__ = [
    "IGNORED",
    "BatchSchedule",
    "LoopConfig",
    "TokenLossTrainer",
    "learning_rate_factor",
    "pad_batch",
    "pad_pairs",
    "token_nll",
]

IGNORED = -100
"""Label of a token that is not learned; the value is the one transformers uses."""


@settings
class LoopConfig:
    """Settings that fine-tuning and pretraining share; each has its own defaults."""

    epochs: Positive = 3.0
    """Passes over the rows, > 0."""
    max_steps: Count | None = None
    """Optimiser steps; if given, it decides instead of ``epochs``."""
    batch_size: Count = 8
    """Rows of one micro-batch in one process."""
    learning_rate: Positive = 5e-5
    """Peak learning rate of AdamW."""
    warmup_fraction: Share = 0.03
    """Part of the steps in which the learning rate rises linearly, in [0, 1)."""
    weight_decay: NotNegative = 0.0
    """AdamW's decay of matrices; biases and norms have none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto" is bf16 autocast on a GPU that has it, else float32. Weights and loss are float32 always."""
    device: Literal["auto", "cpu"] = "auto"
    """"auto" takes an accelerator where there is one."""
    seed: Seed = 0
    """Order of the rows, and dropout."""
    eval_every: Count | None = None
    """Steps between evaluations on the held-out rows; None evaluates at the end only."""
    checkpoint_every: Count = 200
    """Steps between checkpoints, of which the last two are kept until the run ends."""

    # What the loop reads besides; a subclass makes a field of what its users may choose.
    gradient_accumulation = 1
    decay = "cosine"
    max_grad_norm = 1.0
    adam_beta2 = 0.999
    dropout = 0.0
    log_every = 10

    def batches_per_process(self, row_count: int, processes: int) -> int:
        """Micro-batches that each process learns from in the whole run."""
        if self.max_steps is not None:
            return self.max_steps * self.gradient_accumulation
        return max(1, round(self.epochs * math.ceil(row_count / self.batch_size) / processes))


def learning_rate_factor(step: int, total_steps: int, *, warmup_fraction: float, decay: str) -> float:
    """Factor of the peak learning rate in optimiser step ``step``, counted from 0: linear warmup, then decay to 0."""
    progress = min(1.0, step / total_steps)
    if progress < warmup_fraction:
        return min(1.0, (progress + 1 / total_steps) / warmup_fraction)
    left = 1 - (progress - warmup_fraction) / (1 - warmup_fraction)
    if decay == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    return left if decay == "linear" else 1.0


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


def pad_pairs(rows: Sequence[TokenizedText], pad_id: int, start_id: int) -> dict[str, Tensor]:
    """Prompts and completions of an encoder-decoder, each right-padded to one length.

    Returns: ``input_ids`` and ``attention_mask`` of the prompts, shape (B, P); ``decoder_input_ids`` and ``labels``,
    which is what :func:`token_nll` takes: the start token and the completion, of which the completion counts, shape
    (B, S). All int64.
    """
    starts = [int(np.argmax(row.loss_mask)) for row in rows]
    prompts = [
        TokenizedText(input_ids=row.input_ids[:start], loss_mask=row.loss_mask[:start])
        for row, start in zip(rows, starts, strict=True)
    ]
    targets = [
        TokenizedText(input_ids=[start_id, *row.input_ids[start:]], loss_mask=[False, *row.loss_mask[start:]])
        for row, start in zip(rows, starts, strict=True)
    ]
    read, written = pad_batch(prompts, pad_id), pad_batch(targets, pad_id)
    return {
        "input_ids": read["input_ids"],
        "attention_mask": read["attention_mask"],
        "decoder_input_ids": written["input_ids"],
        "labels": written["labels"],
    }


class BatchSchedule(Sampler[list[int]]):
    """The batches of one process in the whole run, as lists of row indices: a function of the seed alone.

    In each epoch the rows are shuffled, sorted by length inside chunks of 50 batches (so that little is
    padded), and the batches are shuffled again; processes take turns. Accelerate's own division of batches is not used:
    it drops short ones, and here the last batch of each pass may be short.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int,
        batch_count: int,
        seed: int,
        process: int = 0,
        process_count: int = 1,
    ) -> None:
        """Args: lengths of the rows in tokens, Shape: (rows,); batch_count: batches that each process gets."""
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.drop_last = False
        self.batch_count = batch_count
        self.seed = seed
        self.process = process
        self.process_count = process_count

    def __len__(self) -> int:
        return self.batch_count

    def __iter__(self) -> Iterator[list[int]]:
        every = (batch for number in count() for batch in self.epoch(number))
        return islice(every, self.process, self.batch_count * self.process_count, self.process_count)

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


class TokenLossTrainer(FiniteTrainer):
    """``Trainer`` with the loss, the order, the evaluation and the learning rate of this module."""

    control: Any
    lr_scheduler: Any

    def __init__(self, *, config: LoopConfig, train_rows: Any, collate: Any, title: str, **options: Any) -> None:
        """Args:
        config: of the loop.
        train_rows: a sequence of TokenizedText.
        collate: makes a batch of some of them, with ``labels`` for :func:`token_nll`.
        title: names the run in errors.
        options: of Trainer.
        """
        super().__init__(
            train_dataset=train_rows,
            data_collator=collate,
            compute_loss_func=self._step_loss,
            subject=title,
            remedy="start again with a lower learning_rate, and look for broken weights in the model it starts from",
            **options,
        )
        self.config = config

    @staticmethod
    def _step_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        nats, counts = token_nll(outputs.logits, labels)
        return nats.sum() / (counts.sum() if num_items_in_batch is None else num_items_in_batch)

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer, with dropout off unless it was asked for."""
        if not self.config.dropout:
            model.eval()  # Trainer has just called train(); eval() is the one switch that every model honours
        return super().compute_loss(model, *args, **kwargs)

    def require_finite_weights(self) -> None:
        """Refuse a model with a NaN or an infinity in it. Raises: DivergedError."""
        for weight in self.model.parameters():
            largest = float(weight.detach().abs().max()) if weight.numel() else 0.0
            self.require_finite(largest, f"largest weight after step {self.state.global_step}")

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of this process in the whole run; Trainer moves each to the device."""
        process_count = self.args.world_size
        schedule = BatchSchedule(
            [len(row.input_ids) for row in self.train_dataset],
            batch_size=self.config.batch_size,
            batch_count=self.config.batches_per_process(len(self.train_dataset), process_count),
            seed=self.config.seed,
            process=self.args.process_index,
            process_count=process_count,
        )
        return DataLoader(
            self.train_dataset,
            batch_sampler=schedule,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return a scheduler over :func:`learning_rate_factor`."""
        if self.lr_scheduler is None:
            factor = partial(
                learning_rate_factor,
                total_steps=num_training_steps,
                warmup_fraction=self.config.warmup_fraction,
                decay=self.config.decay,
            )
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the mean negative log-likelihood per counted token, in nats, over all processes."""
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
        self.require_finite(nats / counts, f"held-out loss after step {self.state.global_step}")
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
