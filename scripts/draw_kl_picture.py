"""The picture of README and documentation: score and true score against KL, with and without the KL penalty.

The numbers are those of a demo run, iteration by iteration: a folder refreshes them, without one they are read from
the data file beside the pictures.

Command:  python -m scripts.draw_kl_picture [--run runs/demo]
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm_gym.app.report.report_data import Report

__all__ = ["draw", "read_run"]

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
DATA = FOLDER / "kl_penalty.json"
RUNS = {"round 1": "with the penalty", "without KL": "without"}
"""Curve of the report -> label. Both runs start from one model and are paid by one reward model."""
COLUMNS = ("kl", "score", "true_score")
PANELS = {"score": "what the reward model says", "true_score": "what is true"}
THEMES = {
    "kl_penalty.svg": {"ground": "#ffffff", "ink": "#24292f", "with the penalty": "#0b6bcb", "without": "#c2410c"},
    "kl_penalty_dark.svg": {"ground": "#131416", "ink": "#d8dade", "with the penalty": "#5aa9f8", "without": "#fb8a4c"},
}
"""File -> colours; the second is the ground of the documentation's dark theme."""
LAYOUTS = {"": ((1, 2), (8.4, 3.0)), "_narrow": ((2, 1), (4.2, 6.0))}
"""End of a file's name -> rows and columns of panels, and inches; the narrow one is for the screens of phones."""


def read_run(folder: Path) -> dict[str, Any]:
    """The numbers of a finished demo."""
    report = Report.load(folder)
    curves = {curve.name: curve.history for curve in report.curves}
    runs = {
        label: {column: [round(row[column] or 0.0, 4) for row in curves[name]] for column in COLUMNS}
        for name, label in RUNS.items()
    }
    return {"command": f"{report.command}, on {report.machine}", "runs": runs}


def draw(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write one file per theme and layout. The same numbers give the same bytes."""
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "lm-gym", "svg.fonttype": "none", "font.size": 11}):
        for (theme, colours), (ending, (panels, size)) in product(THEMES.items(), LAYOUTS.items()):
            figure = Figure(figsize=size, facecolor=colours["ground"], layout="constrained")
            for axes, (column, title) in zip(figure.subplots(*panels), PANELS.items(), strict=True):
                _panel(axes, data["runs"], column, title, colours)
            path = folder / theme.replace(".svg", f"{ending}.svg")
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            written.append(path)
    return written


def _panel(axes: Axes, runs: dict[str, Any], column: str, title: str, colours: dict[str, str]) -> None:
    for label, run in runs.items():
        kl = [max(value, 0.0) for value in run["kl"]]
        axes.plot(kl, run[column], color=colours[label], linewidth=2, label=label)
        axes.plot(kl[-1:], run[column][-1:], "o", color=colours[label])
    axes.set_xscale("symlog", linthresh=5)
    axes.set_xticks([0, 2, 5, 20, 100, 300], ["0", "2", "5", "20", "100", "300"])
    axes.set_xlabel("KL to the reference, nats", color=colours["ink"])
    axes.set_title(title, color=colours["ink"], loc="left")
    axes.set_facecolor(colours["ground"])
    axes.tick_params(colors=colours["ink"], which="both")
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours["ink"])
    if column == "true_score":
        axes.legend(frameon=False, labelcolor=colours["ink"], title="PPO", title_fontsize=11).get_title().set_color(
            colours["ink"]
        )


def main() -> None:
    """Refresh the data where a run is given, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a finished demo")
    options = parser.parse_args()
    if options.run is not None:
        DATA.write_text(json.dumps(read_run(options.run), indent=1) + "\n", encoding="utf-8")
    for path in draw(json.loads(DATA.read_text(encoding="utf-8")), FOLDER):
        print(path)


if __name__ == "__main__":
    main()
