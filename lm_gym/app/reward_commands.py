"""The commands behind ``lm-gym reward``: fit a reward model, measure one, weigh several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lm_gym.tools.console.terminal import plain_console

from .options import MaybePath, MaybeText, NoneGiven, RewardOptions

__all__ = ["reward_ensemble", "reward_eval", "reward_train"]

Files = tuple[Path, ...]


def reward_train(
    options: Annotated[RewardOptions, tyro.conf.arg(name="")], out: Path, resume: bool = False, overwrite: bool = False
) -> None:
    """Fit a reward model to judgements, and measure it on prompts it has not seen.

    Args:
        options: Settings of the fit.
        out: Folder of the reward model.
        resume: Go on with a killed run of the same settings and judgements.
        overwrite: Delete the run or model that the folder holds first.
    """
    from .from_files.reward_files import train_reward_model
    from .run_models import language_model_of

    options = replace(options, model=language_model_of(options.model))
    train_reward_model(options, out, resume=resume, overwrite=overwrite, console=plain_console())


def reward_eval(
    model: str,
    data: Files,
    group_separator: MaybeText = None,
    skip_bad: bool = False,
    also: Annotated[Files, NoneGiven] = (),
    fail_on_probes: bool = False,
    page: MaybePath = None,
    json: bool = False,
) -> None:
    """Measure a reward model on judgements, beside the baseline of length alone.

    Args:
        model: Folder, hub id, run, registered name, module:attribute or file.py:attribute of the reward model.
        data: Files of judgements that it was not trained on.
        group_separator: Prompts that are alike before this text form a group.
        skip_bad: List rows that cannot be read instead of stopping at the first.
        also: Further files of judgements, each measured beside the main numbers: adversarial pairs, say.
        fail_on_probes: End with an error if a text that should never win does.
        page: Write the card as an HTML page here.
        json: Print JSON instead of a table.
    """
    from .from_files.reward_files import evaluate_files
    from .run_models import reward_model_of

    evaluate_files(
        reward_model_of(model),
        data,
        group_separator=group_separator,
        skip_bad=skip_bad,
        also=also,
        fail_on_probes=fail_on_probes,
        as_json=json,
        page=page,
        console=plain_console(),
    )


def reward_ensemble(
    members: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help_behavior_hint="(two or more)")],
    data: Files,
    out: Path,
    rule: Literal["mean", "worst", "mean_minus_std"] = "mean",
    group_separator: MaybeText = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> None:
    """Several reward models as one, with weights fitted to judgements new to them.

    Args:
        members: Folders, or other handles, of two reward models or more, of any kinds.
        data: Files of judgements; groups that a member was trained on are left out.
        out: Folder of the ensemble, which holds its members.
        rule: The weighted mean, the lowest weighted score, or the mean minus the members' disagreement.
        group_separator: Prompts that are alike before this text form a group.
        skip_bad: List rows that cannot be read instead of stopping at the first.
        overwrite: Delete the reward model that the folder holds first.
    """
    from .from_files.reward_files import ensemble_from_folders

    ensemble_from_folders(
        members,
        data,
        out,
        rule=rule,
        group_separator=group_separator,
        skip_bad=skip_bad,
        overwrite=overwrite,
        console=plain_console(),
    )
