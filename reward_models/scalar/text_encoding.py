"""Token ids of prompt and response, and batches of rows of like length.

Knows: how the two texts are joined, what is cut from a text that is too long, and how rows are grouped by
length. Does not know: models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import shown

__all__ = [
    "CHAT_TEMPLATE",
    "DEFAULT_TEMPLATE",
    "PAIR_TEMPLATE",
    "ChatTemplate",
    "PairEncoder",
    "TextEncoder",
    "TextTemplate",
    "count_tokens",
    "cuts_untold",
    "fitting_end",
    "padded_width",
    "right_padded",
    "warn_of_cut",
    "width_batches",
]

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "{prompt}{response}"
CHAT_TEMPLATE = "chat"
"""Name that stands for the tokenizer's chat template, as most published reward models have it."""
PAIR_TEMPLATE = "pair"
"""Name that stands for a pair of texts, joined by the tokenizer, as cross-encoders have it."""


class TextTemplate:
    """A pattern that joins prompt and response into one text.

    ``{prompt}`` and ``{response}`` are replaced literally, so braces in the texts mean nothing. Where the two
    stand side by side, one space goes between them unless one of them brings white space (or is empty).
    """

    def __init__(self, pattern: str = DEFAULT_TEMPLATE) -> None:
        """Take the pattern apart.

        Raises:
            ConfigError: it does not hold ``{prompt}`` and ``{response}`` once each, in this order.
        """
        once = pattern.count("{prompt}") == pattern.count("{response}") == 1
        if not once or pattern.index("{prompt}") > pattern.index("{response}"):
            raise ConfigError(
                f"template: must hold {{prompt}} and then {{response}}, once each, got {shown(pattern)}; "
                f"the default is {DEFAULT_TEMPLATE!r}"
            )
        self.pattern = pattern
        self._head, rest = pattern.split("{prompt}")
        self._middle, self._tail = rest.split("{response}")

    def join(self, prompt: str, response: str) -> str:
        """The text that the reward model reads."""
        between = self._middle
        bare = prompt and response and not (prompt[-1].isspace() or response[0].isspace())
        if not between and bare:
            between = " "
        return f"{self._head}{prompt}{between}{response}{self._tail}"


class ChatTemplate:
    """The tokenizer's own chat template, around a user's prompt and the assistant's response."""

    pattern = CHAT_TEMPLATE

    def __init__(self, tokenizer: Any) -> None:
        """Args: tokenizer: with a chat template.

        Raises:
            ConfigError: it has none.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError("template 'chat': needs a tokenizer with a chat template, got one without")
        self._tokenizer = tokenizer

    def join(self, prompt: str, response: str) -> str:
        """The text that the reward model reads, special tokens included."""
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False))


class TextEncoder:
    """Tokenises joined texts; one that is too long loses tokens from its left, so from the prompt first."""

    def __init__(self, tokenizer: Any, template: str, max_length: int) -> None:
        """Store and check.

        Args:
            tokenizer: a Hugging Face tokenizer; it is called, and never changed.
            template: see :class:`TextTemplate`; ``"chat"`` is :class:`ChatTemplate`.
            max_length: most tokens of a text, special tokens included.

        Raises:
            ConfigError: the template is not one, or max_length leaves no room for text.
        """
        self.tokenizer = tokenizer
        chat = template == CHAT_TEMPLATE
        self.template: TextTemplate | ChatTemplate = ChatTemplate(tokenizer) if chat else TextTemplate(template)
        self.pattern = template
        self.max_length = max_length
        self._settings = {"add_special_tokens": not chat, "verbose": False}  # a chat template writes its own
        self._specials = 0 if chat else tokenizer.num_special_tokens_to_add(pair=False)
        if max_length <= self._specials:
            raise ConfigError(
                f"max_length: must be above the {self._specials} special tokens of the tokenizer, got {max_length}"
            )

    def encode(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[int]]:
        """Token ids of each joined text, at most ``max_length`` each. How many were cut is logged as a
        warning."""
        encoded = self._whole(prompts, responses)
        too_long = [row for row, ids in enumerate(encoded) if len(ids) > self.max_length]
        for row in too_long:
            encoded[row] = self._cut(self.template.join(prompts[row], responses[row]), encoded[row])
        if too_long:
            warn_of_cut(len(too_long), len(encoded), self.max_length)
        return encoded

    def count_cut(self, prompts: Sequence[str], responses: Sequence[str]) -> int:
        """Count the joined texts that are longer than ``max_length``."""
        return sum(len(ids) > self.max_length for ids in self._whole(prompts, responses))

    def _whole(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[int]]:
        """Token ids of each joined text, however long."""
        texts = [self.template.join(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return [list(ids) for ids in self.tokenizer(texts, **self._settings)["input_ids"]] if texts else []

    def _cut(self, text: str, whole: list[int]) -> list[int]:
        body = list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        kept = body[len(body) - (self.max_length - self._specials) :]
        for start in range(self._specials + 1):
            if whole[start : start + len(body)] == body:
                return [*whole[:start], *kept, *whole[start + len(body) :]]
        return whole[-self.max_length :]


class PairEncoder:
    """Tokenises prompt and response as a pair of texts; one that is too long loses the left end of its prompt first."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        """Store and check.

        Args:
            tokenizer: a fast Hugging Face tokenizer that puts a separator between two texts.
            max_length: most tokens of a pair, special tokens included.

        Raises:
            ConfigError: max_length leaves no room for text.
        """
        self.tokenizer = tokenizer
        self.pattern = PAIR_TEMPLATE
        self.max_length = max_length
        self._room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
        if self._room < 1:
            raise ConfigError(f"max_length: must leave room for text beside the special tokens, got {max_length}")

    def encode(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[int]]:
        """Token ids of each pair, at most ``max_length`` each. How many were cut is logged as a warning."""
        encoded = self._whole(prompts, responses)
        too_long = [row for row, ids in enumerate(encoded) if len(ids) > self.max_length]
        for row in too_long:
            encoded[row] = self._cut(prompts[row], responses[row])
        if too_long:
            warn_of_cut(len(too_long), len(encoded), self.max_length)
        return encoded

    def count_cut(self, prompts: Sequence[str], responses: Sequence[str]) -> int:
        """Count the pairs that are longer than ``max_length``."""
        return sum(len(ids) > self.max_length for ids in self._whole(prompts, responses))

    def _whole(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[int]]:
        """Token ids of each pair, however long."""
        read = self.tokenizer(list(prompts), list(responses), verbose=False)["input_ids"] if prompts else []
        return [list(ids) for ids in read]

    def _cut(self, prompt: str, response: str) -> list[int]:
        response_end = fitting_end(self.tokenizer, response, self._room)
        room = self._room - count_tokens(self.tokenizer, [response_end])[0]
        prompt_end = fitting_end(self.tokenizer, prompt, room)
        return list(self.tokenizer(prompt_end, response_end, verbose=False)["input_ids"])[: self.max_length]


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, without special ones."""
    read = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return [len(ids) for ids in read]


