"""Prompts cut to a number of tokens: BOS, markup and generation prompt stay, text goes.

A text keeps the special tokens that its tokenizer puts around it, and loses tokens on the named side.

A chat loses its oldest turns first, up to a turn of the user, but never the system messages it opens with, nor anything
from the last turn of the user on. If that is not enough, the longest turn that is left and not a system message loses
text on the named side. The chat is then rendered again, so its markup is that of a shorter chat.

What is left holds at least one token of text; what cannot be cut so is a :class:`PromptError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from lm_gym.errors import PromptError

__all__ = ["CutPrompt", "Render", "cut_chat", "cut_text"]

Side = Literal["left", "right"]
Render = Callable[[Sequence[Mapping[str, Any]]], str]
"""Turns to text, markup and generation prompt included."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_TOKENS_OF_A_CHARACTER = 4


class CutPrompt(NamedTuple):
    """A prompt that was made to fit."""

    text: str
    """Text of its tokens, a chat's markup included."""
    ids: list[int]
    """Token ids."""
    turns: Sequence[Mapping[str, Any]] | None = None
    """Turns of a chat that are left; None of a text."""


def cut_text(tokenizer: Any, text: str, limit: int, side: Side) -> list[int]:
    """Token ids of a text that is too long, at most ``limit`` of them.

    Args:
        tokenizer: adds its special tokens.
        text: at least one token.
        limit: in tokens.
        side: the end that loses tokens. A character that the cut would divide goes as a whole.

    Raises:
        PromptError: the special tokens leave no room.
    """
    whole, body = (tokenizer(text, add_special_tokens=each, verbose=False)["input_ids"] for each in (True, False))
    added = len(whole) - len(body)
    before = next((n for n in range(added + 1) if whole[n : n + len(body)] == body), 0)
    room = limit - added
    if room < 1:
        raise PromptError(
            f"its {added} special tokens leave no room for text within max_prompt_tokens = {limit}; raise the limit"
        )
    kept = body[-room:] if side == "left" else body[:room]
    for _ in range(MAX_TOKENS_OF_A_CHARACTER - 1):
        shown = tokenizer.decode(kept)
        divided = shown.startswith(REPLACEMENT) if side == "left" else shown.endswith(REPLACEMENT)
        if not divided or REPLACEMENT in text or len(kept) == 1:
            break
        kept = kept[1:] if side == "left" else kept[:-1]
    return [*whole[:before], *kept, *whole[before + len(body) :]]


def cut_chat(turns: Sequence[Mapping[str, Any]], tokenizer: Any, render: Render, limit: int, side: Side) -> CutPrompt:
    """Text, turns and token ids of a chat that is too long, at most ``limit`` of them.

    Args:
        turns: ``{"role": ..., "content": ...}`` each.
        tokenizer: encodes what was rendered, and says where its tokens begin in a text.
        render: the chat template.
        limit: in tokens.
        side: the end at which the text of the longest turn is cut.

    Raises:
        PromptError: what may not be cut is too long already.
    """

    def encoded(shorter: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]]:
        text = render(shorter)
        return text, list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    first = next((n for n, turn in enumerate(turns) if turn.get("role") != "system"), len(turns))
    starts = [n for n in range(first + 1, len(turns)) if turns[n].get("role") == "user"]
    kept = list(turns)
    for start in starts:
        kept = [*turns[:first], *turns[start:]]
        text, ids = encoded(kept)
        if len(ids) <= limit:
            return CutPrompt(text, ids, kept)
    shortened = _shorter(kept, first, tokenizer, side)
    # The shortest is the last; a longer one has as many tokens or more, so the longest that fits is found by halving.
    low, high = 0, len(shortened) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(encoded(shortened[middle])[1]) <= limit else (middle + 1, high)
    for candidate in shortened[low:]:
        text, ids = encoded(candidate)
        if len(ids) <= limit:
            return CutPrompt(text, ids, candidate)
    raise PromptError(
        f"its system messages, markup and generation prompt take {len(ids)} tokens with the last turn cut to one, "
        f"which is over max_prompt_tokens = {limit}; raise the limit or shorten the system message"
    )


def _shorter(
    turns: Sequence[Mapping[str, Any]], first: int, tokenizer: Any, side: Side
) -> list[Sequence[Mapping[str, Any]]]:
    """The chat with ever less text in its longest turn from ``first`` on, token by token, down to one."""
    lengths = [len(turn["content"]) if isinstance(turn.get("content"), str) else 0 for turn in turns[first:]]
    if not any(lengths):
        return [turns]
    index = first + lengths.index(max(lengths))
    content = turns[index]["content"]
    bounds = list(range(1, len(content)))
    if getattr(tokenizer, "is_fast", False):
        offsets = tokenizer(content, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        bounds = sorted({start for start, _ in offsets} - {0})
    texts = [content[n:] for n in bounds] if side == "left" else [content[:n] for n in reversed(bounds)]
    return [[*turns[:index], {**turns[index], "content": text}, *turns[index + 1 :]] for text in texts or [content]]
