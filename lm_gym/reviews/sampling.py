"""Draws whole reviews: a plan (verdict, sentences and their tone), then a sentence for each part.

It knows how a review hangs together; single sentences come from ``grammar``. Everything is a pure
function of its arguments and the given generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from lm_gym.errors import ConfigError, PromptError
from lm_gym.tools.settings import Whole, checked

from .lexicon import SITUATIONS
from .prompts import Request, prompts, read_prompt
from .truth import grammar_of

__all__ = ["Quality", "corpus", "demonstrations", "sample_review"]

Quality = Literal["corpus", "good"]

Choice = TypeVar("Choice")

_MAX_DRAWS = 50
_MAX_SENTENCES = 5
_SITUATION_KEYS = list(SITUATIONS)


@dataclass(frozen=True, kw_only=True)
class _Tone:
    """Style of one kind of reviewer; every mapping goes from a choice to its probability."""

    opening: dict[str, float]
    body: dict[str, float]
    fit: str
    ending: dict[str, float]


_TONES: dict[str, _Tone] = {
    "great": _Tone(
        opening={"OPEN_GREAT": 0.8, "": 0.2},
        body={"BODY_GOOD": 1.0},
        fit="FIT_GOOD",
        ending={"END_GREAT": 0.6, "": 0.4},
    ),
    "good": _Tone(
        opening={"OPEN_GOOD": 0.8, "": 0.2},
        body={"BODY_GOOD": 0.8, "BODY_MIXED": 0.2},
        fit="FIT_GOOD",
        ending={"END_GOOD": 0.6, "": 0.4},
    ),
    "mixed": _Tone(
        opening={"OPEN_MIXED": 0.8, "": 0.2},
        body={"BODY_GOOD": 0.2, "BODY_MIXED": 0.6, "BODY_BAD": 0.2},
        fit="FIT_MIXED",
        ending={"END_MIXED": 0.6, "": 0.4},
    ),
    "poor": _Tone(
        opening={"OPEN_POOR": 0.8, "": 0.2},
        body={"BODY_BAD": 0.8, "BODY_MIXED": 0.2},
        fit="FIT_BAD",
        ending={"END_POOR": 0.6, "": 0.4},
    ),
    "awful": _Tone(
        opening={"OPEN_AWFUL": 0.8, "": 0.2},
        body={"BODY_BAD": 1.0},
        fit="FIT_BAD",
        ending={"END_AWFUL": 0.6, "": 0.4},
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """A population of reviewers: shares of tones, of body lengths, of situation and of asides."""

    tones: dict[str, float]
    n_bodies: dict[int, float]
    fit: float
    aside: float


_WRITERS: dict[str, _Writer] = {
    "corpus": _Writer(
        tones={"great": 0.16, "good": 0.22, "mixed": 0.24, "poor": 0.2, "awful": 0.18},
        n_bodies={0: 0.14, 1: 0.42, 2: 0.32, 3: 0.12},
        fit=0.4,
        aside=0.25,
    ),
    "good": _Writer(
        tones={"great": 0.7, "good": 0.3},
        n_bodies={2: 0.65, 3: 0.35},
        fit=0.9,
        aside=0.0,
    ),
}


def _choose(rng: np.random.Generator, shares: dict[Choice, float]) -> Choice:
    point = rng.random() * sum(shares.values())
    for choice, share in shares.items():
        point -= share
        if point < 0.0:
            return choice
    return next(reversed(shares))


def _plan(rng: np.random.Generator, writer: _Writer, *, situation: bool) -> list[str]:
    """Names of the sentence rules of one review, in order; at least one, at most five."""
    tone = _TONES[_choose(rng, writer.tones)]
    bodies = [_choose(rng, tone.body) for _ in range(_choose(rng, writer.n_bodies))]
    if situation and rng.random() < writer.fit:
        bodies.insert(int(rng.integers(len(bodies) + 1)), tone.fit)
    opening, ending = _choose(rng, tone.opening), _choose(rng, tone.ending)
    # A verdict alone is no review.
    if not bodies and not opening:
        opening = next(iter(tone.opening))
    plan = [name for name in (opening, *bodies) if name]
    if rng.random() < writer.aside:
        plan.insert(int(rng.integers(1, len(plan) + 1)), "ASIDE")
    return [*plan[: _MAX_SENTENCES - 1], ending] if ending else plan[:_MAX_SENTENCES]


def _draw(rng: np.random.Generator, request: Request, rule: str, taken: set[str]) -> tuple[str, set[str]] | None:
    """One sentence about nothing that was ``taken``, with what it names; None if none was found."""
    fixed = {} if request.situation is None else {"SITUATION": _SITUATION_KEYS.index(request.situation)}
    for _ in range(_MAX_DRAWS):
        sentence, marks = grammar_of(request.product).sample(rule, rng, fixed=fixed)
        named = [mark.key for mark in marks if mark.kind in ("aspect", "detail")]
        if len(set(named)) == len(named) and not taken.intersection(named):
            return sentence, set(named)
    return None


def sample_review(prompt: str, rng: np.random.Generator, *, quality: Quality = "corpus") -> str:
    """Draws one completion of ``prompt``: a space, then one to five sentences.

    Args:
        prompt: A prompt of the task, of either split.
        rng: Where all randomness comes from.
        quality: ``corpus`` draws from all kinds of reviews; ``good`` from specific praise.

    Raises:
        PromptError: ``prompt`` is no prompt of the task.
        ConfigError: ``quality`` is unknown.
    """
    request = read_prompt(prompt)
    if request is None:
        raise PromptError(
            f"sample_review: the prompt must be one of the task, got {prompt!r}; "
            "take one from prompts('train') or prompts('held_out')"
        )
    if quality not in _WRITERS:
        raise ConfigError(f"sample_review: quality must be 'corpus' or 'good', got {quality!r}; pass one of the two")
    plan = _plan(rng, _WRITERS[quality], situation=request.situation is not None)
    sentences: list[str] = []
    taken: set[str] = set()
    for rule in plan:
        drawn = _draw(rng, request, rule, taken)
        if drawn is not None and drawn[0] not in sentences:
            sentences.append(drawn[0])
            taken |= drawn[1]
    return " " + " ".join(sentences)


def _rows(size: int, seed: int, quality: Quality) -> list[dict[str, str]]:
    size = checked("reviews: size", size, Whole)
    rng = np.random.default_rng(checked("reviews: seed", seed, Whole))
    train = prompts("train")
    chosen = rng.integers(len(train), size=size)
    return [{"prompt": train[i], "completion": sample_review(train[i], rng, quality=quality)} for i in chosen]


def corpus(size: int, seed: int) -> list[dict[str, str]]:
    """``size`` rows of ``prompt`` (training split only) and ``completion``, of all qualities.

    Raises:
        ConfigError: ``size`` is negative.
    """
    return _rows(size, seed, "corpus")


def demonstrations(size: int, seed: int) -> list[dict[str, str]]:
    """As ``corpus``, but good reviews only: glad, specific and to the point.

    Raises:
        ConfigError: ``size`` is negative.
    """
    return _rows(size, seed, "good")
