"""Prompts: read from wherever they are, tokenised once, length-checked before anything runs.

Sources: a list of strings or rows, a file of rows (:mod:`lm_gym.sources.rows`), a ``datasets.Dataset``, or a hub id. A
row has ``prompt`` (text) or ``messages`` (a chat, rendered by the tokenizer's own template with the generation prompt
added); its other columns are kept for the reward model. What a reward model reads of a chat is a choice of its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lm_gym.errors import ConfigError, DataError, PromptError
from lm_gym.prompt_cutting import CutPrompt, cut_chat, cut_text
from lm_gym.sources.messages import text_messages, with_calls
from lm_gym.sources.rows import SUFFIXES, is_row_file, read_rows
from lm_gym.sources.transcripts import transcript_of
from lm_gym.tools.extras import require
from lm_gym.tools.json_values import check_row, require_unicode
from lm_gym.tools.settings import Count, Text, checked, shown

__all__ = [
    "Prompt",
    "PromptSet",
    "PromptTruncation",
    "ScoredChat",
    "checked_tokenizer",
    "load_prompts",
    "with_system_prompt",
]

PromptTruncation = Literal["error", "left", "right"]
ScoredChat = Literal["template", "transcript", "last_message"]
"""Text of a chat that is scored: as the template wrote it, as judged chats are written (``\\n\\nHuman: ...``), or its
last message alone."""
PromptSource = "str | Path | Sequence[str | Mapping[str, Any]] | PromptSet"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt: the text that a reward model reads and the tokens that the language model continues."""

    text: str
    """Text that is shown and scored; of a chat that of :data:`ScoredChat`."""
    ids: np.ndarray
    """Token ids. Shape: (P,), int64, P >= 1."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Other columns of the row (``answer``, ...); reward models may ask for it by name, nothing else reads it."""

    def key(self) -> str:
        """Text that tells it from other prompts: its own text, tokens and columns, as JSON."""
        return json.dumps([self.text, self.ids.tolist(), repr(sorted(self.columns.items()))])


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """A tokenised collection of prompts, drawn from uniformly."""

    prompts: tuple[Prompt, ...]
    """At least one."""
    max_prompt_tokens: int
    """No prompt is longer than this."""
    truncated_count: int = 0
    """Number of prompts that were shortened to fit."""
    truncation: PromptTruncation = "error"
    """Treatment of longer prompts."""
    system_prompt: str | None = None
    """System message of chats that have none."""
    scored_chat: ScoredChat = "template"
    """Text of a chat that is scored."""

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> Prompt:
        return self.prompts[index]

    def draw(self, rng: np.random.Generator) -> Prompt:
        """One prompt, uniformly, by the generator that the environment owns."""
        return self.prompts[int(rng.integers(len(self.prompts)))]

    def load_alike(self, source: Any, tokenizer: Any, *, max_prompt_tokens: int | None, vocab_size: int) -> PromptSet:
        """Load other prompts by this set's rules. Args, Raises: see :func:`load_prompts`."""
        return load_prompts(
            source,
            tokenizer,
            max_prompt_tokens=max_prompt_tokens,
            truncation=self.truncation,
            system_prompt=self.system_prompt,
            scored_chat=self.scored_chat,
            vocab_size=vocab_size,
        )


