"""States as plain JSON values and named tensors, without pickle: what :class:`Stateful` objects give, and back again.

Knows: tensors, numbers, texts, and containers of them. Does not know: whose state it is, or where it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lm_gym.errors import ArtifactError, ConfigError

__all__ = ["difference", "joined_state", "split_state"]


def split_state(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Take the tensors out of a state.

    Args: state: nested dicts, lists and tuples of tensors, numbers, texts and None.

    Returns: a JSON value that tells dicts, lists, tuples and tensors apart; and the tensors by name, in the host's
        memory.

    Raises:
        ConfigError: it holds a value of another type.
    """
    tensors: dict[str, Tensor] = {}
    return _split(state, "state", tensors), tensors


def joined_state(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put a state together again from what :func:`split_state` gave.

    Raises:
        ArtifactError: they are not of one state.
    """
    try:
        return _joined(plain, tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"state: must be as it was saved, and putting it together failed: {error!r}") from error


def difference(own: Mapping[str, Tensor], given: Any) -> str | None:
    """The first fault of tensors that are to take the place of others of the same names and shapes, in words; or None.

    Args: own, given: tensors by name, and what should be such.
    """
    if not isinstance(given, Mapping):
        return f"is {type(given).__name__}, no mapping of tensors by name"
    if missing := sorted(own.keys() - given.keys()):
        return f"lacks {missing[0]}"
    if strange := sorted(map(str, given.keys() - own.keys())):
        return f"holds {strange[0]}, which is none of them"
    for name, tensor in own.items():
        if not isinstance(given[name], Tensor):
            return f"holds {name} as {type(given[name]).__name__}, no tensor"
        if given[name].shape != tensor.shape:
            return f"holds {name} of shape {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
    return None


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        while name in tensors:  # {"a.b": x, "a": {"b": y}}
            name += "'"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [
            [_split(key, f"{name}, key {key!r}", tensors), _split(one, f"{name}.{key}", tensors)]
            for key, one in value.items()
        ]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_split(one, f"{name}.{place}", tensors) for place, one in enumerate(value)]}
    raise ConfigError(
        f"{name}: must be a tensor, a number, a text, None, or a dict, list or tuple of these, got "
        f"{type(value).__name__}; keep an array as torch.from_numpy(x), any other object by its numbers"
    )


def _joined(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(plain, Mapping):
        return plain
    [(kind, content)] = plain.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_joined(key, tensors): _joined(one, tensors) for key, one in content}
    found = [_joined(one, tensors) for one in content]
    return {"list": found, "tuple": tuple(found)}[kind]
