"""Trackers: callbacks that write a run down, in a file of JSON Lines, TensorBoard, Weights & Biases or trackio.

Knows: metrics, sample texts, and where they are written. Charts are grouped by the tags of
:mod:`lm_gym.agents.metrics`; a metric that is undefined in an iteration (NaN) has no point there. Does not know: how a
run goes.
"""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.runs.metrics_file import drop_metrics
from lm_gym.tools.extras import require
from lm_gym.tools.files import append_jsonl
from lm_gym.tools.settings import Count, Place, Text, checked

from .callbacks import Callback, TrainingRun
from .metrics import tag

__all__ = ["JsonlTracker", "TensorBoardTracker", "TrackioTracker", "WandbTracker"]

SAMPLES = 4
"""Texts that are written down at a time."""
SAMPLE_COLUMNS = ("prompt", "response", "score", "kl")
PROJECT = "lm-gym"


class JsonlTracker(Callback):
    """One line per iteration in a JSON Lines file; a resumed run drops the lines that it will write again."""

    def __init__(self, path: str | Path) -> None:
        """Args: path: the file."""
        self._path = Path(checked("JsonlTracker: path", path, Place))

    def on_start(self, run: TrainingRun) -> None:
        """Keep the lines before the first iteration."""
        drop_metrics(self._path, count="iteration", after=run.first_iteration - 1)

    def on_iteration(self, run: TrainingRun) -> None:
        """Append a line; a value that is not finite is written as null."""
        finite = {name: value if math.isfinite(value) else None for name, value in run.metrics.items()}
        append_jsonl(self._path, {"iteration": run.iteration, **finite})  # on the disk before its checkpoint


class TensorBoardTracker(Callback):
    """Scalars and sample texts for TensorBoard."""

    def __init__(self, folder: str | Path | None = None, *, sample_every: int = 10) -> None:
        """Args:
        folder: of the event files; None takes ``tensorboard`` in the run folder.
        sample_every: iterations between sample texts, the first of which has some.

        Raises:
            MissingExtraError: TensorBoard is not installed.
            ConfigError: sample_every is below 1.
        """
        require("tensorboard", extra="report", purpose="TensorBoard tracking")
        folder = checked("TensorBoardTracker: folder", folder, Place | None)
        self._folder = None if folder is None else Path(folder)
        self._sample_every = checked(f"{type(self).__name__}.sample_every", sample_every, Count)
        self._writer: Any = None

    def on_start(self, run: TrainingRun) -> None:
        """Open the event file; later steps of an earlier run are purged.

        Raises:
            ConfigError: neither the tracker nor the run has a folder.
        """
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder or (None if run.folder is None else run.folder / "tensorboard")
        if folder is None:
            raise ConfigError("TensorBoardTracker.folder: must be set for a run without run_dir, got None")
        self._writer = SummaryWriter(str(folder), purge_step=run.first_iteration)

    def on_iteration(self, run: TrainingRun) -> None:
        """Write every metric under its tag, and sample texts now and then."""
        for name, value in _defined(run).items():
            self._writer.add_scalar(name, value, run.iteration)
        if run.episodes is not None and _is_due(run, self._sample_every):
            self._writer.add_text("samples", _markdown(samples(run.episodes)), run.iteration)

    def on_end(self, run: TrainingRun) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class _HostedTracker(Callback):
    """What Weights & Biases and trackio have in common: a run with settings, metrics and tables of texts."""

    LIBRARY: ClassVar[str]
    """Name of the library, of its module and of the extra that brings it."""

    def __init__(
        self, project: str = PROJECT, *, name: str | None = None, sample_every: int = 10, **options: Any
    ) -> None:
        """Args:
        project: where the run is listed.
        name: of the run; None takes that of the run folder.
        sample_every: iterations between sample texts, the first of which has some.
        options: further arguments of the library's ``init``.

        Raises:
            MissingExtraError: the library is not installed.
            ConfigError: sample_every is below 1.
        """
        self._library = require(self.LIBRARY, extra=self.LIBRARY, purpose=f"{self.LIBRARY} tracking")
        self._options = {"project": checked(f"{type(self).__name__}: project", project, Text), **options}
        self._name: str | None = checked(f"{type(self).__name__}: name", name, Text | None)
        self._sample_every = checked(f"{type(self).__name__}.sample_every", sample_every, Count)
        self._run: Any = None

    def _begin(self, run: TrainingRun, **options: Any) -> None:
        """Begin the library's run, or take it up. Args: options: of ``init``; the user's come before them."""
        name = run.folder.resolve().name if self._name is None and run.folder is not None else self._name
        settings = {"agent": type(run.agent).__name__, "iterations": run.iterations, **run.agent.settings()}
        self._run = self._library.init(**{"name": name, "config": settings, **options, **self._options})

    def _row(self, run: TrainingRun) -> dict[str, Any]:
        """Every metric under its tag, and sample texts now and then."""
        row: dict[str, Any] = dict(_defined(run))
        if run.episodes is not None and _is_due(run, self._sample_every):
            row["samples"] = self._library.Table(columns=list(SAMPLE_COLUMNS), data=samples(run.episodes))
        return row

    def on_end(self, run: TrainingRun) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()


