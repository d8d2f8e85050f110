"""The report of a run as one HTML page that needs nothing else, and as a table in the terminal.

Knows: which columns there are, how numbers are written, how samples are set side by side. Does not know: how anything
was measured (``report_data``) or drawn (``plots``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lm_gym.tools.extras import require
from lm_gym.tools.files import write_text
from lm_gym.tools.progress import duration
from lm_gym.tools.terminal import visible

from .figures import SERIES, finite
from .plots import curve_plots, kl_plots, smoothing_window
from .report_data import ModelRow, Report, RewardModelRow, Sample
from .reward_plots import accuracy_plot, reliability_plot

__all__ = ["print_table", "render_report", "rendered_page"]

NOTHING = "–"
SAMPLES_IN_TERMINAL = 5
WIDE_TERMINAL = 96
_TEMPLATES = Path(__file__).parent / "templates"
_Numbers = Sequence[float | None]


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


def print_table(report: Report, console: Console) -> None:
    """Print the main table and five samples a model.

    Args:
        report: of the finished run.
        console: to print on.
    """
    console.print(Text(visible(report.title), style="bold"))
    console.print(_terminal_table(report.rows, details=console.width >= WIDE_TERMINAL))
    for exchange in _exchanges(report.rows, limit=SAMPLES_IN_TERMINAL):
        console.print()
        console.print(Text(visible(exchange.prompt), style="bold"))
        for answer in exchange.answers:
            head = Text.assemble(visible(answer.model), (f"  {answer.scores}", "dim"))
            body = Text(visible(answer.response).strip()) if answer.response else Text(answer.absence, style="dim")
            console.print(Padding(head, (0, 0, 0, 2), expand=False))
            console.print(Padding(body, (0, 0, 0, 4), expand=False))


class _Cell(NamedTuple):
    text: str
    detail: str = ""
    bar: tuple[float, float, float] | None = None  # low, value, high in percent of the width


@dataclass(frozen=True, kw_only=True)
class _Spec:
    name: str
    header: str
    unit: str
    short: str
    definition: str
    write: Callable[[_Numbers], list[str]]
    detail: Callable[[ModelRow], str] = lambda row: ""
    detail_word: str = ""
    detail_note: str = ""
    bar: Callable[[ModelRow], tuple[float, float, float] | None] = lambda row: None


class _Column(NamedTuple):
    spec: _Spec
    cells: tuple[_Cell, ...]


class _Answer(NamedTuple):
    model: str
    series: int
    response: str
    scores: str
    absence: str


class _Exchange(NamedTuple):
    prompt: str
    answers: tuple[_Answer, ...]


def _decimals(values: _Numbers) -> int:
    """Places that leave about three digits of the largest value, and two for scores around 1."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if largest < 0.1:
        return 3
    return 2 if largest < 10 else 1 if largest < 100 else 0


def _number(value: float | None, decimals: int, *, signed: bool = False) -> str:
    if value is None:
        return NOTHING
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    zero = float(text) == 0
    return text.lstrip("+-") if zero else text.replace("-", "−")


def _numbers(values: _Numbers, *, signed: bool = False) -> list[str]:
    decimals = _decimals(values)
    return [_number(value, decimals, signed=signed) for value in values]


def _percent(value: float | None) -> str:
    """Whole percent; one decimal where rounding would claim all or nothing."""
    if value is None:
        return NOTHING
    return f"{value:.1%}" if 0 < value < 0.01 or 0.99 < value < 1 else f"{value:.0%}"


def _win_rate_interval(row: ModelRow) -> str:
    low, high = finite(row.win_rate_low), finite(row.win_rate_high)
    return "" if low is None or high is None else f"{_percent(low).rstrip('%')}–{_percent(high)}"


def _win_rate_bar(row: ModelRow) -> tuple[float, float, float] | None:
    low, value, high = finite(row.win_rate_low), finite(row.win_rate), finite(row.win_rate_high)
    return None if low is None or value is None or high is None else (100 * low, 100 * value, 100 * high)


def _matched_share(row: ModelRow) -> str:
    if finite(row.matched_length_gain) is None:
        return ""
    share = finite(row.matched_length_share)
    return "" if share is None else _percent(share)


_SPECS = (
    _Spec(
        name="true_score",
        header="True score",
        unit="mean",
        short="true\nscore",
        definition="Mean of the hidden score of the simulated world. Reported only; nothing learns from it.",
        write=_numbers,
    ),
    _Spec(
        name="score",
        header="Reward-model score",
        unit="mean",
        short="reward\nmodel",
        definition="Mean score of the newest reward model, on its own scale; the same reward model for every row.",
        write=_numbers,
    ),
    _Spec(
        name="kl",
        header="KL",
        unit="nats per response",
        short="KL\nnats",
        definition="Mean over responses of the summed log-probability ratio of the model to the frozen reference.",
        write=_numbers,
    ),
    _Spec(
        name="win_rate",
        header="Win rate",
        unit="95% interval",
        short="win\nrate",
        definition="Share of held-out comparisons in which the newest reward model scores the response above the "
        "reference's to the same prompt, ties counting half, with its Wilson interval.",
        write=lambda values: [_percent(value) for value in values],
        detail=_win_rate_interval,
        detail_note="95% interval of the win rate",
        bar=_win_rate_bar,
    ),
    _Spec(
        name="reward_accuracy",
        header="Reward-model accuracy",
        unit="% of pairs",
        short="reward\naccuracy",
        definition="How often the reward model of the row (the one that RL ran against, or the one that goes with "
        "its data) ranks two of the model's own responses as the annotators do; 50% is chance.",
        write=lambda values: [_percent(value) for value in values],
    ),
    _Spec(
        name="grammatical",
        header="Grammatical",
        unit="% of responses",
        short="gram-\nmatical",
        definition="Share of responses that are grammatical from start to end.",
        write=lambda values: [_percent(value) for value in values],
    ),
    _Spec(
        name="response_length",
        header="Length",
        unit="tokens",
        short="length\ntokens",
        definition="Mean response tokens, the stop token included.",
        write=lambda values: [_number(value, 1) for value in values],
    ),
    _Spec(
        name="matched_length_gain",
        header="Gain at matched length",
        unit="reward-model score",
        short="matched\ngain",
        definition="Mean reward-model score above reference responses whose word count is within 10%: what is gained "
        "beyond length. Beside it, the share of responses that have such a partner.",
        write=lambda values: _numbers(values, signed=True),
        detail=_matched_share,
        detail_word=" matched",
        detail_note="share of responses with a partner of matched length",
    ),
)


