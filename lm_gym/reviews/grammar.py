"""Writes and reads sentences by one set of rules, so the two can never disagree.

It knows symbols, weights and marks; it does not know what a review is or what a mark is worth.
Sampling expands rules top down. Parsing is by derivatives of the grammar (Brzozowski 1964, for
regular expressions): a state is the set of what may still follow, states are built when first met
and kept, so that reading a word costs one dictionary look-up; a walk back over the states recovers
the marks of the first derivation that fits.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

__all__ = ["Grammar", "Mark", "split_sentences"]


class Mark(NamedTuple):
    """An unprinted note that a rule carries."""

    kind: str
    """``opinion``, ``word``, ``aspect``, ``detail``, ``situation``, ``product`` or ``frame``."""
    key: str
    """Subject of the note, for example the noun of the aspect; empty for opinions."""
    value: float
    """Strength of an opinion in [-1, 1]; 0 for every other kind."""


class _Call(NamedTuple):
    name: str


Symbol = str | Mark | _Call
Remainder = tuple[Symbol, ...]
Origin = tuple[Remainder, tuple[Mark, ...]]

_RULE = re.compile(r"<(?P<call>[^>]+)>|\[(?P<mark>[^\]]+)\]|(?P<word>[A-Za-z'-]+|[.,!?])")
_TOKEN = re.compile(r" ?[A-Za-z'-]+|[^A-Za-z'-]")
_SENTENCE = re.compile(r"[^.!?]*[.!?]+|[^.!?]+")


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """The right-hand sides of one rule and the running sum of their weights."""

    sides: tuple[Remainder, ...]
    bounds: tuple[float, ...]


def split_sentences(text: str) -> list[str]:
    """Cuts ``text`` after runs of ``.``, ``!`` and ``?``; outer whitespace is dropped first.

    Every character of the stripped text is kept, so sentences after the first begin with whatever
    separates them from the one before.
    """
    return _SENTENCE.findall(text.strip())


def _mark(text: str) -> Mark:
    kind, _, key = text.partition(" ")
    if kind[0] in "+-":
        return Mark("opinion", "", float(kind))
    return Mark(kind, key, 0.0)


def _symbols(rule: str) -> Remainder:
    symbols: list[Symbol] = []
    for match in _RULE.finditer(rule):
        if match["call"]:
            symbols.append(_Call(match["call"]))
        elif match["mark"]:
            symbols.append(_mark(match["mark"]))
        else:
            word = match["word"]
            symbols.append(word if word in ".,!?" else f" {word}")
    return tuple(symbols)


def _compile(rows: Sequence[str], frame: str | None) -> _Rules:
    weights: list[float] = []
    sides: list[Remainder] = []
    for index, row in enumerate(rows):
        weight, _, rule = row.partition("x ") if row[0].isdigit() else ("1", "", row)
        side = _symbols(rule)
        weights.append(float(weight))
        sides.append(side if frame is None else (*side, Mark("frame", f"{frame} {index}", 0.0)))
    return _Rules(sides=tuple(sides), bounds=tuple(accumulate(weights)))


class _State:
    """State of the parser: what may follow a prefix, and for each next word the next state and its origins."""

    __slots__ = ("ends", "items", "moves")

    def __init__(self, items: tuple[Remainder, ...]) -> None:
        self.items = items
        self.moves: Moves | None = None
        self.ends: Origin | None = None


Moves = dict[str, tuple[_State, dict[Remainder, Origin]]]


class Grammar:
    """The language of one rule table.

    Args:
        rules: Right-hand sides by rule name, in the notation of ``lm_gym.reviews.rules``.
        frames: Names of the rules whose choice is itself reported, as marks of kind ``frame``.
    """

    def __init__(self, rules: Mapping[str, Sequence[str]], *, frames: frozenset[str]) -> None:
        self._rules = {name: _compile(rows, name if name in frames else None) for name, rows in rules.items()}
        self._states: dict[tuple[Remainder, ...], _State] = {}

    def sample(
        self, start: str, rng: np.random.Generator, *, fixed: Mapping[str, int] | None = None
    ) -> tuple[str, list[Mark]]:
        """Draws one sentence from the rule ``start``.

        Args:
            start: Name of a rule.
            rng: Where all randomness comes from.
            fixed: Rules whose right-hand side is not drawn, with the index of the one to take.

        Returns the sentence with its capital letter and full stop, and its marks in order.
        """
        words: list[str] = []
        marks: list[Mark] = []
        stack: list[Symbol] = [_Call(start)]
        while stack:
            symbol = stack.pop()
            if isinstance(symbol, _Call):
                rules = self._rules[symbol.name]
                choice = (fixed or {}).get(symbol.name)
                if choice is None:
                    choice = bisect(rules.bounds, rng.random() * rules.bounds[-1])
                stack.extend(reversed(rules.sides[choice]))
            elif isinstance(symbol, Mark):
                marks.append(symbol)
            else:
                words.append(symbol)
        sentence = "".join(words).lstrip(" ")
        return sentence[0].upper() + sentence[1:], marks

    def parse(self, sentence: str, start: str = "SENTENCE") -> list[Mark] | None:
        """Reads one sentence; exactly one capital at its start, exactly one space between words.

        Returns its marks in order, or None where no derivation from ``start`` fits. Any string is
        accepted as input.
        """
        if not sentence[:1].isupper():
            return None
        tokens: list[str] = _TOKEN.findall(sentence)
        # "I" is the one word that keeps its capital inside a sentence.
        first = tokens[0] if tokens[0] == "I" else tokens[0][0].lower() + tokens[0][1:]
        tokens[0] = f" {first}"
        state = self._state(((_Call(start),),))
        origins: list[dict[Remainder, Origin]] = []
        for token in tokens:
            move = self._moves(state).get(token)
            if move is None:
                return None
            state, origin = move
            origins.append(origin)
        self._moves(state)
        return None if state.ends is None else _walk_back(state.ends, origins)

    def _state(self, items: tuple[Remainder, ...]) -> _State:
        state = self._states.get(items)
        if state is None:
            state = self._states[items] = _State(items)
        return state

    def _moves(self, state: _State) -> Moves:
        if state.moves is None:
            targets: dict[str, dict[Remainder, Origin]] = {}
            for item in state.items:
                for rest, marks in self._expand(item):
                    if not rest:
                        state.ends = state.ends or (item, marks)
                    else:
                        origins = targets.setdefault(str(rest[0]), {})
                        origins.setdefault(rest[1:], (item, marks))
            state.moves = {word: (self._state(tuple(origins)), origins) for word, origins in targets.items()}
        return state.moves

    def _expand(self, item: Remainder) -> list[tuple[Remainder, tuple[Mark, ...]]]:
        """Every way to rewrite ``item`` so that it is empty or begins with a word."""
        done: list[tuple[Remainder, tuple[Mark, ...]]] = []
        stack: list[tuple[Remainder, tuple[Mark, ...]]] = [(item, ())]
        while stack:
            rest, marks = stack.pop()
            if rest and isinstance(rest[0], _Call):
                sides = self._rules[rest[0].name].sides
                stack.extend((side + rest[1:], marks) for side in reversed(sides))
            elif rest and isinstance(rest[0], Mark):
                stack.append((rest[1:], (*marks, rest[0])))
            else:
                done.append((rest, marks))
        return done


def _walk_back(end: Origin, origins: list[dict[Remainder, Origin]]) -> list[Mark]:
    item, marks = end
    pieces = [marks]
    for origin in reversed(origins):
        item, marks = origin[item]
        pieces.append(marks)
    return [mark for piece in reversed(pieces) for mark in piece]
