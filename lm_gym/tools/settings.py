"""Settings objects that check themselves: type and bounds of a field stand in its annotation, and nowhere else.

Knows: how a value is held against an annotation, and how an error says what is wrong with it. Does not know: any
setting. A settings class is written as a dataclass is, under the :func:`settings` decorator::

    @settings
    class OptimiserConfig:
        learning_rate: Positive = 1e-5
        decay: Literal["linear", "none"] = "linear"
        max_steps: Count | None = None

Rules that concern several fields stay in ``__post_init__``, which runs when every field has been checked by itself.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

import numpy as np

from lm_gym.errors import ConfigError, DataError, UnknownSettingError
from lm_gym.tools.json_values import is_finite

__all__ = [
    "Bounds",
    "Count",
    "NotNegative",
    "Place",
    "Positive",
    "PositiveShare",
    "Probability",
    "Seed",
    "Several",
    "Share",
    "Text",
    "Whole",
    "checked",
    "checked_arguments",
    "finite_array",
    "options",
    "refuse_unknown",
    "settings",
    "shown",
]

Class = TypeVar("Class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """Bounds of a number, or of the length of a text."""

    least: float | None = None
    """Smallest value that passes; None beside ``above``, or for no lower bound."""
    above: float | None = None
    """Value that is just too small."""
    most: float | None = None
    """Largest value that passes."""
    below: float | None = None
    """Value that is just too large."""

    def hold(self, value: float | str) -> bool:
        """True if the value lies within them, or the length of a text does."""
        value = len(value) if isinstance(value, str) else value
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low, high = (self.least, self.above), (self.most, self.below)
        if high == (None, None):
            return f">= {self.least:g}" if self.above is None else f"> {self.above:g}"
        start = f"[{self.least:g}" if self.least is not None else f"({self.above:g}" if low[1] is not None else "(-inf"
        return f"in {start}, " + (f"{_plain(self.most)}]" if self.most is not None else f"{_plain(self.below)})")


Count = Annotated[int, Bounds(least=1)]
"""A whole number >= 1."""
Whole = Annotated[int, Bounds(least=0)]
"""A whole number >= 0."""
Seed = Annotated[int, Bounds(least=0, below=2**32)]
"""A whole number that every random generator takes."""
Positive = Annotated[float, Bounds(above=0)]
"""A finite number > 0."""
NotNegative = Annotated[float, Bounds(least=0)]
"""A finite number >= 0."""
Share = Annotated[float, Bounds(least=0, below=1)]
"""A number in [0, 1)."""
Probability = Annotated[float, Bounds(least=0, most=1)]
"""A number in [0, 1]."""
Several = Annotated[int, Bounds(least=2)]
"""A whole number >= 2."""
PositiveShare = Annotated[float, Bounds(above=0, most=1)]
"""A number in (0, 1]."""
Text = Annotated[str, Bounds(least=1)]
"""A text that is not empty."""


@dataclasses.dataclass(frozen=True)
class FilePath:
    """The rule of a path, of a file or folder that need not be there: a file system can hold its names."""

    def hold(self, path: str | Path) -> bool:
        """True if it has no zero byte, and no name or whole that is too long for the common file systems."""
        try:
            names = os.fsencode(path).split(os.sep.encode())
        except UnicodeEncodeError:
            return False
        return all(len(name) <= 255 and b"\0" not in name for name in names) and len(b"/".join(names)) < 4096

    def __str__(self) -> str:
        return "that a file system can hold (no zero byte, no name over 255 bytes)"


Place = Annotated[Text | Path, FilePath()]
"""A path, or a name that is looked for among files first."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[Class]) -> type[Class]:
    """Make a frozen, keyword-only dataclass of a class whose values are checked against its annotations.

    A list becomes a tuple and a number of NumPy's one of Python's, where the annotation says so.

    Raises (when an object is made):
        UnknownSettingError: no field has the name.
        ConfigError: a value is of another type, not finite or out of bounds, or a field without a default is missing.
    """
    return _checking(cls, lambda owner, field: f"{owner}.{field}")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def options(cls: type[Class]) -> type[Class]:
    """:func:`settings` that are options of a command: an error names the option, ``--kl-coef``, and not the class."""
    return _checking(cls, lambda owner, field: "--" + field.replace("_", "-"))


