"""Prompts that several rows of a batch have in common, as the responses of a group do: they are run once.

Knows: which rows they are, and when a pass over the prompts and one over the responses is cheaper than one over whole
rows. Does not know: models (see ``causal.py``).

Shapes: B = rows, U = distinct prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

__all__ = ["SharedPrompts", "padded_tokens", "sharing_pays"]

SECOND_PASS_ON_CPU = 1 << 6
"""Tokens that cost as much as starting one more forward pass: measured on four layers, less on deeper models."""
SECOND_PASS = 1 << 12
"""The same for an accelerator, whose time hardly depends on the tokens of a small pass; a guess, not measured."""
LEAST_SHARE_SAVED = 0.1
"""Share of the tokens that must be saved, since copying the prompts' keys and values has its price too."""


class SharedPrompts(NamedTuple):
    """The distinct prompts of B rows."""

    prompts: list[np.ndarray]
    """Token ids, each of shape (P_u,), in the order in which they first appear. Length U."""
    of_row: np.ndarray
    """Number of each row's prompt. Shape: (B,), int64."""

    @classmethod
    def of(cls, prompts: Sequence[np.ndarray]) -> SharedPrompts:
        """Find equal prompts by their ids. Args: prompts: token ids of each row, of shape (P_i,)."""
        numbers: dict[bytes, int] = {}
        of_row = [numbers.setdefault(np.asarray(ids, dtype=np.int64).tobytes(), len(numbers)) for ids in prompts]
        first = np.unique(np.array(of_row, dtype=np.int64), return_index=True)[1]
        return cls([prompts[row] for row in first], np.array(of_row, dtype=np.int64))


def padded_tokens(
    prompt_lengths: np.ndarray, response_lengths: np.ndarray, of_row: np.ndarray, device: torch.device
) -> tuple[int, bool]:
    """Size of a teacher-forced pass over some rows, by the way that is cheaper.

    Args:
        prompt_lengths: of each row's prompt. Shape: (B,), int.
        response_lengths: Shape: (B,), int.
        of_row: see :attr:`SharedPrompts.of_row`. Shape: (B,), int.
        device: that will run it.

    Returns: padded tokens, and True if each prompt is run once, with the responses in a second pass.
    """
    rows, distinct = len(of_row), len(np.unique(of_row))
    whole = rows * int((prompt_lengths + response_lengths).max())
    apart = distinct * int(prompt_lengths.max()) + rows * int(response_lengths.max())
    shares = distinct < rows and sharing_pays(whole, apart, device)
    return (apart if shares else whole), shares


def sharing_pays(whole: int, apart: int, device: torch.device) -> bool:
    """True if two passes, over the prompts and over the responses, cost less than one over whole rows.

    Args:
        whole: tokens of the one pass.
        apart: tokens of the two.
        device: that will run them.
    """
    second = SECOND_PASS_ON_CPU if device.type == "cpu" else SECOND_PASS
    return whole - apart >= max(second, LEAST_SHARE_SAVED * whole)
