"""Reward models from files, for the command line: fit one of any kind, measure one, or combine several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from lm_gym.app.options import RewardOptions
from lm_gym.app.report.card_page import print_card, print_grades, print_weights, write_card
from lm_gym.errors import DataError, OutputExistsError, RewardModelError
from lm_gym.models.lora import check_apart_from_base, lasting_handle
from lm_gym.pretrained.handles import digest_handle
from lm_gym.reward_models import (
    CurvePoint,
    EnsembleRewardModel,
    Judgement,
    NamedEvaluation,
    RewardModelCard,
    evaluate_reward_model,
    fit_weights,
    graded_measures,
    learning_curve,
    reward_card,
)
from lm_gym.reward_models.judgements.rows import to_row
from lm_gym.reward_models.scalar.fit import checkpoints_beside
from lm_gym.runs.folder import (
    LOCK,
    MARKER,
    RunIdentity,
    discard_run,
    mark_finished,
    open_run,
    read_result,
    refuse_both,
)
from lm_gym.runs.lock import only_writer
from lm_gym.scoring.handles import REWARD_MODEL_RECORD, load_reward_model
from lm_gym.scoring.protocol import KeepsTraining, RewardModel
from lm_gym.sources.rows import read_rows
from lm_gym.tools.console.terminal import plain_console, visible
from lm_gym.tools.digests import digest_file, digest_json
from lm_gym.tools.files import read_json, sweep_temporaries, write_json
from lm_gym.tools.settings import checked

from .judgement_files import divided, grouped_by, read_beside, read_files, refuse_without_comparisons
from .reward_fit import (
    FittedRewardModel,
    fitted_reward_model,
    print_summary,
    refuse_flags_of_another_kind,
    told_of_training,
)

__all__ = ["ensemble_from_folders", "evaluate_files", "train_reward_model"]

Beside = Mapping[Path, Sequence[Judgement]]
"""Judgements that are measured on each file by itself."""
NO_SETTINGS = (
    "model",
    "data",
    "eval_data",
    "reference_samples",
    "skip_bad",
    "cache_dir",
    "checkpoint_every_steps",
    "also",
    "fail_on_probes",
)
"""Options that are compared by what they name, or change nothing of what is made."""


def train_reward_model(
    options: RewardOptions, out: Path, *, resume: bool = False, overwrite: bool = False, console: Console
) -> None:
    """Fit a reward model on some prompt groups, measure it on others, and save both as one folder.

    A normaliser is fitted on samples of the reference model only, so where none are given there is none: the
    answers of judgements may be of any length and quality, and their scores say nothing of those that RL starts from.

    Until that is written, what an interrupted run needs to go on lies beside it, in ``<out>.checkpoints``. A finished
    one that is to go on is left as it is.

    Raises:
        OutputExistsError: the folder, or one of an interrupted run beside it, holds something, and neither overwriting
            nor going on was asked for; or it holds no reward model, or no run of one; or another process makes one
            there.
        ConfigError, DataError, ModelLoadError: both were asked for; settings, data or model cannot be used; or the
            finished run that is to go on had others.
    """
    refuse_flags_of_another_kind(options)
    with only_writer(out):  # from the first look at what is there to the last measurement
        _train(options, out, resume=resume, overwrite=overwrite, console=console)


def _train(options: RewardOptions, out: Path, *, resume: bool, overwrite: bool, console: Console) -> None:
    checkpoints = checkpoints_beside(out)
    _refuse_what_is_there(out, checkpoints, resume=resume, overwrite=overwrite)
    samples = None if options.reference_samples is None else _samples(options.reference_samples)
    train, held_out = divided(options, console)
    needy = {"--also": options.also, "--learning-curve": options.learning_curve}
    refuse_without_comparisons(held_out, needy | {"--fail-on-probes": options.fail_on_probes})
    beside = read_beside(options.also, options.skip_bad, console)
    identity = _identity_of(options, train, held_out, beside)
    if resume and read_result(out) is not None:
        open_run(out, identity, resume=True).close()
        _discard(checkpoints)  # a kill may have come between the mark and this
        console.print(f"{out}: is finished; nothing was left to do", highlight=False)
        _fail_on_probes(options, out)
        return
    if options.lora_rank:
        check_apart_from_base("--out", lasting_handle(options.model), out)
    if overwrite:
        discard_run(checkpoints)
        (out / MARKER).unlink(missing_ok=True)  # what is made now is not what is there
    model = fitted_reward_model(options, train, checkpoints, resumable=True)
    if samples is not None:
        model.fit_normalizer(*samples, fitted_on=f"{len(samples[0])} samples of the reference model")
    model.training["groups"] = sorted({grouped_by(options.group_separator)(one.prompt) for one in train})
    model.save(out)  # measuring may take long, and may fail
    measurable = any(one.compares for one in held_out)
    card = _measured(options, model, train, held_out, beside, checkpoints, console) if measurable else None
    model.training["evaluation"] = None if card is None else card.evaluation.to_json()
    if card is not None:  # sigmoid(difference of scores / temperature) is the probability of a preference
        model.links["temperature"] = card.evaluation.temperature
    model.save(out)
    print_summary(model.training, out, len({one.prompt for one in train}), console)
    if card is None:
        console.print("nothing held out compares two responses, so there is no accuracy")
        _tell_of_grades(model, held_out, out, console)
    else:
        write_json(out / "evaluation.json", card.to_json())
        write_card(card, out / "card.html")
        print_card(card, f"{out} on groups it has not seen", console)
    mark_finished(out, identity, {"judgements": len(train)})
    _discard(checkpoints)
    _fail_on_probes(options, out)


def _identity_of(
    options: RewardOptions, train: Sequence[Judgement], held_out: Sequence[Judgement], beside: Beside
) -> RunIdentity:
    """Everything that decides the artefact, the measurements in it included."""
    samples = options.reference_samples
    return RunIdentity(
        kind="reward-model",
        settings={name: value for name, value in asdict(options).items() if name not in NO_SETTINGS},
        inputs={
            "model": digest_handle(options.model),
            "judgements": digest_json([to_row(one) for one in train]),
            "held_out_judgements": digest_json([to_row(one) for one in held_out]),
            "also": digest_json([[path.name, [to_row(one) for one in said]] for path, said in beside.items()]),
            "reference_samples": "none" if samples is None else digest_file(samples),
        },
    )


def _tell_of_grades(model: FittedRewardModel, held_out: Sequence[Judgement], out: Path, console: Console) -> None:
    found = graded_measures(model, held_out)
    if found is not None:
        write_json(out / "evaluation.json", {"graded": asdict(found)})
        print_grades(found, console)


def _fail_on_probes(options: RewardOptions, out: Path) -> None:
    """Raises: RewardModelError: see :func:`_refuse_fooled`."""
    if options.fail_on_probes:
        remedy = "measure the model by reward eval --fail-on-probes"
        probes = read_json(out / "evaluation.json", remedy=remedy).get("probes", ())
        _refuse_fooled(str(out), {probe["name"]: probe["fools"] for probe in probes})


def _refuse_fooled(model: str, fooled: Mapping[str, bool]) -> None:
    """Raises: RewardModelError: a probe fools the model, or there was no preferred answer to hold one against."""
    if not fooled:
        raise RewardModelError(
            f"{model}: --fail-on-probes must have a response that won more comparisons than it lost, and none did, so "
            "that no probe was measured; add judgements, or leave it out"
        )
    if any(fooled.values()):
        names = ", ".join(name for name, fools in fooled.items() if fools)
        raise RewardModelError(
            f"{model}: no probe may fool it (--fail-on-probes), and these do: {names}; nothing that was "
            "written is deleted; reward train --debias adds judgements against padded, cut and empty answers"
        )


def _discard(checkpoints: Path) -> None:
    with suppress(OutputExistsError):  # a fit from Python may have begun there
        discard_run(checkpoints)
    sweep_temporaries(checkpoints.parent, name=checkpoints.name)


def _samples(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and responses of the reference."""
    rows = read_rows(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("prompt"), str) or not isinstance(row.get("response"), str):
            raise DataError(
                f'{path}, row {number}: must have texts under "prompt" and "response", got the keys {sorted(row)}; '
                "lm-gym generate --out writes such rows"
            )
    return [row["prompt"] for row in rows], [row["response"] for row in rows]


