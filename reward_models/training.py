"""Fits a preference model to judgements, on ``transformers.Trainer``.

Knows: the run's settings, what a run must leave untouched. The order of the batches is the matter of ``schedule``,
the loss of a batch of ``joint_loss``.

Departures from Ziegler et al. 2019, section 2.1: judgements of any kind in place of one choice among four; a long
ranking weighs as much as a pair; nothing is normalised while training.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lm_gym.errors import ConfigError, DataError
from lm_gym.global_state import restored_global_state

from .checkpoints import last_whole_checkpoint, mark_run
from .joint_loss import JudgementLoss, LossConfig
from .judgements import Judgement
from .lora import trunk_fingerprint
from .preference import PreferenceRewardModel
from .progress import FitProgress
from .schedule import EncodedItem, JudgementSchedule, collate
from .targets import Item, count_idle, count_judged_both_ways, counts_of, items_of, require_lesson

__all__ = ["RewardTrainingConfig", "checkpoints_beside", "fit", "fit_and_save"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RewardTrainingConfig:
    """How a preference model is fitted: AdamW on every weight that is not frozen under an adapter."""

    learning_rate: float = 2e-5
    """Peak rate, > 0; 1e-5 suits a pretrained model, 1e-3 a tiny one from scratch."""
    epochs: int = 1
    """Passes over the rankings, >= 1; reward models overfit within few."""
    link_learning_rate: float = 0.01
    """Peak rate of what is learned beside the score (tie parameter, thumb bias, rating thresholds), > 0."""
    items_per_step: int = 16
    """Rankings, or all else that was said about one prompt (or parts of these), in one forward pass of one process."""
    gradient_accumulation_steps: int = 1
    """Forward passes per update; the loss is divided by the judgements of all of them."""
    max_responses: int = 8
    """An item of more responses is cut into parts of at most this many, anew in each epoch; >= 2."""
    weight_decay: float = 0.01
    """AdamW's decay, >= 0."""
    warmup_share: float = 0.05
    """Share of the updates over which the rate rises from 0, in [0, 1)."""
    lr_schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """What the rate does after the warm-up."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What each kind of judgement costs."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """``auto``: bfloat16 autocast where a GPU has it. The loss is float32 always."""
    seed: int = 0
    """Seed of the batches and of dropout."""
    checkpoint_every_steps: int | None = None
    """Updates between checkpoints, for resuming; None writes none."""
    log_every_steps: int = 10
    """Updates between log lines."""
    progress: bool = True
    """Whether to draw a progress bar on a terminal."""

    def __post_init__(self) -> None:
        for name in ("epochs", "items_per_step", "gradient_accumulation_steps", "log_every_steps"):
            _require(getattr(self, name) >= 1, self, name, "must be >= 1")
        for name in ("weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, self, name, "must be finite and >= 0")
        for name in ("learning_rate", "link_learning_rate"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, self, name, "must be finite and > 0")
        _require(self.max_responses >= 2, self, "max_responses", "must be >= 2")
        _require(0 <= self.warmup_share < 1, self, "warmup_share", "must be in [0, 1)")
        _require(self.mixed_precision in ("auto", "no", "bf16"), self, "mixed_precision", "must be auto, no or bf16")
        known = ("linear", "cosine", "constant_with_warmup")
        _require(self.lr_schedule in known, self, "lr_schedule", f"must be one of {known}")
        every = self.checkpoint_every_steps
        _require(every is None or every >= 1, self, "checkpoint_every_steps", "must be None or >= 1")


def _require(holds: bool, config: RewardTrainingConfig, name: str, rule: str) -> None:
    if not holds:
        raise ConfigError(f"RewardTrainingConfig.{name}: {rule}, got {getattr(config, name)!r}")


class _Fitted(nn.Module):
    """What the optimiser sees: the scorer and the loss with its own few parameters."""

    accepts_loss_kwargs = True  # tells transformers.Trainer that the loss is normalised by a global count

    def __init__(self, scorer: nn.Module, loss: JudgementLoss) -> None:
        super().__init__()
        self.scorer = scorer
        self.loss = loss

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **targets: Tensor) -> Tensor:
        """Returns: the summed loss of the batch."""
        summed: Tensor = self.loss(self.scorer(input_ids, attention_mask), targets)
        return summed


class _JudgementTrainer(Trainer):
    """A Trainer whose loss is the mean over the judgements of one update."""

    def __init__(self, *args: Any, link_learning_rate: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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


def fit(
    reward_model: PreferenceRewardModel,
    judgements: Sequence[Judgement],
    config: RewardTrainingConfig | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Fit a preference model in place.

    Global state (random generators, environment variables, accelerate's singletons, log levels) is as before
    when this returns or raises. A normaliser that the model carried is dropped: it belonged to the old
    scores.

    Args:
        reward_model: what is fitted; it is in eval mode afterwards.
        judgements: what it is fitted to, of any kinds.
        config: settings; None takes the defaults.
        checkpoint_dir: folder of checkpoints; a run that was killed goes on from the last whole one. Needed
            with ``checkpoint_every_steps``.

    Returns:
        The summary, also stored as ``reward_model.training``: counts, settings, seconds, ``losses`` (update,
        loss).

    Raises:
        DataError: the judgements can teach nothing (see ``targets.require_lesson``), or a text has no token.
        ConfigError: checkpoints are asked for without a folder, the folder belongs to another run, or every weight is
            frozen.
        RewardModelError: the loss became NaN or infinite.
    """
    config = config or RewardTrainingConfig()
    if config.checkpoint_every_steps is not None and checkpoint_dir is None:
        raise ConfigError("reward model training: checkpoint_every_steps needs checkpoint_dir=..., got none")
    if not any(weight.requires_grad for weight in reward_model.model.parameters()):
        raise ConfigError(f"reward model training: {reward_model.name} must have a weight that may change, got none")
    items = items_of(judgements)
    require_lesson(items)
    encoded = _encode(reward_model, items)
    loss = JudgementLoss(config.loss, [item.targets for item in encoded])
    schedule = _scheduled(encoded, config)
    start = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(restored_global_state())
        if checkpoint_dir is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = mark_run(checkpoint_dir, asdict(config), encoded, _start_of(reward_model))
        stack.callback(reward_model.model.eval)
        losses = _run(reward_model, loss, schedule, config, folder)
    texts = sorted({(item.prompt, response) for item in items for response in item.responses})
    reward_model.normalizer = None
    reward_model.links = loss.links()
    reward_model.training = {
        "judgements": len(judgements),
        "targets": counts_of(items),
        "left_out": count_idle(judgements),
        "judged_both_ways": count_judged_both_ways(judgements),
        "texts": len(texts),
        "texts_cut": reward_model.count_cut(*zip(*texts, strict=True)),
        "updates": math.ceil(len(schedule) / config.gradient_accumulation_steps),
        "seconds": round(time.monotonic() - start, 2),
        "config": asdict(config),
        "losses": losses,
    }
    return reward_model.training


