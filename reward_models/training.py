"""Fits a preference model to rankings, on ``transformers.Trainer``.

Knows: the loss of a batch, the run's settings, what a run must leave untouched. The order of the batches is
the matter of ``schedule``, the likelihood of ``losses``.

Departures from Ziegler et al. 2019, section 2.1: rankings of any size (Plackett-Luce) in place of one choice
among four; a long ranking weighs as much as a pair; nothing is normalised while training.
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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lm_gym.errors import ConfigError, DataError

from .checkpoints import last_whole_checkpoint, mark_run
from .comparisons import Ranking
from .evaluation import evaluate_reward_model
from .losses import plackett_luce_nll, score_centering_penalty
from .preference import PreferenceRewardModel
from .progress import FitProgress
from .schedule import EncodedRanking, RankingSchedule, collate_rankings
from .surroundings import untouched_surroundings

__all__ = ["RewardTrainingConfig", "fit", "train_preference_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RewardTrainingConfig:
    """How a preference model is fitted (AdamW, no weight is frozen)."""

    learning_rate: float = 2e-5
    """Peak rate, > 0; 1e-5 suits a pretrained model, 1e-3 a tiny one from scratch."""
    epochs: int = 1
    """Passes over the rankings, >= 1; reward models overfit within few."""
    rankings_per_step: int = 16
    """Rankings (or parts of long ones) in one forward pass of one process."""
    gradient_accumulation_steps: int = 1
    """Forward passes per update; the loss is divided by the rankings of all of them."""
    max_responses: int = 8
    """A longer ranking is dealt into random parts of at most this many responses, anew in each epoch; >=
    2."""
    weight_decay: float = 0.01
    """AdamW's decay, >= 0."""
    warmup_share: float = 0.05
    """Share of the updates over which the rate rises from 0, in [0, 1)."""
    lr_schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """What the rate does after the warm-up."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    score_centering: float = 0.0
    """Weight of the squared mean score of each ranking, which pins the free constant; >= 0."""
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
        for name in ("epochs", "rankings_per_step", "gradient_accumulation_steps", "log_every_steps"):
            _require(getattr(self, name) >= 1, self, name, "must be >= 1")
        for name in ("weight_decay", "max_grad_norm", "score_centering"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, self, name, "must be finite and >= 0")
        _require(math.isfinite(self.learning_rate) and self.learning_rate > 0, self, "learning_rate", "must be > 0")
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


class _RankingTrainer(Trainer):
    """A Trainer whose loss is the mean Plackett-Luce likelihood over the rankings of one update."""

    def __init__(self, *args: Any, score_centering: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._score_centering = score_centering

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one forward pass, divided by the comparable rankings of the whole update."""
        text_scores = model(inputs["input_ids"], inputs["attention_mask"])
        scores = text_scores[inputs["text_index"]]
        nll, comparable = plackett_luce_nll(scores, inputs["ranks"], inputs["response_mask"])
        if self._score_centering:
            penalty = score_centering_penalty(scores, inputs["response_mask"])
            nll = nll + self._score_centering * penalty * comparable
        count = comparable.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        # The trainer averages gradients over processes; the count is already that of all of them.
        loss = nll.sum() / count.clamp(min=1) * self.accelerator.num_processes
        return (loss, {"scores": scores}) if return_outputs else loss