def _checking(cls: type[Class], subject: Callable[[str, str], str]) -> type[Class]:
    """Args: subject: of an error, by the names of class and field."""
    made: Any = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    generated = made.__init__

    @wraps(generated)
    def __init__(self: Any, *args: Any, **values: Any) -> None:
        name = type(self).__name__
        if args:
            raise ConfigError(f"{name}: settings must be given by name, got {shown(args[0])} without one")
        known = [field.name for field in dataclasses.fields(made) if field.init]
        refuse_unknown(name, values, known)
        for field in dataclasses.fields(made):
            if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
                raise ConfigError(f"{subject(name, field.name)}: must be given, and is missing")
        annotations = _annotations(made)
        generated(self, **{key: checked(subject(name, key), one, annotations[key]) for key, one in values.items()})

    made.__init__ = __init__
    return cls


def refuse_unknown(subject: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raises: UnknownSettingError: a name is none of those that are known; the nearest is named."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(known)) or 'none'}."
            raise UnknownSettingError(
                f"{subject}: no setting is named {name!r} (got an unexpected keyword argument {name!r}). {hint}"
            )


def checked(subject: str, value: Any, annotation: Any) -> Any:
    """Hold a value against an annotation.

    Args:
        subject: what the value is for, such as ``"train: iterations"``.
        value: anything.
        annotation: ``int``, ``float`` (which is finite), ``bool``, ``str``, a class, a ``Literal``, ``tuple[X, ...]``,
            a union of these, or one of them ``Annotated`` with :class:`Bounds`.

    Returns: the value, as the Python type that is annotated.

    Raises:
        ConfigError: it does not fit; the message holds the subject, the rule, the value, and a remedy where one is
            known.
    """
    try:
        return _fitted(value, annotation)
    except _UnfitError:
        message = f"{subject}: must be {_rule(annotation)}, got {shown(value)}{_remedy(value, annotation)}"
        raise ConfigError(message) from None


def checked_arguments(subject: str, rules: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """:func:`checked` for several arguments of a function, whose ``locals()`` hold them.

    Args:
        subject: the function or class.
        rules: annotation of each argument.
        values: the arguments, and perhaps others.

    Raises:
        ConfigError: see :func:`checked`.
    """
    return {name: checked(f"{subject}: {name}", values[name], rule) for name, rule in rules.items()}


def finite_array(subject: str, values: Any, *, dimensions: int) -> np.ndarray:
    """Numbers as an array of float64.

    Raises:
        DataError: they are none, of another number of dimensions, or not finite.
    """
    try:
        found = np.asarray(values)
    except (TypeError, ValueError):
        found = np.asarray(None)
    if found.dtype.kind not in "fiu" or found.ndim != dimensions or not np.isfinite(found).all():
        raise DataError(
            f"{subject}: must be an array of finite numbers of {dimensions} dimension{'s' * (dimensions > 1)}, got "
            f"{shown(values)}"
        )
    return found.astype(np.float64)


def shown(value: Any) -> str:
    """A value as errors show it: its ``repr``, cut short; its type where it has none."""
    try:
        text = repr(value)
    except Exception:
        return f"an object of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= 200 else f"{text[:200]}..."


class _UnfitError(Exception):
    """A value is not what an annotation says."""


@lru_cache
def _annotations(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _fitted(value: Any, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *bounds = get_args(annotation)
        found = _fitted(value, inner)
        _require(all(one.hold(found) for one in bounds if isinstance(one, Bounds | FilePath)))
        return found
    if origin in (Union, types.UnionType):
        return _first_fit(value, get_args(annotation))
    if origin is Literal:
        choices = get_args(annotation)
        _require(isinstance(value, str | int | None) and any(value == one and _alike(value, one) for one in choices))
        return value
    if origin is tuple:
        is_array = isinstance(value, np.ndarray) and value.ndim == 1
        _require(is_array or (isinstance(value, Sequence) and not isinstance(value, str | bytes)))
        return tuple(_fitted(one, get_args(annotation)[0]) for one in value)
    return _PLAIN[annotation](value) if annotation in _PLAIN else _instance(value, origin or annotation)


def _first_fit(value: Any, choices: Sequence[Any]) -> Any:
    for one in choices:
        try:
            return _fitted(value, one)
        except _UnfitError:
            continue
    raise _UnfitError


def _require(holds: bool) -> None:
    if not holds:
        raise _UnfitError


def _integer(value: Any) -> int:
    _require(isinstance(value, int | np.integer) and not isinstance(value, bool) and abs(int(value)) < 2**63)
    return int(value)


def _number(value: Any) -> float:
    """A finite number. A whole number of Python may be too large for one."""
    plain = int(value) if isinstance(value, np.integer) else float(value) if isinstance(value, np.floating) else value
    _require(is_finite(plain))
    return float(plain)


def _switch(value: Any) -> bool:
    _require(isinstance(value, bool | np.bool_))
    return bool(value)


def _text(value: Any) -> str:
    _require(isinstance(value, str))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which no tokenizer and no file takes
        raise _UnfitError from None
    return str(value)


def _path(value: Any) -> Path:
    _require(isinstance(value, Path) and FilePath().hold(value))
    return Path(value)


def _instance(value: Any, kind: Any) -> Any:
    of_protocol = getattr(kind, "_is_protocol", False) and isinstance(value, type)  # a class has its methods too
    _require(kind is Any or (isinstance(value, kind) and not of_protocol))
    return value


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    int: _integer,
    float: _number,
    bool: _switch,
    str: _text,
    None: lambda value: _instance(value, type(None)),
    Path: _path,
}
_NAMES = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "a text that UTF-8 can hold",
    None: "None",
    type(None): "None",
    Path: f"a path {FilePath()}",
    Callable: "a callable",
}


def _rule(annotation: Any) -> str:
    """What an annotation asks for, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [one for one in parts[1:] if isinstance(one, Bounds)]  # that of a path is told with the path
        of_text = bounds and parts[0] is str
        return "a text that is not empty" if of_text else " ".join((_rule(parts[0]), *map(str, bounds)))
    if origin in (Union, types.UnionType):
        return " or ".join(sorted((_rule(one) for one in parts), key=lambda rule: rule != "None"))
    if origin is Literal:
        *first, last = [f'"{one}"' if isinstance(one, str) else repr(one) for one in parts]
        return f"{', '.join(first)} or {last}" if first else last
    if origin is tuple:
        return "a tuple or list" + ("" if parts[0] is Any else f", in which each is {_rule(parts[0])}")
    kind = origin or annotation
    name = getattr(kind, "__name__", str(kind))
    return _NAMES.get(kind) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _remedy(value: Any, annotation: Any) -> str:
    """What to write instead, where the slip is a known one."""
    rule = _rule(annotation)
    if isinstance(value, str):
        choices = [one for one in _literals(annotation) if isinstance(one, str)]
        if near := difflib.get_close_matches(value, choices, n=1):
            return f"; did you mean {near[0]!r}?"
        if "a tuple" in rule:
            return f"; write ({shown(value)},)"
        if " number" in rule and not choices:
            return ", a text; write the number without quotes (in YAML as 1.0e-5, since 1e-5 is a text there)"
    if isinstance(value, float) and "whole number" in rule and math.isfinite(value):
        return f"; write {round(value)}"
    return ""


def _alike(value: Any, choice: Any) -> bool:
    """False if one of two values that are equal is a bool: True is no count of 1."""
    return isinstance(value, bool) == isinstance(choice, bool)


def _literals(annotation: Any) -> tuple[Any, ...]:
    parts = get_args(annotation)
    return parts if get_origin(annotation) is Literal else tuple(one for part in parts for one in _literals(part))


def _plain(bound: float | None) -> str:
    powers = {2.0**power: f"2**{power}" for power in (31, 32)}
    return powers.get(bound or 0.0, f"{bound:g}")
