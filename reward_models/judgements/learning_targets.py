"""Learning targets of judgements: numbers over the places of K texts, the same for every model and every loss.

Knows: how each kind of verdict becomes a target, and which targets survive in a subset of the texts. Does not know:
tokens, tensors, models.

One item holds all that was said about one prompt (but for rankings, which keep an item each), so that a text is
scored once however many comparisons it is part of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from lm_gym.errors import DataError

from .record import BestOf, Choice, Critique, Judgement, Ranks, Rating, Thumb, Value, Votes, Winner

__all__ = [
    "Item",
    "Opinion",
    "Pair",
    "Ranked",
    "Targets",
    "count_idle",
    "count_judged_both_ways",
    "counts_of",
    "items_of",
    "require_lesson",
]


class Pair(NamedTuple):
    """A comparison of two places."""

    first: int
    """Place of "a"."""
    second: int
    """Place of "b"."""
    outcome: tuple[float, float, float]
    """Shares of (a wins, tie, b wins); they sum to 1."""
    margin: float = 0.0
    """Taken off the winner's lead before it counts, in units of the score."""


class Ranked(NamedTuple):
    """A ranking of some places."""

    places: tuple[int, ...]
    """K' places."""
    ranks: tuple[int, ...]
    """Their places in the ranking, 1 = best, equal = tied."""


class Opinion(NamedTuple):
    """A number about one place: a thumb (0 or 1), a rating (0 to 5) or a reward."""

    place: int
    """Place of the text."""
    number: float
    """The number."""


@dataclass(frozen=True)
class Targets:
    """Learning targets over K texts."""

    rankings: tuple[Ranked, ...] = ()
    """Rankings, and picks of the best as rankings with two places."""
    pairs: tuple[Pair, ...] = ()
    """Comparisons."""
    thumbs: tuple[Opinion, ...] = ()
    """1 = up."""
    ratings: tuple[Opinion, ...] = ()
    """0 to 5."""
    values: tuple[Opinion, ...] = ()
    """Rewards on their own scale."""

    def __len__(self) -> int:
        return sum(len(getattr(self, part.name)) for part in fields(self))

    def restricted(self, places: Sequence[int]) -> Targets:
        """Targets over some of the texts, which are numbered anew in the given order.

        Under Luce's choice axiom a ranking of a subset, and a pick given that it is in the subset, have the same
        utilities as the whole. A part that compares nothing is left out.
        """
        new = {place: number for number, place in enumerate(places)}
        return Targets(
            rankings=tuple(part for one in self.rankings if (part := _ranked_part(one, new)) is not None),
            pairs=tuple(
                p._replace(first=new[p.first], second=new[p.second])
                for p in self.pairs
                if p.first in new and p.second in new
            ),
            thumbs=_opinions_part(self.thumbs, new),
            ratings=_opinions_part(self.ratings, new),
            values=_opinions_part(self.values, new),
        )


def _ranked_part(ranked: Ranked, new: dict[int, int]) -> Ranked | None:
    kept = [(new[place], rank) for place, rank in zip(ranked.places, ranked.ranks, strict=True) if place in new]
    if len({rank for _, rank in kept}) < 2:
        return None
    return Ranked(tuple(place for place, _ in kept), tuple(rank for _, rank in kept))


def _opinions_part(opinions: Iterable[Opinion], new: dict[int, int]) -> tuple[Opinion, ...]:
    return tuple(Opinion(new[one.place], one.number) for one in opinions if one.place in new)


@dataclass(frozen=True)
class Item:
    """Texts of one prompt and their learning targets."""

    prompt: str
    """The prompt."""
    responses: tuple[str, ...]
    """K different texts."""
    targets: Targets
    """Targets over their places."""


@dataclass
class _Collected:
    """An item in the making."""

    places: dict[str, int] = field(default_factory=dict)
    rankings: list[Ranked] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    thumbs: list[Opinion] = field(default_factory=list)
    ratings: list[Opinion] = field(default_factory=list)
    values: list[Opinion] = field(default_factory=list)

    def place(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))

    def rank(self, texts: Sequence[str], ranks: Sequence[int]) -> None:
        ranked = _once(tuple(self.place(text) for text in texts), tuple(ranks))
        if len(set(ranked.ranks)) > 1:
            self.rankings.append(ranked)

    def compare(self, texts: Sequence[str], outcome: tuple[float, float, float], margin: float = 0.0) -> None:
        if texts[0] != texts[1]:
            self.pairs.append(Pair(self.place(texts[0]), self.place(texts[1]), outcome, margin))

    def rate(self, judgement: Judgement) -> None:
        said = [(judgement.rated, judgement.overall_rating)]
        if isinstance(judgement.verdict, Votes):
            said = [(_preferred(judgement, vote.winner), vote.overall_rating) for vote in judgement.verdict.votes]
        self.ratings += [Opinion(self.place(text), stars) for of, stars in said if stars is not None for text in of]

    def item(self, prompt: str) -> Item:
        return Item(
            prompt,
            tuple(self.places),
            Targets(
                rankings=tuple(self.rankings),
                pairs=tuple(self.pairs),
                thumbs=tuple(self.thumbs),
                ratings=tuple(self.ratings),
                values=tuple(self.values),
            ),
        )


def _preferred(judgement: Judgement, winner: Winner) -> tuple[str, ...]:
    """What one of several people prefers, each text once."""
    texts = judgement.texts
    return tuple(dict.fromkeys({"a": texts[:1], "b": texts[1:]}.get(winner, texts)))


