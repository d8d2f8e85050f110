"""The pictures of the report as SVG text, to be set inline in a page.

Knows: curves of RL runs and evaluations of reward models. Does not know: the page, its words or its colours. Every
colour is written as a CSS variable (``--series-1``, ``--plot-ink``, ...), and text stays text in the font of the page,
so that one picture serves light, dark and print. Figures are made and drawn through matplotlib's object interface;
pyplot is never loaded.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lm_gym.extras import require

from .report_data import Curve, RewardCard

__all__ = [
    "SERIES",
    "Plot",
    "accuracy_plot",
    "curve_plots",
    "finite",
    "kl_plots",
    "reliability_plot",
    "smoothing_window",
]

SERIES = 6
"""Colours and end markers that runs cycle through."""

# Stand-ins: matplotlib needs a colour, and _as_inline replaces it by the variable.
_INK, _MUTED, _GRID = "#0a0c01", "#0a0c02", "#0a0c03"
_SERIES = tuple(f"#0a0b{number:02x}" for number in range(1, SERIES + 1))
_VARIABLES = {_INK: "plot-ink", _MUTED: "plot-muted", _GRID: "plot-grid"} | {
    colour: f"series-{number}" for number, colour in enumerate(_SERIES, start=1)
}
_MARKERS = ("o", "s", "^", "D", "v", "P")
_SMALL = (360, 224)
_WIDE = (450, 280)
_FONT = 11
_SMOOTHED_FROM = 20
_POINTS = 300
_NORMAL_95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One picture and what stands around it."""

    title: str
    """Quantity and unit."""
    svg: str
    """An ``<svg>`` element."""
    alt: str
    """What it shows, for those who cannot see it."""
    caption: str = ""
    """How to read it; may be empty."""


@dataclass(frozen=True, kw_only=True)
class _Panel:
    key: str
    title: str
    held_out: str = ""
    floor: float = -math.inf


_PANELS = (
    _Panel(key="score", title="Reward-model score", held_out="eval_score"),
    _Panel(key="true_score", title="True score"),
    _Panel(key="kl", title="KL, nats per response", held_out="eval_kl"),
    _Panel(key="entropy", title="Entropy, nats per token"),
    _Panel(key="explained_variance", title="Explained variance of the value head", floor=-1.0),
    _Panel(key="response_length", title="Response length, tokens", held_out="eval_response_length"),
)