def _start_of(reward_model: PreferenceRewardModel) -> str:
    adapter = reward_model.adapter
    settings = None if adapter is None else adapter.settings()
    return f"{trunk_fingerprint(reward_model.model, ())} {reward_model.model.dtype} {settings}"


def _encode(reward_model: PreferenceRewardModel, items: Sequence[Item]) -> list[EncodedItem]:
    prompts = [item.prompt for item in items for _ in item.responses]
    responses = [response for item in items for response in item.responses]
    texts = [tuple(ids) for ids in reward_model.encoder.encode(prompts, responses)]
    if not all(texts):
        row = next(row for row, ids in enumerate(texts) if not ids)
        raise DataError(
            f"reward model training: every text must have a token, and the prompt {prompts[row]!r} with the response "
            f"{responses[row]!r} has none"
        )
    ends = list(accumulate(len(item.responses) for item in items))
    return [
        EncodedItem(tuple(texts[end - len(item.responses) : end]), item.targets)
        for item, end in zip(items, ends, strict=True)
    ]


def _scheduled(encoded: Sequence[EncodedItem], config: RewardTrainingConfig) -> JudgementSchedule:
    return JudgementSchedule(
        encoded,
        epochs=config.epochs,
        batch_size=config.items_per_step,
        max_responses=config.max_responses,
        seed=config.seed,
    )


def _run(
    reward_model: PreferenceRewardModel,
    loss: JudgementLoss,
    schedule: JudgementSchedule,
    config: RewardTrainingConfig,
    folder: Path,
) -> list[tuple[int, float]]:
    resume = last_whole_checkpoint(folder)
    if resume is not None:
        logger.info("reward model training: goes on from %s", resume)
    progress = FitProgress(visible=config.progress)
    trainer = _JudgementTrainer(
        model=_Fitted(reward_model._scorer, loss.to(reward_model.device)),
        args=_arguments(reward_model.device, config, folder),
        train_dataset=schedule,
        data_collator=partial(_collate_only_item, fill_id=reward_model.fill_id),
        callbacks=[progress],
        link_learning_rate=config.link_learning_rate,
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    finally:
        progress.close()
        trainer.accelerator.free_memory()
        reward_model.model.to(reward_model.device)
    return [(int(row["step"]), float(row["loss"])) for row in trainer.state.log_history if "loss" in row]


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
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
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


def checkpoints_beside(output_dir: str | Path) -> Path:
    """Where the checkpoints of a run lie until its artefact is written."""
    return Path(output_dir).with_name(Path(output_dir).name + ".checkpoints")


def fit_and_save(
    reward_model: PreferenceRewardModel,
    judgements: Sequence[Judgement],
    config: RewardTrainingConfig | None = None,
    *,
    output_dir: str | Path | None = None,
) -> None:
    """Fit a preference model in place and save it; see :meth:`PreferenceRewardModel.train` for the arguments."""
    config = config or RewardTrainingConfig()
    checkpoints = None
    if output_dir is not None and config.checkpoint_every_steps is not None:
        checkpoints = checkpoints_beside(output_dir)
    fit(reward_model, judgements, config, checkpoint_dir=checkpoints)
    if output_dir is not None and int(os.environ.get("RANK", "0")) == 0:  # RANK: set by accelerate and torchrun
        reward_model.save(output_dir)
        if checkpoints is not None:
            shutil.rmtree(checkpoints, ignore_errors=True)
