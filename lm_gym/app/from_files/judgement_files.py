"""Judgements from files, for the command line: read, told of, divided, and fit to measure on.

Knows: files and options. Does not know: reward models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lm_gym.app.options import RewardOptions
from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models.judgements.record import Judgement
from lm_gym.reward_models.judgements.rows import load_judgements
from lm_gym.reward_models.judgements.splits import refuse_leaks, split_by_prompt
from lm_gym.tools.console.terminal import visible

__all__ = ["divided", "grouped_by", "pair_rows", "read_beside", "read_files", "refuse_without_comparisons"]


def grouped_by(separator: str | None) -> Callable[[str], str]:
    """Group of a prompt: what stands before the separator, or the whole prompt.

    Raises:
        ConfigError: the separator is empty.
    """
    if separator == "":
        raise ConfigError(
            "--group-separator: must be a text that is not empty, got ''; leave it out to group by prompt"
        )

    def group_of(prompt: str) -> str:
        return prompt if separator is None else prompt.split(separator)[0]

    return group_of


def divided(options: RewardOptions, console: Console) -> tuple[list[Judgement], list[Judgement]]:
    """Judgements to fit to and to measure on. Raises: DataError: a file cannot be used, or both share a group."""
    judgements = read_files(options.data, options.skip_bad, console)
    group_of = grouped_by(options.group_separator)
    if not options.eval_data:
        split = split_by_prompt(judgements, held_out=options.held_out, seed=options.seed, group_of=group_of)
        return split.train, split.held_out
    held_out = read_files(options.eval_data, options.skip_bad, console)
    refuse_leaks(judgements, held_out, group_of=group_of)
    return judgements, held_out


def read_files(paths: Sequence[Path], skip_bad: bool, console: Console) -> list[Judgement]:
    """The judgements of some files; rows that are left out, and columns that are not read, are told of."""
    found = load_judgements(paths, skip_bad=skip_bad)
    for row in found.skipped:
        console.print(Text.assemble(("skipped", "yellow"), visible(f" {row.where}: {row.reason}")))
    if found.skipped:
        console.print(f"skipped {len(found.skipped)} rows, kept {len(found.judgements)}")
    if found.without_text:
        of = f"{found.without_text} of {len(found.judgements)} judgements"
        console.print(f"responses without text: in {of}; they are used", highlight=False)
    if found.columns:
        listed = ", ".join(f"{key} ({rows} rows)" for key, rows in sorted(found.columns.items()))
        console.print(f"not learned from: the columns {listed}", highlight=False)
    return found.judgements


def read_beside(paths: Sequence[Path], skip_bad: bool, console: Console) -> dict[Path, list[Judgement]]:
    """The judgements of files that are measured on each by itself.

    Raises:
        DataError: a file cannot be used, or nothing in it compares two responses.
    """
    found = {path: read_files([path], skip_bad, console) for path in paths}
    for path, judgements in found.items():
        refuse_without_comparisons(judgements, {f"--also {path}": True})
    return found


def pair_rows(paths: Sequence[Path], console: Console) -> list[dict[str, str]]:
    """Every comparison in some files as a row with prompt, chosen and rejected.

    Raises:
        DataError: a file cannot be used, or nothing in them compares two responses.
    """
    judgements = read_files(paths, False, console)
    refuse_without_comparisons(judgements, {"--pairs": True})
    return [
        {"prompt": one.prompt, "chosen": one.texts[better], "rejected": one.texts[worse]}
        for one in judgements
        for better, worse in one.pairs()
    ]


def refuse_without_comparisons(judgements: Sequence[Judgement], options: Mapping[str, object]) -> None:
    """Raises: DataError: an option was given that measures on comparisons, and no judgement compares two responses."""
    given = [flag for flag, value in options.items() if value]
    if given and not any(one.compares for one in judgements):
        raise DataError(
            f"{', '.join(given)}: must have judgements to measure on of which one prefers a response to another, and "
            f"none of the {len(judgements)} does; add pairs, rankings or votes, or leave the option out"
        )