def finite(value: object) -> float | None:
    """The number, or None for anything that is not a finite one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def smoothing_window(curves: Sequence[Curve]) -> int:
    """Iterations in the moving average of the thick lines; 1 where runs are too short to be smoothed."""
    longest = max((len(curve.history) for curve in curves), default=0)
    return 1 if longest < _SMOOTHED_FROM else 2 * (longest // 30) + 3


def curve_plots(curves: Sequence[Curve]) -> tuple[Plot, ...]:
    """Metrics by iteration, all runs in one picture each; a metric that no run has is left out."""
    return tuple(_curve_plot(panel, curves) for panel in _PANELS if _has(curves, panel.key))


def kl_plots(curves: Sequence[Curve]) -> tuple[Plot, ...]:
    """Score and true score against KL, the KL axis on a square-root scale: the distance of Gao et al. 2023.

    Nothing where no run has a KL above zero, as without a reference.
    """
    wanted = (("score", "Reward-model score against KL"), ("true_score", "True score against KL"))
    if _largest_kl(curves) <= 0:
        return ()
    return tuple(_kl_plot(key, title, curves) for key, title in wanted if _has(curves, key, "kl"))


def accuracy_plot(cards: Sequence[RewardCard]) -> Plot | None:
    """Accuracy of each reward model beside the rule that more words win; None if no card has an accuracy."""
    shown = [pair for pair in enumerate(cards) if finite(pair[1].evaluation.get("accuracy")) is not None]
    if not shown:
        return None

    def draw(figure: Any) -> None:
        axes = _axes(figure.subplots(), grid="x")
        values = [_accuracy_row(axes, row, number, card.evaluation) for row, (number, card) in enumerate(shown)]
        axes.axvline(0.5, color=_MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        axes.set_xlim(min(0.45, *values) - 0.04, 1.0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_yticks(range(len(shown)), [card.name for _, card in shown], parse_math=False)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("held-out pairs ranked as the judge ranked them", color=_MUTED)

    return Plot(
        title="Accuracy beside the length rule",
        svg=_svg("accuracy", (_SMALL[0], max(150, 70 + 52 * len(shown))), draw),
        alt="Pairwise accuracy of each reward model and of the rule that the longer response wins; "
        "the numbers are in the table.",
        caption="Filled: the reward model, with a 95% interval. Hollow: the rule that more words win. Dotted: chance.",
    )


def reliability_plot(card: RewardCard, *, number: int) -> Plot | None:
    """Observed against predicted share of right answers, with the pairs in each bin; None without pairs.

    Args:
        card: the reward model.
        number: its place on the page, for the colour and for unique names.
    """
    bins = [found for found in card.evaluation.get("bins", ()) if finite(found.get("confidence")) is not None]
    if not bins:
        return None
    ece = finite(card.evaluation.get("ece"))
    error = "" if ece is None else f"Expected calibration error {ece:.3f}. "
    return Plot(
        title=f"Calibration: {card.name}",
        svg=_svg(f"reliability-{number}", (_SMALL[0], 290), lambda figure: _reliability(figure, bins, number)),
        alt=f"Reliability diagram of the reward model {card.name}: share of pairs won by the predicted winner against "
        "the probability it was given, with the number of pairs in each bin.",
        caption=f"{error}Dashed: perfect calibration. Bars: pairs in the bin.",
    )


def _has(curves: Sequence[Curve], *keys: str) -> bool:
    """Whether some iteration of some run has a number for each of the keys."""
    return any(all(finite(row.get(key)) is not None for key in keys) for curve in curves for row in curve.history)


def _column(curve: Curve, key: str) -> np.ndarray:
    """Shape: (iterations,), NaN where there is no number."""
    values = [finite(row.get(key)) for row in curve.history]
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _iterations(curve: Curve) -> np.ndarray:
    given = _column(curve, "iteration")
    return np.where(np.isnan(given), np.arange(len(given)), given)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average over the numbers in the window; NaN stays NaN. Shape: (n,)."""
    known = ~np.isnan(values)
    kernel = np.ones(window)
    start = window // 2
    total = np.convolve(np.where(known, values, 0.0), kernel)[start : start + len(values)]
    count = np.convolve(known.astype(float), kernel)[start : start + len(values)]
    return np.where(known, total / np.maximum(count, 1.0), math.nan)


def _thin(*columns: np.ndarray) -> list[np.ndarray]:
    """At most about 300 of the points, the last one among them."""
    step = math.ceil(len(columns[0]) / _POINTS) or 1
    return [column[(len(column) - 1) % step :: step] for column in columns]


def _curve_plot(panel: _Panel, curves: Sequence[Curve]) -> Plot:
    window = smoothing_window(curves)
    rooted = panel.key == "kl" and _runs_away(curves)
    least = 0.0 if rooted else -math.inf

    def draw(figure: Any) -> None:
        axes = _axes(figure.subplots())
        if rooted:
            _root_scale(axes, "y", _largest_kl(curves))
        for number, curve in enumerate(curves):
            _line(axes, _iterations(curve), np.maximum(_column(curve, panel.key), least), number, window)
            if panel.held_out:
                _dots(axes, _iterations(curve), np.maximum(_column(curve, panel.held_out), least), number)
        if panel.key == "kl":
            _targets(axes, curves)
        if axes.get_ylim()[0] < panel.floor:
            axes.set_ylim(bottom=panel.floor)
        axes.set_xlabel("iteration", color=_MUTED)
        axes.xaxis.get_major_locator().set_params(integer=True)

    names = ", ".join(curve.name for curve in curves)
    cut = any((_column(curve, panel.key) < panel.floor).any() for curve in curves)
    caption = f"Values below −{-panel.floor:.0f} are cut off." if cut else ""
    if rooted:
        caption = "Square-root scale."
    alt = f"{panel.title} by iteration: {names}."
    return Plot(title=panel.title, svg=_svg(panel.key, _SMALL, draw), alt=alt, caption=caption)


