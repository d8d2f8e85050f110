"""``transformers.Trainer`` with errors of this library: for what is not finite, and for what cannot be written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from transformers import Trainer

from lm_gym.errors import DivergedError
from lm_gym.tools.files import writing

__all__ = ["FiniteTrainer"]


class FiniteTrainer(Trainer):
    """A Trainer whose weights are those of the last good step when it raises :class:`DivergedError`.

    ``Trainer`` itself takes every step: a NaN is logged as a loss of 0 and written into the weights.
    """

    def __init__(self, *args: Any, subject: str, remedy: str, **kwargs: Any) -> None:
        """Args: subject, remedy: begin and end the error's message. Others: of Trainer."""
        super().__init__(*args, **kwargs)
        self._subject = subject
        self._remedy = remedy
        self._summed_loss = torch.zeros(())

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Learn from one micro-batch, as in Trainer; after the last of a step, loss and gradient must be finite.

        Raises:
            DivergedError: they are not.
        """
        loss: Tensor = super().training_step(model, *args, **kwargs)
        self._summed_loss = self._summed_loss.to(loss.device) + loss
        if self.accelerator.sync_gradients:
            step = self.state.global_step + 1
            self.require_finite(self._summed_loss, f"loss of step {step}")
            gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
            # The norm, since that is what clipping divides by: where it overflows, every gradient would become 0.
            self.require_finite(get_total_norm(gradients), f"norm of the gradient of step {step}")
            self._summed_loss = torch.zeros(())
        return loss

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint, as in Trainer.

        Raises:
            WriteError: it cannot be written to its end.
        """
        with writing(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(*args, **kwargs)

    def require_finite(self, value: Tensor | float, name: str) -> None:
        """Refuse a NaN or an infinity.

        Raises:
            DivergedError: the value, which the message calls ``name``, is one.
        """
        if not math.isfinite(value):
            raise DivergedError(f"{self._subject}: the {name} must be finite, got {float(value)}; {self._remedy}")
