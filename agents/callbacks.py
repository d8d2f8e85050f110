"""Callbacks of a training run: trackers, a progress display, and whatever a user writes.

A callback gets the run itself, not a bag of local variables; it may read everything and change nothing but its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from lm_gym.tools.extras import require
from lm_gym.tools.files import append_jsonl, write_jsonl
from lm_gym.tools.progress import StepProgress

__all__ = ["Callback", "JsonlTracker", "ProgressDisplay", "TensorBoardTracker"]


@runtime_checkable
class Callback(Protocol):
    """Called around every iteration of :func:`lm_gym.agents.train`."""

    def on_start(self, first_iteration: int, total_iterations: int) -> None:
        """Before the first iteration; ``first_iteration`` is above 0 in a resumed run."""
        ...

    def on_iteration(self, iteration: int, metrics: dict[str, float]) -> None:
        """After iteration ``iteration`` (counted from 0)."""
        ...

    def on_end(self) -> None:
        """After the last iteration, also of an interrupted or failed run, whose error stays the one that is raised."""
        ...


class JsonlTracker:
    """One line per iteration in a JSON Lines file; a resumed run drops the lines that it will write again."""

    def __init__(self, path: str | Path) -> None:
        """Args: path: the file."""
        self._path = Path(path)

    def on_start(self, first_iteration: int, total_iterations: int) -> None:
        """Keep the lines before ``first_iteration``."""
        kept: list[dict[str, Any]] = []
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines if line.endswith("}")]
            kept = [row for row in rows if row["iteration"] < first_iteration]
        write_jsonl(self._path, kept)

    def on_iteration(self, iteration: int, metrics: dict[str, float]) -> None:
        """Append a line; a value that is not finite is written as null."""
        row = {"iteration": iteration, **{k: v if math.isfinite(v) else None for k, v in metrics.items()}}
        append_jsonl(self._path, row)  # on the disk before a checkpoint that counts this iteration

    def on_end(self) -> None:
        """Do nothing: no file is held open."""


class TensorBoardTracker:
    """Scalars for TensorBoard."""

    def __init__(self, folder: str | Path) -> None:
        """Raises: MissingExtraError: TensorBoard is not installed."""
        require("tensorboard", extra="report", purpose="TensorBoard tracking")
        self._folder = Path(folder)
        self._writer: Any = None

    def on_start(self, first_iteration: int, total_iterations: int) -> None:
        """Open the event file; later steps of an earlier run are purged."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=first_iteration)

    def on_iteration(self, iteration: int, metrics: dict[str, float]) -> None:
        """Write every metric as a scalar."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, iteration)

    def on_end(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class ProgressDisplay:
    """Score, KL, entropy, speed and time left of every iteration on standard error.

    On a terminal it is a bar; elsewhere a line per iteration, at most one every two seconds.
    """

    def __init__(self, title: str = "PPO", *, console: Console | None = None) -> None:
        """Args:
        title: stands before the iterations.
        console: where it is shown; None takes standard error.
        """
        self._progress = StepProgress(title, unit="iteration", each_step=True, console=console)

    def on_start(self, first_iteration: int, total_iterations: int) -> None:
        """Begin."""
        self._progress.start(total_iterations, first_iteration)

    def on_iteration(self, iteration: int, metrics: dict[str, float]) -> None:
        """Tell of the iteration."""
        self._progress.advance_to(iteration + 1, told_of(metrics))

    def on_end(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


def told_of(metrics: Mapping[str, float]) -> str:
    """One iteration in a line: score, KL and entropy, response tokens per second, and held-out results if there are."""
    names = {"score": "score", "kl": "KL", "entropy": "entropy"}
    parts = [f"{shown} {metrics[name]:.3f}" for name, shown in names.items() if name in metrics]
    speeds = [metrics.get(f"tokens_per_second_{part}", math.inf) for part in ("rollout", "score", "update")]
    seconds_per_token = sum(1 / speed for speed in speeds if speed > 0)
    if seconds_per_token > 0:
        parts.append(f"{1 / seconds_per_token:,.0f} tokens/s")
    if "eval_score" in metrics:
        parts.append(f"held-out score {metrics['eval_score']:.3f} at KL {metrics['eval_kl']:.3f}")
    return ", ".join(parts)
