"""The picture of all agents on the built-in reviews: true score against KL, a panel for each family of algorithms.

The numbers are those of ``examples/comparisons/13_every_agent.py``: a file of its runs refreshes them, without one they
are read from the data file beside the pictures.

Command:  python -m scripts.draw_agents_picture [--runs runs/every_agent/runs.jsonl]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.agent_pages import FAMILIES, REVIEWS, TITLES
from scripts.picture_style import FOLDER, GROUNDS, Layouts, dress, write_pictures

__all__ = ["draw", "read_runs", "spread_apart"]

BEST = "best of n"
SMOOTHED = 5
"""Iterations of a line's moving mean."""
COLOURS = {
    "": ("#0b6bcb", "#c2410c", "#1a7f37", "#8250df", "#bf3989"),
    "_dark": ("#5aa9f8", "#fb8a4c", "#4ac26b", "#b392f0", "#f778ba"),
}
"""Theme -> colours of the agents of a panel."""
FAINT = {"": "#b6bcc4", "_dark": "#555b64"}
LABEL_GAP = 0.075
"""Least distance of two labels, in shares of a panel's height."""


def read_runs(path: Path) -> dict[str, Any]:
    """The runs of the example, with what they have in common."""
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    order = [name for names in FAMILIES.values() for name in names]
    reference = np.mean([run["history"][0][1] for run in runs if run["agent"] == BEST])
    trained = [run for run in runs if run["agent"] in order]
    trained.sort(key=lambda run: (order.index(run["agent"]), run["seed"]))
    best = np.mean([run["history"] for run in runs if run["agent"] == BEST], axis=0)
    return {
        "tokens": 45_000,
        "kl_coef": 0.02,
        "reference": round(float(reference), 4),
        "best_of_n": best.round(4).tolist(),
        "runs": trained,
    }


def layouts() -> Layouts:
    """Panels of each layout: two in a row where there is room."""
    rows = (len(FAMILIES) + 1) // 2
    return {"": ((rows, 2), (8.4, 3.1 * rows)), "_narrow": ((len(FAMILIES), 1), (4.4, 3.1 * len(FAMILIES)))}


def draw(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write one file per theme and layout. The same numbers give the same bytes."""

    def paint(figure: Figure, panels: tuple[int, int], theme: str) -> None:
        grid = figure.subplots(*panels, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(FAMILIES):
                axes.set_axis_off()
                continue
            _panel(axes, data, list(FAMILIES)[place], theme)
            if place + panels[1] >= len(FAMILIES):
                axes.set_xlabel("KL to the reference, nats", color=GROUNDS[theme]["ink"])
                axes.tick_params(labelbottom=True)
        for row in grid:
            row[0].set_ylabel("true score", color=GROUNDS[theme]["ink"])

    return write_pictures("every_agent", folder, layouts(), paint)


def spread_apart(heights: list[float], gap: float, least: float, most: float) -> list[float]:
    """Heights of labels, moved apart as little as a pass up and a pass down take.

    Args: heights: wanted ones; gap: least distance of two; least, most: that a label may have.
    """
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, dtype=float)[order]
    for place in range(1, len(placed)):
        placed[place] = max(placed[place], placed[place - 1] + gap)
    shift = np.mean(placed - np.array(heights)[order])
    placed -= min(max(shift, placed[-1] - most), placed[0] - least)
    found = np.empty(len(placed))
    found[order] = placed
    return found.tolist()


def _panel(axes: Axes, data: dict[str, Any], family: str, theme: str) -> None:
    low, high, right = _limits(data)
    ink, faint = GROUNDS[theme]["ink"], FAINT[theme]
    names = [name for name in FAMILIES[family] if any(run["agent"] == name for run in data["runs"])]
    kl, score = np.array(data["best_of_n"]).T
    axes.plot(kl, score, color=ink, linewidth=1, linestyle=(0, (4, 3)), alpha=0.55, zorder=1)
    axes.annotate(
        BEST, (kl[-1], score[-1]), xytext=(-5, 3), textcoords="offset points", ha="right", color=ink, fontsize=9
    )
    others = [run for run in data["runs"] if run["agent"] not in names]
    axes.plot([run["kl"] for run in others], [run["score"] for run in others], "o", color=faint, markersize=3, zorder=1)
    ends = []
    for colour, name in zip(COLOURS[theme], names, strict=False):
        runs = [run for run in data["runs"] if run["agent"] == name]
        for run in runs:
            axes.plot(*_smooth(run["history"]), color=colour, linewidth=0.8, alpha=0.55, zorder=2)
            axes.plot(run["kl"], run["score"], "o", color=colour, markersize=4.5, zorder=3)
        last = max(runs, key=lambda run: run["kl"])
        ends.append((last["kl"], last["score"]))
    places = spread_apart([one[1] for one in ends], LABEL_GAP * (high - low), low + 0.02, high - 0.02)
    for colour, name, end, height in zip(COLOURS[theme], names, ends, places, strict=False):
        axes.annotate(
            name,
            end,
            xytext=(right * 1.02, height),
            color=colour,
            va="center",
            fontsize=10,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3},
        )
    axes.set_xlim(0, right)
    axes.set_ylim(low, high)
    dress(axes, TITLES[family], theme)


def _smooth(history: list[list[float]]) -> tuple[Any, Any]:
    width = min(SMOOTHED, len(history))
    kl, score = (np.convolve(one, np.full(width, 1 / width), "valid") for one in zip(*history, strict=True))
    return np.maximum(kl, 0.0), score


def _limits(data: dict[str, Any]) -> tuple[float, float, float]:
    """Least and largest score, and largest KL, of all panels."""
    lines = [_smooth(run["history"]) for run in data["runs"]]
    scores = np.concatenate([line[1] for line in lines] + [[run["score"] for run in data["runs"]]])
    kl = np.concatenate([line[0] for line in lines] + [[run["kl"] for run in data["runs"]]])
    return float(scores.min()) - 0.02, float(scores.max()) + 0.03, float(kl.max()) * 1.05


def main() -> None:
    """Refresh the data where runs are given, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="runs.jsonl of the example")
    options = parser.parse_args()
    if options.runs is not None:
        data = read_runs(options.runs)
        runs = data.pop("runs")
        lines = ",\n".join("  " + json.dumps(run) for run in runs)
        head = json.dumps(data, indent=1)[:-2]
        REVIEWS.write_text(f'{head},\n "runs": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    for path in draw(json.loads(REVIEWS.read_text(encoding="utf-8")), FOLDER):
        print(path)


if __name__ == "__main__":
    main()
