"""Pictures of reward models: accuracy, calibration, and accuracy by the number of judgements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .figures import (
    FONT,
    GRID,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    SERIES_COLOURS,
    SMALL,
    Plot,
    finite,
    note,
    quiet_axes,
    svg_of,
)
from .report_data import RewardModelRow

__all__ = ["accuracy_plot", "learning_curve_plot", "reliability_plot"]

NORMAL_95 = 1.959964


def accuracy_plot(models: Sequence[RewardModelRow]) -> Plot | None:
    """Accuracy of each reward model beside the length rule; None if none has an accuracy."""
    shown = [pair for pair in enumerate(models) if finite(pair[1].evaluation.get("accuracy")) is not None]
    if not shown:
        return None

    def draw(figure: Any) -> None:
        axes = quiet_axes(figure.subplots(), grid="x")
        values = [_accuracy_row(axes, row, number, model.evaluation) for row, (number, model) in enumerate(shown)]
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        axes.set_xlim(min(0.45, *values) - 0.04, 1.0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_yticks(range(len(shown)), [model.name for _, model in shown], parse_math=False)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("held-out pairs ranked as people ranked them", color=MUTED)

    return Plot(
        title="Accuracy beside the length rule",
        svg=svg_of("accuracy", (SMALL[0], max(150, 70 + 52 * len(shown))), draw),
        alt="Pairwise accuracy of each reward model and of the rule that the longer response wins; "
        "the numbers are in the table.",
        caption="Filled: the reward model, with a 95% interval. Hollow: the length rule. Dotted: chance.",
    )


def reliability_plot(model: RewardModelRow, *, number: int) -> Plot | None:
    """Observed against predicted share of right answers, with the pairs in each bin; None without pairs.

    Args:
        model: the reward model, measured.
        number: its place on the page, for the colour and for unique names.
    """
    bins = [found for found in model.evaluation.get("bins", ()) if finite(found.get("confidence")) is not None]
    if not bins:
        return None
    ece = finite(model.evaluation.get("ece"))
    error = "" if ece is None else f"Expected calibration error {ece:.3f}. "
    return Plot(
        title=f"Calibration: {model.name}",
        svg=svg_of(f"reliability-{number}", (SMALL[0], 290), lambda figure: _reliability(figure, bins, number)),
        alt=f"Reliability diagram of the reward model {model.name}: share of pairs won by the predicted winner against "
        "the probability it was given, with the number of pairs in each bin.",
        caption=f"{error}Dashed: perfect calibration. Bars: pairs in the bin.",
    )


def learning_curve_plot(points: Sequence[Mapping[str, Any]], length_accuracy: float) -> Plot | None:
    """Accuracy on held-out groups by how many judgements were learned from; None for fewer than two points.

    Args:
        points: ``judgements``, ``accuracy`` and ``accuracy_standard_error`` of each model.
        length_accuracy: of the length rule, on the same pairs.
    """
    if len(points) < 2:
        return None

    def draw(figure: Any) -> None:
        axes = quiet_axes(figure.subplots())
        counts = [point["judgements"] for point in points]
        values = [point["accuracy"] for point in points]
        for count, value, error in zip(counts, values, (p["accuracy_standard_error"] for p in points), strict=True):
            if error is not None:
                ends = (max(0.0, value - NORMAL_95 * error), min(1.0, value + NORMAL_95 * error))
                axes.plot((count, count), ends, color=SERIES_COLOURS[0], linewidth=2.2, alpha=0.35)
        axes.plot(counts, values, color=SERIES_COLOURS[0], linewidth=1.8, zorder=3)
        axes.plot(counts, values, MARKERS[0], color=SERIES_COLOURS[0], markersize=6.5, markeredgewidth=0, zorder=4)
        axes.axhline(length_accuracy, color=MUTED, linewidth=1, linestyle=(0, (5, 3)), zorder=2)
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("judgements learned from", color=MUTED)

    return Plot(
        title="Accuracy by number of judgements",
        svg=svg_of("learning-curve", SMALL, draw),
        alt="Held-out accuracy of models fitted to growing parts of the judgements; the numbers are in the table.",
        caption="Bars: 95% intervals. Dashed: the length rule.",
    )


def _accuracy_row(axes: Any, row: int, number: int, evaluation: Mapping[str, Any]) -> float:
    """Reward model ``number`` at height ``row``. Returns: the smallest value drawn."""
    accuracy = finite(evaluation.get("accuracy")) or 0.0
    length = finite(evaluation.get("length_accuracy"))
    error = finite(evaluation.get("accuracy_standard_error"))
    colour, marker = SERIES_COLOURS[number % SERIES], MARKERS[number % SERIES]
    low = accuracy
    if error is not None:
        low, high = max(0.0, accuracy - NORMAL_95 * error), min(1.0, accuracy + NORMAL_95 * error)
        axes.plot((low, high), (row, row), color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
    axes.plot(accuracy, row, marker, color=colour, markersize=8, markeredgewidth=0, clip_on=False)
    note(axes, f"{accuracy:.0%}", (accuracy, row), 8, INK)
    if length is None:
        return low
    axes.plot(length, row, "o", markerfacecolor="none", markeredgecolor=INK, markersize=7, markeredgewidth=1.4)
    note(axes, f"{length:.0%}", (length, row), -16, MUTED)
    return min(low, length)


def _reliability(figure: Any, bins: Sequence[Mapping[str, Any]], number: int) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    colour = SERIES_COLOURS[number % SERIES]
    sure = [float(found["confidence"]) for found in bins]
    right = [math.nan if finite(found.get("accuracy")) is None else float(found["accuracy"]) for found in bins]
    quiet_axes(upper).plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    upper.plot(sure, right, color=colour, linewidth=1.6, zorder=3)
    upper.plot(sure, right, MARKERS[number % SERIES], color=colour, markersize=6.5, markeredgewidth=0, clip_on=False)
    lowest = min([0.5, *(value for value in right if not math.isnan(value))])
    upper.set_ylim(max(0.0, lowest - 0.05), 1.0)
    upper.set_xlim(min(0.5, *(found["low"] for found in bins)), 1.0)
    upper.set_title("share that it won", loc="left", fontsize=FONT, color=MUTED)
    upper.yaxis.set_major_formatter("{x:.0%}")
    upper.tick_params(labelbottom=False)
    quiet_axes(lower, grid="")
    for found in bins:
        width = found["high"] - found["low"]
        lower.bar(found["low"], found["pairs"], width=0.92 * width, align="edge", color=GRID)
        note(lower, f"{found['pairs']}", (found["low"] + 0.46 * width, found["pairs"]), 2, MUTED)
    lower.set_yticks([])
    lower.set_ylim(0, 1.45 * max(1, *(found["pairs"] for found in bins)))
    lower.xaxis.set_major_formatter("{x:.0%}")
    lower.set_xlabel("probability given to the predicted winner", color=MUTED)
