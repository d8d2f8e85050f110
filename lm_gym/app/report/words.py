"""Numbers as tables and pages write them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NOTHING", "decimals", "number", "numbers", "percent"]

NOTHING = "–"


def decimals(values: Sequence[float | None]) -> int:
    """Places that leave about three digits of the largest value, and two for scores around 1."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if largest < 0.1:
        return 3
    return 2 if largest < 10 else 1 if largest < 100 else 0


def number(value: float | None, places: int, *, signed: bool = False) -> str:
    """One number with a true minus sign, and none before zero."""
    if value is None:
        return NOTHING
    text = f"{value:{'+' if signed else ''}.{places}f}"
    zero = float(text) == 0
    return text.lstrip("+-") if zero else text.replace("-", "−")


def numbers(values: Sequence[float | None], *, signed: bool = False) -> list[str]:
    """The numbers of a column, with the same places."""
    places = decimals(values)
    return [number(value, places, signed=signed) for value in values]


def percent(value: float | None) -> str:
    """Whole percent; one decimal where rounding would claim all or nothing."""
    if value is None:
        return NOTHING
    return f"{value:.1%}" if 0 < value < 0.01 or 0.99 < value < 1 else f"{value:.0%}"