class WandbTracker(_HostedTracker):
    """Metrics, settings and sample texts for Weights & Biases; a resumed run goes on in the same W&B run.

    Further arguments go to ``wandb.init``, such as ``mode="offline"``, ``entity`` or ``tags``.
    """

    LIBRARY = "wandb"

    _id: str | None = None

    def on_start(self, run: TrainingRun) -> None:
        """Begin the W&B run, or take it up."""
        if self._id is not None:
            self._options |= {"id": self._id, "resume": "allow"}
        self._begin(run, **({} if run.folder is None else {"dir": str(run.folder)}))
        self._id = self._run.id
        # A step of our own: W&B's only grows, and a run that goes on from a checkpoint takes some iterations again.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")

    def on_iteration(self, run: TrainingRun) -> None:
        """Log the iteration."""
        self._run.log({"iteration": run.iteration, **self._row(run)})

    def state_dict(self) -> dict[str, Any]:
        """The id of the W&B run."""
        return {"id": self._id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the W&B run of that id."""
        self._id = state["id"]


class TrackioTracker(_HostedTracker):
    """Metrics, settings and sample texts for trackio; a resumed run goes on in the run of the same name.

    Further arguments go to ``trackio.init``, such as ``space_id``.
    """

    LIBRARY = "trackio"

    def on_start(self, run: TrainingRun) -> None:
        """Begin the run, or take it up."""
        self._begin(run, resume="allow" if run.first_iteration else "never")

    def on_iteration(self, run: TrainingRun) -> None:
        """Log the iteration."""
        self._run.log(self._row(run), step=run.iteration)


def samples(episodes: Episodes) -> list[list[Any]]:
    """Rows of ``SAMPLE_COLUMNS`` for the first episodes; None where the score or the KL is not defined."""
    kl = None if episodes.kl is None else np.asarray(episodes.kl).sum(axis=1)
    return [
        [
            episodes.prompts[row],
            episodes.responses[row],
            round(float(episodes.scores[row]), 4) if episodes.score_valid[row] else None,
            None if kl is None else round(float(kl[row]), 4),
        ]
        for row in range(min(SAMPLES, len(episodes)))
    ]


def _markdown(rows: list[list[Any]]) -> str:
    """Samples as a table of Markdown in which the texts stay text."""
    lines = [f"| {' | '.join(SAMPLE_COLUMNS)} |", "|---" * len(SAMPLE_COLUMNS) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, str):
        return str(value)
    # References instead of characters: neither Markdown nor HTML makes anything of them.
    marked = "".join(f"&#{ord(one)};" if one in "\\`*_{}[]()#+-.!|~" else one for one in html.escape(value))
    return marked.replace("\r", "").replace("\n", "<br>")


def _defined(run: TrainingRun) -> dict[str, float]:
    return {tag(name): value for name, value in run.metrics.items() if math.isfinite(value)}


def _is_due(run: TrainingRun, every: int) -> bool:
    return run.iteration is not None and run.iteration % every == 0
