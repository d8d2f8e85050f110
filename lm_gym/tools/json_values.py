"""JSON from outside: one parser, and the limits that every row of data keeps.

Knows: JSON values. Does not know: files, or what a row means.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lm_gym.errors import DataError

__all__ = ["MAX_DEPTH", "check_row", "is_finite", "parse_json", "parse_object", "require_unicode"]

MAX_DEPTH = 100
"""Most lists and objects within each other."""
MAX_DIGITS = 300
"""Most digits of a whole number; longer ones are as far from any use as infinity, and Python may refuse them."""
PLAIN = (str, int, float, bool, type(None))


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


_DECODER = json.JSONDecoder(parse_int=_whole)


def parse_json(text: str, what: str = "JSON") -> Any:
    """Parse one JSON value; a whole number of more than 300 digits becomes infinity, as ``1e400`` does.

    Args: what: names what the text must be, for the error.

    Raises:
        DataError: the text is no JSON, or nests too deeply to be parsed.
    """
    try:
        return _DECODER.decode(text.lstrip("\ufeff"))
    except json.JSONDecodeError as error:
        raise DataError(f"must be {what}, got {text.strip()[:60]!r} ({error})") from error
    except RecursionError as error:
        raise DataError(f"must nest at most {MAX_DEPTH} deep, got {text.strip()[:20]!r}...; fix the row") from error


def parse_object(text: str) -> dict[str, Any]:
    """Parse one JSON object. Raises: DataError: see :func:`parse_json`; or it is another value."""
    row = parse_json(text, "one JSON object")
    if not isinstance(row, dict):
        raise DataError(f"must be a JSON object, got {type(row).__name__}; put one row on a line, or name it .json")
    return row


def check_row(row: Mapping[str, Any], *, plain: bool = False) -> None:
    """Refuse values that no row of data may hold, wherever they stand in it.

    Args:
        row: of text, numbers, lists and objects; other values are let through.
        plain: refuse those too, for rows that are written as JSON again.

    Raises:
        DataError: a number that is not finite (``1e400`` is not), half of a surrogate pair, or lists and objects more
            than 100 deep. The message names the key.
    """
    for key, value in row.items():
        if not isinstance(key, str):
            raise DataError(f"every key must be text, got {key!r}; fix or remove the row")
        require_unicode(key, "a key")
        for found in _leaves(value, repr(key), 1):
            if isinstance(found, str):
                require_unicode(found, repr(key))
            elif isinstance(found, float | int) and not (isinstance(found, bool) or is_finite(found)):
                raise DataError(f"{key!r} must hold finite numbers, got {_shown(found)}; fix or remove the row")
            elif plain and not isinstance(found, PLAIN):
                raise DataError(
                    f"{key!r} must hold text, numbers, true or false, lists and objects, got {type(found).__name__}; "
                    "convert it first"
                )


def _leaves(value: Any, name: str, depth: int) -> Iterator[Any]:
    """Every value that is no list and no object, keys included."""
    if isinstance(value, Mapping | list | tuple):
        if depth >= MAX_DEPTH:
            raise DataError(f"{name} must nest at most {MAX_DEPTH} deep, got more; fix or remove the row")
        if isinstance(value, Mapping):
            yield from value
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(each, name, depth + 1)
    else:
        yield value


def is_finite(value: Any) -> bool:
    """True for a number of Python's, no switch, that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # of whole numbers too, which Python compares with floats exactly


def _shown(number: int | float) -> str:
    return "NaN" if number != number else "infinity (or a number too large to hold)"


def require_unicode(text: str, name: str) -> None:
    """Refuse text with half of a surrogate pair, as a lone JSON escape ``\\ud83d`` gives. Raises: DataError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name}: must be Unicode text, got half of a surrogate pair, {error.object[error.start]!r}, at character "
            f"{error.start}; fix or remove the row"
        ) from error
