"""Human judgements as typed records: a prompt, some responses to it, and how they were ranked.

Knows: the two row forms that comparison data comes in (``prompt, chosen, rejected`` and ``prompt, responses,
ranks``), what makes a row unusable, and how to hold out whole prompts. Does not know: models, tokens,
tensors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from lm_gym.errors import ConfigError, DataError
from lm_gym.files import read_jsonl

__all__ = ["Ranking", "Split", "load_rankings", "rankings_from_rows", "refuse_leaks", "split_by_prompt", "to_rows"]

FORMS = '{"prompt", "chosen", "rejected"} or {"prompt", "responses", "ranks"}'


@dataclass(frozen=True)
class Ranking:
    """One judgement over K >= 2 responses to one prompt; a pair is the ranking of two.

    Raises:
        DataError: the texts are no strings, fewer than two of them differ, or the ranks are not a ranking.
    """

    prompt: str
    """What the responses answer."""
    responses: tuple[str, ...]
    """K texts, at least two of them different; an empty one is allowed, since a policy can emit it."""
    ranks: tuple[int, ...]
    """K places, 1 = best. Ties are allowed, counted on as 1, 1, 2 or as 1, 1, 3."""

    def __post_init__(self) -> None:
        for name in ("responses", "ranks"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise DataError(f"ranking: {name} must be a list, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        for text in (self.prompt, *self.responses):
            if not isinstance(text, str):
                raise DataError(f"ranking: prompt and responses must be strings, got {text!r}")
        if len(set(self.responses)) < 2:
            raise DataError(
                f"ranking: must compare at least 2 different responses, got {len(set(self.responses))} in "
                f"{str(self.responses)[:80]}"
            )
        if len(self.ranks) != len(self.responses):
            raise DataError(
                f"ranking: must give one rank per response, got {len(self.ranks)} ranks "
                f"for {len(self.responses)} responses"
            )
        if not is_ranking(self.ranks):
            raise DataError(
                f"ranking: ranks must be places that start at 1 and leave no gap (1 = best, ties share a "
                f"place), "
                f"got {list(self.ranks)}"
            )

    @classmethod
    def pair(cls, prompt: str, chosen: str, rejected: str) -> Ranking:
        """The ranking of two in which ``chosen`` won."""
        return cls(prompt, (chosen, rejected), (1, 2))

    @property
    def is_tie(self) -> bool:
        """Whether the record compares nothing: all different responses share one place."""
        return next(self.pairs(), None) is None

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Every comparison in it as (index of the better, index of the worse).

        Tied responses form none, nor do two copies of one text: no score of the text can tell them apart.
        """
        for better, place in enumerate(self.ranks):
            for worse, other in enumerate(self.ranks):
                if place < other and self.responses[better] != self.responses[worse]:
                    yield better, worse


def is_ranking(ranks: tuple[Any, ...]) -> bool:
    """Whether the numbers are places from 1 on without a gap, with ties counted on densely or by size."""
    if any(isinstance(rank, bool) or not isinstance(rank, int) for rank in ranks):
        return False
    dense = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    if all(dense[rank] == rank for rank in ranks):
        return True
    return all(rank == 1 + sum(other < rank for other in ranks) for rank in ranks)


def rankings_from_rows(rows: Iterable[Mapping[str, Any]], source: str = "rows") -> list[Ranking]:
    """Read comparison rows of either form; other keys are ignored.

    Args:
        rows: mappings with ``prompt, chosen, rejected`` or with ``prompt, responses, ranks``.
        source: what error messages call the origin of the rows, a file name for instance.

    Raises:
        DataError: a row has neither form or both, is no ranking, or ties all its responses; or there is no
            row.
    """
    rankings = [_ranking_from_row(row, f"{source}, row {number}") for number, row in enumerate(rows, start=1)]
    if not rankings:
        raise DataError(f"{source}: must hold at least one comparison, got none; a row is {FORMS}")
    return rankings


