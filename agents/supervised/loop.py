"""Training of a language model on tokenised rows: the trainer set up, metrics written, progress shown.

Knows: the trainer, checkpoints, metrics, the progress. Does not know: where rows come from, or how a finished
model is saved.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from lm_gym.processes import launched_processes
from lm_gym.runs.folder import Run
from lm_gym.runs.metrics_file import METRICS_FILE, drop_metrics
from lm_gym.runs.signals import Interrupted, StopRequest, stopping_at_signals
from lm_gym.tools.console.quiet import quiet_transformers
from lm_gym.tools.files import append_jsonl
from lm_gym.tools.trainer.trainer_progress import TrainerProgress

from .rows import TokenizedText
from .trainer import LoopConfig, TokenLossTrainer, pad_batch, pad_pairs

__all__ = ["LoopResult", "RunWatcher", "train_language_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """Measurements of one training."""

    steps: int
    """Optimiser steps, those before a resume included."""
    train_loss: float
    """Mean of the last logged steps, nats/token."""
    eval_loss: float | None
    """At the end, nats/token; None without held-out rows."""
    epochs: float
    """Passes over the rows."""
    seconds: float
    """Training time, resumed runs added up."""


def train_language_model(
    model: PreTrainedModel,
    rows: Sequence[TokenizedText],
    eval_rows: Sequence[TokenizedText] | None,
    *,
    config: LoopConfig,
    run: Run,
    pad_id: int,
    start_id: int | None = None,
    progress: bool,
    title: str,
) -> LoopResult:
    """Train ``model`` in place, from the run's last checkpoint if it has one.

    Args:
        rows: at least one.
        eval_rows: evaluated at the end and every ``config.eval_every`` steps; None for no evaluation.
        pad_id: any id that the model has an embedding for.
        start_id: the token that an encoder-decoder's completion is written after; None for a causal model.
        progress: show the steps on standard error: a bar on a terminal, a line now and then elsewhere.
        title: names the run in its progress and in errors.

    Raises:
        DivergedError: a loss, a gradient or a weight became NaN or infinite.
        Interrupted: a signal asked it to stop; the step at work was finished and a checkpoint written.
    """
    found = run.newest_checkpoint()
    use_cache = model.config.use_cache
    trainer = TokenLossTrainer(
        config=config,
        train_rows=rows,
        eval_dataset=None if eval_rows is None else sorted(eval_rows, key=lambda row: len(row.input_ids)),
        collate=partial(pad_batch, pad_id=pad_id)
        if start_id is None
        else partial(pad_pairs, pad_id=pad_id, start_id=start_id),
        title=title,
        model=model,
        args=_arguments(run.checkpoints, config, has_eval=eval_rows is not None),
    )
    watcher = RunWatcher(run, trainer, row_count=len(rows), spent_seconds=found.note["seconds"] if found else 0.0)
    watcher.drop_metrics_after(found.number if found else 0)
    shown = TrainerProgress(title, visible=progress)
    trainer.add_callback(watcher)
    trainer.add_callback(shown)
    trainer.remove_callback(PrinterCallback)
    try:
        # Trainer warns of tied weights that a checkpoint does not repeat; what it loads is hashed.
        with quiet_transformers(only_errors=True):
            with stopping_at_signals() as watcher.stop:
                outcome = trainer.train(resume_from_checkpoint=str(found.folder) if found else None)
            if watcher.stop.signal is not None:
                raise Interrupted(watcher.stop.signal)
            seconds = watcher.seconds()
            trainer.require_finite_weights()
            if eval_rows is not None and watcher.last_eval_step != outcome.global_step:
                trainer.evaluate()
    finally:
        shown.close()
        model.eval()
        model.config.use_cache = use_cache  # Trainer switches it off, and a saved model without it decodes slowly
    return LoopResult(
        steps=outcome.global_step,
        train_loss=watcher.loss,
        eval_loss=watcher.eval_loss,
        epochs=watcher.epochs(outcome.global_step),
        seconds=seconds,
    )


def _arguments(folder: Path, config: LoopConfig, *, has_eval: bool) -> TrainingArguments:
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported()
    # One "epoch" of the Trainer is the whole schedule of batches; see BatchSchedule.
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        bf16=config.precision == "bfloat16" or (config.precision == "auto" and has_bf16),
        use_cpu=config.device == "cpu",
        seed=config.seed,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if has_eval and config.eval_every else "no",
        eval_steps=config.eval_every,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=on_gpu,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are used by several processes, never by threads
    return arguments


class RunWatcher(TrainerCallback):
    """Writes metrics, declares checkpoints whole, and stops the run at a signal."""

    def __init__(self, run: Run, trainer: TokenLossTrainer, *, row_count: int, spent_seconds: float) -> None:
        """Args: row_count: rows trained on. spent_seconds: training time of earlier processes of this run."""
        self.run = run
        self.trainer = trainer
        self.loss = float("nan")
        self.eval_loss: float | None = None
        self.last_eval_step = -1
        self.stop = StopRequest()
        self._row_count = row_count
        self._began = time.monotonic() - spent_seconds

    def seconds(self) -> float:
        """Training time so far, resumed runs added up."""
        return time.monotonic() - self._began

    def epochs(self, step: int) -> float:
        """Passes over the rows in ``step`` optimiser steps; the last step of a run may have fewer micro-batches."""
        config, processes = self.trainer.config, self.trainer.args.world_size
        batches = config.batches_per_process(self._row_count, processes)
        done = min(step * config.gradient_accumulation, batches) * processes
        return round(done / math.ceil(self._row_count / config.batch_size), 4)

    def drop_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that a killed process logged and this one does again."""
        for row in drop_metrics(self.run.folder / METRICS_FILE, count="step", after=step):
            self._remember(row)

    def _remember(self, row: Mapping[str, Any]) -> None:
        self.loss = row.get("loss", self.loss)
        if "eval_loss" in row:
            self.eval_loss, self.last_eval_step = row["eval_loss"], row["step"]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Append one line to metrics.jsonl."""
        known = ("loss", "learning_rate", "grad_norm", "eval_loss")
        row: dict[str, Any] = {"step": state.global_step, "epoch": self.epochs(state.global_step)}
        row |= {name: float(logs[name]) for name in known if name in logs} | {"seconds": round(self.seconds(), 3)}
        if "loss" not in row and "eval_loss" not in row:
            return
        self._remember(row)
        if not state.is_world_process_zero:
            return
        append_jsonl(self.run.folder / METRICS_FILE, row)
        logger.info("%s", row)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Declare the checkpoint whole, once every process has written its part."""
        self.trainer.require_finite_weights()  # nobody has seen what the last step made of them
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            folder = self.run.checkpoints / f"checkpoint-{state.global_step}"
            self.run.seal(folder, note={"seconds": self.seconds()})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """At a signal, write a checkpoint and stop; log the last step."""
        if launched_processes().any(bool(self.stop)):
            control.should_save = control.should_training_stop = True
        if control.should_training_stop:
            control.should_log = True