def fit(
    reward_model: PreferenceRewardModel,
    rankings: Sequence[Ranking],
    config: RewardTrainingConfig | None = None,
    *,
    eval_rankings: Sequence[Ranking] | None = None,
    checkpoint_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Fit a preference model in place.

    Global state (random generators, environment variables, accelerate's singletons, log levels) is as before
    when this returns or raises. A normaliser that the model carried is dropped: it belonged to the old
    scores.

    Args:
        reward_model: what is fitted; it is in eval mode afterwards.
        rankings: what it is fitted to.
        config: settings; None takes the defaults.
        eval_rankings: if given, the summary holds their evaluation under ``"evaluation"``.
        checkpoint_dir: folder of checkpoints; a run that was killed goes on from the last whole one. Needed
            with ``checkpoint_every_steps``.

    Returns:
        The summary, also stored as ``reward_model.training``: counts, settings, seconds, ``losses`` (update,
        loss).

    Raises:
        DataError: no ranking compares anything, or a text has no token.
        ConfigError: checkpoints are asked for without a folder, or the folder belongs to another run.
        RewardModelError: the loss became NaN or infinite.
    """
    config = config or RewardTrainingConfig()
    if config.checkpoint_every_steps is not None and checkpoint_dir is None:
        raise ConfigError("reward model training: checkpoint_every_steps needs checkpoint_dir=..., got none")
    encoded = _encode(reward_model, rankings)
    schedule = _scheduled(encoded, config)
    start = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(untouched_surroundings())
        if checkpoint_dir is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = mark_run(checkpoint_dir, asdict(config), encoded)
        stack.callback(reward_model.model.eval)
        losses = _run(reward_model, schedule, config, folder)
    reward_model.normalizer = None
    reward_model.training = {
        "rankings": len(rankings),
        "comparisons": sum(1 for ranking in rankings for _ in ranking.pairs()),
        "updates": math.ceil(len(schedule) / config.gradient_accumulation_steps),
        "seconds": round(time.monotonic() - start, 2),
        "config": asdict(config),
        "losses": losses,
    }
    if eval_rankings is not None:
        reward_model.training["evaluation"] = evaluate_reward_model(reward_model, eval_rankings).to_json()
    return reward_model.training


def _encode(reward_model: PreferenceRewardModel, rankings: Sequence[Ranking]) -> list[EncodedRanking]:
    if not any(not ranking.is_tie for ranking in rankings):
        raise DataError(
            f"reward model training: some ranking must put one response above another, got {len(rankings)} "
            f"rankings "
            "that compare nothing"
        )
    prompts = [ranking.prompt for ranking in rankings for _ in ranking.responses]
    responses = [response for ranking in rankings for response in ranking.responses]
    texts = [tuple(ids) for ids in reward_model.encoder.encode(prompts, responses)]
    if not all(texts):
        row = next(row for row, ids in enumerate(texts) if not ids)
        raise DataError(
            f"reward model training: every text must have a token, and the prompt {prompts[row]!r} with the "
            f"response "
            f"{responses[row]!r} has none"
        )
    encoded, start = [], 0
    for ranking in rankings:
        end = start + len(ranking.responses)
        if not ranking.is_tie:
            encoded.append(EncodedRanking(tuple(texts[start:end]), ranking.ranks))
        start = end
    return encoded


def _scheduled(encoded: Sequence[EncodedRanking], config: RewardTrainingConfig) -> RankingSchedule:
    return RankingSchedule(
        encoded,
        epochs=config.epochs,
        batch_size=config.rankings_per_step,
        max_responses=config.max_responses,
        seed=config.seed,
    )


def _run(
    reward_model: PreferenceRewardModel, schedule: RankingSchedule, config: RewardTrainingConfig, folder: Path
) -> list[tuple[int, float]]:
    resume = last_whole_checkpoint(folder)
    if resume is not None:
        logger.info("reward model training: goes on from %s", resume)
    progress = FitProgress(visible=config.progress)
    trainer = _RankingTrainer(
        model=reward_model._scorer,
        args=_arguments(reward_model.device, config, folder),
        train_dataset=schedule,
        data_collator=partial(_collate_only_item, fill_id=reward_model.fill_id),
        callbacks=[progress],
        score_centering=config.score_centering,
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    finally:
        progress.close()
        trainer.accelerator.free_memory()
        reward_model.model.to(reward_model.device)
    return [(int(row["step"]), float(row["loss"])) for row in trainer.state.log_history if "loss" in row]


def _collate_only_item(items: Sequence[Sequence[EncodedRanking]], fill_id: int) -> dict[str, Tensor]:
    (batch,) = items
    return collate_rankings(batch, fill_id)


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


def train_preference_model(
    rankings: Sequence[Ranking],
    base: Any,
    config: RewardTrainingConfig | None = None,
    output_dir: str | Path | None = None,
    eval_rankings: Sequence[Ranking] | None = None,
    **from_base: Any,
) -> PreferenceRewardModel:
    """Build a preference model on a language model, fit it, and save it.

    Args:
        rankings: what it is fitted to.
        base: path, hub id or loaded model; or a :class:`PreferenceRewardModel`, which is fitted on, in place.
        config: settings; None takes the defaults.
        output_dir: where the artefact goes; None saves nothing. With ``checkpoint_every_steps`` the
            checkpoints lie beside it, in ``<output_dir>.checkpoints``, until the artefact is written; calling
            again with the same arguments after a kill goes on from there.
        eval_rankings: held-out rankings; their evaluation goes into the model's ``training`` summary.
        **from_base: ``tokenizer``, ``max_length``, ``template``, ``seed``, ``dtype``, ``name``, ``device`` of
            :meth:`PreferenceRewardModel.from_base`.

    Raises:
        DataError, ConfigError, RewardModelError: see :func:`fit`.
        ModelLoadError, UnsupportedModelError: see :meth:`PreferenceRewardModel.from_base`.
    """
    if isinstance(base, PreferenceRewardModel):
        if from_base:
            raise ConfigError(
                f"train_preference_model: {sorted(from_base)} describe a new model, and base is one already"
            )
        reward_model = base
    else:
        reward_model = PreferenceRewardModel.from_base(base, **from_base)
    config = config or RewardTrainingConfig()
    checkpoints = None
    if output_dir is not None and config.checkpoint_every_steps is not None:
        checkpoints = Path(output_dir).with_name(Path(output_dir).name + ".checkpoints")
    reward_model.train(rankings, config, eval_rankings=eval_rankings, checkpoint_dir=checkpoints)
    if output_dir is not None and int(os.environ.get("RANK", "0")) == 0:  # RANK: set by accelerate and torchrun
        reward_model.save(output_dir)
        if checkpoints is not None:
            shutil.rmtree(checkpoints, ignore_errors=True)
    return reward_model
