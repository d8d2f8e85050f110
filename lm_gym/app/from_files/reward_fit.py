"""The fit of a reward model of any kind, from the options of the command line, and what it was in words.

Knows: which option belongs to which kind, and the record that a fit leaves. Does not know: files of judgements, cards,
folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lm_gym.app.options import RewardOptions
from lm_gym.errors import ConfigError
from lm_gym.reward_models import (
    CrossEncoderRewardModel,
    EmbeddingRewardModel,
    EmbeddingTrainingConfig,
    Judgement,
    LoraSettings,
    LossConfig,
    PreferenceRewardModel,
    RewardTrainingConfig,
)
from lm_gym.reward_models.judgements.negatives import spoiled_pairs
from lm_gym.reward_models.scalar.recipe import FEW_UPDATES
from lm_gym.tools.console.progress import duration

__all__ = [
    "FittedRewardModel",
    "fitted_reward_model",
    "print_summary",
    "refuse_flags_of_another_kind",
    "told_of_training",
]

FittedRewardModel = PreferenceRewardModel | EmbeddingRewardModel
"""The kinds that are fitted here, a cross-encoder among them; each keeps a summary of its training."""
SCALAR_KINDS: dict[str, type[PreferenceRewardModel]] = {
    "preference": PreferenceRewardModel,
    "cross-encoder": CrossEncoderRewardModel,
}
SCALAR_ONLY = (
    *("epochs", "learning_rate", "items_per_step", "max_responses", "max_length", "lora_rank"),
    "checkpoint_every_steps",
)
EMBEDDING_ONLY = ("l2", "surface", "reads", "hidden", "cache_dir")
CHECKPOINT_EVERY = 200


def refuse_flags_of_another_kind(options: RewardOptions) -> None:
    """Raises: ConfigError: the kind is none, or an option was given that changes nothing of it."""
    if options.kind != "embedding" and options.kind not in SCALAR_KINDS:
        raise ConfigError(f"--kind: must be preference, embedding or cross-encoder, got {options.kind!r}")
    foreign = SCALAR_ONLY if options.kind == "embedding" else EMBEDDING_ONLY
    given = [name for name in foreign if getattr(options, name) not in (None, 0, False)]
    if given:
        flag = "--" + given[0].replace("_", "-")
        kinds = "--kind preference or cross-encoder" if options.kind == "embedding" else "--kind embedding"
        raise ConfigError(f"{flag}: belongs to {kinds}, got --kind {options.kind}; leave it out")


def fitted_reward_model(
    options: RewardOptions, judgements: Sequence[Judgement], scratch: Path, *, resumable: bool
) -> FittedRewardModel:
    """A model of the wanted kind; ``scratch`` keeps what an interrupted run needs to go on."""
    added = spoiled_pairs(judgements, share=options.debias, seed=options.seed) if options.debias else []
    said = [*judgements, *added]
    if options.kind == "embedding":
        embedding = EmbeddingRewardModel.train(
            said, options.model, _head_settings(options), cache_dir=options.cache_dir or scratch
        )
        embedding.training |= {"encoder": options.model, "spoiled_pairs": len(added)}
        return embedding
    lora = LoraSettings.of_rank(options.lora_rank)
    kind = SCALAR_KINDS[options.kind]
    model = kind.from_base(options.model, seed=options.seed, max_length=options.max_length, lora=lora)
    model.fit(said, _fit_settings(options, resumable=resumable), checkpoint_dir=scratch if resumable else None)
    model.training |= {"encoder": options.model, "spoiled_pairs": len(added)}
    return model


def print_summary(training: dict[str, Any], out: Path, prompts: int, console: Console) -> None:
    """Print what the model was fitted to, and what was left out."""
    told = f"fitted to {training['judgements']} judgements of {prompts} prompts in {duration(training['seconds'])}"
    console.print(f"{out}: {told}", highlight=False)
    if (updates := training.get("updates")) is not None and updates < FEW_UPDATES:
        few = f": {updates} updates are few; more --epochs, fewer --items-per-step, or more judgements"
        console.print(Text.assemble(("warning", "yellow"), few))
    for kind, count in training["left_out"].items():
        console.print(f"left out: {count} of kind {kind}, which compare nothing", highlight=False)
    if training["judged_both_ways"]:
        console.print(f"{training['judged_both_ways']} pairs of responses were judged both ways", highlight=False)
    if training["texts_cut"]:
        cut = f"{training['texts_cut']} of {training['texts']} texts were too long; the beginning of each was cut"
        console.print(cut, highlight=False)


def told_of_training(training: Mapping[str, Any]) -> str:
    """What a model was trained on and from what, by its own record; empty where it has none."""
    if "judgements" not in training:
        return ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in training.get("targets", {}).items() if count)
    told = f"Trained on {training['judgements']:,} judgements ({kinds})"
    if groups := training.get("groups"):
        told += f" of {len(groups):,} groups of prompts"
    if made := training.get("spoiled_pairs"):
        told += f", {made:,} of them made against padded, cut and empty answers"
    if encoder := training.get("encoder"):
        told += f"; from {encoder}"
    if updates := training.get("updates"):
        told += f"; {updates:,} updates, step size {training['config']['learning_rate']:g}"
    config = training.get("config", {})
    if config.get("reads") == "response" and not config.get("surface"):
        told += "; it reads the response, not the prompt"
    return told + "."


def _head_settings(options: RewardOptions) -> EmbeddingTrainingConfig:
    return EmbeddingTrainingConfig(
        seed=options.seed,
        l2=1.0 if options.l2 is None else options.l2,
        loss=LossConfig(tie_model=options.tie_model),
        surface=options.surface,
        reads=options.reads or "response",
        hidden=options.hidden,
    )


def _fit_settings(options: RewardOptions, *, resumable: bool) -> RewardTrainingConfig:
    """Where no step size is given, the recipe of the fit decides."""
    every = CHECKPOINT_EVERY if options.checkpoint_every_steps is None else options.checkpoint_every_steps
    return RewardTrainingConfig(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        items_per_step=options.items_per_step,
        max_responses=16 if options.max_responses is None else options.max_responses,
        loss=LossConfig(tie_model=options.tie_model),
        seed=options.seed,
        checkpoint_every_steps=every if resumable else None,
    )
