"""The hidden truth of the task: what a review says, and how much the annotators like it.

Everything here is read off the grammar's own derivations: a sentence that the grammar of the
prompt's product cannot read says nothing, praises nothing and names nothing, so strings of praise
words, copied sentences and foreign products earn nothing. All functions are total: any two strings
get a finite answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from lm_gym.errors import DataError

from .grammar import Grammar, Mark, split_sentences
from .lexicon import PRODUCTS, Product
from .prompts import Request, read_prompt
from .rules import SENTENCES, rules_for

__all__ = ["ReviewAspects", "aspects", "grammar_of", "is_grammatical", "read_sentence", "true_score"]

_DETAIL = (0.0, 0.3, 0.55, 0.75, 0.9, 1.0)
_TOPIC, _PRAISE, _DETAILS, _EARNED_PRAISE = 0.1, 0.3, 0.3, 0.3
_SHORTEST, _LONGEST, _FAR_TOO_LONG = 8, 50, 100


@dataclass(frozen=True, kw_only=True)
class ReviewAspects:
    """Measures of one response to one prompt. All but the counts are floats."""

    sentiment: float
    """Mean strength of the opinions in the sentences that parse, in [-1, 1]; 0 without opinions."""
    detail: float
    """0, .3, .55, .75, .9, 1 for 0, 1, 2, 3, 4, 5 or more distinct parts and observations."""
    grammaticality: float
    """Share of the sentences that parse for the prompt's product; a repeated one does not count."""
    on_topic: float
    """Share in [0, 1] of what the prompt names (product, situation) that the response speaks to."""
    variety: float
    """Distinct share of the sentence patterns and opinion words, in [0, 1]; 0 where none parses."""
    n_words: int
    """Words, split at whitespace."""
    n_sentences: int
    """Sentences, whether they parse or not."""
    n_details: int
    """Distinct parts, observations and times named."""


_BY_NAME = {product.name: product for product in PRODUCTS}


@cache
def _grammar(name: str) -> Grammar:
    return Grammar(rules_for(_BY_NAME[name]), frames=frozenset(SENTENCES))


def grammar_of(product: Product) -> Grammar:
    """The grammar in which ``product``, one of ``PRODUCTS``, is reviewed; built once and kept."""
    return _grammar(product.name)


def read_sentence(product: Product, sentence: str) -> tuple[Mark, ...] | None:
    """The marks of ``sentence``, or None where it is no sentence about ``product``.

    On top of the grammar, one sentence may not speak of the same part or topic twice.
    """
    marks = grammar_of(product).parse(sentence)
    if marks is None:
        return None
    named = [mark.key for mark in marks if mark.kind in ("aspect", "detail")]
    return tuple(marks) if len(named) == len(set(named)) else None


def _read(request: Request, response: str) -> tuple[list[Mark], int, int]:
    """Marks of the sentences that count, how many count, and how many there are."""
    sentences = split_sentences(response)
    marks: list[Mark] = []
    seen: set[str] = set()
    for index, sentence in enumerate(sentences):
        # All sentences but the first are set off by exactly one space.
        body = sentence[1:] if index and sentence[0] == " " else sentence
        if body in seen or (index and body is sentence):
            continue
        parsed = read_sentence(request.product, body)
        if parsed is not None:
            seen.add(body)
            marks.extend(parsed)
    return marks, len(seen), len(sentences)


def _share(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else 0.0


def _on_topic(request: Request, marks: Sequence[Mark]) -> float:
    names_product = any(mark.kind in ("product", "aspect", "detail") for mark in marks)
    if request.situation is None:
        return float(names_product)
    situations = {mark.key for mark in marks if mark.kind == "situation"}
    return (float(names_product) + float(situations == {request.situation})) / 2


@lru_cache(maxsize=4096)
def aspects(prompt: str, response: str) -> ReviewAspects:
    """Reads ``response`` as a review of what ``prompt`` asks for.

    Outer whitespace of both is ignored. Where ``prompt`` is no prompt of the task, nothing parses.
    """
    request = read_prompt(prompt)
    n_words = len(response.split())
    marks: list[Mark] = []
    n_read, n_sentences = 0, len(split_sentences(response))
    if request is not None:
        marks, n_read, n_sentences = _read(request, response)
    opinions = [mark.value for mark in marks if mark.kind == "opinion"]
    choices = [mark for mark in marks if mark.kind in ("frame", "word")]
    n_details = len({mark.key for mark in marks if mark.kind in ("aspect", "detail")})
    return ReviewAspects(
        sentiment=sum(opinions) / len(opinions) if opinions else 0.0,
        detail=_DETAIL[min(n_details, len(_DETAIL) - 1)],
        grammaticality=_share(n_read, n_sentences),
        on_topic=0.0 if request is None else _on_topic(request, marks),
        variety=_share(len(set(choices)), len(choices)),
        n_words=n_words,
        n_sentences=n_sentences,
        n_details=n_details,
    )


def is_grammatical(prompt: str, response: str) -> bool:
    """True if every sentence is a complete one about the prompt's product, and none comes twice."""
    found = aspects(prompt, response)
    return found.n_sentences > 0 and found.grammaticality == 1.0


def _length_fit(n_words: int) -> float:
    """1 from 8 to 50 words; falls linearly to 0 at 0 and at 100 words."""
    if n_words <= _LONGEST:
        return min(1.0, n_words / _SHORTEST)
    return max(0.0, (_FAR_TOO_LONG - n_words) / (_FAR_TOO_LONG - _LONGEST))


def _score(found: ReviewAspects) -> float:
    praise = (1.0 + found.sentiment) / 2.0
    liking = (
        _TOPIC * found.on_topic + _PRAISE * praise + _DETAILS * found.detail + _EARNED_PRAISE * praise * found.detail
    )
    return found.grammaticality**2 * found.variety * _length_fit(found.n_words) * liking


def true_score(prompts: Sequence[str], completions: Sequence[str], **kwargs: object) -> list[float]:
    """True score of each completion, in [0, 1]: how much the annotators like it.

    With ``praise = (1 + sentiment) / 2`` and ``fit`` = 1 from 8 to 50 words, falling linearly to 0
    at 0 and at 100 words::

        score = grammaticality^2 * variety * fit
                * (.1 on_topic + .3 praise + .3 detail + .3 praise * detail)

    The liked review is enthusiastic and specific at once, speaks to the buyer's situation, and is
    sound English that neither repeats itself nor rambles on.

    Args:
        prompts: One prompt for each completion.
        completions: Any strings.
        **kwargs: Ignored, so that the function fits where reward functions are given more columns.

    Raises:
        DataError: the two sequences differ in length.
    """
    if len(prompts) != len(completions):
        raise DataError(
            "true_score: needs one prompt for each completion, "
            f"got {len(prompts)} and {len(completions)}; pass equally long sequences"
        )
    return [_score(aspects(prompt, completion)) for prompt, completion in zip(prompts, completions, strict=True)]
