"""The fit of a scalar reward model to judgements.

Knows: the steps from judgements to a run, and the identity of a run. The order of the batches is the matter of
``batch_schedule``, the loss of a batch of ``joint_loss``, the update of ``trainer``.

Departures from Ziegler et al. 2019, section 2.1: judgements of any kind in place of one choice among four; a long
ranking weighs as much as a pair; nothing is normalised while training.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from lm_gym.errors import ConfigError, DataError
from lm_gym.models.lora import Adapter
from lm_gym.processes import launched_processes
from lm_gym.reward_models.judgements.learning_targets import (
    Item,
    count_idle,
    count_judged_both_ways,
    counts_of,
    items_of,
    require_lesson,
)
from lm_gym.reward_models.judgements.record import Judgement, require_judgements
from lm_gym.reward_models.judgements.rows import to_row
from lm_gym.reward_models.likelihoods.joint_loss import JudgementLoss
from lm_gym.runs.folder import RunIdentity, open_shared_run
from lm_gym.tools.digests import digest_json, digest_parts, digest_tensors
from lm_gym.tools.settings import Place, checked

from .batch_schedule import EncodedItem
from .config import RewardTrainingConfig
from .heads import ScalarScorer
from .recipe import scheduled, with_recipe
from .text_encoding import PairEncoder, TextEncoder

__all__ = ["FitResult", "Trainee", "checkpoints_beside", "fit"]

logger = logging.getLogger(__name__)

UNRELATED = ("progress", "log_every_steps", "checkpoint_every_steps")
"""Settings that do not change the fitted weights."""


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """The parts of a scalar reward model that a fit reads and changes."""

    name: str
    """Name of the model, for errors."""
    scorer: ScalarScorer
    """Token ids to scores; holds the classification model."""
    encoder: TextEncoder | PairEncoder
    """Texts to token ids."""
    fill_id: int
    """Id that fills rows up."""
    device: torch.device
    """Device of the model."""
    adapter: Adapter | None
    """The adapter on the model."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Results of a fit beside the weights."""

    links: dict[str, Any]
    """Everything learned or stated beside the score; see ``JudgementLoss.links``."""
    summary: dict[str, Any]
    """Counts, settings, seconds, and ``losses`` (update, loss)."""


def fit(
    trainee: Trainee,
    judgements: Sequence[Judgement],
    config: RewardTrainingConfig | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
) -> FitResult:
    """Fit a scalar reward model in place.

    Global state (random generators, environment variables, accelerate's singletons, log levels) is as before when this
    returns or raises.

    Args:
        trainee: the model; it is in eval mode afterwards.
        judgements: to fit to, of any kinds.
        config: settings; None takes the defaults.
        checkpoint_dir: folder of checkpoints; a run that was killed goes on from the last whole one. Needed
            with ``checkpoint_every_steps``.

    Raises:
        DataError: the judgements can teach nothing (see ``targets.require_lesson``), or a text has no token.
        ConfigError: checkpoints are asked for without a folder, the folder belongs to another run, or every weight is
            frozen.
        OutputExistsError: another process works in the folder, or it holds something that no run wrote.
        DivergedError: loss or gradient became NaN or infinite; the weights are those of the last good update, and the
            checkpoints stay.
    """
    from lm_gym.tools.trainer.global_state import restored_global_state

    from .trainer import run_trainer  # the Trainer takes seconds to import, and scoring does not need it

    config = (
        checked(f"reward model {trainee.name}: config", config, RewardTrainingConfig | None) or RewardTrainingConfig()
    )
    checkpoint_dir = checked(f"reward model {trainee.name}: checkpoint_dir", checkpoint_dir, Place | None)
    judgements = require_judgements(f"reward model {trainee.name}", judgements)
    if config.checkpoint_every_steps is not None and checkpoint_dir is None:
        raise ConfigError("reward model training: checkpoint_every_steps needs checkpoint_dir=..., got none")
    if not any(weight.requires_grad for weight in trainee.scorer.parameters()):
        raise ConfigError(f"reward model training: {trainee.name} must have a weight that may change, got none")
    items = items_of(judgements)
    require_lesson(items)
    encoded = _encode(trainee, items)
    loss = JudgementLoss(config.loss, [item.targets for item in encoded]).to(trainee.device)
    weights = sum(weight.numel() for weight in trainee.scorer.parameters())
    config = with_recipe(config, encoded, weights=weights, adapted=trainee.adapter is not None)
    schedule = scheduled(encoded, config)
    updates = math.ceil(len(schedule) / (config.gradient_accumulation_steps or 1))
    logger.info("reward model training: %d updates, step size %g", updates, config.learning_rate)
    start = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(restored_global_state())
        run = None
        if checkpoint_dir is not None:
            identity = _identity_of(trainee, judgements, encoded, config)
            device = trainee.device.type
            run = stack.enter_context(open_shared_run(checkpoint_dir, identity, resume=True, device=device))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(trainee.scorer.eval)
        losses = run_trainer(
            trainee.scorer,
            loss,
            schedule,
            config,
            fill_id=trainee.fill_id,
            device=trainee.device,
            folder=folder,
            run=run,
        )
    texts = sorted({(item.prompt, response) for item in items for response in item.responses})
    summary = {
        "judgements": len(judgements),
        "targets": counts_of(items),
        "left_out": count_idle(judgements),
        "judged_both_ways": count_judged_both_ways(judgements),
        "texts": len(texts),
        "texts_cut": trainee.encoder.count_cut(*zip(*texts, strict=True)),
        "updates": updates,
        "seconds": round(time.monotonic() - start, 2),
        "config": asdict(config),
        "losses": losses,
    }
    return FitResult(links=loss.links(), summary=summary)


def _identity_of(
    trainee: Trainee, judgements: Sequence[Judgement], encoded: Sequence[EncodedItem], config: RewardTrainingConfig
) -> RunIdentity:
    settings = {key: value for key, value in asdict(config).items() if key not in UNRELATED}
    settings["adapter"] = None if trainee.adapter is None else trainee.adapter.settings()
    settings["processes"] = launched_processes().size
    return RunIdentity(
        kind="reward-model",
        settings=settings,
        inputs={
            "judgements": digest_json([to_row(one) for one in judgements]),
            "texts_as_read": digest_parts(repr((item.texts, item.targets)) for item in encoded),
            "start_weights": digest_tensors(trainee.scorer.state_dict().items()),
        },
    )


def _encode(trainee: Trainee, items: Sequence[Item]) -> list[EncodedItem]:
    prompts = [item.prompt for item in items for _ in item.responses]
    responses = [response for item in items for response in item.responses]
    texts = [tuple(ids) for ids in trainee.encoder.encode(prompts, responses)]
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


def checkpoints_beside(output_dir: str | Path) -> Path:
    """Folder of the checkpoints of a run until its artefact is written."""
    return Path(output_dir).with_name(Path(output_dir).name + ".checkpoints")
