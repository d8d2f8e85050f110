"""Prompts and answers in every form that rows give them: text, messages, whole conversations, labels.

Knows: what a prompt, an answer or a label may look like. Does not know: which keys a row has them under.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm_gym.errors import DataError
from lm_gym.sources.transcripts import (
    answer_of,
    common_beginning,
    conversation_of,
    holds_answer,
    split_alike,
    transcript_of,
)

__all__ = ["Row", "as_list", "liked", "pair_of", "prompt_of", "require_keys", "text_of"]

Row = Mapping[str, Any]
_UP = frozenset(
    {"1", "true", "yes", "up", "good", "like", "liked", "positive", "desirable", "chosen", "thumbs_up", "+1"}
)
_DOWN = frozenset(
    {
        "0",
        "-1",
        "false",
        "no",
        "down",
        "bad",
        "dislike",
        "disliked",
        "negative",
        "undesirable",
        "rejected",
        "thumbs_down",
    }
)
"""Labels of a thumb in words and numbers, in lower case."""


def as_list(value: Any, name: str) -> Sequence[Any]:
    """The value. Raises: DataError: it is no list."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DataError(f"{name} must be a list, got {str(value)[:80]!r}")
    return value


def require_keys(row: Row, keys: Sequence[str]) -> None:
    """Raises: DataError: a key is missing."""
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"has no {missing[0]!r}, got the keys {sorted(row)}")


def prompt_of(prompt: Any) -> str:
    """A prompt as text; messages become a transcript. Raises: DataError: it is neither."""
    return prompt if isinstance(prompt, str) else transcript_of(as_list(prompt, "prompt"))


def text_of(side: Any) -> Any:
    """An answer as text: one message of the assistant, or the value itself, which the record checks."""
    return answer_of(side) if isinstance(side, list | tuple | Mapping) else side


def liked(label: Any) -> bool:
    """A thumb from a label: true or false, 1 or 0 (or -1), or a word such as "good" or "rejected".

    Raises:
        DataError: it is none of these.
    """
    named = label.strip().lower() if isinstance(label, str) else str(label).lower().removesuffix(".0")
    if isinstance(label, str | bool | int | float) and named in _UP | _DOWN:
        return named in _UP
    raise DataError(f"label must be true or false, 1 or 0, or one of {', '.join(sorted(_UP | _DOWN))}, got {label!r}")


def pair_of(row: Row) -> tuple[str, tuple[Any, Any]]:
    """The prompt, the chosen and the rejected answer of a row.

    The sides are answers beside a prompt, or whole conversations that begin alike, with or without a prompt beside
    them; without one two plain texts may begin alike too (the implicit prompt of TRL's data formats).

    Raises:
        DataError: a side is missing, the sides are of two forms, do not begin alike, or not with the prompt.
    """
    require_keys(row, ("chosen", "rejected"))
    sides = (row["chosen"], row["rejected"])
    prompt = row.get("prompt")
    if prompt is None:
        return _implicit(*sides)
    if not any(isinstance(side, list | tuple) and len(side) > 1 for side in sides):
        return prompt_of(prompt), (text_of(sides[0]), text_of(sides[1]))
    found, answers = _implicit(*sides)
    begins = (
        prompt.strip() if isinstance(prompt, str) else transcript_of(as_list(prompt, "prompt")).rpartition("\n\n")[0]
    )
    if begins not in found:
        raise DataError(f"prompt must be part of the conversations in chosen and rejected, got {str(prompt)[:80]!r}")
    return found, answers


def _implicit(chosen: Any, rejected: Any) -> tuple[str, tuple[str, str]]:
    sides = (chosen, rejected)
    if all(isinstance(side, list | tuple) for side in sides):
        return split_alike(conversation_of(chosen), conversation_of(rejected))
    if not all(isinstance(side, str) for side in sides):
        kinds = " and ".join(type(side).__name__ for side in sides)
        raise DataError(f"chosen and rejected must both be text or both be lists of messages, got {kinds}")
    return split_alike(chosen, rejected) if any(map(holds_answer, sides)) else _split_texts(chosen, rejected)


def _split_texts(first: str, second: str) -> tuple[str, tuple[str, str]]:
    """Divide two texts before the last space up to which they are alike, as TRL's ``extract_prompt`` does (which may
    divide a word)."""
    space = re.search(r"\s+\S*\Z", common_beginning(first, second))
    if space is None or space.start() == 0:
        raise DataError(
            "chosen and rejected must begin with the same prompt where the row has no 'prompt', "
            f"got {first[:40]!r} and {second[:40]!r}"
        )
    return first[: space.start()], (first[space.start() :], second[space.start() :])
