from __future__ import annotations

from collections import Counter

from lm_gym.reward_models.schedule import EncodedRanking, RankingSchedule, collate_rankings


def ranking(number: int, size: int, length: int = 3) -> EncodedRanking:
    return EncodedRanking(tuple((number, k, *([1] * length)) for k in range(size)), tuple(range(1, size + 1)))


def schedule_of(rankings, **changes) -> RankingSchedule:
    settings = {"epochs": 1, "batch_size": 4, "max_responses": 8, "seed": 0}
    return RankingSchedule(rankings, **(settings | changes))


def test_every_epoch_holds_every_ranking_once() -> None:
    rankings = [ranking(number, 2, number % 7) for number in range(30)]
    schedule = schedule_of(rankings, epochs=3)
    assert len(schedule) == 3 * 8
    for epoch in range(3):
        seen = Counter(part.texts for batch in schedule.batches[8 * epoch : 8 * epoch + 8] for part in batch)
        assert seen == Counter(one.texts for one in rankings)
    assert schedule.batches[:8] != schedule.batches[8:16]


def test_the_seed_decides_everything() -> None:
    rankings = [ranking(number, 9) for number in range(10)]
    assert schedule_of(rankings, max_responses=4).batches == schedule_of(rankings, max_responses=4).batches
    assert schedule_of(rankings, max_responses=4).batches != schedule_of(rankings, max_responses=4, seed=1).batches


def test_a_long_ranking_is_dealt_into_parts_that_keep_its_order() -> None:
    whole = ranking(0, 33)
    place = dict(zip(whole.texts, whole.ranks, strict=True))
    parts = [part for batch in schedule_of([whole], max_responses=8).batches for part in batch]
    assert sorted(text for part in parts for text in part.texts) == sorted(whole.texts)
    assert sorted(len(part.ranks) for part in parts) == [6, 6, 7, 7, 7]
    assert all(place[text] == rank for part in parts for text, rank in zip(part.texts, part.ranks, strict=True))


def test_no_part_has_one_response() -> None:
    parts = [part for batch in schedule_of([ranking(0, 7)], max_responses=2).batches for part in batch]
    assert [len(part.ranks) for part in parts] == [2, 2, 2]


def test_batches_hold_like_lengths() -> None:
    rankings = [ranking(number, 2, length=number) for number in range(64)]
    spreads = [
        max(part.longest for part in batch) - min(part.longest for part in batch)
        for batch in schedule_of(rankings).batches
    ]
    assert max(spreads) == 3


def test_a_batch_encodes_each_text_once() -> None:
    first = EncodedRanking(((5, 6), (7,)), (2, 1))
    second = EncodedRanking(((7,), (5, 6), (8, 8, 8)), (1, 1, 2))
    tied = EncodedRanking(((5, 6), (9,)), (1, 1))
    batch = collate_rankings([first, second, tied], fill_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 0], [7, 0, 0], [8, 8, 8], [9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]
    assert batch["text_index"].tolist() == [[0, 1, 0], [1, 0, 2], [0, 3, 0]]
    assert batch["ranks"].tolist() == [[2, 1, 0], [1, 1, 2], [1, 1, 0]]
    assert batch["response_mask"].tolist() == [[True, True, False], [True, True, True], [True, True, False]]
    assert batch["labels"].tolist() == [1, 1, -100]
