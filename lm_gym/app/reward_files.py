"""Reward models from files, for the command line: fit one of any kind, or measure one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lm_gym.errors import ConfigError, OutputExistsError
from lm_gym.files import write_json, write_text
from lm_gym.handles import load_reward_model
from lm_gym.reward_models import (
    CrossEncoderRewardModel,
    EmbeddingRewardModel,
    EmbeddingTrainingConfig,
    Judgement,
    PreferenceRewardModel,
    RewardModelCard,
    RewardTrainingConfig,
    load_judgements,
    rankings_of,
    refuse_leaks,
    reward_card,
    split_by_prompt,
)

from .options import RewardOptions
from .plots import reliability_plot
from .report import rendered_page
from .report_data import RewardCard as ReportCard

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
    train, held_out = _divided(options, console)
    group_of = grouped_by(options.group_separator)
    model = _fitted(options, train)
    texts = [(one.prompt, text) for one in train for text in one.texts]
    model.fit_normalizer(*zip(*texts, strict=True), fitted_on=f"{len(texts)} judged responses")
    card = reward_card(model, held_out, group_of=group_of) if rankings_of(held_out) else None
    model.training["groups"] = sorted({group_of(one.prompt) for one in train})
    model.training["evaluation"] = None if card is None else card.evaluation.to_json()
    if card is not None:  # sigmoid(difference of scores / temperature) is the probability of a preference
        model.links["temperature"] = card.evaluation.temperature
    model.save(out)
    prompts = len({one.prompt for one in train})
    console.print(f"{out}: fitted to {len(train)} judgements of {prompts} prompts")
    if card is None:
        console.print("nothing held out compares two responses, so there is no accuracy")
        return
    write_json(out / "evaluation.json", card.to_json())
    write_card(card, out / "card.html")
    print_card(card, f"{out} on groups it has not seen", console)


def _divided(options: RewardOptions, console: Console) -> tuple[list[Judgement], list[Judgement]]:
    judgements = _loaded(options.data, options.skip_bad, console)
    group_of = grouped_by(options.group_separator)
    if not options.eval_data:
        split = split_by_prompt(judgements, held_out=options.held_out, seed=options.seed, group_of=group_of)
        return split.train, split.held_out
    held_out = _loaded(options.eval_data, options.skip_bad, console)
    refuse_leaks(judgements, held_out, group_of=group_of)
    return judgements, held_out


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
    page: Path | None,
    console: Console,
) -> None:
    """Measure a reward model on the judgements of some files."""
    errors = Console(stderr=True)
    judgements = _loaded(data, skip_bad, errors)
    loaded = load_reward_model(model)
    trained_on = getattr(loaded, "training", {}).get("groups", ())
    card = reward_card(loaded, judgements, group_of=grouped_by(group_separator), trained_on=trained_on)
    if card.seen_groups:
        errors.print(
            f"[yellow]warning[/yellow]: the model was trained on {len(card.seen_groups)} of these groups, "
            f"{card.seen_groups[0]!r} for one; the numbers flatter it",
            highlight=False,
        )
    if page is not None:
        errors.print(f"card: {write_card(card, page)}")
    if as_json:
        console.print_json(json.dumps(card.to_json()))
    else:
        print_card(card, model, console)


def print_card(card: RewardModelCard, title: str, console: Console) -> None:
    """The main numbers as a table."""
    found = card.evaluation
    table = Table(title=f"{title}: {found.pairs} pairs", show_header=False)
    for name, value in card_rows(card):
        table.add_row(name, value)
    console.print(table)


def write_card(card: RewardModelCard, path: Path) -> Path:
    """Write the card as one HTML page that needs nothing else. Returns: the path."""
    shown = ReportCard(name=card.name, trained_on=0, evaluation=card.evaluation.to_json())
    plots = [plot for plot in (reliability_plot(shown, number=0),) if plot is not None]
    return write_text(path, rendered_page("card.html.j2", {"card": card, "rows": card_rows(card), "plots": plots}))


def card_rows(card: RewardModelCard) -> list[tuple[str, str]]:
    """Name and number of everything on the card that is one number."""
    found, people = card.evaluation, card.agreement
    rows: list[tuple[str, float | None]] = [
        ("accuracy", found.accuracy),
        ("length-only baseline", found.length_accuracy),
        ("TF-IDF baseline, fitted on the other half of the groups", card.text_baseline_accuracy),
        ("accuracy at matched length", found.accuracy_at_matched_length),
        *((f"accuracy where {s.low:.0%} to {s.high:.0%} of the votes agree", s.accuracy) for s in card.by_share),
        ("negative log-likelihood, nats", found.nll),
        ("expected calibration error", found.ece),
        ("the same at a temperature fitted on other groups", found.ece_at_temperature),
        ("temperature", found.temperature),
        ("correlation of score and length", card.length_correlation),
        ("rank correlation within a prompt", card.rank_correlation),
        ("agreement of annotators, Krippendorff's alpha", None if people is None else people.alpha),
        ("an annotator agrees with most others", None if people is None else people.people_with_majority),
        ("the model agrees with them", None if people is None else people.model_with_majority),
    ]
    shown = [(name, f"{value:.3f}") for name, value in rows if value is not None]
    return [*shown, ("pairs the model abstained on", str(found.abstained))]
