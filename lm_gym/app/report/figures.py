"""The style of every picture: quiet axes, colours that the page decides, SVG text to be set inline.

Every colour is written as a CSS variable (``--series-1``, ``--plot-ink``, ...), and text stays text in the font of the
page, so that one picture serves light, dark and print. Figures are made and drawn through matplotlib's object
interface; pyplot is never loaded.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lm_gym.tools.extras import require

__all__ = [
    "FONT",
    "GRID",
    "INK",
    "MARKERS",
    "MUTED",
    "SERIES",
    "SERIES_COLOURS",
    "SMALL",
    "Plot",
    "finite",
    "note",
    "quiet_axes",
    "svg_of",
]

SERIES = 6
"""Colours and end markers that runs cycle through."""

# Stand-ins: matplotlib needs a colour, and _as_inline replaces it by the variable.
INK, MUTED, GRID = "#0a0c01", "#0a0c02", "#0a0c03"
SERIES_COLOURS = tuple(f"#0a0b{number:02x}" for number in range(1, SERIES + 1))
_VARIABLES = {INK: "plot-ink", MUTED: "plot-muted", GRID: "plot-grid"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES_COLOURS, start=1)
}
MARKERS = ("o", "s", "^", "D", "v", "P")
SMALL = (360, 224)
FONT = 11


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One picture and what stands around it."""

    title: str
    """Quantity and unit."""
    svg: str
    """An ``<svg>`` element."""
    alt: str
    """Description of the picture for readers who cannot see it."""
    caption: str = ""
    """Explanation under the picture; may be empty."""


def finite(value: object) -> float | None:
    """The number, or None for anything that is not a finite one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def note(axes: Any, text: str, place: tuple[float, float], rise: float, colour: str) -> None:
    """Words beside a point of the picture."""
    axes.annotate(text, place, (0, rise), textcoords="offset points", ha="center", fontsize=10, color=colour)


def quiet_axes(axes: Any, *, grid: str = "y") -> Any:
    """Quiet axes: no frame, thin grid. Returns: the same axes."""
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.tick_params(length=0, colors=MUTED, labelsize=FONT, pad=4)
    axes.xaxis.label.set_size(FONT)
    return axes


def svg_of(name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
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
