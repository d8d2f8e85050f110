"""Splits of judgements into training and held-out ones by whole prompts, or by groups of prompts.

Knows: prompts. Does not know: verdicts, models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from lm_gym.errors import ConfigError

from .record import Judgement

__all__ = ["Split", "prompt_itself", "refuse_leaks", "split_by_prompt"]


class Split(NamedTuple):
    """Judgements divided so that no prompt (or group of prompts) is on both sides."""

    train: list[Judgement]
    """Judgements to fit to."""
    held_out: list[Judgement]
    """Judgements to measure on."""


def prompt_itself(prompt: str) -> str:
    """The group of a prompt where every prompt is a group of its own."""
    return prompt


def split_by_prompt(
    judgements: Sequence[Judgement],
    *,
    held_out: float | Sequence[str],
    seed: int = 0,
    group_of: Callable[[str], str] = prompt_itself,
) -> Split:
    """Hold out whole prompts: rows of one prompt share texts, so a split by row would leak.

    Args:
        judgements: to divide; each side keeps the order.
        held_out: the share of the groups to draw (at least one group is drawn and one is left), or the
            groups.
        seed: seed of the draw; the global generators are not touched.
        group_of: maps a prompt to its group where several prompts belong together (two sides of one debate).

    Raises:
        ConfigError: the share lies outside (0, 1), there are fewer than two groups, a named group does not
            occur, or one side would be empty.
    """
    groups = sorted({group_of(one.prompt) for one in judgements})
    if len(groups) < 2:
        raise ConfigError(
            f"held_out (--held-out): needs at least 2 different prompts (or groups), got {len(groups)}; "
            "add prompts, or measure on files of their own (--eval-data)"
        )
    if isinstance(held_out, int | float):
        if not 0 < held_out < 1:
            raise ConfigError(f"held_out (--held-out): must be a share between 0 and 1, or a list, got {held_out}")
        count = min(max(1, round(held_out * len(groups))), len(groups) - 1)
        chosen = set(random.Random(seed).sample(groups, count))
    else:
        chosen = {held_out} if isinstance(held_out, str) else set(held_out)
        unknown = sorted(chosen - set(groups))
        if unknown:
            raise ConfigError(f"held_out (--held-out): must name prompts (or groups) of the data, got {unknown[0]!r}")
        if not chosen or len(chosen) == len(groups):
            raise ConfigError(
                f"held_out (--held-out): both sides must keep a prompt, got {len(chosen)} of {len(groups)} held out"
            )
    train = [one for one in judgements if group_of(one.prompt) not in chosen]
    test = [one for one in judgements if group_of(one.prompt) in chosen]
    return Split(train, test)


def refuse_leaks(
    train: Iterable[Judgement], held_out: Iterable[Judgement], *, group_of: Callable[[str], str] = prompt_itself
) -> None:
    """Check a division that was made elsewhere.

    Raises:
        ConfigError: a prompt, or a group of prompts, is on both sides.
    """
    both = sorted({group_of(one.prompt) for one in train} & {group_of(one.prompt) for one in held_out})
    if both:
        raise ConfigError(
            f"split: no prompt (or group) may be both trained and measured on, and {len(both)} are, {both[0]!r} for "
            "one; take them out of one side, or give one file and let it be divided (split_by_prompt, --held-out)"
        )
