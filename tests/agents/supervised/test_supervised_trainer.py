import math

import pytest
import torch

from lm_gym.agents.supervised.rows import TokenizedText
from lm_gym.agents.supervised.trainer import (
    IGNORED,
    BatchSchedule,
    LoopConfig,
    learning_rate_factor,
    pad_batch,
    token_nll,
)


def row(size, learned_from, first=1):
    return TokenizedText(input_ids=[first + i for i in range(size)], loss_mask=[i >= learned_from for i in range(size)])


def nats_by_hand(model, text):
    """One row alone, token by token, from the model's plain logits."""
    with torch.no_grad():
        log_probs = model(torch.tensor([list(text.input_ids)])).logits[0].double().log_softmax(-1)
    learned = [t for t, counts in enumerate(text.loss_mask) if counts and t > 0]
    return -sum(float(log_probs[t - 1, text.input_ids[t]]) for t in learned)


def test_token_nll_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 1.0, 1.0]]]))
    nats, counts = token_nll(logits, torch.tensor([[IGNORED, 1, 2]]))
    assert counts.tolist() == [2]
    assert nats.tolist() == pytest.approx([math.log(4) - math.log(0.8)])
    nats, counts = token_nll(logits, torch.tensor([[0, IGNORED, 2]]))
    assert counts.tolist() == [1], "the label of the first position predicts nothing and is predicted by nothing"
    assert nats.tolist() == pytest.approx([-math.log(0.8)])


def test_loss_equals_plain_logits_whatever_the_padding(make_model):
    model = make_model().eval()
    texts = [row(5, 2), row(12, 4), row(3, 1)]
    expected = [nats_by_hand(model, text) for text in texts]
    for pad_id in (0, 7):
        batch = pad_batch(texts, pad_id)
        labels = batch.pop("labels")
        nats, counts = token_nll(model(**batch).logits, labels)
        assert nats.tolist() == pytest.approx(expected, rel=1e-5)
        assert counts.tolist() == [3, 8, 2]


def test_gradient_does_not_depend_on_padding(make_model):
    gradients = []
    for texts in ([row(5, 2)], [row(5, 2), row(12, 12)]):
        model = make_model().eval()
        batch = pad_batch(texts, 0)
        labels = batch.pop("labels")
        token_nll(model(**batch).logits, labels)[0][0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)


def test_pad_batch_by_hand():
    texts = [TokenizedText(input_ids=[5, 0, 6, 0], loss_mask=[False, False, True, True]), row(2, 1, first=8)]
    batch = pad_batch(texts, 0)
    assert batch["input_ids"].tolist() == [[5, 0, 6, 0], [8, 9, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 6, 0], [IGNORED, 9, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_schedule_covers_every_row_once_per_epoch_and_groups_by_length():
    lengths = torch.randint(1, 100, (230,), generator=torch.Generator().manual_seed(0)).tolist()
    schedule = BatchSchedule(lengths, batch_size=4, batch_count=130, seed=3)
    batches = list(schedule)
    assert len(batches) == len(schedule) == 130
    for epoch in (batches[:58], batches[58:116]):
        assert sorted(index for batch in epoch for index in batch) == list(range(230))
    assert batches[:58] != batches[58:116]
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches[:58]]
    assert sum(spread) / len(spread) < 8, "shuffled batches of four would differ by about 60"
    assert batches == list(BatchSchedule(lengths, batch_size=4, batch_count=130, seed=3))
    assert batches != list(BatchSchedule(lengths, batch_size=4, batch_count=130, seed=4))


def test_processes_take_turns_and_short_batches_are_kept():
    alone = list(BatchSchedule([3] * 5, batch_size=4, batch_count=8, seed=0))
    both = [
        list(BatchSchedule([3] * 5, batch_size=4, batch_count=4, seed=0, process=process, process_count=2))
        for process in range(2)
    ]
    assert both == [alone[0::2], alone[1::2]]
    assert sorted(map(len, alone)) == [1, 1, 1, 1, 4, 4, 4, 4]


def test_learning_rate_by_hand():
    def factors(total, **settings):
        settings = {"warmup_fraction": 0.0, "decay": "cosine"} | settings
        return [learning_rate_factor(step, total, **settings) for step in range(total + 1)]

    by_hand = [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]
    assert factors(10, warmup_fraction=0.2, decay="linear") == pytest.approx(by_hand)
    assert factors(4) == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)
    assert set(factors(4, decay="constant")) == {1.0}
    assert factors(1, warmup_fraction=0.05)[0] == 1.0, "a run of one step learns something"


@pytest.mark.parametrize(
    ("settings", "rows", "processes", "batches"),
    [
        ({"epochs": 20, "batch_size": 4}, 5, 1, 40),
        ({"epochs": 20, "batch_size": 4}, 5, 2, 20),
        ({"epochs": 0.01, "batch_size": 4}, 5, 1, 1),
        ({"epochs": 20, "max_steps": 7, "batch_size": 4}, 5, 2, 7),
    ],
)
def test_length_of_a_run(settings, rows, processes, batches):
    assert LoopConfig(**settings).batches_per_process(rows, processes) == batches
