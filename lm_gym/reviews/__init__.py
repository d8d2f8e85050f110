"""The built-in task "Reviews": a small world of short product reviews, offline and fully known.

A grammar written for this project makes the prompts, the corpus and the demonstrations, and reads
any response back; the hidden true score that simulated annotators follow is computed from that
reading. Nothing here needs a language model.

Text convention: a prompt ends with ``:``; a completion begins with one space. Scores ignore outer
whitespace.
"""

from __future__ import annotations

from .prompts import Split, prompts
from .sampling import Quality, corpus, demonstrations, sample_review
from .truth import ReviewAspects, aspects, is_grammatical, true_score

__all__ = [
    "Quality",
    "ReviewAspects",
    "Split",
    "aspects",
    "corpus",
    "demonstrations",
    "is_grammatical",
    "prompts",
    "sample_review",
    "true_score",
]
