"""The end of a run on a terminal: samples before and after, the table, the finding, and what to do next."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_gym.tools.console.progress import duration
from lm_gym.tools.console.terminal import visible

from .columns import Cell, columns_of
from .exchanges import Answer, exchanges_of
from .finding import best_row, finding_of
from .report_data import ModelRow, Report

__all__ = ["print_ending", "print_table"]

SAMPLES = 2
WIDE_TERMINAL = 96
BEST = "*"


def print_table(report: Report, console: Console) -> None:
    """Print samples before and after, the main table, and the finding.

    Args:
        report: of the finished run.
        console: to print on.
    """
    console.print()
    console.print(Text.assemble((visible(report.title), "bold"), ": samples and results"))
    for exchange in exchanges_of(_told_apart(report), limit=SAMPLES):
        console.print()
        console.print(Text(visible(exchange.prompt), style="bold"))
        for answer in exchange.answers:
            console.print(Text.assemble("  ", visible(answer.model), (f"  {answer.scores}", "dim")))
            console.print(_body(answer, console.width), soft_wrap=True)
    console.print()
    table, note = _table(report.rows, details=console.width >= WIDE_TERMINAL)
    console.print(table)
    if note:
        console.print(textwrap.fill(note, console.width), style="dim", soft_wrap=True, highlight=False)
    finding = finding_of(report)
    if finding is not None:
        for sentence in (finding.headline, finding.verdict):
            if sentence:
                console.print()
                console.print(textwrap.fill(sentence, console.width), soft_wrap=True, highlight=False)


def print_ending(report: Report, page: Path, console: Console) -> None:
    """Print everything that a finished run has to say.

    Args:
        report: of the run.
        page: the HTML page of it.
        console: to print on.
    """
    print_table(report, console)
    console.print()
    console.print(f"The page with curves, samples and definitions: {page}", highlight=False, soft_wrap=True)
    console.print(f"The whole run took {duration(report.seconds)}.", highlight=False)
    if not report.next_steps:
        return
    console.print()
    console.print("What to do next:", style="bold")
    for place, step in enumerate(report.next_steps, start=1):
        console.print(f"{place}. {step.purpose}", highlight=False, soft_wrap=True)
        console.print(f"   {step.command}", highlight=False, soft_wrap=True)


def _told_apart(report: Report) -> list[ModelRow]:
    """Before RL, the last model after it, and the one without the penalty; all models where these are not known."""
    last = next((row.name for row in reversed(report.rows) if row.role == "rl"), "")
    shown = [row for row in report.rows if row.role in ("start", "rl_without_kl") or row.name == last]
    return shown if len(shown) > 1 else list(report.rows)


def _body(answer: Answer, width: int) -> Text:
    if not answer.pieces or answer.remark:
        return Text(f"    {answer.remark}", style="dim")
    return Text(
        textwrap.indent(textwrap.fill(visible("".join(piece.text for piece in answer.pieces)), width - 5), "    ")
    )


def _table(rows: Sequence[ModelRow], *, details: bool) -> tuple[Table, str]:
    """The main table, and the note under it."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("model", no_wrap=True)
    columns = columns_of(rows)
    for column in columns:
        table.add_column(Text(column.spec.short, justify="right"), justify="right", no_wrap=True)
    best, best_by = best_row(rows)
    for place, row in enumerate(rows):
        cells = [_cell(column.cells[place], details) for column in columns]
        is_best = row.name == best and len(rows) > 1
        table.add_row(Text(visible(row.name) + BEST * is_best), *cells, style="bold" if is_best else None)
    notes = [f"*: {best_by}"] if best and len(rows) > 1 else []
    notes += [f"dim: {column.spec.detail_note}" for column in columns if details and column.spec.detail_note]
    return table, "; ".join(notes)


def _cell(cell: Cell, details: bool) -> Text:
    text = Text(cell.text)
    return text.append(f" {cell.detail}", style="dim") if details and cell.detail else text
