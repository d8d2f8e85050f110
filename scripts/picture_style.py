"""Style of the documentation's pictures: a light and a dark theme, a wide and a narrow layout, quiet axes.

Four files come of one picture. The same numbers give the same bytes, so a test can hold a picture to its data.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["FOLDER", "GROUNDS", "Layouts", "dress", "write_pictures"]

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
GROUNDS = {"": {"ground": "#ffffff", "ink": "#24292f"}, "_dark": {"ground": "#131416", "ink": "#d8dade"}}
"""Theme, as it stands in a file's name -> colours; the second is the ground of the documentation's dark theme."""
Layouts = dict[str, tuple[tuple[int, int], tuple[float, float]]]
"""Layout, as it stands in a file's name -> rows and columns of panels, and inches; "_narrow" is for phones."""


def write_pictures(
    name: str, folder: Path, layouts: Layouts, paint: Callable[[Figure, tuple[int, int], str], None]
) -> list[Path]:
    """Write ``<name><theme><layout>.svg`` for every theme and layout.

    Args: paint: draws on a figure, given the panels' rows and columns, and the theme.
    """
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "lm-gym", "svg.fonttype": "none", "font.size": 11}):
        for (theme, colours), (layout, (panels, size)) in product(GROUNDS.items(), layouts.items()):
            figure = Figure(figsize=size, facecolor=colours["ground"], layout="constrained")
            paint(figure, panels, theme)
            path = folder / f"{name}{theme}{layout}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            written.append(path)
    return written


def dress(axes: Axes, title: str, theme: str) -> None:
    """Quiet axes: a title at the left, two spines, a faint grid, all in the theme's ink."""
    colours = GROUNDS[theme]
    axes.set_title(title, color=colours["ink"], loc="left")
    axes.set_facecolor(colours["ground"])
    axes.tick_params(colors=colours["ink"], which="both")
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours["ink"])
