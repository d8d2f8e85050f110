"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174): layers keep their inputs, and are run again backwards.

Departure from transformers, which does it in training mode only, where dropout is on: here the layers that it marks as
fit for it are run through torch's own checkpoint for the length of a pass, and stay in eval mode, so that a ratio of
probabilities goes on comparing weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from lm_gym.errors import UnsupportedModelError

__all__ = ["check_can_recompute", "is_switched_on", "recomputing"]


def is_switched_on(model: nn.Module) -> bool:
    """True if somebody switched gradient checkpointing on by the model's own method."""
    return any(layer.gradient_checkpointing for layer in _layers(model))


def check_can_recompute(model: nn.Module) -> None:
    """Refuse a model without layers that transformers marks as fit for it. Raises: UnsupportedModelError: it is one."""
    if not _layers(model):
        raise UnsupportedModelError(
            f"policy {type(model).__name__}: must have layers that transformers can checkpoint for "
            "gradient_checkpointing, and has none; leave it off, and lower max_batch_tokens to save memory"
        )


@contextmanager
def recomputing(model: nn.Module, turns: AbstractContextManager[None]) -> Iterator[None]:
    """A block whose forward passes keep the inputs of each layer alone, where autograd is on.

    Args: turns: a block around each layer that is run again backwards, which is entered many times
        (:attr:`lm_gym.models.language_model.LanguageModel.turns`).
    """
    layers = _layers(model)
    own = [vars(layer).get("forward") for layer in layers]  # somebody may have set one, beside that of the class
    for layer in layers:
        layer.forward = partial(
            checkpoint,
            layer.forward,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), turns),
        )
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def _layers(model: nn.Module) -> list[GradientCheckpointingLayer]:
    return [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
