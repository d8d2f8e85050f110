"""The recipe of a fit: what the size of data and model decides where a user left it open."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lm_gym.reward_models import JudgementLoss, LossConfig, RewardTrainingConfig
from lm_gym.reward_models.judgements.learning_targets import items_of
from lm_gym.reward_models.judgements.record import Judgement
from lm_gym.reward_models.scalar import trainer
from lm_gym.reward_models.scalar.batch_schedule import EncodedItem, collate
from lm_gym.reward_models.scalar.recipe import scheduled, with_recipe

OPEN = RewardTrainingConfig()


def pairs(count: int) -> list[EncodedItem]:
    said = items_of([Judgement.pair(f"p{number}", "x", "y") for number in range(count)])
    return [EncodedItem(((1, 2), (3, 4)), item.targets) for item in said]


def chosen(config: RewardTrainingConfig, items: list[EncodedItem], **model: Any) -> RewardTrainingConfig:
    return with_recipe(config, items, **({"weights": 22_000_000, "adapted": False} | model))


@pytest.mark.parametrize(
    ("count", "epochs", "steps", "updates"),
    [
        (80, 3, 1, 30),  # 10 passes of 8 pairs: more than three epochs would learn them by heart
        (800, 2, 1, 200),  # 100 passes are too few for 150 updates
        (1600, 1, 1, 200),
        (8000, 1, 2, 500),  # 1,000 passes, two of them an update
        (80000, 1, 4, 2500),
    ],
)
def test_updates_follow_the_data(count: int, epochs: int, steps: int, updates: int) -> None:
    items = pairs(count)
    found = chosen(OPEN, items)
    assert (found.items_per_step, found.epochs, found.gradient_accumulation_steps) == (8, epochs, steps)
    assert -(-len(scheduled(items, found)) // steps) == updates


@pytest.mark.parametrize(
    ("weights", "adapted", "rate"),
    [
        (100_000, False, 1e-3),
        (22_000_000, False, 1e-4),
        (22_000_000, True, 1e-3),
        (135_000_000, False, 2e-5),
        (7_000_000_000, False, 1e-5),
        (7_000_000_000, True, 1e-4),
    ],
)
def test_the_rate_follows_the_model(weights: int, adapted: bool, rate: float) -> None:
    assert chosen(OPEN, pairs(4), weights=weights, adapted=adapted).learning_rate == pytest.approx(rate)


def test_what_a_user_says_stays() -> None:
    said = RewardTrainingConfig(epochs=1, learning_rate=0.5, items_per_step=3, gradient_accumulation_steps=7)
    assert chosen(said, pairs(100)) == said


class _Scorer(nn.Module):
    """A scorer with dropout that counts the rows it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.drop, self.rows = nn.Embedding(10, 1), nn.Dropout(0.5), list[int]()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(ids))
        return (self.drop(self.table(ids).squeeze(-1)) * mask).sum(1)


def test_a_pass_of_many_texts_is_computed_in_parts_with_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        EncodedItem(((number % 10, 1), (2, number % 7, 3)), item.targets)
        for number, item in enumerate(items_of([Judgement.pair(f"p{n}", "x", "y") for n in range(8)]))
    ]
    batch = collate(items, 0)
    ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
    gradients, rows = [], []
    for most in (10_000, 7):
        monkeypatch.setattr(trainer, "TOKENS_ALIVE", most)
        torch.manual_seed(0)
        scorer = _Scorer()
        fitted = trainer._Fitted(scorer, JudgementLoss(LossConfig(), [item.targets for item in items]))
        scorer.drop.p = 0.0  # one mask for all rows and one for each part differ
        fitted(ids, mask, **batch).backward()
        gradients.append(scorer.table.weight.grad.clone())
        rows.append(max(scorer.rows))
    torch.testing.assert_close(*gradients)
    assert rows[1] == 2  # two rows of three tokens are within seven
    assert rows[0] > 2
