"""Surface features: what can be counted in a response without understanding it.

Lengths, punctuation, repetition, and how much of the prompt comes back. They are beside the embedding, which normalises
much of this away, though people's judgements go by it. Nothing here depends on a language's words.

Knows: strings. Does not know: encoders, heads.

Shapes: B = texts, S = surface features.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

__all__ = ["SURFACE_NAMES", "surface_features"]

WORD = re.compile(r"\w+(?:['’]\w+)*")
SENTENCE_END = re.compile(r"[.!?…。！？]+")
BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
CAPITAL_START = re.compile(r"[.!?]\s+([^\W\d_])")
PUNCTUATION = {
    "commas": ",、，",
    "full stops": ".。",
    "question marks": "?？",
    "exclamation marks": "!！",
    "quotes": '"“”«»„',
    "colons and semicolons": ":;",
    "brackets": "()[]{}",
    "dashes": "-–—",
}
LONG_WORD, SHORT_WORD = 7, 3


def surface_features(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """Features of B responses, in the order of :data:`SURFACE_NAMES`.

    Args:
        prompts: B prompts.
        responses: one to each.

    Returns: Shape: (B, S), float32, finite for every text.
    """
    rows = [list(_features(prompt, text).values()) for prompt, text in zip(prompts, responses, strict=True)]
    return np.array(rows, dtype=np.float32).reshape(len(responses), len(SURFACE_NAMES))


def _features(prompt: str, text: str) -> dict[str, float]:
    words = [word.lower() for word in WORD.findall(text)]
    return _lengths(text, words) | _marks(text, words) | _repetition(text, words) | _overlap(prompt, words)


def _lengths(text: str, words: list[str]) -> dict[str, float]:
    sentences = [part for part in SENTENCE_END.split(text) if part.strip()]
    in_sentences = [len(part.split()) for part in sentences] or [0]
    letters = [len(word) for word in words] or [0]
    return {
        "log characters": float(np.log1p(len(text))),
        "log words": float(np.log1p(len(words))),
        "root of words": len(words) ** 0.5,
        "log sentences": float(np.log1p(len(sentences))),
        "log lines": float(np.log1p(text.count("\n"))),
        "mean word": float(np.mean(letters)),
        "deviation of words": float(np.std(letters)),
        "long words": float(np.mean([count >= LONG_WORD for count in letters])),
        "short words": float(np.mean([count <= SHORT_WORD for count in letters])),
        "log mean sentence": float(np.log1p(np.mean(in_sentences))),
        "log longest sentence": float(np.log1p(max(in_sentences))),
        "log shortest sentence": float(np.log1p(min(in_sentences))),
        "one sentence": float(len(sentences) <= 1),
    }


def _marks(text: str, words: list[str]) -> dict[str, float]:
    count = max(len(words), 1)
    starts = CAPITAL_START.findall(text)
    found = {f"{name} per word": sum(map(text.count, marks)) / count for name, marks in PUNCTUATION.items()}
    return found | {
        "log bullets": float(np.log1p(len(BULLET.findall(text)))),
        "digits": sum(map(str.isdigit, text)) / max(len(text), 1),
        "capitals": sum(map(str.isupper, text)) / max(len(text), 1),
        "shouted words": sum(len(word) > 1 and word.isupper() for word in text.split()) / count,
        "starts with a capital": float(text.lstrip()[:1].isupper()),
        "ends with a mark": float(bool(SENTENCE_END.search(text.rstrip()[-1:]))),
        "sentences that start with a capital": sum(map(str.isupper, starts)) / len(starts) if starts else 0.5,
        "lonely small i": sum(word == "i" for word in text.split()) / count,
        "no space after a mark": len(re.findall(r"[,.!?;][^\W\d_]", text)) / count,
        "runs of marks": len(re.findall(r"[!?.]{2,}", text)) / count,
        "links": float("http" in text or "www." in text),
        "log other scripts": float(np.log1p(sum(ord(letter) > 0x2FF for letter in text))),
    }


def _repetition(text: str, words: list[str]) -> dict[str, float]:
    count = max(len(words), 1)
    pairs = list(pairwise(words))
    coded = text.encode("utf-8", "replace")
    return {
        "different words": len(set(words)) / count,
        "log different words": float(np.log1p(len(set(words)))),
        "share of the commonest word": max(Counter(words).values(), default=0) / count,
        "pairs of words said again": 1 - len(set(pairs)) / len(pairs) if pairs else 0.0,
        "word said twice in a row": sum(first == second for first, second in pairs) / count,
        "log compressed bytes": float(np.log1p(len(zlib.compress(coded)))),
        "compression": len(zlib.compress(coded)) / max(len(coded), 1) if coded else 0.0,
    }


def _overlap(prompt: str, words: list[str]) -> dict[str, float]:
    asked, said = {word.lower() for word in WORD.findall(prompt)}, set(words)
    long_asked = {word for word in asked if len(word) > SHORT_WORD}
    return {
        "words that are the prompt's": sum(word in asked for word in words) / max(len(words), 1),
        "prompt's words that come back": len(asked & said) / max(len(asked), 1),
        "prompt's longer words that come back": len(long_asked & said) / max(len(long_asked), 1),
        "log longer words shared": float(np.log1p(sum(word in long_asked for word in words))),
    }


SURFACE_NAMES: tuple[str, ...] = tuple(_features("", ""))
"""Names of the features, in order."""
