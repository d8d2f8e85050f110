"""The order of the batches of a reward model's fit, and the tensors of a batch.

The whole run is laid out before it starts, from the seed alone, so a resumed run goes on with the very batch
that the killed one would have seen next.

Knows: token ids and targets. Does not know: models, losses, the trainer.

Legend of shapes: N = different texts of a batch, T = tokens of the longest.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torch.utils.data import Dataset

from lm_gym.reward_models.judgements.learning_targets import Opinion, Pair, Targets
from lm_gym.reward_models.likelihoods.joint_loss import target_tensors

from .text_encoding import right_padded

__all__ = ["EncodedItem", "JudgementSchedule", "collate"]

SORT_WINDOW_BATCHES = 32


@dataclass(frozen=True)
class EncodedItem:
    """Texts of one prompt as token ids, and what was said about them; or a part of such an item."""

    texts: tuple[tuple[int, ...], ...]
    """Token ids of each of its K responses, joined with the prompt."""
    targets: Targets
    """Over the K places."""

    @property
    def longest(self) -> int:
        """Tokens of its longest text."""
        return max(len(text) for text in self.texts)

    def part(self, places: Sequence[int], targets: Targets | None = None) -> EncodedItem:
        """Only some of its texts, and what was said about these (or the given targets of theirs)."""
        restricted = (self.targets if targets is None else targets).restricted(places)
        return EncodedItem(tuple(self.texts[place] for place in places), restricted)


class JudgementSchedule(Dataset[list[EncodedItem]]):
    """Every batch of a run. Item i is the batch of step i: a list of (parts of) items of like length.

    An item of more than ``max_responses`` texts is cut anew in each epoch. A ranking is dealt into random parts: under
    Plackett-Luce the order within any subset has the same utilities (Luce's choice axiom), so the parts are fitted
    without bias. Comparisons are packed into parts so that each is seen once per epoch.
    """

    def __init__(
        self, items: Sequence[EncodedItem], *, epochs: int, batch_size: int, max_responses: int, seed: int
    ) -> None:
        """Lay out all epochs.

        Args:
            items: the data.
            epochs: passes over it.
            batch_size: items, or parts of them, per batch.
            max_responses: most responses of one part, >= 2.
            seed: decides parts, batches and their order; no global generator is touched.
        """
        self.batches: list[list[EncodedItem]] = []
        for epoch in range(epochs):
            rng = random.Random(f"{seed}/{epoch}")
            parts = [part for item in items for part in _cut(item, max_responses, rng)]
            self.batches += _bucketed(parts, batch_size, rng)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[EncodedItem]:
        return self.batches[index]


def _cut(item: EncodedItem, most: int, rng: random.Random) -> list[EncodedItem]:
    if len(item.texts) <= most:
        return [item]
    if item.targets.rankings:
        parts = [item.part(places) for places in _hands(len(item.texts), most, rng)]
    else:
        parts = _packed(item, most, rng)
    return [part for part in parts if len(part.targets)]  # one response, or tied ones, compare nothing


def _hands(count: int, most: int, rng: random.Random) -> list[list[int]]:
    hands = math.ceil(count / most)
    order = rng.sample(range(count), count)
    return [order[hand::hands] for hand in range(hands)]


def _packed(item: EncodedItem, most: int, rng: random.Random) -> list[EncodedItem]:
    """Parts in which every comparison and every opinion occurs exactly once; texts are taken greedily."""
    left: dict[int, list[Pair]] = defaultdict(list)
    pairs = rng.sample(item.targets.pairs, len(item.targets.pairs))
    for pair in pairs:
        left[pair.first].append(pair)
        left[pair.second].append(pair)
    unsaid = item.targets
    parts, done = [], set[int]()
    for pair in pairs:
        if id(pair) in done:
            continue
        places = _grown(pair, left, done, most)
        inside = set(places)
        taken = [one for place in places for one in left[place] if _fresh(one, inside, done)]
        taken = list({id(one): one for one in taken}.values())
        done.update(id(one) for one in taken)
        said = replace(unsaid, pairs=tuple(taken))
        parts.append(item.part(places, said))
        unsaid = _without(unsaid, inside)
    rest = sorted({one.place for one in (*unsaid.thumbs, *unsaid.ratings, *unsaid.values)})
    parts += [item.part(rest[i : i + most], replace(unsaid, pairs=())) for i in range(0, len(rest), most)]
    return parts


def _fresh(pair: Pair, inside: set[int], done: set[int]) -> bool:
    return id(pair) not in done and pair.first in inside and pair.second in inside


def _grown(seed: Pair, left: dict[int, list[Pair]], done: set[int], most: int) -> list[int]:
    """Places around a pair, each next one being in the most open comparisons with those chosen."""
    places = [seed.first, seed.second]
    gains: dict[int, int] = defaultdict(int)
    for place in places:
        _gain(gains, place, left, done)
    while len(places) < most:
        open_places = [place for place, gain in gains.items() if gain > 0 and place not in places]
        if not open_places:
            break
        chosen = max(open_places, key=lambda place: gains[place])
        places.append(chosen)
        _gain(gains, chosen, left, done)
    return places


def _gain(gains: dict[int, int], place: int, left: dict[int, list[Pair]], done: set[int]) -> None:
    for pair in left[place]:
        if id(pair) not in done:
            gains[pair.second if pair.first == place else pair.first] += 1


def _without(targets: Targets, places: Iterable[int]) -> Targets:
    gone = set(places)

    def kept(opinions: tuple[Opinion, ...]) -> tuple[Opinion, ...]:
        return tuple(one for one in opinions if one.place not in gone)

    return replace(targets, thumbs=kept(targets.thumbs), ratings=kept(targets.ratings), values=kept(targets.values))


def _bucketed(parts: list[EncodedItem], batch_size: int, rng: random.Random) -> list[list[EncodedItem]]:
    # Sorting within windows of shuffled rows keeps padding small and the batches of two epochs different.
    rng.shuffle(parts)
    window = batch_size * SORT_WINDOW_BATCHES
    batches = []
    for start in range(0, len(parts), window):
        near = sorted(parts[start : start + window], key=lambda part: -part.longest)
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    rng.shuffle(batches)
    return batches


def collate(batch: Sequence[EncodedItem], fill_id: int) -> dict[str, Tensor]:
    """One batch as tensors; a text that occurs several times is a row only once.

    Returns: ``input_ids`` and ``attention_mask`` of the different texts, right-padded, shapes (N, T), int64, and what
    :func:`~lm_gym.reward_models.likelihoods.joint_loss.target_tensors` makes of the targets.
    """
    rows: dict[tuple[int, ...], int] = {}
    index = [[rows.setdefault(text, len(rows)) for text in item.texts] for item in batch]
    input_ids, attention_mask = right_padded(list(rows), fill_id)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        **target_tensors([item.targets for item in batch], index),
    }
