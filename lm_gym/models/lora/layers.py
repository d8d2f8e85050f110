"""A model and the low-rank updates in its layers: which weights are the base's, and which layers share one.

Knows: peft's layers. Does not know: how updates are made, saved, or trained.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from threading import RLock
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Turns", "base_fingerprint", "base_weights", "has_updates", "layers_with_updates", "tied_layer"]


class Turns:
    """A block that one thread is in at a time, as often nested as it likes; a copy of it is another block."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()


def layers_with_updates(model: nn.Module) -> dict[str, Any]:
    """The layers of peft in a model, by name."""
    if "peft" not in sys.modules:
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: part for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)}


def has_updates(model: nn.Module) -> bool:
    """True if a model has low-rank updates in it, whoever added them."""
    return bool(layers_with_updates(model)) or any("lora_" in name for name, _ in model.named_parameters())


def tied_layer(model: nn.Module) -> str | None:
    """Name of a layer with updates whose weight is another module's too, as a head's may be the embedding's; or None.

    Merged, the update of such a layer would be in the other module as well.
    """
    holders = Counter(id(weight) for part in model.modules() for weight in part.parameters(recurse=False))
    for name, layer in layers_with_updates(model).items():
        if any(holders[id(weight)] > 1 for weight in layer.get_base_layer().parameters(recurse=False)):
            return name
    return None


def base_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of a model as they are without an adapter; not copied."""
    layers = [f"{name}." for name in layers_with_updates(model)]
    for name, weight in model.state_dict(keep_vars=True).items():
        layer = next((one for one in layers if name.startswith(one)), None)
        if layer is None:
            yield name, weight
        elif name.startswith(f"{layer}base_layer."):
            yield layer + name.removeprefix(f"{layer}base_layer."), weight


def base_fingerprint(model: Any, trained_in_full: Sequence[str] = ()) -> str:
    """SHA-256 of the names, shapes and values of the weights that come from the base.

    Values are rounded to bfloat16, so that a base loaded in float32 or in bfloat16 has one fingerprint.

    Args:
        model: with an adapter, whose updates do not count, or without.
        trained_in_full: its modules that do not come from the base.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(base_weights(model)):
        if any(name.startswith(f"{part}.") for part in trained_in_full):
            continue
        rounded = tensor.detach().to("cpu", torch.bfloat16 if tensor.is_floating_point() else tensor.dtype)
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        digest.update(rounded.contiguous().view(torch.uint8).numpy().tobytes() if rounded.ndim else b"")
    return digest.hexdigest()
