"""Which rankings a reward model sees, in what order, and how a batch of them becomes tensors.

The whole run is laid out before it starts, from the seed alone, so a resumed run goes on with the very batch
that the killed one would have seen next.

Knows: token ids and ranks. Does not know: models, losses, the trainer.

Legend of shapes: N = different texts of a batch, T = tokens of the longest, B = rankings, K = responses of the
largest ranking.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .encoding import right_padded

__all__ = ["IGNORED_LABEL", "EncodedRanking", "RankingSchedule", "collate_rankings"]

IGNORED_LABEL = -100
SORT_WINDOW_BATCHES = 32


@dataclass(frozen=True)
class EncodedRanking:
    """One ranking, or a part of one, as token ids."""

    texts: tuple[tuple[int, ...], ...]
    """Token ids of each of its K responses, joined with the prompt."""
    ranks: tuple[int, ...]
    """K places, 1 = best."""

    @property
    def longest(self) -> int:
        """Tokens of its longest text."""
        return max(len(text) for text in self.texts)


class RankingSchedule(Dataset[list[EncodedRanking]]):
    """Every batch of a run. Item i is the batch of step i: a list of rankings of like length.

    A ranking of more than ``max_responses`` is dealt into random parts, anew in each epoch. Under
    Plackett-Luce the order within any subset has the same utilities (Luce's choice axiom), so the parts are
    fitted without bias.
    """

    def __init__(
        self, rankings: Sequence[EncodedRanking], *, epochs: int, batch_size: int, max_responses: int, seed: int
    ) -> None:
        """Lay out all epochs.

        Args:
            rankings: the data.
            epochs: passes over it.
            batch_size: rankings, or parts of them, per batch.
            max_responses: most responses of one part, >= 2.
            seed: decides parts, batches and their order; no global generator is touched.
        """
        self.batches: list[list[EncodedRanking]] = []
        for epoch in range(epochs):
            rng = random.Random(f"{seed}/{epoch}")
            parts = [part for ranking in rankings for part in _dealt(ranking, max_responses, rng)]
            self.batches += _bucketed(parts, batch_size, rng)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[EncodedRanking]:
        return self.batches[index]


def _dealt(ranking: EncodedRanking, max_responses: int, rng: random.Random) -> list[EncodedRanking]:
    count = len(ranking.ranks)
    if count <= max_responses:
        return [ranking]
    hands = math.ceil(count / max_responses)
    order = rng.sample(range(count), count)
    parts = []
    for hand in range(hands):
        chosen = order[hand::hands]
        ranks = tuple(ranking.ranks[i] for i in chosen)
        if len(set(ranks)) > 1:  # a part of one response, or of tied ones, compares nothing
            parts.append(EncodedRanking(tuple(ranking.texts[i] for i in chosen), ranks))
    return parts


def _bucketed(parts: list[EncodedRanking], batch_size: int, rng: random.Random) -> list[list[EncodedRanking]]:
    # Sorting within windows of shuffled rows keeps padding small and the batches of two epochs different.
    rng.shuffle(parts)
    window = batch_size * SORT_WINDOW_BATCHES
    batches = []
    for start in range(0, len(parts), window):
        near = sorted(parts[start : start + window], key=lambda part: -part.longest)
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    rng.shuffle(batches)
    return batches


def collate_rankings(batch: Sequence[EncodedRanking], fill_id: int) -> dict[str, Tensor]:
    """One batch as tensors; a text that occurs several times is a row only once.

    Returns: a dict with

        input_ids, attention_mask: the different texts, right-padded. Shapes: (N, T), int64.
        text_index: row of each response's text. Shape: (B, K), int64.
        ranks: places. Shape: (B, K), int64.
        response_mask: True where there is a response. Shape: (B, K), bool.
        labels: 1 for a ranking that compares something, else -100; what the trainer counts. Shape: (B,),
            int64.
    """
    rows: dict[tuple[int, ...], int] = {}
    shape = (len(batch), max(len(ranking.ranks) for ranking in batch))
    text_index = torch.zeros(shape, dtype=torch.long)
    ranks = torch.zeros(shape, dtype=torch.long)
    response_mask = torch.zeros(shape, dtype=torch.bool)
    labels = torch.full((len(batch),), IGNORED_LABEL, dtype=torch.long)
    for number, ranking in enumerate(batch):
        count = len(ranking.ranks)
        index = [rows.setdefault(text, len(rows)) for text in ranking.texts]
        text_index[number, :count] = torch.tensor(index)
        ranks[number, :count] = torch.tensor(ranking.ranks)
        response_mask[number, :count] = True
        if len(set(ranking.ranks)) > 1:
            labels[number] = 1
    input_ids, attention_mask = right_padded(list(rows), fill_id)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "text_index": text_index,
        "ranks": ranks,
        "response_mask": response_mask,
        "labels": labels,
    }
