"""The commands behind ``lm-gym``. Heavy modules are imported inside a command, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from tyro.extras import SubcommandApp

from lm_gym.tools.console.terminal import plain_console
from lm_gym.tools.settings import checked

from .doctor.command import doctor
from .label.command import label
from .options import (
    FileRun,
    MaybeInt,
    MaybePath,
    MaybeText,
    NoneGiven,
    SampleOptions,
    TrainOptions,
    TrainResponseOptions,
    UpdateOptions,
)
from .reward_commands import reward_ensemble, reward_eval, reward_train
from .settings import dumped, with_files
from .talk.command import chat

__all__ = ["application", "commands"]

Files = tuple[Path, ...]


def application() -> SubcommandApp:
    """The command tree."""
    app, reward = SubcommandApp(), SubcommandApp()
    for name, function in commands().items():
        group, _, rest = name.rpartition(" ")
        if group == "reward" and rest == "train":
            app.command(reward, name="reward", help="Reward models: fit, measure, or weigh several.")
        (reward if group else app).command(name=rest)(function)
    return app


def commands() -> dict[str, Callable[..., Any]]:
    """Every command by its name; all of them take files of settings."""
    functions: dict[str, Callable[..., Any]] = {
        "demo": demo,
        "run": run,
        "pretrain": pretrain,
        "sft": sft,
        "reward train": reward_train,
        "reward eval": reward_eval,
        "reward ensemble": reward_ensemble,
        "train": train,
        "generate": generate,
        "chat": chat,
        "label": label,
        "compare": compare,
        "report": report,
        "doctor": doctor,
    }
    return {name: with_files(function) for name, function in functions.items()}


def demo(
    out: Path = Path("runs/demo"), seed: int = 0, resume: bool = False, overwrite: bool = False, smoke: bool = False
) -> None:
    """The whole RLHF loop on the built-in task: offline, two CPU cores, some minutes.

    Args:
        out: Folder of the run; the report is report.html in it.
        seed: Seed of every stage.
        resume: Go on with the run that the folder holds.
        overwrite: Delete the run that the folder holds first.
        smoke: Go through every stage in seconds, without learning anything of note.
    """
    from .pipeline.demo import demo_plan
    from .pipeline.loop import run_loop
    from .pipeline.workspace import Workspace

    console = plain_console()
    plan = demo_plan(seed=seed, smoke=smoke)
    identity = plan.identity(settings={"smoke": smoke})
    flags = {"resume": resume, "overwrite": overwrite}
    with Workspace(out, identity, console=console, stages=plan.stage_count, **flags) as workspace:
        workspace.tell_plan(plan.title, plan.summary)
        found = run_loop(plan, workspace, command=_command_line())
    _finish(found, out, console)


def run(
    options: Annotated[FileRun, tyro.conf.arg(name="")], out: Path, resume: bool = False, overwrite: bool = False
) -> None:
    """All stages from your own files: language model, reward model, PPO, report.

    Args:
        options: What to run.
        out: Folder of the run; the report is report.html in it.
        resume: Go on with the run that the folder holds.
        overwrite: Delete the run that the folder holds first.
    """
    from .from_files.file_run import run_from_files
    from .run_models import language_model_of

    if options.model is not None:
        options = replace(options, model=language_model_of(options.model))
    console = plain_console()
    command = _command_line()
    found = run_from_files(options, out, resume=resume, overwrite=overwrite, console=console, command=command)
    _finish(found, out, console)


def pretrain(
    data: Files,
    out: Path,
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    vocabulary: int = 2048,
    context: int = 256,
    epochs: float = 10.0,
    steps: MaybeInt = None,
    learning_rate: float = 2e-3,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Train a tokenizer and a small language model from scratch.

    A step of the default size takes about .3 s on two CPU cores.

    Args:
        data: Text files (.txt), or rows (.jsonl, .json, .csv, .parquet) with "text" or "prompt" and "completion".
        out: Folder of the model.
        layers: Transformer blocks.
        width: Width of the hidden states.
        heads: Attention heads.
        vocabulary: Most tokens of the tokenizer.
        context: Longest sequence, in tokens.
        epochs: Passes over the text.
        steps: Optimiser steps of eight contexts each, instead of epochs; fewer write less like the text.
        learning_rate: Peak learning rate.
        seed: Seed of weights and order.
        resume: Go on with a run that was stopped; the other options must be the same, and so are the weights.
        overwrite: Replace the run or the model that the folder holds.
    """
    from lm_gym.agents import PretrainConfig
    from lm_gym.agents import pretrain as pretrain_model

    config = PretrainConfig(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        context=context,
        epochs=epochs,
        max_steps=steps,
        learning_rate=learning_rate,
        seed=seed,
    )
    result = pretrain_model(list(data), out, config, resume=resume, overwrite=overwrite)
    loss = "none held out" if result.validation_loss is None else f"{result.validation_loss:.3f} nats/token"
    plain_console().print(f"{result.parameters:,} weights in {out}; validation loss: {loss}")


