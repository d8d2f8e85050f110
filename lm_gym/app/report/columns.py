"""The columns of the main table: their names, units, definitions, and how each number is written.

Knows: rows of a report. Does not know: pages or terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .figures import finite
from .report_data import ModelRow
from .words import number, numbers, percent

__all__ = ["Cell", "Column", "columns_of"]


class Cell(NamedTuple):
    """One number of the table."""

    text: str
    detail: str = ""
    bar: tuple[float, float, float] | None = None  # low, value, high in percent of the width


@dataclass(frozen=True, kw_only=True)
class _Spec:
    name: str
    header: str
    unit: str
    unit_alone: str = ""
    """In the place of the unit where no row has a detail; "" keeps the unit."""
    short: str
    definition: str
    write: Callable[[Sequence[float | None]], list[str]]
    detail: Callable[[ModelRow], str] = lambda row: ""
    detail_word: str = ""
    detail_note: str = ""
    bar: Callable[[ModelRow], tuple[float, float, float] | None] = lambda row: None


class Column(NamedTuple):
    """One column of the table."""

    spec: _Spec
    cells: tuple[Cell, ...]

    @property
    def unit(self) -> str:
        """The line under the header."""
        alone = not any(cell.detail for cell in self.cells)
        return self.spec.unit_alone if alone and self.spec.unit_alone else self.spec.unit


def _win_rate_interval(row: ModelRow) -> str:
    low, high = finite(row.win_rate_low), finite(row.win_rate_high)
    return "" if low is None or high is None else f"{percent(low).rstrip('%')}–{percent(high)}"


def _win_rate_bar(row: ModelRow) -> tuple[float, float, float] | None:
    low, value, high = finite(row.win_rate_low), finite(row.win_rate), finite(row.win_rate_high)
    return None if low is None or value is None or high is None else (100 * low, 100 * value, 100 * high)


def _matched_share(row: ModelRow) -> str:
    if finite(row.matched_length_gain) is None:
        return ""
    share = finite(row.matched_length_share)
    return "" if share is None else percent(share)


_SPECS = (
    _Spec(
        name="true_score",
        header="True score",
        unit="mean",
        short="true\nscore",
        definition="Mean of the hidden score of the simulated world. Reported only; nothing learns from it.",
        write=numbers,
    ),
    _Spec(
        name="kl",
        header="KL",
        unit="nats per response",
        short="KL\nnats",
        definition="Mean over responses of the summed log-probability ratio of the model to the frozen reference.",
        write=lambda values: [number(value, 1 if value is None or abs(value) < 100 else 0) for value in values],
    ),
    _Spec(
        name="score",
        header="Reward-model score",
        unit="mean",
        short="reward\nmodel",
        definition="Mean score of the newest reward model, on its own scale; the same reward model for every row.",
        write=numbers,
    ),
    _Spec(
        name="win_rate",
        header="Win rate",
        unit="95% interval",
        unit_alone="% of comparisons",
        short="win\nrate",
        definition="Share of held-out comparisons in which the newest reward model scores the response above the "
        "reference's to the same prompt, ties counting half, with its Wilson interval.",
        write=lambda values: [percent(value) for value in values],
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
        write=lambda values: [percent(value) for value in values],
    ),
    _Spec(
        name="grammatical",
        header="Grammatical",
        unit="% of responses",
        short="gram-\nmatical",
        definition="Share of responses that are grammatical from start to end.",
        write=lambda values: [percent(value) for value in values],
    ),
    _Spec(
        name="response_length",
        header="Length",
        unit="tokens",
        short="length\ntokens",
        definition="Mean response tokens, the stop token included.",
        write=lambda values: [number(value, 1) for value in values],
    ),
    _Spec(
        name="matched_length_gain",
        header="Gain at matched length",
        unit="reward-model score",
        short="matched\ngain",
        definition="Mean reward-model score above reference responses whose word count is within 10%: what is gained "
        "beyond length. Beside it, the share of responses that have such a partner.",
        write=lambda values: numbers(values, signed=True),
        detail=_matched_share,
        detail_word=" matched",
        detail_note="share of responses with a partner of matched length",
    ),
)


def columns_of(rows: Sequence[ModelRow]) -> list[Column]:
    """The columns of the main table that have a number in some row."""
    columns = []
    for spec in _SPECS:
        values = [finite(getattr(row, spec.name)) for row in rows]
        if all(value is None for value in values):
            continue
        cells = tuple(
            Cell(text=text, detail=spec.detail(row), bar=spec.bar(row))
            for row, text in zip(rows, spec.write(values), strict=True)
        )
        columns.append(Column(spec, cells))
    return columns