def _kl_plot(key: str, title: str, curves: Sequence[Curve]) -> Plot:
    window = smoothing_window(curves)

    def draw(figure: Any) -> None:
        axes = _axes(figure.subplots())
        _root_scale(axes, "x", _largest_kl(curves))
        for number, curve in enumerate(curves):
            # A sampled KL near zero may come out negative, and the root would blow that up.
            kl, values = _column(curve, "kl"), _column(curve, key)
            known = ~(np.isnan(kl) | np.isnan(values))
            if known.any():
                x, y, colour = np.maximum(kl[known], 0.0), values[known], _SERIES[number % SERIES]
                axes.plot(*_thin(x, y), ".", color=colour, markersize=3.5, alpha=0.45, markeredgewidth=0)
                _line(axes, _smooth(x, window), _smooth(y, window), number, 1)
        axes.set_xlabel("KL to the reference, nats per response (square-root scale)", color=_MUTED)

    names = ", ".join(curve.name for curve in curves)
    return Plot(title=title, svg=_svg(f"kl-{key}", _WIDE, draw), alt=f"{title}, one path per run: {names}.")


def _largest_kl(curves: Sequence[Curve]) -> float:
    known = [finite(row.get("kl")) for curve in curves for row in curve.history]
    return max((value for value in known if value is not None), default=0.0)


def _runs_away(curves: Sequence[Curve]) -> bool:
    """Whether some run leaves the targets of others so far behind that a linear scale would flatten them."""
    targets = [target for curve in curves if (target := finite(curve.kl_target)) is not None and target > 0]
    return bool(targets) and _largest_kl(curves) > 4 * min(targets)


def _root_scale(axes: Any, which: Literal["x", "y"], largest: float) -> None:
    """A square-root scale labelled in the quantity itself; odd, so that there is room left of zero."""
    set_scale, axis = (axes.set_xscale, axes.xaxis) if which == "x" else (axes.set_yscale, axes.yaxis)
    set_scale("function", functions=(lambda v: np.sign(v) * np.sqrt(np.abs(v)), lambda v: np.sign(v) * v * v))
    ticks = _root_ticks(largest)
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])


def _root_ticks(largest: float) -> list[float]:
    """1-2-5 numbers up to ``largest`` that do not crowd on a square-root scale."""
    if largest <= 0:
        return [0.0]
    top = math.floor(math.log10(largest))
    ticks = [0.0]
    for tick in (step * 10.0**power for power in range(top - 2, top + 1) for step in (1, 2, 5)):
        if tick <= 1.02 * largest and math.sqrt(tick) - math.sqrt(ticks[-1]) >= 0.1 * math.sqrt(largest):
            ticks.append(tick)
    return ticks


