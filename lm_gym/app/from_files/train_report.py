"""The report of a run of ``train``, made from its metrics and settings: before and after, and the curves.

Knows: what such a run folder holds. Does not know: pages. Nothing is measured here, so it has no samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_gym.agents.run_folder import BEST
from lm_gym.app.pipeline.next_steps import command_of
from lm_gym.app.report.report_data import Curve, ModelRow, NextStep, Report
from lm_gym.app.run_models import SETTINGS, settings_of_run
from lm_gym.runs.folder import MARKER, read_result
from lm_gym.runs.metrics_file import METRICS_FILE, read_metrics

__all__ = ["holds_training", "report_of_training"]

Metrics = Mapping[str, float | None]
END = "end of the run"


def holds_training(folder: Path) -> bool:
    """True for the folder of a run of ``train`` that has done an iteration."""
    if not (folder / MARKER).is_file():
        return False
    return any("kl" in row for row in read_metrics(folder / METRICS_FILE))


def report_of_training(folder: Path) -> Report:
    """The report of a run of ``train``.

    Raises:
        ArtifactError: its metrics cannot be read.
        ConfigError: its settings cannot be read.
    """
    history, settings = read_metrics(folder / METRICS_FILE), settings_of_run(folder)
    evaluated = [row for row in history if row.get("eval_score") is not None]
    rows = _held_out_rows(folder, history, evaluated) if evaluated else _training_rows(history)
    target = settings.get("kl_target")
    again = ("train", "--config", folder / SETTINGS, "--out", folder.with_name(f"{folder.name}-again"))
    return Report(
        title=f"{_agent(settings)}: {folder.resolve().name}",
        summary=_summary(settings, len(history)),
        command=command_of(*again) if settings else "",
        machine="",
        seconds=0.0,
        rows=rows,
        curves=(Curve(name=END, history=history, kl_target=None if target is None else float(target)),),
        reward_models=(),
        measured_on="held-out prompts" if evaluated else "training prompts",
        notes=()
        if evaluated
        else (
            "Nothing was held out, so both rows are of the prompts that were trained on, a batch each: --eval-data "
            "measures on others.",
        ),
        next_steps=_next_steps(folder, known=bool(settings)),
    )


def _agent(settings: Mapping[str, Any]) -> str:
    return str(settings.get("agent", "ppo")).upper()


def _summary(settings: Mapping[str, Any], iterations: int) -> str:
    if not settings:
        return f"A language model, trained for {iterations} iterations."
    return (
        f"{settings.get('model')}, trained by {_agent(settings)} for {iterations} of "
        f"{settings.get('iterations')} iterations of "
        f"{settings.get('episodes')} responses against {settings.get('reward_model')}, on the prompts of "
        f"{settings.get('data')}."
    )


def _held_out_rows(folder: Path, history: Sequence[Metrics], evaluated: Sequence[Metrics]) -> tuple[ModelRow, ...]:
    start = ModelRow(
        name="start",
        description="the model that training began with, which is the reference too",
        score=evaluated[-1].get("eval_reference_score"),
        kl=0.0,
        win_rate=None,
        win_rate_low=None,
        win_rate_high=None,
        response_length=math.nan,
        eos_share=math.nan,
        role="start",
    )
    best = (read_result(folder) or {}).get("best_iteration")
    found = [row for row in evaluated if row.get("iteration") == best and row is not evaluated[-1]]
    named = [("best on held-out prompts", f"kept in {folder / BEST}", row) for row in found]
    number = int(evaluated[-1].get("iteration") or 0) + 1
    named.append((END, f"after {number} of {len(history)} iterations", evaluated[-1]))
    return (start, *(_held_out_row(name, description, row) for name, description, row in named))


def _held_out_row(name: str, description: str, metrics: Metrics) -> ModelRow:
    return ModelRow(
        name=name,
        description=description,
        score=metrics.get("eval_score"),
        kl=metrics.get("eval_kl"),
        win_rate=metrics.get("eval_win_rate"),
        win_rate_low=None,
        win_rate_high=None,
        response_length=_number(metrics, "eval_response_length"),
        eos_share=_number(metrics, "eos_share"),
        entropy=metrics.get("entropy"),
        role="rl" if metrics.get("kl_coef") else "rl_without_kl",
    )


def _training_rows(history: Sequence[Metrics]) -> tuple[ModelRow, ...]:
    named = [("first iteration", history[0]), (END, history[-1])]
    return tuple(
        ModelRow(
            name=name,
            description=f"the responses of iteration {int(row.get('iteration') or 0) + 1}, on training prompts",
            score=row.get("score"),
            kl=row.get("kl"),
            win_rate=None,
            win_rate_low=None,
            win_rate_high=None,
            response_length=_number(row, "response_length"),
            eos_share=_number(row, "eos_share"),
            entropy=row.get("entropy"),
        )
        for name, row in named
    )


def _number(metrics: Metrics, name: str) -> float:
    value = metrics.get(name)
    return math.nan if value is None else value


def _next_steps(folder: Path, *, known: bool) -> tuple[NextStep, ...]:
    steps = [
        NextStep(
            purpose="Let the trained model answer; any prompt will do:",
            command=command_of("generate", "--model", folder, "--prompt", "Your prompt"),
        )
    ]
    if known:
        steps.append(
            NextStep(
                purpose="Read the answers before and after side by side, and count who wins:",
                command=command_of("compare", folder),
            )
        )
    return tuple(steps)
