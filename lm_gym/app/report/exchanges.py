"""Samples set side by side: every model's answer to the same prompt, with the words that RL changed.

Knows: rows and their samples. Does not know: pages or terminals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from .figures import finite
from .report_data import ModelRow, Sample
from .words import decimals, number

__all__ = ["Answer", "Exchange", "Piece", "changed_words", "exchanges_of"]


class Piece(NamedTuple):
    """A stretch of a response."""

    text: str
    """With the space before it."""
    changed: bool
    """True for words that the model before RL did not write there."""


class Answer(NamedTuple):
    """One model's response to a prompt."""

    model: str
    """Name of the model."""
    series: int
    """Colour of its curve; 0 for a model without one."""
    pieces: tuple[Piece, ...]
    """The response; none if it is empty or there is none."""
    scores: str
    """Its scores, in words."""
    remark: str
    """Words in place of a response, or beside one; may be empty."""


class Exchange(NamedTuple):
    """A prompt and the answers to it."""

    prompt: str
    """Prompt text."""
    answers: tuple[Answer, ...]
    """One per model, in the order of the table."""


def exchanges_of(
    rows: Sequence[ModelRow], *, series: Mapping[str, int] | None = None, limit: int | None = None
) -> list[Exchange]:
    """Samples by prompt, every model under each, in the order of the table.

    A prompt that a model answered twice makes two exchanges; a model without a sample is shown as such.

    Args:
        rows: of the report.
        series: colour numbers of models.
        limit: most prompts; None takes all.
    """
    keyed: dict[tuple[str, int], dict[int, Sample]] = {}
    for place, row in enumerate(rows):
        seen: dict[str, int] = {}
        for sample in row.samples[:limit]:
            seen[sample.prompt] = seen.get(sample.prompt, 0) + 1
            keyed.setdefault((sample.prompt, seen[sample.prompt]), {})[place] = sample
    start = next((place for place, row in enumerate(rows) if row.role == "start"), None)
    words = _ScoreWords(rows)
    found = []
    for (prompt, _), samples in keyed.items():
        before = None if start is None else samples.get(start)
        answers = (
            _answer(row, (series or {}).get(row.name, 0), samples.get(place), before, words)
            for place, row in enumerate(rows)
            if row.samples
        )
        found.append(Exchange(prompt=prompt, answers=tuple(answers)))
    return found


def changed_words(before: str, after: str) -> tuple[Piece, ...]:
    """The text after, in stretches of words that stand in the text before and words that do not."""
    old, new = (re.findall(r"\s*\S+", text.rstrip()) for text in (before, after))
    matcher = SequenceMatcher(a=[word.strip() for word in old], b=[word.strip() for word in new], autojunk=False)
    pieces: list[Piece] = []
    for tag, _, _, start, end in matcher.get_opcodes():
        text = "".join(new[start:end])
        words = text.lstrip()
        if tag != "equal" and len(words) < len(text):  # the space before a new word is not new
            pieces.append(Piece(text[: len(text) - len(words)], False))
            text = words
        if text:
            pieces.append(Piece(text, tag != "equal"))
    return tuple(pieces)


class _ScoreWords:
    """Scores of all samples, written with the same number of places."""

    def __init__(self, rows: Sequence[ModelRow]) -> None:
        truths = [finite(sample.true_score) for row in rows for sample in row.samples]
        self._with_truth = any(value is not None for value in truths)
        self._truth_places = decimals(truths)
        self._places = decimals([finite(sample.score) for row in rows for sample in row.samples])

    def of(self, sample: Sample, before: Sample | None) -> str:
        """The scores, each with its difference to that of the text before."""
        score, truth = (None, None) if before is None else (before.score, before.true_score)
        told = f"reward model {_number_and_change(sample.score, score, self._places)}"
        if self._with_truth:
            told += f" · true {_number_and_change(sample.true_score, truth, self._truth_places)}"
        return told


def _number_and_change(value: float | None, before: float | None, places: int) -> str:
    now, then = finite(value), finite(before)
    told = number(now, places)
    return told if now is None or then is None else f"{told} ({number(now - then, places, signed=True)})"


def _answer(row: ModelRow, series: int, sample: Sample | None, before: Sample | None, words: _ScoreWords) -> Answer:
    if sample is None:
        return Answer(model=row.name, series=series, pieces=(), scores="", remark="no sample")
    if row.role in (None, "base", "start"):
        before = None
    text, scores = sample.response.strip(), words.of(sample, before)
    if not text:
        return Answer(model=row.name, series=series, pieces=(), scores=scores, remark="(empty response)")
    if before is None:
        return Answer(model=row.name, series=series, pieces=(Piece(text, False),), scores=scores, remark="")
    pieces = changed_words(before.response.strip(), text)
    same = text == before.response.strip()
    return Answer(
        model=row.name, series=series, pieces=pieces, scores=scores, remark="word for word as before RL" if same else ""
    )
