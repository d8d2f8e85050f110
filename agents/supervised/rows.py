"""Rows of supervised data as token ids, each with the mask of the tokens that are learned.

Three forms of row:

- ``{"prompt", "completion"}``: plain text. The completion follows the prompt exactly: no separator is added.
- ``{"instruction", "input"?, "output"}``: the prompt is made by ``instruction_template``.
- ``{"messages": [{"role", "content"}, ...]}``: a chat, through the tokenizer's own template. If the template
  marks what the assistant says (a generation block), every assistant turn is learned; if not, the last turn
  alone. The same in two lists, ``prompt`` and ``completion``, and ShareGPT's ``conversations`` are read as it;
  forms of messages: :mod:`lm_gym.sources.messages`.

Prompt and completion are tokenised apart and joined, because that is what the environment shows the model: it
tokenises the prompt alone and the model continues. (A chat whose template has generation blocks is the
exception: it is tokenised whole, and its special tokens keep the turns apart.) A completion ends with the stop token,
which is learned.

For an encoder-decoder (``apart``) they are two sequences. Its completion is encoded as the tokenizer encodes a target,
with the special tokens that it begins by (BART's ``<s>``), and of a chat the last turn alone is learned.

Knows: rows, the tokenizer, lengths. Does not know: the model, batches, the loss.
Shapes: S = tokens of one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm_gym.errors import DataError, UnsupportedModelError
from lm_gym.sources.messages import text_messages
from lm_gym.tools.json_values import require_unicode

__all__ = [
    "INSTRUCTION_TEMPLATE",
    "LongRowRule",
    "TokenizedRows",
    "TokenizedText",
    "prompt_and_completion",
    "tokenize_rows",
]

INSTRUCTION_TEMPLATE = "Instruction:\n{instruction}\n\nResponse:\n"
"""Prompt of an instruction row; an ``input`` follows the instruction after a blank line."""
LongRowRule = Literal["error", "truncate", "drop"]
_FORMS = "{prompt, completion}, {instruction, output} (input is optional) or {messages}"


@dataclass(frozen=True, kw_only=True)
class TokenizedText:
    """Token ids of one row, and which of them are learned."""

    input_ids: Sequence[int] | np.ndarray
    """Prompt, completion, stop token. Shape: (S,)."""
    loss_mask: Sequence[bool] | np.ndarray
    """True where the token is learned; carried from the text, never computed from ids. Shape: (S,)."""


@dataclass(frozen=True, kw_only=True)
class TokenizedRows:
    """Tokenised rows, and how many were shortened or left out."""

    rows: tuple[TokenizedText, ...]
    """At least one."""
    truncated_count: int = 0
    """Rows that lost tokens to fit."""
    dropped_count: int = 0
    """Rows that were left out because they were too long."""


def tokenize_rows(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    on_long_row: LongRowRule = "error",
    instruction_template: str = INSTRUCTION_TEMPLATE,
    source: str = "rows",
    apart: bool = False,
) -> TokenizedRows:
    """Tokenise rows of any of the three forms, with the mask of learned tokens.

    Args:
        rows: the rows; forms may be mixed.
        tokenizer: must have an EOS token.
        max_length: limit in tokens, the stop token included; None sets none. Apart it is that of the prompt, and of
            the completion with the start token that it is written after.
        on_long_row: "error" names the row. "truncate" takes tokens off the left of the prompt, keeps at least
            one, and then cuts the completion on the right (which then has no stop token). "drop" leaves the
            row out.
        instruction_template: has the field ``{instruction}``.
        source: name of the rows in error messages, such as the file's name. Rows are counted from 1.
        apart: prompt and completion are two sequences, of an encoder-decoder.

    Raises:
        DataError: no rows, a row of no known form, an empty prompt or completion, a row over the limit.
        UnsupportedModelError: the tokenizer has no EOS token, or no chat template where one is needed.
    """
    if tokenizer.eos_token_id is None:
        raise UnsupportedModelError(
            f"tokenizer {type(tokenizer).__name__}: must have an EOS token, since the stop token is learned; "
            "set tokenizer.eos_token"
        )
    kept: list[TokenizedText] = []
    truncated = dropped = 0
    for number, row in enumerate(rows, start=1):
        name = f"{source}, row {number}"
        text = _tokenize(row, tokenizer, instruction_template, name, apart=apart)
        if max_length is not None and _size(text, apart=apart) > max_length:
            if on_long_row == "drop":
                dropped += 1
                continue
            text, truncated = _shorten(text, max_length, on_long_row, name, apart=apart), truncated + 1
        kept.append(text)
    if not kept:
        raise DataError(f"{source}: must leave at least one row to train on, got {len(rows)} and dropped {dropped}")
    return TokenizedRows(rows=tuple(kept), truncated_count=truncated, dropped_count=dropped)


def prompt_and_completion(
    row: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    instruction_template: str = INSTRUCTION_TEMPLATE,
    name: str = "row",
) -> tuple[str, str]:
    """Split a row into the prompt to give the environment and the completion; a chat before its last turn.

    Raises:
        DataError: a row of no known form, or one without text.
        UnsupportedModelError: a chat, and the tokenizer has no chat template.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{name}: must be an object with the keys {_FORMS}, got {type(row).__name__}")
    if (messages := _messages_of(row)) is not None:
        return _split_chat(messages, tokenizer, name)
    if "prompt" in row and "completion" in row:
        return _text(row, "prompt", name), _text(row, "completion", name)
    if "instruction" in row and "output" in row:
        instruction = _text(row, "instruction", name)
        if row.get("input"):
            instruction += "\n\n" + _text(row, "input", name)
        return instruction_template.format(instruction=instruction), _text(row, "output", name)
    raise DataError(f"{name}: must have the keys {_FORMS}, got {sorted(map(str, row))}; rename the keys of the data")


