"""Reward models from files, for the command line: fit one of any kind, or measure one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lm_gym.errors import ConfigError, OutputExistsError
from lm_gym.files import write_json
from lm_gym.handles import load_reward_model
from lm_gym.reward_models import (
    CrossEncoderRewardModel,
    EmbeddingRewardModel,
    EmbeddingTrainingConfig,
    Judgement,
    PreferenceRewardModel,
    RewardEvaluation,
    RewardTrainingConfig,
    evaluate_reward_model,
    load_judgements,
    rankings_of,
    split_by_prompt,
)

from .options import RewardOptions

__all__ = ["evaluate_files", "grouped_by", "train_reward_model"]


def grouped_by(separator: str | None) -> Callable[[str], str]:
    """Group of a prompt: what stands before the separator, or the whole prompt."""

    def group_of(prompt: str) -> str:
        return prompt if separator is None else prompt.split(separator)[0]

    return group_of


def train_reward_model(options: RewardOptions, out: Path, *, overwrite: bool, console: Console) -> None:
    """Fit a reward model on some prompt groups, measure it on others, and save both as one folder.

    Raises:
        OutputExistsError: the folder holds something, and overwriting was not asked for.
        ConfigError, DataError, ModelLoadError: settings, data or model cannot be used.
    """
    if out.exists() and not overwrite and (out.is_file() or any(out.iterdir())):
        raise OutputExistsError(f"output folder {out}: must be new or empty, and it holds something; pass --overwrite")
    judgements = _loaded(options.data, options.skip_bad, console)
    group_of = grouped_by(options.group_separator)
    split = split_by_prompt(judgements, held_out=options.held_out, seed=options.seed, group_of=group_of)
    model = _fitted(options, split.train)
    texts = [(one.prompt, text) for one in split.train for text in one.texts]
    model.fit_normalizer(*zip(*texts, strict=True), fitted_on=f"{len(texts)} judged responses")
    held_out = rankings_of(split.held_out)
    found = evaluate_reward_model(model, held_out, group_of=group_of) if held_out else None
    model.training["evaluation"] = None if found is None else evaluation_json(found)
    if out.exists():
        shutil.rmtree(out)
    model.save(out)
    console.print(f"{out}: fitted to {len(split.train)} judgements of {len({o.prompt for o in split.train})} prompts")
    if found is None:
        console.print("nothing held out compares two responses, so there is no accuracy")
    else:
        write_json(out / "evaluation.json", evaluation_json(found))
        print_evaluation(found, f"held-out groups of {', '.join(map(str, options.data))}", console)


def _loaded(paths: Sequence[Path], skip_bad: bool, console: Console) -> list[Judgement]:
    found = load_judgements(paths, skip_bad=skip_bad)
    for row in found.skipped:
        console.print(f"[yellow]skipped[/yellow] {row.where}: {row.reason}", highlight=False)
    if found.skipped:
        console.print(f"skipped {len(found.skipped)} rows, kept {len(found.judgements)}")
    return found.judgements


def _fitted(options: RewardOptions, judgements: Sequence[Judgement]) -> Any:
    if options.kind == "embedding":
        config = EmbeddingTrainingConfig(seed=options.seed, l2=options.l2)
        return EmbeddingRewardModel.train(judgements, options.model, config, cache_dir=options.cache_dir)
    settings = RewardTrainingConfig(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        items_per_step=options.items_per_step,
        max_responses=options.max_responses,
        seed=options.seed,
    )
    kinds = {"preference": PreferenceRewardModel, "cross-encoder": CrossEncoderRewardModel}
    if options.kind not in kinds:
        raise ConfigError(f"--kind: must be preference, embedding or cross-encoder, got {options.kind!r}")
    return kinds[options.kind].train(
        judgements, options.model, settings, seed=options.seed, max_length=options.max_length
    )


def evaluate_files(
    model: str,
    data: Sequence[Path],
    *,
    group_separator: str | None,
    skip_bad: bool,
    as_json: bool,
    console: Console,
) -> None:
    """Measure a reward model on the judgements of some files."""
    errors = Console(stderr=True)
    rankings = rankings_of(_loaded(data, skip_bad, errors))
    found = evaluate_reward_model(load_reward_model(model), rankings, group_of=grouped_by(group_separator))
    if as_json:
        console.print_json(json.dumps(evaluation_json(found)))
    else:
        print_evaluation(found, model, console)


def print_evaluation(found: RewardEvaluation, title: str, console: Console) -> None:
    """The main numbers as a table."""
    table = Table(title=f"{title}: {found.pairs} pairs", show_header=False)
    for name, value in (
        ("accuracy", f"{found.accuracy:.3f}"),
        ("length-only baseline", f"{found.length_accuracy:.3f}"),
        ("negative log-likelihood, nats", f"{found.nll:.3f}"),
        ("expected calibration error", f"{found.ece:.3f}"),
        ("abstained pairs", str(found.abstained)),
    ):
        table.add_row(name, value)
    console.print(table)


def evaluation_json(found: RewardEvaluation) -> dict[str, object]:
    """The evaluation with the short names that scripts rely on beside its own."""
    return {
        **found.to_json(),
        "n": found.pairs,
        "length_baseline_accuracy": found.length_accuracy,
        "by_group": {group.group: group.accuracy for group in found.groups},
    }
