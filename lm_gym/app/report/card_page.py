"""A reward model's card as a table on a terminal and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lm_gym.reward_models import RewardModelCard
from lm_gym.tools.files import write_text

from .report import rendered_page
from .report_data import RewardModelRow
from .reward_plots import learning_curve_plot, reliability_plot

__all__ = ["card_rows", "print_card", "write_card"]


def print_card(card: RewardModelCard, title: str, console: Console) -> None:
    """The main numbers as a table."""
    table = Table(title=f"{title}: {card.evaluation.pairs} pairs", show_header=False)
    for name, value in card_rows(card):
        table.add_row(name, value)
    console.print(table)


def write_card(card: RewardModelCard, path: Path) -> Path:
    """Write the card as one HTML page that needs nothing else. Returns: the path."""
    found = card.evaluation
    shown = RewardModelRow(name=card.name, trained_on=0, evaluation=found.to_json())
    plots = (
        reliability_plot(shown, number=0),
        learning_curve_plot([asdict(point) for point in card.learning_curve], found.length_accuracy),
    )
    content = {"card": card, "rows": card_rows(card), "plots": [plot for plot in plots if plot is not None]}
    return write_text(path, rendered_page("card.html.j2", content))


def card_rows(card: RewardModelCard) -> list[tuple[str, str]]:
    """Name and number of everything on the card that is one number."""
    rows = [*_accuracy(card), *_calibration(card), *_trust(card)]
    shown = [(name, f"{value:.3f}") for name, value in rows if value is not None]
    if card.texts_cut:
        shown.append(("texts that were too long and lost their beginning", f"{card.texts_cut} of {card.texts}"))
    return [*shown, ("pairs the model abstained on", str(card.evaluation.abstained))]


def _accuracy(card: RewardModelCard) -> Iterator[tuple[str, float | None]]:
    found = card.evaluation
    yield "accuracy", found.accuracy
    yield "length-only baseline", found.length_accuracy
    yield "TF-IDF baseline, fitted on the other half of the groups", card.text_baseline_accuracy
    yield "accuracy at matched length", found.accuracy_at_matched_length
    for quarter, part in zip(("closest", "second", "third", "clearest"), found.by_margin, strict=False):
        yield f"accuracy on the {quarter} quarter of its calls", part.accuracy
    for share in card.by_share:
        yield f"accuracy where {share.low:.0%} to {share.high:.0%} of the votes agree", share.accuracy


def _calibration(card: RewardModelCard) -> Iterator[tuple[str, float | None]]:
    found = card.evaluation
    yield "negative log-likelihood, nats", found.nll
    yield "expected calibration error", found.ece
    yield "the same at a temperature fitted on other groups", found.ece_at_temperature
    yield "temperature", found.temperature
    if card.error_detection is not None:
        yield "members' disagreement finds its errors, area under the ROC", card.error_detection.by_disagreement
        yield "the spread of the difference finds them", card.error_detection.by_spread
        yield "the size of the difference finds them", card.error_detection.by_margin


def _trust(card: RewardModelCard) -> Iterator[tuple[str, float | None]]:
    yield "correlation of score and length", card.length_correlation
    yield "rank correlation within a prompt", card.rank_correlation
    people = card.agreement
    if people is not None:
        yield "agreement of annotators, Krippendorff's alpha", people.alpha
        yield "an annotator agrees with most others", people.people_with_majority
        yield "the model agrees with them", people.model_with_majority