def _columns(rows: Sequence[ModelRow]) -> list[_Column]:
    """The columns of the main table that have a number in some row."""
    columns = []
    for spec in _SPECS:
        values = [finite(getattr(row, spec.name)) for row in rows]
        if all(value is None for value in values):
            continue
        cells = tuple(
            _Cell(text=text, detail=spec.detail(row), bar=spec.bar(row))
            for row, text in zip(rows, spec.write(values), strict=True)
        )
        columns.append(_Column(spec, cells))
    return columns


def _terminal_table(rows: Sequence[ModelRow], *, details: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("model", no_wrap=True)
    columns = _columns(rows)
    for column in columns:
        table.add_column(Text(column.spec.short, justify="right"), justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        cells = [_terminal_cell(column.cells[number], details) for column in columns]
        table.add_row(Text(visible(row.name)), *cells)
    notes = [column.spec.detail_note for column in columns if details and column.spec.detail_note]
    if notes:
        table.caption = Text(f"dim: {'; '.join(notes)}", style="dim", justify="left")
    return table


def _terminal_cell(cell: _Cell, details: bool) -> Text:
    text = Text(cell.text)
    return text.append(f" {cell.detail}", style="dim") if details and cell.detail else text


def _exchanges(
    rows: Sequence[ModelRow], *, series: dict[str, int] | None = None, limit: int | None = None
) -> list[_Exchange]:
    """Samples by prompt, every model under each, in the order of the table.

    A prompt that a model answered twice makes two exchanges; a model without a sample is shown as such.
    """
    keyed: dict[tuple[str, int], dict[int, Sample]] = {}
    for number, row in enumerate(rows):
        seen: dict[str, int] = {}
        for sample in row.samples[:limit]:
            seen[sample.prompt] = seen.get(sample.prompt, 0) + 1
            keyed.setdefault((sample.prompt, seen[sample.prompt]), {})[number] = sample
    scores = [finite(sample.score) for row in rows for sample in row.samples]
    truths = [finite(sample.true_score) for row in rows for sample in row.samples]
    places = (_decimals(scores), _decimals(truths))
    with_truth = any(value is not None for value in truths)
    return [
        _Exchange(
            prompt=prompt,
            answers=tuple(
                _answer(row.name, (series or {}).get(row.name, 0), found.get(number), places, with_truth)
                for number, row in enumerate(rows)
                if row.samples
            ),
        )
        for (prompt, _), found in keyed.items()
    ]


def _answer(model: str, series: int, sample: Sample | None, places: tuple[int, int], with_truth: bool) -> _Answer:
    if sample is None:
        return _Answer(model=model, series=series, response="", scores="", absence="no sample")
    scores = f"reward model {_number(finite(sample.score), places[0])}"
    if with_truth:
        scores += f" · true {_number(finite(sample.true_score), places[1])}"
    response = sample.response if sample.response.strip() else ""
    return _Answer(model=model, series=series, response=response, scores=scores, absence="(empty response)")


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
                "accuracy": _percent(finite(found.get("accuracy"))),
                "error": "" if error is None else f"± {100 * error:.1f}",
                "length": _percent(finite(found.get("length_accuracy"))),
                "matched": _percent(matched),
                "matched_pairs": "" if matched is None else f"{_count(found.get('pairs_at_matched_length'))} pairs",
                "nll": _number(finite(found.get("nll")), 3),
                "ece": _number(finite(found.get("ece")), 3),
                "abstained": _count(found.get("abstained")),
            }
        )
    return rows


def _count(value: Any) -> str:
    number = finite(value)
    return NOTHING if number is None else f"{number:,.0f}"


def _page(report: Report) -> dict[str, Any]:
    """Everything that the template sets."""
    series = {curve.name: number % SERIES + 1 for number, curve in enumerate(report.curves)}
    reliability = (reliability_plot(model, number=number) for number, model in enumerate(report.reward_models))
    reward_plots = [plot for plot in (accuracy_plot(report.reward_models), *reliability) if plot is not None]
    longest = max(report.stage_seconds.values(), default=0.0)
    models = sum(1 for row in report.rows if row.samples)
    return {
        "report": report,
        "columns": _columns(report.rows),
        "series": series,
        "curves": curve_plots(report.curves),
        "smoothed": smoothing_window(report.curves),
        "targets": any(finite(curve.kl_target) is not None for curve in report.curves),
        "held_out": any(key.startswith("eval_") for curve in report.curves for row in curve.history for key in row),
        "kl_plots": kl_plots(report.curves),
        "reward_plots": reward_plots,
        "reward_table": _reward_table(report.reward_models),
        "exchanges": _exchanges(report.rows, series=series),
        "across": models if models <= 4 else 3,
        "stages": [
            (name, seconds, 100 * seconds / longest if longest else 0.0)
            for name, seconds in report.stage_seconds.items()
        ],
    }