def _refuse_what_is_there(out: Path, checkpoints: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises: ConfigError, OutputExistsError: see :func:`train_reward_model`."""
    checked("--out", checkpoints, Path)
    refuse_both(out, resume=resume, overwrite=overwrite)
    unfinished = checkpoints.exists()
    _refuse_foreign_folders(out, checkpoints)
    if unfinished and not (resume or overwrite):
        raise OutputExistsError(
            f"{checkpoints}: holds an interrupted run; pass --resume to go on with it, or --overwrite to start anew"
        )
    holds_something = out.exists() and (out.is_file() or any(out.iterdir()))
    known = unfinished or (resume and (out / MARKER).is_file())
    if holds_something and not (overwrite or known):
        raise OutputExistsError(f"output folder {out}: must be new or empty, and it holds something; pass --overwrite")


def _refuse_foreign_folders(out: Path, checkpoints: Path) -> None:
    """Refuse to replace what is neither a saved reward model nor a run of one. Raises: OutputExistsError."""
    mine = {out: (REWARD_MODEL_RECORD,), checkpoints: (MARKER, LOCK, "*.sqlite")}
    for folder, traces in mine.items():
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            continue
        if folder.is_file() or not any(found for trace in traces for found in folder.glob(trace)):
            raise OutputExistsError(
                f"output folder {folder}: must be new, empty, or hold a reward model, and it holds something "
                "else, which nothing here deletes; choose another path, or empty it by hand"
            )


def _measured(
    options: RewardOptions,
    model: FittedRewardModel,
    train: list[Judgement],
    held_out: list[Judgement],
    beside: Beside,
    scratch: Path,
    console: Console,
) -> RewardModelCard:
    group_of = grouped_by(options.group_separator)
    also = _measured_on(model, beside, group_of, console)
    card = reward_card(
        model, held_out, group_of=group_of, about=told_of_training(model.training), also=also, progress=True
    )
    if not options.learning_curve:
        return card
    points = []
    for point in learning_curve(
        lambda part: fitted_reward_model(options, part, scratch, resumable=False),
        train,
        held_out,
        group_of=group_of,
        seed=options.seed,
    ):
        console.print(f"{point.judgements} judgements: accuracy {point.accuracy:.3f}", highlight=False)
        points.append(point)
    found = card.evaluation
    last = CurvePoint(
        judgements=len(train), accuracy=found.accuracy, accuracy_standard_error=found.accuracy_standard_error
    )
    return replace(card, learning_curve=(*points, last))


def _measured_on(
    model: RewardModel, beside: Beside, group_of: Callable[[str], str], console: Console
) -> list[NamedEvaluation]:
    """A measurement for each of some further files; groups that the model was trained on are told of."""
    found = []
    trained_on = set(model.training.get("groups", ())) if isinstance(model, KeepsTraining) else set()
    for path, judgements in beside.items():
        if seen := {group_of(one.prompt) for one in judgements} & trained_on:
            told = f": the model was trained on {len(seen)} of the groups in {path}; its numbers flatter it"
            console.print(Text.assemble(("warning", "yellow"), visible(told)))
        found.append(NamedEvaluation(path.name, evaluate_reward_model(model, judgements, group_of=group_of)))
    return found


def evaluate_files(
    model: str,
    data: Sequence[Path],
    *,
    group_separator: str | None,
    skip_bad: bool,
    also: Sequence[Path],
    fail_on_probes: bool,
    as_json: bool,
    page: Path | None,
    console: Console,
) -> None:
    """Measure a reward model on the judgements of some files.

    Raises:
        DataError: a file cannot be used, or an option needs judgements that compare two responses.
        RewardModelError: the model failed, or a probe fools it and that was to be an error.
    """
    errors = plain_console(stderr=True)
    judgements = read_files(data, skip_bad, errors)
    refuse_without_comparisons(judgements, {"--also": also, "--fail-on-probes": fail_on_probes, "--page": page})
    beside = read_beside(also, skip_bad, errors)
    loaded = load_reward_model(model)
    training = loaded.training if isinstance(loaded, KeepsTraining) else {}
    group_of = grouped_by(group_separator)
    if not any(one.compares for one in judgements) and (graded := graded_measures(loaded, judgements)) is not None:
        if as_json:
            console.print_json(json.dumps({"name": loaded.name, "graded": asdict(graded)}), ensure_ascii=True)
            return
        console.print("nothing compares two responses, so there is no accuracy")
        print_grades(graded, console)
        return
    card = reward_card(
        loaded,
        judgements,
        group_of=group_of,
        trained_on=training.get("groups", ()),
        about=told_of_training(training),
        also=_measured_on(loaded, beside, group_of, errors),
        progress=True,
    )
    if card.seen_groups:
        seen = f"{len(card.seen_groups)} of these groups, {card.seen_groups[0]!r} for one"
        told = f": the model was trained on {seen}; the numbers flatter it"
        errors.print(Text.assemble(("warning", "yellow"), visible(told)))
    if page is not None:
        errors.print(f"card: {write_card(card, page)}")
    if as_json:
        console.print_json(json.dumps(card.to_json()), ensure_ascii=True)
    else:
        print_card(card, model, console)
    if fail_on_probes:
        _refuse_fooled(model, {probe.name: probe.fools for probe in card.probes})


def ensemble_from_folders(
    members: Sequence[str],
    data: Sequence[Path],
    out: Path,
    *,
    rule: Literal["mean", "worst", "mean_minus_std"],
    group_separator: str | None,
    skip_bad: bool,
    overwrite: bool,
    console: Console,
) -> None:
    """Fit the weights of the members to judgements of groups that none was trained on, and save all as one folder.

    Raises:
        OutputExistsError: the folder holds something, and overwriting was not asked for; or no reward model is in it;
            or another process makes one there.
        DataError: too little is left to fit to.
        ConfigError, ArtifactError: a member cannot be loaded or saved.
    """
    with only_writer(out):
        _refuse_what_is_there(out, checkpoints_beside(out), resume=False, overwrite=overwrite)
        judgements = read_files(data, skip_bad, console)
        loaded = [load_reward_model(member) for member in members]
        group_of = grouped_by(group_separator)
        seen = {group for one in loaded if isinstance(one, KeepsTraining) for group in one.training.get("groups", ())}
        unseen = [one for one in judgements if group_of(one.prompt) not in seen]
        if left_out := len(judgements) - len(unseen):
            told = f"left out: {left_out} of {len(judgements)} judgements, of groups that a member was trained on"
            console.print(told, highlight=False)
        found = fit_weights(loaded, unseen, group_of=group_of)
        groups = sorted({group_of(one.prompt) for one in unseen} | seen)
        training = asdict(found) | {"members": list(members), "groups": groups}
        if overwrite:
            discard_run(checkpoints_beside(out))  # or --resume would go on with it, and replace the ensemble
        EnsembleRewardModel(loaded, rule=rule, weights=found.weights, training=training).save(out)
        print_weights(members, found, str(out), console)