def fitting_end(tokenizer: Any, text: str, room: int) -> str:
    """The end of a text that has at most ``room`` tokens; the text itself if it has no more.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        text: the text.
        room: >= 0.
    """
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    starts = [start for start, _ in read["offset_mapping"]]
    if len(starts) <= room:
        return text
    for count in range(room, 0, -1):  # text that is cut inside a word may take a token more when it is read again
        end = text[starts[-count] :]
        if count_tokens(tokenizer, [end])[0] <= room:
            return end
    return ""


_cuts_are_told: ContextVar[bool] = ContextVar("cuts_are_told", default=True)


@contextmanager
def cuts_untold() -> Iterator[None]:
    """A block whose texts the user did not write, such as probes: no word on those that are cut."""
    token = _cuts_are_told.set(False)
    try:
        yield
    finally:
        _cuts_are_told.reset(token)


def warn_of_cut(cut: int, count: int, max_length: int) -> None:
    """Log the number of texts that were too long."""
    if not _cuts_are_told.get():
        return
    logger.warning(
        "reward model: %d of %d texts were longer than max_length=%d tokens; the left end of each was cut "
        "(the prompt first, the end of the response kept)",
        cut,
        count,
        max_length,
    )


def padded_width(length: int, limit: int) -> int:
    """Width that a row of this length is padded to, whatever else is in its batch: a score that does not depend on the
    batch needs one that does not either. It adds at most an eighth and 15 tokens, and never passes ``limit``.

    Args:
        length: tokens of the row, <= limit.
        limit: tokens that the model reads at most.
    """
    step = max(16, 1 << max(length.bit_length() - 4, 0))
    return min(-(-length // step) * step, limit)


def width_batches(widths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of one width, widest first, each of at most ``max_tokens`` padded tokens.

    A row that alone exceeds the limit makes a batch of one.
    """
    batch: list[int] = []
    for row in sorted(range(len(widths)), key=lambda row: (-widths[row], row)):
        width = widths[row]
        if batch and (widths[batch[0]] != width or (len(batch) + 1) * width > max_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def right_padded(rows: Sequence[Sequence[int]], fill_id: int, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Stack N rows of ids, to the longest of them or to a given width.

    Returns: (ids, attention mask, 1 = counts). Shapes: (N, T), int64, both.
    """
    width = max(len(row) for row in rows) if width is None else width
    ids = torch.full((len(rows), width), fill_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = 1
    return ids, mask
