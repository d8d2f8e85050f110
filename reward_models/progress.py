"""What long work shows: a bar on a terminal, log lines, and an error as soon as the loss is no number."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from lm_gym.errors import RewardModelError

__all__ = ["FitProgress", "counted"]

logger = logging.getLogger(__name__)


@contextmanager
def counted(description: str, total: int, *, visible: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error around a block that counts rows, if there is a terminal. Yields: what counts."""
    console = Console(stderr=True)
    columns = (TextColumn(description), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (visible and console.is_terminal), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda rows: bar.advance(task, rows)


class FitProgress(TrainerCallback):
    """Shows the updates of one run on standard error."""

    def __init__(self, *, visible: bool) -> None:
        """Args: visible: whether to draw the bar, if there is a terminal."""
        console = Console(stderr=True)
        columns = (
            TextColumn("reward model"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not (visible and console.is_terminal))
        self._task = self._bar.add_task("fit", total=None, loss="-")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar; the main process only."""
        if state.is_world_process_zero:
            self._bar.start()
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Log the loss.

        Raises:
            RewardModelError: the loss is NaN or infinite.
        """
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(float(loss)):
            raise RewardModelError(
                f"reward model training: the loss must stay finite, and is {loss} at update "
                f"{state.global_step}; "
                "lower learning_rate or max_grad_norm, or use mixed_precision='no'"
            )
        self._bar.update(self._task, loss=f"{float(loss):.4f}")
        if state.is_world_process_zero:
            logger.info("reward model training: update %d of %d, loss %.4f", state.global_step, state.max_steps, loss)

    def close(self) -> None:
        """Take the bar off the terminal, however the run ended."""
        self._bar.stop()
