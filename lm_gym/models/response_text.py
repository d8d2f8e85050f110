"""The text of a response: what its tokens add to the text of the prompt.

``decode(prompt + response)`` minus ``decode(prompt)``, special tokens left out and spaces not cleaned up. Decoding the
response alone would lose its leading space wherever a tokenizer strips the start of a text (Llama 2's metaspace) or
joins words by spaces. The response of an encoder-decoder continues no text: it is decoded alone.

Knows tokens and text; does not know where a response ends (``lm_gym.models.sampling.StopRule``).

Shapes: P = prompt tokens, t = response tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ResponseText"]

CONTEXT_TOKENS = 8
"""Prompt tokens that are decoded with a response, unless they are not whole text by themselves."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Character that decoders write for bytes that are no whole character."""
MAX_OPEN_TOKENS = 3
"""A UTF-8 character of four bytes may leave three tokens of one byte each open at the end of a prompt."""


class ResponseText:
    """Turns the tokens of a response into text, by one tokenizer."""

    def __init__(self, tokenizer: Any, *, apart: bool = False) -> None:
        """Args:
        tokenizer: decodes ids; the one that the prompts were tokenised by.
        apart: prompt and response are two sequences, as an encoder-decoder has them.
        """
        self.tokenizer = tokenizer
        self._apart = apart

    def __call__(self, prompt_ids: np.ndarray, response_ids: np.ndarray) -> str:
        """Text that the response adds to the prompt.

        Only the end of the prompt is decoded: its last eight tokens, or more where these are blank or cut a character
        in two. Where the text of the prompt reads otherwise once the response follows:

        - a character that the prompt leaves open belongs to the response that completes it;
        - in any other case (a run of single bytes that the response leaves open) the response is decoded alone.

        Args:
            prompt_ids: Shape: (P,), int64; P = 0 decodes the response alone.
            response_ids: Shape: (t,), int64.
        """
        if not len(response_ids):
            return ""
        if self._apart:
            return self._decode(response_ids)
        context, before = self._context(prompt_ids)
        whole = self._decode(np.concatenate([context, response_ids]))
        if whole.startswith(before):
            return whole[len(before) :]
        if before.endswith(REPLACEMENT):
            for count in range(1, min(MAX_OPEN_TOKENS, len(context)) + 1):
                closed = self._decode(context[:-count])
                if not closed.endswith(REPLACEMENT) and whole.startswith(closed):
                    return whole[len(closed) :]
        return self._decode(response_ids)

    def _context(self, prompt_ids: np.ndarray) -> tuple[np.ndarray, str]:
        """The end of the prompt that is decoded with the response, and its text."""
        size = CONTEXT_TOKENS
        while True:
            context = prompt_ids[-size:]
            text = self._decode(context)
            if size >= len(prompt_ids) or (text.strip() and REPLACEMENT not in text):
                return context, text
            size *= 2

    def _decode(self, ids: np.ndarray) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
