"""The updates of a ``transformers.Trainer``, told as they are made.

Knows: the Trainer's callbacks. Does not know: what is trained.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from lm_gym.tools.console.progress import StepProgress

__all__ = ["TrainerProgress"]


class TrainerProgress(TrainerCallback):
    """Updates and the newest loss on standard error, by the main process; :meth:`close` it however training ended."""

    def __init__(self, title: str, *, visible: bool) -> None:
        """Args:
        title: names the training.
        visible: False shows nothing.
        """
        self._title, self._visible = title, visible
        self._told = ""
        self._progress: StepProgress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin with the updates of an earlier process behind."""
        visible = self._visible and state.is_world_process_zero
        self._progress = StepProgress(self._title, unit="update", visible=visible)
        self._progress.start(state.max_steps, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Keep the loss."""
        if logs and "loss" in logs:
            self._told = f"loss {float(logs['loss']):.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell of the update."""
        if self._progress is not None:
            self._progress.advance_to(state.global_step, self._told)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._progress is not None:
            self._progress.stop()