def _line(axes: Any, x: np.ndarray, values: np.ndarray, number: int, window: int) -> None:
    """The run as it was, thin, and smoothed, thick, with the marker of the run at its end."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return
    colour = _SERIES[number % SERIES]
    smooth = _smooth(values, window)
    if window > 1:
        axes.plot(*_thin(x, values), color=colour, linewidth=0.8, alpha=0.35, zorder=2)
    axes.plot(*_thin(x, smooth), color=colour, linewidth=1.8, zorder=3)
    last, marker = known[-1], _MARKERS[number % SERIES]
    axes.plot(x[last], smooth[last], marker, color=colour, markersize=6, markeredgewidth=0, zorder=4, clip_on=False)


def _dots(axes: Any, x: np.ndarray, values: np.ndarray, number: int) -> None:
    """Hollow marks of held-out evaluations."""
    known = ~np.isnan(values)
    if known.any():
        style = {"markerfacecolor": "none", "markeredgecolor": _SERIES[number % SERIES], "markeredgewidth": 1.2}
        axes.plot(*_thin(x[known], values[known]), "o", markersize=4.5, zorder=4, **style)


def _targets(axes: Any, curves: Sequence[Curve]) -> None:
    """A dashed line for each target, in neutral ink where runs share it."""
    runs: dict[float, list[int]] = {}
    for number, curve in enumerate(curves):
        target = finite(curve.kl_target)
        if target is not None:
            runs.setdefault(target, []).append(number)
    for target, numbers in runs.items():
        colour = _SERIES[numbers[0] % SERIES] if len(numbers) == 1 < len(runs) else _INK
        axes.axhline(target, color=colour, linewidth=1.2, linestyle=(0, (5, 3)), zorder=3)


def _accuracy_row(axes: Any, row: int, number: int, evaluation: Mapping[str, Any]) -> float:
    """Reward model ``number`` at height ``row``. Returns: the smallest value drawn."""
    accuracy = finite(evaluation.get("accuracy")) or 0.0
    length = finite(evaluation.get("length_accuracy"))
    error = finite(evaluation.get("accuracy_standard_error"))
    colour, marker = _SERIES[number % SERIES], _MARKERS[number % SERIES]
    low = accuracy
    if error is not None:
        low, high = max(0.0, accuracy - _NORMAL_95 * error), min(1.0, accuracy + _NORMAL_95 * error)
        axes.plot((low, high), (row, row), color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
    axes.plot(accuracy, row, marker, color=colour, markersize=8, markeredgewidth=0, clip_on=False)
    _note(axes, f"{accuracy:.0%}", (accuracy, row), 8, _INK)
    if length is None:
        return low
    axes.plot(length, row, "o", markerfacecolor="none", markeredgecolor=_INK, markersize=7, markeredgewidth=1.4)
    _note(axes, f"{length:.0%}", (length, row), -16, _MUTED)
    return min(low, length)


def _note(axes: Any, text: str, place: tuple[float, float], rise: float, colour: str) -> None:
    axes.annotate(text, place, (0, rise), textcoords="offset points", ha="center", fontsize=10, color=colour)


def _reliability(figure: Any, bins: Sequence[Mapping[str, Any]], number: int) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    colour = _SERIES[number % SERIES]
    sure = [float(found["confidence"]) for found in bins]
    right = [math.nan if finite(found.get("accuracy")) is None else float(found["accuracy"]) for found in bins]
    _axes(upper).plot((0, 1), (0, 1), color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    upper.plot(sure, right, color=colour, linewidth=1.6, zorder=3)
    upper.plot(sure, right, _MARKERS[number % SERIES], color=colour, markersize=6.5, markeredgewidth=0, clip_on=False)
    lowest = min([0.5, *(value for value in right if not math.isnan(value))])
    upper.set_ylim(max(0.0, lowest - 0.05), 1.0)
    upper.set_xlim(min(0.5, *(found["low"] for found in bins)), 1.0)
    upper.set_title("share that it won", loc="left", fontsize=_FONT, color=_MUTED)
    upper.yaxis.set_major_formatter("{x:.0%}")
    upper.tick_params(labelbottom=False)
    _axes(lower, grid="")
    for found in bins:
        width = found["high"] - found["low"]
        lower.bar(found["low"], found["pairs"], width=0.92 * width, align="edge", color=_GRID)
        _note(lower, f"{found['pairs']}", (found["low"] + 0.46 * width, found["pairs"]), 2, _MUTED)
    lower.set_yticks([])
    lower.set_ylim(0, 1.45 * max(1, *(found["pairs"] for found in bins)))
    lower.xaxis.set_major_formatter("{x:.0%}")
    lower.set_xlabel("probability given to the predicted winner", color=_MUTED)


def _axes(axes: Any, *, grid: str = "y") -> Any:
    """Quiet axes: no frame, thin grid. Returns: the same axes."""
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GRID)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=_GRID, linewidth=0.8)
    axes.tick_params(length=0, colors=_MUTED, labelsize=_FONT, pad=4)
    axes.xaxis.label.set_size(_FONT)
    return axes


def _svg(name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """Draw on a fresh figure of so many CSS pixels and return it as an inline element."""
    matplotlib = require("matplotlib", extra="report", purpose="plots of the report")
    figures = require("matplotlib.figure", extra="report", purpose="plots of the report")
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    buffer = io.StringIO()
    # The salt makes the file the same every time; both settings are read while the file is written.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser's fonts draw it, not ours
        figure = figures.Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _as_inline(buffer.getvalue(), name)


def _as_inline(text: str, name: str) -> str:
    """The ``<svg>`` element alone: names unique on the page, colours by variable, size left to the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r"<svg[^>]*?viewBox=\"([^\"]+)\"[^>]*>", r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'(?<= )id="', f'id="{name}-', text)
    text = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', text).replace("url(#", f"url(#{name}-")
    text = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: _variable(found[0]), text).strip()


def _variable(colour: str) -> str:
    return f"var(--{_VARIABLES[colour]})" if colour in _VARIABLES else colour
