"""The picture of README and documentation: score and true score against KL, with and without the KL penalty.

The numbers are those of a demo run, iteration by iteration: a folder refreshes them, without one they are read from
the data file beside the pictures.

Command:  python -m scripts.draw_kl_picture [--run runs/demo]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm_gym.app.report.report_data import Report
from scripts.picture_style import FOLDER, GROUNDS, dress, write_pictures

__all__ = ["draw", "read_run"]

DATA = FOLDER / "kl_penalty.json"
RUNS = {"round 1": "with the penalty", "without KL": "without"}
"""Curve of the report -> label. Both runs start from one model and are paid by one reward model."""
COLUMNS = ("kl", "score", "true_score")
PANELS = {"score": "what the reward model says", "true_score": "what is true"}
COLOURS = {
    "": {"with the penalty": "#0b6bcb", "without": "#c2410c"},
    "_dark": {"with the penalty": "#5aa9f8", "without": "#fb8a4c"},
}
"""Theme -> colours of the runs."""
LAYOUTS = {"": ((1, 2), (8.4, 3.0)), "_narrow": ((2, 1), (4.2, 6.0))}


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

    def paint(figure: Figure, panels: tuple[int, int], theme: str) -> None:
        for axes, (column, title) in zip(figure.subplots(*panels), PANELS.items(), strict=True):
            _panel(axes, data["runs"], column, title, theme)

    return write_pictures("kl_penalty", folder, LAYOUTS, paint)


def _panel(axes: Axes, runs: dict[str, Any], column: str, title: str, theme: str) -> None:
    ink = GROUNDS[theme]["ink"]
    for label, run in runs.items():
        kl = [max(value, 0.0) for value in run["kl"]]
        axes.plot(kl, run[column], color=COLOURS[theme][label], linewidth=2, label=label)
        axes.plot(kl[-1:], run[column][-1:], "o", color=COLOURS[theme][label])
    axes.set_xscale("symlog", linthresh=5)
    axes.set_xticks([0, 2, 5, 20, 100, 300], ["0", "2", "5", "20", "100", "300"])
    axes.set_xlabel("KL to the reference, nats", color=ink)
    dress(axes, title, theme)
    if column == "true_score":
        axes.legend(frameon=False, labelcolor=ink, title="PPO", title_fontsize=11).get_title().set_color(ink)


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