def load_prompts(
    source: Any,
    tokenizer: Any,
    *,
    max_prompt_tokens: int | None = None,
    truncation: PromptTruncation = "error",
    system_prompt: str | None = None,
    scored_chat: ScoredChat = "template",
    vocab_size: int | None = None,
) -> PromptSet:
    """Read, render and tokenise prompts.

    Args:
        source: strings, rows, a file of rows, a ``datasets.Dataset``, a hub id, or a PromptSet (returned as it is).
        tokenizer: the reference model's tokenizer.
        max_prompt_tokens: limit in tokens; None takes the longest prompt of the set.
        truncation: treatment of a longer one: "error", or it loses text on its "left" or "right" and keeps its
            BOS, markup and generation prompt (see :mod:`lm_gym.prompt_cutting`).
        system_prompt: system message of every chat that has none; with it, a text is the user's turn of a chat.
        scored_chat: text of a chat that a reward model reads: "template" has the template's markup, "transcript" is
            the form of judged chats, "last_message" is the last message alone.
        vocab_size: of the model; None does not check the ids.

    Raises:
        ConfigError: limit, truncation or tokenizer is of another kind.
        PromptError: no prompts, an empty one, one over the limit that may not or cannot be cut, a row without the keys,
            no chat template, or one that leaves out a system message or the message that is to be answered.
    """
    max_prompt_tokens = checked("prompts: max_prompt_tokens", max_prompt_tokens, Count | None)
    checked_tokenizer(tokenizer)
    truncation = checked("prompt_truncation", truncation, PromptTruncation)
    system_prompt = checked("prompts: system_prompt", system_prompt, Text | None)
    scored_chat = checked("prompts: scored_chat", scored_chat, ScoredChat)
    if isinstance(source, PromptSet):
        if system_prompt is not None or scored_chat != "template":
            raise PromptError(
                "prompts: system_prompt and scored_chat must be left out with prompts that are tokenised already, got "
                f"{shown(system_prompt)} and {shown(scored_chat)}; give them to load_prompts"
            )
        return _fitting(source, max_prompt_tokens)
    rows = [_checked(row, number, system_prompt) for number, row in enumerate(_rows(source), start=1)]
    texts = [_render(row, number, tokenizer) for number, row in enumerate(rows, start=1)]
    if not texts:
        raise PromptError("prompts: must hold at least one prompt, got none")
    quiet = {"return_attention_mask": False, "verbose": False}  # of what is too long, this module tells
    encoded = [tokenizer(text, add_special_tokens=not is_chat, **quiet)["input_ids"] for text, is_chat in texts]
    limit = max_prompt_tokens or max(len(ids) for ids in encoded)
    prompts, truncated = [], 0
    for number, ((text, is_chat), ids) in enumerate(zip(texts, encoded, strict=True), start=1):
        turns = _turns(rows[number - 1]) if is_chat else None
        if not ids:
            raise PromptError(f"prompt {number}: must not be empty, got {text!r} (no tokens)")
        if len(ids) > limit:
            cut, truncated = _cut(text, ids, turns, tokenizer, limit, truncation, number), truncated + 1
            text, ids, turns = cut.text, cut.ids, cut.turns
        if vocab_size is not None and max(ids) >= vocab_size:
            raise PromptError(
                f"prompt {number}: its ids must lie below the model's {vocab_size}, got {max(ids)} in {text[:50]!r}; "
                "use the model's tokenizer"
            )
        scored = text if turns is None else _scored(turns, text, scored_chat, number)
        prompts.append(Prompt(text=scored, ids=np.asarray(ids, dtype=np.int64), columns=_columns(rows[number - 1])))
    if truncated:
        logger.warning("%d of %d prompts were cut on the %s to %d tokens", truncated, len(texts), truncation, limit)
    return PromptSet(
        prompts=tuple(prompts),
        max_prompt_tokens=limit,
        truncated_count=truncated,
        truncation=truncation,
        system_prompt=system_prompt,
        scored_chat=scored_chat,
    )


