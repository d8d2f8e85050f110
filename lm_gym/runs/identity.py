"""The identity of a run: all settings and inputs that decide its result, and the differences of two by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import Text, checked

__all__ = ["RunIdentity"]


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Everything that decides what a run makes; two runs of the same identity are the same run."""

    kind: str
    """Names the sort of run: "ppo", "supervised", ..."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON values, nested at will."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of what is read, by name: data, base weights, reward model."""

    def __post_init__(self) -> None:
        for name in ("settings", "inputs"):
            checked(f"RunIdentity.{name}", getattr(self, name), Mapping)
        checked("RunIdentity.kind", self.kind, Text)
        try:
            text = json.dumps({"settings": self.settings, "inputs": self.inputs}, ensure_ascii=False)
            plain = json.loads(text.encode("utf-8"))
        except (TypeError, ValueError) as error:
            parts = {"settings": self.settings, "inputs": self.inputs}
            found = isinstance(error, TypeError) and _first_that_is_not_plain(parts, "")  # else it is a circle
            raise ConfigError(
                f"RunIdentity of kind {self.kind}: must hold plain JSON values, and {found or error}; keep numbers, "
                "texts, lists and dicts there (of a tensor or an array: x.tolist(), or its digest as a text)"
            ) from error
        object.__setattr__(self, "settings", plain["settings"])  # tuples are lists from here on, as when read back
        object.__setattr__(self, "inputs", plain["inputs"])

    def differences(self, earlier: RunIdentity) -> list[str]:
        """Name everything in which an earlier run was another one, as "learning_rate (was 1e-05, is 0.0001)"."""
        before, now = _flat(earlier), _flat(self)
        return [
            f"{name} (was {_shown(before.get(name))}, is {_shown(now.get(name))})"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]


def _flat(identity: RunIdentity) -> dict[str, str]:
    """Every setting under its dotted name, every input under its own, as text."""
    inputs = {f"input {name}": digest for name, digest in identity.inputs.items()}
    return {"kind": repr(identity.kind), **_leaves(identity.settings, ""), **inputs}


def _first_that_is_not_plain(value: Any, name: str) -> str:
    """Name and type of the first value that JSON cannot hold; empty where it is none of the values by itself."""
    if value is None or isinstance(value, str | int | float):
        return ""
    if isinstance(value, dict):
        items = [(f"{name}.{key}" if name else str(key), one) for key, one in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{name}[{place}]", one) for place, one in enumerate(value)]
    else:
        return f"{name} is a value of type {type(value).__module__}.{type(value).__name__}"
    return next(filter(None, (_first_that_is_not_plain(one, below) for below, one in items)), "")


def _shown(value: str | None) -> str:
    if value is None:
        return "not set"
    return f"{value[:12]}..." if re.fullmatch(r"[0-9a-f]{64}", value) else value


def _leaves(settings: Mapping[str, Any], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = repr(value)
    return found
