"""The run of a reward model's fit on ``transformers.Trainer``: the update, its progress, its checkpoints.

Knows: the Trainer. Does not know: judgements, texts, reward models.

Shapes: see ``joint_loss``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lm_gym.reward_models.likelihoods.joint_loss import JudgementLoss
from lm_gym.runs.folder import Run
from lm_gym.tools.trainer.finite_trainer import FiniteTrainer
from lm_gym.tools.trainer.trainer_progress import TrainerProgress

from .batch_schedule import EncodedItem, JudgementSchedule, collate
from .config import RewardTrainingConfig

__all__ = ["JudgementTrainer", "run_trainer"]

logger = logging.getLogger(__name__)

TOKENS_ALIVE = 4096
"""Padded tokens whose activations are kept for the backward pass."""


class _Fitted(nn.Module):
    """Scorer and loss as one module, so that the optimiser gets the parameters of both."""

    accepts_loss_kwargs = True  # tells transformers.Trainer that the loss is normalised by a global count

    def __init__(self, scorer: nn.Module, loss: JudgementLoss) -> None:
        super().__init__()
        self.scorer = scorer
        self.loss = loss

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **targets: Tensor) -> Tensor:
        """Returns: the summed loss of the batch."""
        summed: Tensor = self.loss(self._scores(input_ids, attention_mask), targets)
        return summed

    def _scores(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores of N rows. Beyond :data:`TOKENS_ALIVE` the activations of a part are dropped and computed again.

        So memory is bounded, whatever number of texts is in one forward pass, for one more forward pass of time.
        """
        rows = max(1, TOKENS_ALIVE // input_ids.shape[1])
        if len(input_ids) <= rows:
            whole: Tensor = self.scorer(input_ids, attention_mask)
            return whole
        parts = zip(input_ids.split(rows), attention_mask.split(rows), strict=True)
        return torch.cat([checkpoint(self.scorer, *part, use_reentrant=False) for part in parts])


class JudgementTrainer(FiniteTrainer):
    """A Trainer whose loss is the mean over the judgements of one update; NaN and infinity stop it before that."""

    def __init__(self, *args: Any, link_learning_rate: float, **kwargs: Any) -> None:
        """Args: link_learning_rate: of the loss's own parameters. Others: of Trainer."""
        remedy = "lower learning_rate or max_grad_norm, or use mixed_precision='no'"
        super().__init__(*args, subject="reward model training", remedy=remedy, **kwargs)
        self._link_learning_rate = link_learning_rate

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The default optimiser, with the links of the loss in a group of their own."""
        optimizer = super().create_optimizer(*args, **kwargs)
        links = [parameter for parameter in self.model.loss.parameters() if parameter.requires_grad]
        numbers = {id(parameter) for parameter in links}
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in numbers]
        optimizer.add_param_group({"params": links, "lr": self._link_learning_rate, "weight_decay": 0.0})
        return optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one forward pass, divided by the judgements of the whole update."""
        labels = inputs["labels"]
        summed = model(**{name: tensor for name, tensor in inputs.items() if name != "labels"})
        count = labels.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        # The trainer averages gradients over processes; the count is already that of all of them.
        loss = summed / count.clamp(min=1) * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss


def run_trainer(
    scorer: nn.Module,
    loss: JudgementLoss,
    schedule: JudgementSchedule,
    config: RewardTrainingConfig,
    *,
    fill_id: int,
    device: torch.device,
    folder: Path,
    run: Run | None,
) -> list[tuple[int, float]]:
    """Fit scorer and loss in place.

    Args:
        scorer: (input_ids, attention_mask) -> scores; it is on ``device``.
        loss: with its own few parameters.
        schedule: every batch of the run.
        config: settings.
        fill_id: id that fills rows up.
        device: of all of it.
        folder: for the files of the Trainer.
        run: the run whose checkpoints are kept, and whose newest one is gone on from; None keeps none.

    Returns: (update, loss) as logged.

    Raises:
        DivergedError: loss or gradient became NaN or infinite; the update was not made.
    """
    found = None if run is None else run.newest_checkpoint()
    if found is not None:
        logger.info("reward model training: goes on from %s", found.folder)
    progress = TrainerProgress("reward model", visible=config.progress)
    trainer = JudgementTrainer(
        model=_Fitted(scorer, loss),
        args=_arguments(device, config, folder if run is None else run.checkpoints),
        train_dataset=schedule,
        data_collator=partial(_collate_only_item, fill_id=fill_id),
        callbacks=[progress, _Logging(), *([] if run is None else [_Sealing(run)])],
        link_learning_rate=config.link_learning_rate,
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=None if found is None else str(found.folder))
    finally:
        progress.close()
        trainer.accelerator.free_memory()
        scorer.to(device)
    return [(int(row["step"]), float(row["loss"])) for row in trainer.state.log_history if "loss" in row]


class _Sealing(TrainerCallback):
    """Declares each checkpoint whole once the Trainer has written it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the manifest of the newest checkpoint; the main process only."""
        if state.is_world_process_zero:
            self._run.seal(self._run.checkpoints / f"checkpoint-{state.global_step}")


def _collate_only_item(items: Sequence[Sequence[EncodedItem]], fill_id: int) -> dict[str, Tensor]:
    (batch,) = items
    return collate(batch, fill_id)


def _arguments(device: torch.device, config: RewardTrainingConfig, folder: Path) -> TrainingArguments:
    on_gpu = device.type == "cuda"
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,  # one item of the schedule is one batch
        train_sampling_strategy="sequential",
        num_train_epochs=1,  # the schedule holds all epochs
        gradient_accumulation_steps=config.gradient_accumulation_steps or 1,
        learning_rate=config.learning_rate or 0.0,  # the recipe has filled both in
        lr_scheduler_type=config.lr_schedule,
        warmup_steps=config.warmup_share,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch",
        bf16=config.mixed_precision == "bf16" or (config.mixed_precision == "auto" and has_bf16),
        seed=config.seed,
        logging_steps=config.log_every_steps,
        logging_nan_inf_filter=False,
        save_strategy="no" if config.checkpoint_every_steps is None else "steps",
        save_steps=config.checkpoint_every_steps or 1,
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        use_cpu=device.type == "cpu",
        disable_tqdm=True,
        report_to="none",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are used by several processes, never by threads
    return arguments


class _Logging(TrainerCallback):
    """Logs the loss, in the main process."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Log it."""
        loss = (logs or {}).get("loss")
        if loss is not None and state.is_world_process_zero:
            logger.info("reward model training: update %d of %d, loss %.4f", state.global_step, state.max_steps, loss)
