"""The prompts of the task: one line for each product, way of asking and situation of the buyer.

A prompt ends with a colon and has no trailing space; a completion begins with one space. So
``prompt + completion`` is the text of the language model, and a byte-level tokenizer meets the same
tokens whether it encodes the two together or apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from lm_gym.errors import ConfigError

from .lexicon import PRODUCTS, SITUATIONS, Product, article

__all__ = ["Request", "Split", "prompts", "read_prompt"]

Split = Literal["train", "held_out"]

_FORMS = (
    "Review of {a_product}{bought}:",
    "Customer review, {product}{plain}:",
    "What I think of my {product}{bought}:",
    "{A_product}{plain}, reviewed:",
)
_HELD_OUT_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class Request:
    """Content of a prompt."""

    product: Product
    """The product to review."""
    situation: str | None
    """Key of ``SITUATIONS``, or None where the prompt names none."""


def _line(form: str, product: Product, situation: str | None) -> str:
    plain = "" if situation is None else f" for {SITUATIONS[situation][0]}"
    name = product.name
    noun_phrase = name if product.plural else f"{article(name)} {name}"
    return form.format(
        a_product=noun_phrase,
        A_product=noun_phrase[0].upper() + noun_phrase[1:],
        product=name,
        plain=plain,
        bought=f", bought{plain}" if plain else "",
    )


@cache
def _table() -> dict[str, Request]:
    return {
        _line(form, product, situation): Request(product=product, situation=situation)
        for product in PRODUCTS
        for situation in (None, *product.situations)
        for form in _FORMS
    }


def prompts(split: Split) -> list[str]:
    """All prompts of one split, in a fixed order.

    Every fifth line of the table of all prompts is held out. Each
    product, situation and way of asking also occurs in training; only the combination is new.

    Raises:
        ConfigError: ``split`` is neither ``train`` nor ``held_out``.
    """
    if split not in ("train", "held_out"):
        raise ConfigError(f"prompts: split must be 'train' or 'held_out', got {split!r}; pass one of the two")
    held_out = split == "held_out"
    return [line for index, line in enumerate(_table()) if (index % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1) == held_out]


def read_prompt(prompt: str) -> Request | None:
    """Content of ``prompt``; outer whitespace is ignored. None where it is no prompt of the task."""
    return _table().get(prompt.strip())