def _messages_of(row: Any) -> Any:
    """The messages of a chat, or None for a row of text."""
    if not isinstance(row, Mapping):
        return None
    if "messages" in row or "conversations" in row:
        return row.get("messages", row.get("conversations"))
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return prompt + completion
    return None


def _text(row: Mapping[str, Any], key: str, name: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name}: {key!r} must be non-empty text, got {value!r}; fix or remove the row")
    return value


def _tokenize(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, instruction_template: str, name: str, *, apart: bool
) -> TokenizedText:
    messages = _messages_of(row)
    is_chat = messages is not None
    if is_chat and not apart and _marks_assistant(tokenizer):
        return _tokenize_marked_chat(messages, tokenizer, name)
    prompt, completion = prompt_and_completion(row, tokenizer, instruction_template=instruction_template, name=name)
    require_unicode(prompt + completion, name)
    # A template writes its own special tokens, so a chat gets none added.
    prompt_ids = _encode(tokenizer, prompt, special=not is_chat)
    if not prompt_ids:
        raise DataError(f"{name}: the prompt must have at least one token, got none for {prompt!r}; give it text")
    if apart and not is_chat:
        ids = _target(tokenizer, completion)
    else:
        ids, _ = _end_with_stop(_encode(tokenizer, completion, special=False), tokenizer)
    mask = [False] * len(prompt_ids) + [True] * len(ids)
    return TokenizedText(input_ids=(*prompt_ids, *ids), loss_mask=tuple(mask))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"])


