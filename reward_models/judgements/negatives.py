"""Answers that are worse than real ones by their making: padded, cut off, empty.

A reward model that never saw such answers pays for length (Singhal et al. 2023, arXiv:2310.03716). Pairs of a real
answer and its spoiled form teach it not to. The padding is made of real text, so that the probes of a card, which are
made otherwise, still measure something that was not learned.

Knows: judgements and texts. Does not know: models, probes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from lm_gym.errors import DataError
from lm_gym.tools.settings import PositiveShare, Seed, checked

from .record import Judgement, require_judgements

__all__ = ["first_words", "spoiled_pairs"]

SENTENCES = re.compile(r"(?<=[.!?])\s+")
CUT = (0.2, 0.7)
"""Share of the words that a cut answer keeps, at least and at most."""


def spoiled_pairs(judgements: Sequence[Judgement], *, share: float, seed: int = 0) -> list[Judgement]:
    """Pairs in which a preferred answer beats its own padded, cut or empty form, each a third of them.

    Half of the padded answers say their own sentences again, half go on with an answer to another prompt.

    Args:
        judgements: of any kinds; those that compare nothing are left out.
        share: pairs made, as a share of the comparisons in the judgements, in (0, 1].
        seed: of the draws.

    Raises:
        ConfigError: the share is out of range, or the seed is none.
        DataError: nothing is compared.
    """
    share = checked("spoiled_pairs: share", share, PositiveShare)
    judgements = require_judgements("spoiled_pairs", judgements)
    won = [(one.prompt, one.texts[better]) for one in judgements if one.compares for better, _ in one.pairs()]
    if not won:
        raise DataError("spoiled_pairs: needs judgements that compare two responses, got none")
    rng = random.Random(f"spoiled/{checked('spoiled_pairs: seed', seed, Seed)}")
    chosen = rng.sample(won, max(1, round(share * len(won))))
    made = {}
    for number, (prompt, text) in enumerate(chosen):
        spoiled = _spoiled(number % 3, prompt, text, won, rng)
        if spoiled.strip() != text.strip():
            made[prompt, text, spoiled] = Judgement.pair(prompt, text, spoiled)
    return list(made.values())


def _spoiled(kind: int, prompt: str, text: str, won: Sequence[tuple[str, str]], rng: random.Random) -> str:
    if kind == 0:
        return ""
    if kind == 1:
        return first_words(text, round(rng.uniform(*CUT) * len(text.split())))
    other_prompt, other = rng.choice(won)
    if rng.random() < 0.5 or other_prompt == prompt:
        sentences = SENTENCES.split(text)
        return f"{text} {' '.join(rng.choices(sentences, k=len(sentences)))}"
    return f"{text} {other}"


def first_words(text: str, count: int) -> str:
    """The beginning of a text up to the end of so many words, at least one; its white space is as it was."""
    ends = [word.end() for word in re.finditer(r"\S+", text)][: max(1, count)]
    return text[: ends[-1]] if ends else text
