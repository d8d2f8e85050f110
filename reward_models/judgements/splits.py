"""Splits of judgements into training and held-out ones by whole prompts, or by groups of prompts.

Knows: prompts. Does not know: verdicts, models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, NamedTuple

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import Bounds, Whole, checked, shown

from .record import Judgement, require_judgements

__all__ = ["Split", "named_group", "prompt_itself", "refuse_leaks", "split_by_prompt"]


class Split(NamedTuple):
    """Judgements divided so that no prompt (or group of prompts) is on both sides."""

    train: list[Judgement]
    """Judgements to fit to."""
    held_out: list[Judgement]
    """Judgements to measure on."""


def prompt_itself(prompt: str) -> str:
    """The group of a prompt where every prompt is a group of its own."""
    return prompt


def named_group(subject: str, group_of: Callable[[str], str]) -> Callable[[str], str]:
    """A function that maps a prompt to its group, with a check of what it returns.

    Raises (also when it is called):
        ConfigError: it cannot be called, or returns no text.
    """
    given = checked(f"{subject}: group_of", group_of, Callable)
    return lambda prompt: checked(f"{subject}: the group of {prompt[:60]!r}, by group_of", given(prompt), str)


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
    judgements, group_of = require_judgements("split", judgements), named_group("split", group_of)
    seed = checked("split: seed", seed, Whole)
    groups = sorted({group_of(one.prompt) for one in judgements})
    if len(groups) < 2:
        raise ConfigError(
            f"held_out (--held-out): needs at least 2 different prompts (or groups), got {len(groups)}; "
            "add prompts, or measure on files of their own (--eval-data)"
        )
    share = Annotated[float, Bounds(above=0, below=1)]
    held_out = checked("held_out (--held-out)", held_out, share | str | tuple[str, ...])
    if isinstance(held_out, float):
        count = min(max(1, round(held_out * len(groups))), len(groups) - 1)
        chosen = set(random.Random(seed).sample(groups, count))
    else:
        chosen = {held_out} if isinstance(held_out, str) else set(held_out)
        unknown = sorted(chosen - set(groups))
        if unknown:
            raise ConfigError(
                f"held_out (--held-out): must name prompts (or groups) of the data, got {shown(unknown[0])}"
            )
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
    train, held_out = require_judgements("split", train), require_judgements("split", held_out)
    group_of = named_group("split", group_of)
    both = sorted({group_of(one.prompt) for one in train} & {group_of(one.prompt) for one in held_out})
    if both:
        raise ConfigError(
            f"split: no prompt (or group) may be both trained and measured on, and {len(both)} are, {both[0]!r} for "
            "one; take them out of one side, or give one file and let it be divided (split_by_prompt, --held-out)"
        )
