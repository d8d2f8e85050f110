"""The decoder of a language model over growing token sequences: what samplers, steppers and references stand on.

A decoder answers with states (what the LM head reads), token by token with a cache or all at once by teacher forcing.

Shapes: B = rows, H = hidden width, N = response tokens of all rows, in row-major order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

__all__ = ["Decoder", "ForcedStates"]


class ForcedStates(NamedTuple):
    """States of finished responses."""

    before: Tensor
    """State before each response token: what it was drawn from. Shape: (N, H)."""
    after: Tensor
    """State after the last token of each response. Shape: (B, H)."""


class Decoder(Protocol):
    """States at the end of B token sequences that start, grow and end at different times."""

    def prefill(
        self, rows: Sequence[int], prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray] | None = None
    ) -> Tensor:
        """Restart some rows from prompts, and from what followed them already; the others stay as they are.

        Args:
            rows: their numbers.
            prompts: token ids of each, of shape (P_i,).
            responses: token ids that follow each prompt, of shape (T_i,), T_i >= 0; None for none.

        Returns: the state after each, in the order of ``rows``. Shape: (len(rows), H).
        """
        ...

    def advance(self, tokens: np.ndarray, alive: np.ndarray) -> Tensor:
        """Append one token to every live row; a row that is not alive is dead until it is prefilled again.

        Args:
            tokens: those of dead rows are not used. Shape: (B,), int64.
            alive: Shape: (B,), bool.

        Returns: the state after each token; of no meaning in dead rows. Shape: (B, H).
        """
        ...

    def keep(self, rows: np.ndarray) -> None:
        """Drop all rows but these, which are numbered anew in this order. Args: rows of shape (b,), int."""
        ...

    def teacher_forced(self, prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray]) -> ForcedStates:
        """States of whole responses in one pass, with autograd where it is on; the cache is not touched.

        Args:
            prompts: token ids, each of shape (P_i,).
            responses: token ids, each of shape (T_i,), T_i >= 1.
        """
        ...

    def longest_prompt(self, response_tokens: int) -> int | None:
        """Most prompt tokens that leave a response of so many tokens its positions; 0 or less if none do.

        Returns: None where the model has no limit.
        """
        ...

    def fits(self, prompt_tokens: int, response_tokens: int) -> bool:
        """True if the model has positions for such a prompt and response together."""
        ...