def checked_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer itself. Raises: ConfigError: it is not called with text, or does not turn ids into text."""
    if not callable(tokenizer) or not callable(getattr(tokenizer, "decode", None)):
        raise ConfigError(
            f"tokenizer: must be a tokenizer as transformers has them, got {shown(tokenizer)}; load one by "
            "lm_gym.models.language_model.load_tokenizer(folder or hub id)"
        )
    return tokenizer


def _fitting(prompts: PromptSet, limit: int | None) -> PromptSet:
    if limit is not None and prompts.max_prompt_tokens > limit:
        raise PromptError(
            f"prompts: a tokenised set must be within max_prompt_tokens = {limit}, got one of up to "
            f"{prompts.max_prompt_tokens} tokens; load it again with this limit"
        )
    return prompts if limit is None else replace(prompts, max_prompt_tokens=limit)


def _cut(
    text: str, ids: list[int], turns: Any, tokenizer: Any, limit: int, truncation: PromptTruncation, number: int
) -> CutPrompt:
    """A shorter prompt. Args: turns: of a chat; None for a text."""
    if truncation == "error":
        raise PromptError(
            f"prompt {number}: must have at most max_prompt_tokens = {limit} tokens, got {len(ids)} ({text[:50]!r}); "
            'raise the limit, shorten the prompt, or pass prompt_truncation="left" or "right"'
        )
    try:
        if turns is not None:
            return cut_chat(turns, tokenizer, lambda shorter: _rendered(shorter, tokenizer), limit, truncation)
        kept = cut_text(tokenizer, text, limit, truncation)
    except PromptError as error:
        raise PromptError(f"prompt {number}: {error} ({text[:50]!r})") from error
    return CutPrompt(str(tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)), kept)


def _scored(turns: Sequence[Mapping[str, Any]], text: str, scored_chat: ScoredChat, number: int) -> str:
    """Text of a chat that a reward model reads. Args: text: as the template wrote it."""
    if scored_chat == "template":
        return text
    try:
        return transcript_of(turns) if scored_chat == "transcript" else with_calls(turns[-1])
    except DataError as error:
        raise PromptError(f"prompt {number}: {error}") from error


def _rows(source: Any) -> Iterable[Any]:
    if is_row_file(source):
        return read_rows(source)
    if isinstance(source, str):
        return _hub_rows(source)
    if isinstance(source, Mapping | bytes) or not isinstance(source, Iterable):
        raise PromptError(
            f"prompts: must be strings, rows, a file of rows, a Dataset or a hub id, got {type(source).__name__}"
        )
    is_table = hasattr(source, "column_names") or hasattr(source, "iloc")  # a data set; a data frame, to be refused
    return read_rows(source, name="prompts") if is_table else source


def _hub_rows(name: str) -> Iterable[Any]:
    if Path(name).is_file():
        raise PromptError(f"prompts {name!r}: a file of prompts must end in {', '.join(SUFFIXES)}; rename it")
    datasets = require("datasets", extra="data", purpose=f"prompts from the hub ({name!r})")
    try:
        return read_rows(datasets.load_dataset(name, split="train"), name=name)
    except Exception as error:
        raise PromptError(
            f"prompts {name!r}: must be a file of rows or a data set id that can be reached; {error}. "
            "Give a local file if there is no network."
        ) from error


def _columns(row: Any) -> dict[str, Any]:
    """All of a row but its prompt."""
    return {k: v for k, v in row.items() if k not in ("prompt", "messages")} if isinstance(row, Mapping) else {}


def with_system_prompt(row: Any, system_prompt: str | None) -> Any:
    """A row of prompts whose chat has a system message: its own, or this one. Its text becomes the user's turn.

    Args:
        row: a text, or a row with "prompt" or "messages".
        system_prompt: the message; None leaves the row as it is.

    Raises:
        DataError: its messages are none.
    """
    if system_prompt is None or (isinstance(row, str) and not row.strip()):
        return row
    given = row if isinstance(row, Mapping) else {"prompt": row}
    turns = given.get("messages", given.get("prompt"))
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    turns = text_messages(turns)
    system = [] if turns[0]["role"] == "system" else [{"role": "system", "content": system_prompt}]
    return {**{key: one for key, one in given.items() if key != "prompt"}, "messages": [*system, *turns]}


def _checked(row: Any, number: int, system_prompt: str | None) -> Any:
    """The row, the turns of a chat in it under "messages" and with plain text in them."""
    if isinstance(row, Mapping) and not {"prompt", "messages"} & set(row):
        raise PromptError(
            f"prompt {number}: a row must have the key 'prompt' or 'messages', got {sorted(map(str, row))}"
        )
    try:
        if isinstance(row, Mapping):
            check_row(row)
        row = with_system_prompt(row, system_prompt)
        if not isinstance(row, Mapping):
            return row
        key = "messages" if "messages" in row else "prompt"
        is_chat = key == "messages" or isinstance(row[key], list | tuple)
        return {**row, "messages": text_messages(row[key], repr(key))} if is_chat else row
    except DataError as error:
        raise PromptError(f"prompt {number}: {error}") from error


def _turns(row: Any) -> Any:
    """The turns of a chat; None where the row holds a text."""
    return row.get("messages") if isinstance(row, Mapping) else None


def _render(row: Any, number: int, tokenizer: Any) -> tuple[str, bool]:
    """The prompt's text, and whether a chat template made it (and so placed the special tokens already)."""
    turns = _turns(row)
    if turns is not None:
        return _render_chat(turns, number, tokenizer), True
    text = row["prompt"] if isinstance(row, Mapping) else row
    if not isinstance(text, str) or not text.strip():
        raise PromptError(f"prompt {number}: must be a non-empty string, got {text!r}")
    try:
        require_unicode(text, f"prompt {number}")
    except DataError as error:
        raise PromptError(str(error)) from error
    return text, False


def _render_chat(turns: Any, number: int, tokenizer: Any) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise PromptError(
            f"prompt {number}: chat messages need a tokenizer with a chat template, and this one has none; "
            "set tokenizer.chat_template, or give the prompt as text"
        )
    try:
        text = _rendered(turns, tokenizer)
        unseen = _unseen(turns, text, tokenizer)
    except Exception as error:  # a template may raise anything; jinja2's own errors are not a public part of it
        raise PromptError(f"prompt {number}: the chat template refused the messages: {error}") from error
    if unseen is not None:
        raise PromptError(
            f"prompt {number}: the chat template must write the system message and the last one, and leaves out that "
            f"of the role {unseen['role']!r} ({unseen['content'][:50]!r}), which the model would never see; put its "
            "text into a message of a role that the template writes, or set another tokenizer.chat_template"
        )
    return text


def _unseen(turns: Sequence[Mapping[str, Any]], text: str, tokenizer: Any) -> Mapping[str, Any] | None:
    """A message that a chat template dropped without a word: the first if it is the system's, or the last.

    Args: text: as the template wrote it. What is not in it may have been rewritten; what it does not depend on is lost.
    """
    for place in sorted({0, len(turns) - 1} if turns[0]["role"] == "system" else {len(turns) - 1}):
        content = turns[place]["content"]
        if content.strip() in text:
            continue
        other = [*turns[:place], {**turns[place], "content": f"{content} {content}"}, *turns[place + 1 :]]
        if _rendered(other, tokenizer) == text:
            return turns[place]
    return None


def _rendered(turns: Any, tokenizer: Any) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
