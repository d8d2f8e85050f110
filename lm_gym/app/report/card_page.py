"""A reward model's card as a table on a terminal and as one HTML page.

A number over fewer than 30 pairs is given as what it counts, never as a share with decimals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_gym.reward_models import FittedWeights, GradedMeasures, RewardEvaluation, RewardModelCard
from lm_gym.reward_models.measuring.verdict import FEW_PAIRS
from lm_gym.tools.files import write_text
from lm_gym.tools.intervals import wilson_interval

from .finding import TWO_SIDED_95
from .report import rendered_page
from .report_data import RewardModelRow
from .reward_plots import learning_curve_plot, reliability_plot

__all__ = ["card_rows", "print_card", "print_grades", "print_weights", "write_card"]


def print_card(card: RewardModelCard, title: str, console: Console) -> None:
    """The verdict, the main numbers, and the probes."""
    console.print(card.verdict, style="bold", markup=False, highlight=False)
    if card.about:
        console.print(card.about, markup=False, highlight=False)
    table = Table(title=f"{title}: {card.evaluation.pairs} pairs", show_header=False)
    for name, value in card_rows(card):
        table.add_row(name, value)
    console.print(table)
    console.print(_probes_table(card))
    if card.also:
        console.print(_also_table(card))


def print_grades(found: GradedMeasures, console: Console) -> None:
    """Every measurement on thumbs, ratings and rewards, a line each."""
    for name, value in _graded_rows(found):
        console.print(f"{name}: {value}", highlight=False)


def print_weights(members: Sequence[str], found: FittedWeights, title: str, console: Console) -> None:
    """Members of an ensemble with their weights and accuracies, and the accuracy of the whole."""
    table = Table("model", "weight", "accuracy", title=f"{title}: {found.pairs} pairs that no member was trained on")
    for member, weight, accuracy in zip(members, found.weights, found.member_accuracy, strict=True):
        table.add_row(Text(member), f"{weight:.3g}", f"{accuracy:.3f}")
    table.add_row("the ensemble, weighed on the other half of the groups", "", f"{found.accuracy:.3f}")
    console.print(table)


def _probes_table(card: RewardModelCard) -> Table:
    table = Table(
        "probe",
        "chosen answers\nit beats",
        "prompts where it\nbeats the best",
        "fools it",
        title="Texts that must lose",
    )
    for probe in card.probes:
        shares = (probe.share_outscored, probe.share_above_best)
        shown = ("–" if share is None else f"{share:.0%}" for share in shares)
        table.add_row(probe.name, *shown, "yes" if probe.fools else "no")
    return table


def _also_table(card: RewardModelCard) -> Table:
    table = Table("also measured on", "pairs", "accuracy", "length rule", "gain")
    for one in card.also:
        found = one.evaluation
        rule = f"{_short_share(found.length_accuracy, found.pairs)} ({found.length_rule})"
        gain = _with_error(found.gain, found.gain_standard_error) if found.pairs >= FEW_PAIRS else "–"
        table.add_row(Text(one.name), str(found.pairs), _accuracy_told(found), rule, gain)
    return table


def write_card(card: RewardModelCard, path: Path) -> Path:
    """Write the card as one HTML page that needs nothing else. Returns: the path."""
    found = card.evaluation
    shown = RewardModelRow(name=card.name, trained_on=0, evaluation=found.to_json())
    plots = (
        reliability_plot(shown, number=0) if found.pairs >= FEW_PAIRS else None,
        learning_curve_plot([asdict(point) for point in card.learning_curve], found.length_accuracy),
    )
    content = {
        "card": card,
        "rows": card_rows(card),
        "plots": [plot for plot in plots if plot is not None],
        "share": _short_share,
        "told": _accuracy_told,
        "few": FEW_PAIRS,
    }
    return write_text(path, rendered_page("card.html.j2", content))


def card_rows(card: RewardModelCard) -> list[tuple[str, str]]:
    """Name and number of everything on the card that is one number."""
    found = card.evaluation
    many = found.pairs >= FEW_PAIRS
    shown = [("accuracy", _accuracy_told(found))]
    shown.append((f"length rule: {found.length_rule} win", _share(found.length_accuracy, found.pairs)))
    if many:
        shown.append(("gain over it", _with_error(found.gain, found.gain_standard_error)))
    shown += [(name, _share(value, pairs)) for name, value, pairs in _accuracy(card) if value is not None]
    if many:
        numbers = [*_calibration(card), *_correlations(card)]
        shown += [(name, f"{value:.3f}") for name, value in numbers if value is not None]
    else:
        shown.append(("calibration, temperature, correlations", f"too few pairs to tell ({found.pairs})"))
    shown += _people(card)
    shown += [] if card.graded is None else _graded_rows(card.graded)
    if card.texts_cut:
        shown.append(("texts that were too long and lost their beginning", f"{card.texts_cut} of {card.texts}"))
    return [*shown, ("pairs the model abstained on", str(card.evaluation.abstained))]


def _graded_rows(found: GradedMeasures) -> list[tuple[str, str]]:
    """Name and number of every measurement on thumbs, ratings and rewards."""
    rows = []
    if found.thumbs_auroc is not None:
        area = _with_error(found.thumbs_auroc, found.thumbs_auroc_standard_error)
        rows.append((f"area under the ROC of {found.thumbs} thumbs", area))
    if found.rating_correlation is not None:
        rows.append((f"rank correlation with {found.ratings} ratings", f"{found.rating_correlation:.3f}"))
    if found.value_correlation is not None:
        rows.append((f"rank correlation with {found.values} rewards", f"{found.value_correlation:.3f}"))
    return rows


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def _accuracy_told(found: RewardEvaluation) -> str:
    """Accuracy with an interval: clustered by group where there are several, else as of independent pairs."""
    error = found.accuracy_standard_error
    if found.pairs < FEW_PAIRS or error is None:
        return _share(found.accuracy, found.pairs)
    low, high = max(0.0, found.accuracy - TWO_SIDED_95 * error), min(1.0, found.accuracy + TWO_SIDED_95 * error)
    return f"{_with_error(found.accuracy, error)} ({_interval(low, high)})"


def _share(share: float, pairs: int) -> str:
    """A share of pairs with its 95 % interval, or what was counted where that says more."""
    if pairs < FEW_PAIRS:
        return f"{share * pairs:g} of {pairs}: too few pairs to tell"
    return f"{share:.3f} ({_interval(*wilson_interval(share, pairs))})"


def _short_share(share: float, pairs: int) -> str:
    """The same without words, for tables by group."""
    return f"{share * pairs:g} of {pairs}" if pairs < FEW_PAIRS else f"{share:.0%}"


def _interval(low: float, high: float) -> str:
    return f"95% interval {low:.2f} to {high:.2f}"


def _accuracy(card: RewardModelCard) -> Iterator[tuple[str, float | None, int]]:
    found = card.evaluation
    yield "TF-IDF baseline, fitted on the other half of the groups", card.text_baseline_accuracy, found.pairs
    yield "accuracy at matched length", found.accuracy_at_matched_length, found.pairs_at_matched_length
    if found.pairs < FEW_PAIRS:
        return  # parts of too few
    for quarter, part in zip(("closest", "second", "third", "clearest"), found.by_margin, strict=False):
        yield f"accuracy on the {quarter} quarter of its calls", part.accuracy, part.pairs
    for share in card.by_share:
        yield f"accuracy where {share.low:.0%} to {share.high:.0%} of the votes agree", share.accuracy, share.pairs


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


def _correlations(card: RewardModelCard) -> Iterator[tuple[str, float | None]]:
    yield "correlation of score and length", card.length_correlation
    yield "rank correlation within a prompt", card.rank_correlation


def _people(card: RewardModelCard) -> Iterator[tuple[str, str]]:
    """Agreement of people, where enough pairs have several votes."""
    people = card.agreement
    if people is None:
        return
    if people.pairs < FEW_PAIRS:
        yield "agreement of annotators", f"too few pairs with two votes to tell ({people.pairs})"
        return
    for name, value in (
        ("agreement of annotators, Krippendorff's alpha", people.alpha),
        ("an annotator agrees with most others", people.people_with_majority),
        ("the model agrees with them", people.model_with_majority),
    ):
        if value is not None:
            yield name, f"{value:.3f}"
