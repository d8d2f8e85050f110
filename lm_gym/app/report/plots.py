"""The curves of RL runs as SVG text, to be set inline in a page.

Knows: metrics by iteration. Does not know: the page, its words or its colours (``figures`` has these).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .figures import (
    INK,
    MARKERS,
    MUTED,
    SERIES,
    SERIES_COLOURS,
    SMALL,
    Plot,
    finite,
    quiet_axes,
    svg_of,
)
from .report_data import Curve

__all__ = ["curve_plots", "kl_plots", "smoothing_window"]

_WIDE = (450, 280)
_SMOOTHED_FROM = 20
_POINTS = 300


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
    wanted = (("true_score", "True score against KL"), ("score", "Reward-model score against KL"))
    if _largest_kl(curves) <= 0:
        return ()
    return tuple(_kl_plot(key, title, curves) for key, title in wanted if _has(curves, key, "kl"))


def _has(curves: Sequence[Curve], *keys: str) -> bool:
    """True if some iteration of some run has a number for each of the keys."""
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
    rooted = panel.key == "kl" and _needs_root_scale(curves)
    least = 0.0 if rooted else -math.inf

    def draw(figure: Any) -> None:
        axes = quiet_axes(figure.subplots())
        if rooted:
            _root_scale(axes, "y", _largest_kl(curves))
        for number, curve in enumerate(curves):
            values = np.maximum(_column(curve, panel.key), least)
            _line(axes, _iterations(curve), values, number, window, floor=panel.floor)
            if panel.held_out:
                _dots(axes, _iterations(curve), np.maximum(_column(curve, panel.held_out), least), number)
        if panel.key == "kl":
            _targets(axes, curves)
        if axes.get_ylim()[0] < panel.floor:
            axes.set_ylim(bottom=panel.floor)
        axes.set_xlabel("iteration", color=MUTED)
        axes.xaxis.get_major_locator().set_params(integer=True)

    names = ", ".join(curve.name for curve in curves)
    cut = any((_column(curve, panel.key) < panel.floor).any() for curve in curves)
    edge = f"−{-panel.floor:.0f}"
    caption = f"Values below {edge} are cut off; a run that ends there has its marker at {edge}." if cut else ""
    if rooted:
        caption = "Square-root scale."
    alt = f"{panel.title} by iteration: {names}."
    return Plot(title=panel.title, svg=svg_of(panel.key, SMALL, draw), alt=alt, caption=caption)


def _kl_plot(key: str, title: str, curves: Sequence[Curve]) -> Plot:
    window = smoothing_window(curves)

    def draw(figure: Any) -> None:
        axes = quiet_axes(figure.subplots())
        _root_scale(axes, "x", _largest_kl(curves))
        for number, curve in enumerate(curves):
            # A sampled KL near zero may come out negative, and the root would blow that up.
            kl, values = _column(curve, "kl"), _column(curve, key)
            known = ~(np.isnan(kl) | np.isnan(values))
            if known.any():
                x, y, colour = np.maximum(kl[known], 0.0), values[known], SERIES_COLOURS[number % SERIES]
                axes.plot(*_thin(x, y), ".", color=colour, markersize=3.5, alpha=0.45, markeredgewidth=0)
                _line(axes, _smooth(x, window), _smooth(y, window), number, 1)
        axes.set_xlabel("KL to the reference, nats per response (square-root scale)", color=MUTED)

    names = ", ".join(curve.name for curve in curves)
    return Plot(title=title, svg=svg_of(f"kl-{key}", _WIDE, draw), alt=f"{title}, one path per run: {names}.")


def _largest_kl(curves: Sequence[Curve]) -> float:
    known = [finite(row.get("kl")) for curve in curves for row in curve.history]
    return max((value for value in known if value is not None), default=0.0)


def _needs_root_scale(curves: Sequence[Curve]) -> bool:
    """True if the KL of some run is so far above a target that a linear scale would flatten the other runs."""
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


def _line(axes: Any, x: np.ndarray, values: np.ndarray, number: int, window: int, *, floor: float = -math.inf) -> None:
    """The run as it was, thin, and smoothed, thick, with the marker of the run at its end, at the floor or above."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return
    colour = SERIES_COLOURS[number % SERIES]
    smooth = _smooth(values, window)
    if window > 1:
        axes.plot(*_thin(x, values), color=colour, linewidth=0.8, alpha=0.35, zorder=2)
    axes.plot(*_thin(x, smooth), color=colour, linewidth=1.8, zorder=3)
    last, marker = known[-1], MARKERS[number % SERIES]
    end = max(smooth[last], floor)  # the marker is not clipped, so that it is whole at the edge of the panel
    axes.plot(x[last], end, marker, color=colour, markersize=6, markeredgewidth=0, zorder=4, clip_on=False)


def _dots(axes: Any, x: np.ndarray, values: np.ndarray, number: int) -> None:
    """Hollow marks of held-out evaluations."""
    known = ~np.isnan(values)
    if known.any():
        style = {"markerfacecolor": "none", "markeredgecolor": SERIES_COLOURS[number % SERIES], "markeredgewidth": 1.2}
        axes.plot(*_thin(x[known], values[known]), "o", markersize=4.5, zorder=4, **style)


def _targets(axes: Any, curves: Sequence[Curve]) -> None:
    """A dashed line for each target, in neutral ink where runs share it."""
    runs: dict[float, list[int]] = {}
    for number, curve in enumerate(curves):
        target = finite(curve.kl_target)
        if target is not None:
            runs.setdefault(target, []).append(number)
    for target, numbers in runs.items():
        colour = SERIES_COLOURS[numbers[0] % SERIES] if len(numbers) == 1 < len(runs) else INK
        axes.axhline(target, color=colour, linewidth=1.2, linestyle=(0, (5, 3)), zorder=3)