def _once(places: tuple[int, ...], ranks: tuple[int, ...]) -> Ranked:
    """A text that was ranked twice keeps its better place: no score can tell two copies apart."""
    best: dict[int, int] = {}
    for place, rank in zip(places, ranks, strict=True):
        best[place] = min(rank, best.get(place, rank))
    return Ranked(tuple(best), tuple(best.values()))


def items_of(judgements: Iterable[Judgement]) -> list[Item]:
    """Targets of judgements, in the order in which their prompts come.

    Votes weigh as one comparison, by their shares. A choice of ``"both_bad"`` is a tie and two thumbs down; an
    overall rating is one of each response that no other is preferred to (``Judgement.rated``). Without one a critique,
    a ranking whose responses all tie, and votes on two copies of one text teach nothing and are left out (see
    :func:`count_idle`).
    """
    by_prompt: dict[str, _Collected] = {}
    alone: list[tuple[str, _Collected]] = []
    for one in judgements:
        if isinstance(one.verdict, Ranks | BestOf):
            collected = _Collected()
            collected.rank(one.texts, one.places or ())
            collected.rate(one)
            alone.append((one.prompt, collected))
        else:
            _add(one, by_prompt.setdefault(one.prompt, _Collected()))
    made = [collected.item(prompt) for prompt, collected in (*alone, *by_prompt.items())]
    return [item for item in made if len(item.targets)]


def _add(judgement: Judgement, collected: _Collected) -> None:
    texts, verdict = judgement.texts, judgement.verdict
    if isinstance(verdict, Choice):
        collected.compare(texts, _outcome([verdict.winner]), float(judgement.margin or 0.0))
        if verdict.winner == "both_bad":
            collected.thumbs += [Opinion(collected.place(text), 0.0) for text in texts]
    elif isinstance(verdict, Votes):
        collected.compare(texts, _outcome([vote.winner for vote in verdict.votes]))
    elif isinstance(verdict, Thumb):
        collected.thumbs.append(Opinion(collected.place(texts[0]), float(verdict.up)))
    elif isinstance(verdict, Rating):
        collected.ratings.append(Opinion(collected.place(texts[0]), float(verdict.stars)))
    elif isinstance(verdict, Value):
        collected.values.append(Opinion(collected.place(texts[0]), float(verdict.reward)))
    else:
        assert isinstance(verdict, Critique)
    collected.rate(judgement)


def _outcome(winners: Sequence[Winner]) -> tuple[float, float, float]:
    counts, total = Counter(winners), len(winners)
    return counts["a"] / total, (counts["tie"] + counts["both_bad"]) / total, counts["b"] / total


def counts_of(items: Iterable[Item]) -> dict[str, int]:
    """Count the targets of each sort."""
    totals: Counter[str] = Counter()
    for item in items:
        for part in fields(Targets):
            totals[part.name] += len(getattr(item.targets, part.name))
    return dict(totals)


def count_idle(judgements: Iterable[Judgement]) -> dict[str, int]:
    """Count the judgements of each kind that give no target: critiques, all-tied rankings and votes on equal texts,
    where no overall rating is beside them."""
    idle: Counter[str] = Counter()
    for one in judgements:
        if not items_of([one]):
            idle[one.kind] += 1
    return dict(idle)


def count_judged_both_ways(judgements: Iterable[Judgement]) -> int:
    """Count the pairs of responses to one prompt that were judged both ways: by two judgements, or by votes of one."""
    said: set[tuple[str, str, str]] = set()
    for one in judgements:
        if isinstance(one.verdict, Votes):
            winners = {vote.winner for vote in one.verdict.votes}
            ordered = [(0, 1)] * ("a" in winners) + [(1, 0)] * ("b" in winners)
            said |= {(one.prompt, one.texts[better], one.texts[worse]) for better, worse in ordered}
        said |= {(one.prompt, one.texts[better], one.texts[worse]) for better, worse in one.pairs()}
    return sum((prompt, worse, better) in said for prompt, better, worse in said) // 2


def require_lesson(items: Sequence[Item]) -> None:
    """Refuse judgements from which no score can be learned.

    Raises:
        DataError: nothing is left after critiques and all-tied rankings; or every comparison is a tie, every thumb
            the same, every rating or reward equal, with nothing else beside them that tells responses apart.
    """
    counts = counts_of(items)
    if not sum(counts.values()):
        raise DataError(
            "reward model training: some judgement must tell responses apart, got none but critiques and rankings in "
            "which all are tied; collect choices, rankings, thumbs, ratings or rewards"
        )
    targets = [item.targets for item in items]
    said = {
        "thumb": {one.number for target in targets for one in target.thumbs},
        "rating": {one.number for target in targets for one in target.ratings},
        "reward": {one.number for target in targets for one in target.values},
    }
    decided = any(pair.outcome[0] != pair.outcome[2] for target in targets for pair in target.pairs)
    if counts["rankings"] or decided or any(len(numbers) > 1 for numbers in said.values()):
        return
    names = [name for name, numbers in said.items() if numbers]
    found = [f"every {name} is {next(iter(said[name])):g}" for name in names]
    if counts["pairs"]:
        found.append(f"all {counts['pairs']} comparisons are ties")
    raise DataError(
        f"reward model training: some judgement must tell responses apart, and {' and '.join(found)}; "
        "collect judgements of both kinds"
    )
