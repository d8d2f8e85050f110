"""The report of a run as one HTML page that needs nothing else.

Knows: the parts of the page and their order. Does not know: how anything was measured (``report_data``), written
(``columns``, ``exchanges``, ``finding``) or drawn (``plots``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_gym.tools.console.progress import duration
from lm_gym.tools.console.terminal import visible
from lm_gym.tools.extras import require
from lm_gym.tools.files import write_text

from .columns import columns_of
from .exchanges import exchanges_of
from .figures import SERIES, finite
from .finding import best_row, finding_of
from .plots import curve_plots, kl_plots, smoothing_window
from .report_data import Report, RewardModelRow
from .reward_plots import accuracy_plot, reliability_plot
from .words import NOTHING, number, percent

__all__ = ["render_report", "rendered_page"]

_TEMPLATES = Path(__file__).parent / "templates"


def rendered_page(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of this package; whatever it is given is escaped.

    Raises:
        MissingExtraError: Jinja2 is not installed; the extra is ``report``.
    """
    jinja2 = require("jinja2", extra="report", purpose="the HTML report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    return visible(environment.get_template(template).render(context))


def render_report(report: Report, path: str | Path) -> Path:
    """Write the page: one file with its styles and pictures inside, readable offline, on a phone and on paper.

    Args:
        report: of the finished run.
        path: the HTML file; replaced whole if it exists.

    Returns: the path.

    Raises:
        MissingExtraError: matplotlib or Jinja2 is not installed; the extra is ``report``.
    """
    return write_text(path, rendered_page("report.html.j2", _page(report)))


def _reward_table(models: Sequence[RewardModelRow]) -> list[dict[str, str]]:
    rows = []
    for model in models:
        found = model.evaluation
        error = finite(found.get("accuracy_standard_error"))
        matched = finite(found.get("accuracy_at_matched_length"))
        rows.append(
            {
                "name": model.name,
                "trained_on": f"{model.trained_on:,}",
                "pairs": _count(found.get("pairs")),
                "accuracy": percent(finite(found.get("accuracy"))),
                "error": "" if error is None else f"± {100 * error:.1f}",
                "ceiling": percent(finite(found.get("true_score_accuracy"))),
                "length": percent(finite(found.get("length_accuracy"))),
                "matched": percent(matched),
                "matched_pairs": "" if matched is None else f"{_count(found.get('pairs_at_matched_length'))} pairs",
                "nll": number(finite(found.get("nll")), 3),
                "ece": number(finite(found.get("ece")), 3),
                "abstained": _count(found.get("abstained")),
            }
        )
    return rows


def _count(value: Any) -> str:
    count = finite(value)
    return NOTHING if count is None else f"{count:,.0f}"


def _page(report: Report) -> dict[str, Any]:
    """Everything that the template sets."""
    series = {curve.name: place % SERIES + 1 for place, curve in enumerate(report.curves)}
    reliability = (reliability_plot(model, number=place) for place, model in enumerate(report.reward_models))
    reward_plots = [plot for plot in (accuracy_plot(report.reward_models), *reliability) if plot is not None]
    longest = max(report.stage_seconds.values(), default=0.0)
    models = sum(1 for row in report.rows if row.samples)
    best, best_by = best_row(report.rows)
    return {
        "report": report,
        "finding": finding_of(report),
        "best": best if len(report.rows) > 1 else "",
        "best_by": best_by,
        "columns": columns_of(report.rows),
        "series": series,
        "curves": curve_plots(report.curves),
        "smoothed": smoothing_window(report.curves),
        "targets": any(finite(curve.kl_target) is not None for curve in report.curves),
        "held_out": any(key.startswith("eval_") for curve in report.curves for row in curve.history for key in row),
        "kl_plots": kl_plots(report.curves),
        "reward_plots": reward_plots,
        "reward_table": _reward_table(report.reward_models),
        "has_ceiling": any(finite(model.evaluation.get("true_score_accuracy")) for model in report.reward_models),
        "exchanges": exchanges_of(report.rows, series=series),
        "compared": next((row.name for row in report.rows if row.role == "start"), ""),
        "across": models if models <= 4 else 3,
        "stages": [
            (name, seconds, 100 * seconds / longest if longest else 0.0)
            for name, seconds in report.stage_seconds.items()
        ],
    }