def _ranking_from_row(row: Mapping[str, Any], where: str) -> Ranking:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: must be {FORMS}, got {type(row).__name__}")
    is_pair = "chosen" in row or "rejected" in row
    is_list = "responses" in row or "ranks" in row
    if is_pair and is_list:
        raise DataError(f"{where}: must be {FORMS}, and it mixes the two; got the keys {sorted(row)}")
    needed = ("prompt", "chosen", "rejected") if is_pair else ("prompt", "responses", "ranks")
    missing = [key for key in needed if key not in row]
    if missing:
        raise DataError(f"{where}: must be {FORMS}; it has no {missing[0]!r}, got the keys {sorted(row)}")
    try:
        if is_pair:
            ranking = Ranking.pair(row["prompt"], row["chosen"], row["rejected"])
        else:
            ranking = Ranking(row["prompt"], row["responses"], row["ranks"])
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if ranking.is_tie:
        raise DataError(f"{where}: must rank some response above another, and all {len(ranking.ranks)} are tied")
    return ranking


def load_rankings(path: str | Path) -> list[Ranking]:
    """Read a ``.jsonl`` or ``.jsonl.gz`` file of comparison rows.

    Raises:
        DataError: the file or a row cannot be used; the message gives file and row (blank lines do not
            count).
    """
    return rankings_from_rows(read_jsonl(path), source=str(path))


def to_rows(rankings: Iterable[Ranking]) -> list[dict[str, Any]]:
    """The rankings as ``prompt, responses, ranks`` rows, ready for JSON; ``rankings_from_rows`` reads them
    back."""
    return [
        {"prompt": ranking.prompt, "responses": list(ranking.responses), "ranks": list(ranking.ranks)}
        for ranking in rankings
    ]


class Prompted(Protocol):
    """Anything that was said about a prompt."""

    @property
    def prompt(self) -> str:
        """The prompt."""
        ...


Said = TypeVar("Said", bound=Prompted)


class Split(NamedTuple, Generic[Said]):
    """Judgements divided so that no prompt (or group of prompts) is on both sides."""

    train: list[Said]
    """What to learn from."""
    held_out: list[Said]
    """What to test on."""


def prompt_itself(prompt: str) -> str:
    """The group of a prompt where every prompt is a group of its own."""
    return prompt


def split_by_prompt(
    rankings: Sequence[Said],
    *,
    held_out: float | Sequence[str],
    seed: int = 0,
    group_of: Callable[[str], str] = prompt_itself,
) -> Split[Said]:
    """Hold out whole prompts: rows of one prompt share texts, so a split by row would leak.

    Args:
        rankings: what to divide, rankings or judgements; each side keeps the order.
        held_out: the share of the groups to draw (at least one group is drawn and one is left), or the
            groups.
        seed: seed of the draw; the global generators are not touched.
        group_of: maps a prompt to its group where several prompts belong together (two sides of one debate).

    Raises:
        ConfigError: the share lies outside (0, 1), there are fewer than two groups, a named group does not
            occur, or one side would be empty.
    """
    groups = sorted({group_of(ranking.prompt) for ranking in rankings})
    if len(groups) < 2:
        raise ConfigError(f"split_by_prompt: needs at least 2 different prompts (or groups), got {len(groups)}")
    if isinstance(held_out, int | float):
        if not 0 < held_out < 1:
            raise ConfigError(f"split_by_prompt: held_out must be a share in (0, 1) or a list, got {held_out}")
        count = min(max(1, round(held_out * len(groups))), len(groups) - 1)
        chosen = set(random.Random(seed).sample(groups, count))
    else:
        chosen = {held_out} if isinstance(held_out, str) else set(held_out)
        unknown = sorted(chosen - set(groups))
        if unknown:
            raise ConfigError(
                f"split_by_prompt: held_out must name prompts (or groups) of the data, got {unknown[0]!r}"
            )
        if not chosen or len(chosen) == len(groups):
            raise ConfigError(
                f"split_by_prompt: both sides must keep a prompt, got {len(chosen)} of {len(groups)} held out"
            )
    train = [ranking for ranking in rankings if group_of(ranking.prompt) not in chosen]
    test = [ranking for ranking in rankings if group_of(ranking.prompt) in chosen]
    return Split(train, test)


def refuse_leaks(
    train: Iterable[Prompted], held_out: Iterable[Prompted], *, group_of: Callable[[str], str] = prompt_itself
) -> None:
    """Check a division that was made elsewhere.

    Raises:
        ConfigError: a prompt, or a group of prompts, is on both sides.
    """
    both = sorted({group_of(one.prompt) for one in train} & {group_of(one.prompt) for one in held_out})
    if both:
        raise ConfigError(
            f"split: no prompt (or group) may be both trained and measured on, and {len(both)} are, {both[0]!r} for "
            "one; take them out of one side, or divide with split_by_prompt"
        )