def _target(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A completion with the special tokens that it begins by, and one stop token at its end."""
    whole = list(tokenizer(text_target=text, return_attention_mask=False, verbose=False)["input_ids"])
    specials = set(tokenizer.all_special_ids)
    while whole and whole[-1] in specials:  # the stop token, and what a multilingual tokenizer writes after it
        whole.pop()
    return [*whole, int(tokenizer.eos_token_id)]


def _end_with_stop(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], int]:
    """End ``ids`` by exactly one stop token.

    Returns: the new ids, and how many of the old ones were kept.

    White space that a template writes after the stop token goes: nothing follows a stop token in an episode.
    """
    eos = int(tokenizer.eos_token_id)
    last = max((i for i, token in enumerate(ids) if token == eos), default=None)
    if last is not None and not str(tokenizer.decode(ids[last + 1 :])).strip():
        return ids[: last + 1], last + 1
    return [*ids, eos], len(ids)


def _size(text: TokenizedText, *, apart: bool) -> int:
    """Tokens of a row; apart, of the longer of its two sequences, the start token counted."""
    learned = int(np.sum(text.loss_mask))
    return max(len(text.input_ids) - learned, learned + 1) if apart else len(text.input_ids)


def _shorten(text: TokenizedText, limit: int, rule: LongRowRule, name: str, *, apart: bool) -> TokenizedText:
    size = _size(text, apart=apart)
    if rule == "error":
        raise DataError(
            f"{name}: must have at most max_length = {limit} tokens, got {size}; raise max_length, shorten the row, "
            'or pass on_long_row="truncate" or "drop"'
        )
    prompt_size = list(text.loss_mask).index(True)
    if apart:
        keep = slice(max(0, prompt_size - limit), prompt_size + limit - 1)
        return TokenizedText(input_ids=text.input_ids[keep], loss_mask=text.loss_mask[keep])
    start = min(size - limit, prompt_size - 1)
    keep = slice(start, start + limit)
    return TokenizedText(input_ids=text.input_ids[keep], loss_mask=text.loss_mask[keep])


def _checked_chat(messages: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> list[dict[str, Any]]:
    if not getattr(tokenizer, "chat_template", None):
        raise UnsupportedModelError(
            f"tokenizer {type(tokenizer).__name__}: chat rows need a chat template, and it has none ({name}); "
            "set tokenizer.chat_template, or give prompt/completion rows"
        )
    try:
        turns = text_messages(messages, "'messages'")
    except DataError as error:
        raise DataError(f"{name}: {error}; fix or remove the row") from error
    roles = [turn["role"] for turn in turns]
    if len(turns) < 2 or roles[-1] != "assistant":
        raise DataError(f"{name}: 'messages' must end with an assistant turn that answers another, got roles {roles}")
    for turn in turns:
        says = turn["content"].strip() or turn.get("tool_calls")
        if turn["role"] == "assistant" and not says:
            raise DataError(f"{name}: every assistant turn must have content, got {turn!r}; fix or remove the row")
    return turns


def _split_chat(messages: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[str, str]:
    turns = _checked_chat(messages, tokenizer, name)
    prompt = str(_render(tokenizer, turns[:-1], name, add_generation_prompt=True, tokenize=False))
    whole = str(_render(tokenizer, turns, name, tokenize=False))
    if not whole.startswith(prompt):
        raise DataError(
            f"{name}: the chat template must write a conversation as a continuation of its beginning, and rewrites "
            f"{prompt[-40:]!r} once the answer is there; use another template, or prompt/completion rows"
        )
    return prompt, whole[len(prompt) :]


def _marks_assistant(tokenizer: PreTrainedTokenizerBase) -> bool:
    template = getattr(tokenizer, "chat_template", None)
    return isinstance(template, str) and "endgeneration" in template


def _tokenize_marked_chat(messages: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> TokenizedText:
    turns = _checked_chat(messages, tokenizer, name)
    encoded = _render(tokenizer, turns, name, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    marks = [bool(mark) for mark in encoded["assistant_masks"]]
    if not any(marks) or marks[0]:
        raise DataError(f"{name}: the template's generation blocks must mark some text after the first token")
    ids, kept = _end_with_stop(list(encoded["input_ids"]), tokenizer)
    mask = marks[:kept] + [True] * (len(ids) - kept)
    mask[-1] = True  # the stop token is learned even where the template closes its block before it
    return TokenizedText(input_ids=tuple(ids), loss_mask=tuple(mask))


def _render(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], name: str, **options: Any) -> Any:
    try:
        return tokenizer.apply_chat_template(turns, **options)
    except Exception as error:  # a template may raise anything; jinja2's own errors are not a public part of it
        raise DataError(f"{name}: the chat template refused the messages: {error}") from error
