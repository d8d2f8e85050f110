"""From rows and settings to a trained model: the loop around ``Trainer``, what it writes, and what it shows.

Knows: the trainer, checkpoints, metrics, the progress bar. Does not know: where rows come from, or how a run
    is saved.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from lm_gym.files import write_json
from lm_gym.quiet import quiet_transformers

from .supervised_run import CHECKPOINTS, COMPLETE, METRICS, RunFolder
from .supervised_trainer import LearningRate, LoopSettings, TokenLossTrainer
from .text_rows import TokenizedText

__all__ = ["LoopResult", "RunWatcher", "train_language_model", "wants_bf16"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """What the loop measured."""

    steps: int
    """Optimiser steps, those before a resume included."""
    train_loss: float
    """Mean of the last logged steps, nats/token."""
    eval_loss: float | None
    """At the end, nats/token; None without held-out rows."""
    seconds: float
    """Training time, resumed runs added up."""


def wants_bf16(precision: str, device: str) -> bool:
    """Whether to compute under bf16 autocast: "auto" does on a GPU that has it, "bfloat16" does anywhere."""
    has_bf16_gpu = device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return precision == "bfloat16" or (precision == "auto" and has_bf16_gpu)


def train_language_model(
    model: PreTrainedModel,
    rows: Sequence[TokenizedText],
    eval_rows: Sequence[TokenizedText] | None,
    *,
    settings: LoopSettings,
    run: RunFolder,
    pad_id: int,
    progress: bool,
    title: str,
    spent_seconds: float = 0.0,
) -> LoopResult:
    """Train ``model`` in place, from the run's last checkpoint if it has one.

    Args:
        rows: at least one.
        eval_rows: evaluated at the end and every ``settings.eval_every`` steps; None for no evaluation.
        pad_id: any id that the model has an embedding for.
        progress: show a bar if standard error is a terminal.
        title: what the bar is called.
        spent_seconds: time that counts towards the budget and is already gone.
    """
    found = run.checkpoint()
    note: dict[str, Any] = found[1] if found else {"step": 0, "seconds": 0.0}
    rate = LearningRate(settings, spent_seconds=spent_seconds + note["seconds"])
    watcher = RunWatcher(run, rate, rows_per_step=settings.batch_size * settings.gradient_accumulation, rows=len(rows))
    watcher.forget_after(note["step"])
    use_cache = model.config.use_cache
    trainer = TokenLossTrainer(
        settings=settings,
        rate=rate,
        train_rows=rows,
        eval_dataset=None if eval_rows is None else sorted(eval_rows, key=lambda row: len(row.input_ids)),
        pad_id=pad_id,
        model=model,
        args=_arguments(run.path / CHECKPOINTS, settings, has_eval=eval_rows is not None),
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    with quiet_transformers(), _progress_bar(progress, title) as bar:
        watcher.show_on(bar)
        outcome = trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
        seconds = rate.seconds()
        if eval_rows is not None and watcher.last_eval_step != outcome.global_step:
            trainer.evaluate()
    model.eval()
    model.config.use_cache = use_cache  # Trainer switches it off, and a saved model without it decodes slowly
    return LoopResult(steps=outcome.global_step, train_loss=watcher.loss, eval_loss=watcher.eval_loss, seconds=seconds)


def _arguments(folder: Path, settings: LoopSettings, *, has_eval: bool) -> TrainingArguments:
    # One "epoch" of the Trainer is the whole schedule of batches; see BatchSchedule.
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        use_cpu=settings.device == "cpu",
        seed=settings.seed,
        logging_steps=settings.log_every,
        eval_strategy="steps" if has_eval and settings.eval_every else "no",
        eval_steps=settings.eval_every,
        save_strategy="steps",
        save_steps=settings.checkpoint_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available() and settings.device != "cpu",
    )


def _progress_bar(shown: bool, title: str) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn(title),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%  {task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )


class RunWatcher(TrainerCallback):
    """Writes metrics, marks whole checkpoints, moves the bar, and stops a run whose time is spent."""

    def __init__(self, run: RunFolder, rate: LearningRate, *, rows_per_step: int, rows: int) -> None:
        """Args: the run and its clock; rows one process learns per step, and rows in all."""
        self.run = run
        self.rate = rate
        self.rows_per_step = rows_per_step
        self.rows = rows
        self.loss = float("nan")
        self.eval_loss: float | None = None
        self.last_eval_step = -1
        self._bar: Progress | None = None

    def show_on(self, bar: Progress) -> None:
        """Report on this bar from now on."""
        self._bar = bar
        self._task = bar.add_task("", total=1.0)

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps that a killed run logged and a resumed one will do again."""
        path = self.run.path / METRICS
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # the last line of a killed process may be half a line
                continue
            if row["step"] <= step:
                kept.append(line)
                self._remember(row)
        if lines:
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def _remember(self, row: Mapping[str, Any]) -> None:
        self.loss = row.get("loss", self.loss)
        if "eval_loss" in row:
            self.eval_loss, self.last_eval_step = row["eval_loss"], row["step"]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Append one line to metrics.jsonl."""
        known = ("loss", "learning_rate", "grad_norm", "eval_loss")
        row: dict[str, Any] = {"step": state.global_step}
        row["epoch"] = round(state.global_step * self.rows_per_step * args.world_size / self.rows, 4)
        row |= {name: float(logs[name]) for name in known if name in logs} | {"seconds": round(self.rate.seconds(), 3)}
        if "loss" not in row and "eval_loss" not in row:
            return
        self._remember(row)
        if not state.is_world_process_zero:
            return
        with (self.run.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        logger.info("%s", row)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole: Trainer writes its files one by one, and a kill may come in
        between."""
        note = {"step": state.global_step, "seconds": self.rate.seconds()}
        if state.is_world_process_zero:
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, note)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when the time is spent; log the last step."""
        if self.rate.is_over():
            control.should_training_stop = True
        if control.should_training_stop:
            control.should_log = True
        if self._bar is not None:
            text = f"step {state.global_step}  loss {self.loss:.3f}"
            self._bar.update(self._task, completed=self.rate.progress(state.global_step), description=text)