def sft(
    model: str,
    data: Path,
    out: Path,
    eval_data: MaybePath = None,
    epochs: float = 3.0,
    learning_rate: float = 5e-5,
    batch_size: int = 8,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Fine-tune a language model on prompts and completions, or chats.

    Args:
        model: Folder, GGUF file, hub id or run of the language model.
        data: Rows: {"prompt", "completion"}, {"messages"}, or {"instruction", "output"}.
        out: Folder of the fine-tuned model.
        eval_data: Held-out rows.
        epochs: Passes over the rows.
        learning_rate: Peak learning rate.
        batch_size: Rows per step.
        seed: Seed of the order.
        resume: Go on with a run that was stopped; the other options must be the same, and so are the weights.
        overwrite: Replace the run or the model that the folder holds.
    """
    from lm_gym.agents import SupervisedConfig, supervised_finetune

    from .run_models import language_model_of

    config = SupervisedConfig(epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed)
    result = supervised_finetune(
        language_model_of(model), data, out, config, eval_rows=eval_data, resume=resume, overwrite=overwrite
    )
    shown = "" if result.eval_loss is None else f"; eval loss {result.eval_loss:.3f} nats/token"
    plain_console().print(f"fine-tuned on {result.rows} rows in {out}; training loss {result.train_loss:.3f}{shown}")


def train(
    options: Annotated[TrainOptions, tyro.conf.arg(name="")],
    update: Annotated[UpdateOptions, tyro.conf.arg(name="")],
    responses: Annotated[TrainResponseOptions, tyro.conf.arg(name="")],
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Train a language model by PPO or another agent against a reward model.

    Args:
        options: What is trained, on what.
        update: Settings of the agent.
        responses: Settings of sampling.
        out: Folder of the run; the trained model is policy in it.
        resume: Go on with the run that the folder holds.
        overwrite: Delete the run that the folder holds first.
    """
    from .from_files.standalone import train_policy
    from .run_models import language_model_of, reward_model_of

    record = dumped(train, {"options": options, "update": update, "responses": responses, "out": out})
    resolved = replace(
        options, model=language_model_of(options.model), reward_model=reward_model_of(options.reward_model)
    )
    flags = {"resume": resume, "overwrite": overwrite}
    train_policy(resolved, update, responses, out, settings=record, **flags, console=plain_console())


def generate(
    model: str,
    sampling: Annotated[SampleOptions, tyro.conf.arg(name="")],
    prompt: Annotated[tuple[str, ...], NoneGiven] = (),
    data: MaybePath = None,
    count: int = 1,
    out: MaybePath = None,
    overwrite: bool = False,
) -> None:
    """Write responses of a language model.

    Args:
        model: Folder, GGUF file, hub id or run.
        sampling: Settings of sampling.
        prompt: Prompts, in quotes.
        data: File of prompts: rows with "prompt" or "messages".
        count: Responses per prompt.
        out: Write .jsonl rows here instead of printing.
        overwrite: Replace the file that is there.
    """
    from .from_files.standalone import generate_texts
    from .run_models import language_model_of

    model = language_model_of(model)
    generate_texts(model, prompt, data, sampling, count=count, out=out, overwrite=overwrite, console=plain_console())


def compare(
    a: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="A")],
    sampling: Annotated[SampleOptions, tyro.conf.arg(name="")],
    b: Annotated[
        tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[B]", help_behavior_hint="(default: none)")
    ] = None,
    data: MaybePath = None,
    reward_model: MaybeText = None,
    limit: int = 20,
) -> None:
    """Two language models side by side on the same prompts.

    One run, as in 'lm-gym compare RUN', is compared with the model it began with.

    Args:
        a: Folder, GGUF file, hub id or run of the first.
        sampling: Settings of sampling.
        b: Folder, GGUF file, hub id or run of the second; left out, the first is a run.
        data: File of prompts: rows with "prompt" or "messages"; left out with one run, its own.
        reward_model: Also score both, and count how often each wins; left out with one run, its own.
        limit: Most prompts shown.
    """
    from .from_files.standalone import compare_models
    from .run_models import compared

    a, b, data, reward_model = compared(a, b, data, reward_model)
    compare_models(a, b, data, sampling, reward_model=reward_model, limit=limit, console=plain_console())


def report(run: tyro.conf.Positional[Path], form: Literal["html", "table"] = "html") -> None:
    """Render the report of a run of demo, run or train.

    Args:
        run: Folder of the run; one of train may still go on.
        form: A page (report.html in the folder), or a table in the terminal.
    """
    from .from_files.train_report import holds_training, report_of_training
    from .report.report import render_report
    from .report.report_data import Report
    from .report.terminal_report import print_table

    console = plain_console()
    checked("report: run", run, Path)
    found = report_of_training(run) if holds_training(run) else Report.load(run)
    if form == "table":
        print_table(found, console)
    else:
        console.print(f"report: {render_report(found, run / 'report.html')}")


def _finish(found: Any, folder: Path, console: Console) -> None:
    from .report.report import render_report
    from .report.terminal_report import print_ending

    print_ending(found, render_report(found, folder / "report.html"), console)


def _command_line() -> str:
    return " ".join(["lm-gym", *sys.argv[1:]])
