from __future__ import annotations

from collections import Counter

import pytest

from lm_gym.reward_models.judgements.learning_targets import Opinion, Pair, Ranked, Targets
from lm_gym.reward_models.scalar.batch_schedule import EncodedItem, JudgementSchedule, collate


def ranked(texts: tuple[tuple[int, ...], ...], ranks: tuple[int, ...]) -> EncodedItem:
    return EncodedItem(texts, Targets(rankings=(Ranked(tuple(range(len(ranks))), ranks),)))


def ranking(number: int, size: int, length: int = 3) -> EncodedItem:
    return ranked(tuple((number, k, *([1] * length)) for k in range(size)), tuple(range(1, size + 1)))


def ranks_of(item: EncodedItem) -> dict[tuple[int, ...], int]:
    (one,) = item.targets.rankings
    return {item.texts[place]: rank for place, rank in zip(one.places, one.ranks, strict=True)}


def schedule_of(rankings, **changes) -> JudgementSchedule:
    settings = {"epochs": 1, "batch_size": 4, "max_responses": 8, "seed": 0}
    return JudgementSchedule(rankings, **(settings | changes))


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
    place = ranks_of(whole)
    parts = [part for batch in schedule_of([whole], max_responses=8).batches for part in batch]
    assert sorted(text for part in parts for text in part.texts) == sorted(whole.texts)
    assert sorted(len(part.texts) for part in parts) == [6, 6, 7, 7, 7]
    assert all(place[text] == rank for part in parts for text, rank in ranks_of(part).items())


def test_no_part_has_one_response() -> None:
    parts = [part for batch in schedule_of([ranking(0, 7)], max_responses=2).batches for part in batch]
    assert [len(part.texts) for part in parts] == [2, 2, 2]


def test_batches_hold_like_lengths() -> None:
    rankings = [ranking(number, 2, length=number) for number in range(64)]
    spreads = [
        max(part.longest for part in batch) - min(part.longest for part in batch)
        for batch in schedule_of(rankings).batches
    ]
    assert max(spreads) == 3


def test_a_batch_encodes_each_text_once() -> None:
    first = ranked(((5, 6), (7,)), (2, 1))
    second = ranked(((7,), (5, 6), (8, 8, 8)), (1, 1, 2))
    said = Targets(
        pairs=(Pair(0, 1, (0.6, 0.4, 0.0)),),
        thumbs=(Opinion(1, 1.0),),
        ratings=(Opinion(0, 4.0),),
        values=(Opinion(1, -2.5),),
    )
    batch = collate([first, second, EncodedItem(((5, 6), (9,)), said)], fill_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 0], [7, 0, 0], [8, 8, 8], [9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]
    assert batch["rank_index"].tolist() == [[0, 1, 0], [1, 0, 2]]
    assert batch["ranks"].tolist() == [[2, 1, 0], [1, 1, 2]]
    assert batch["rank_mask"].tolist() == [[True, True, False], [True, True, True]]
    assert batch["pair_index"].tolist() == [[0, 3]]
    assert batch["pair_outcome"].tolist() == [[pytest.approx(0.6), pytest.approx(0.4), 0.0]]
    assert (batch["thumb_index"].tolist(), batch["thumb"].tolist()) == ([3], [1.0])
    assert (batch["rating_index"].tolist(), batch["rating"].tolist()) == ([0], [4.0])
    assert (batch["value_index"].tolist(), batch["value"].tolist()) == ([3], [-2.5])
    assert batch["labels"].tolist() == [1] * 6


@pytest.mark.parametrize("most", [2, 5, 8, 30])
def test_comparisons_of_one_prompt_are_packed_so_that_each_is_seen_once(most: int) -> None:
    texts = tuple((0, k) for k in range(20))
    pairs = tuple(Pair(a, b, (1.0, 0.0, 0.0)) for a in range(20) for b in range(a + 1, 20) if (a * b) % 3)
    thumbs = tuple(Opinion(place, float(place % 2)) for place in range(20))
    whole = EncodedItem(texts, Targets(pairs=pairs, thumbs=thumbs))
    parts = [part for batch in schedule_of([whole], max_responses=most).batches for part in batch]
    assert all(len(part.texts) <= most for part in parts)
    seen = Counter((part.texts[p.first], part.texts[p.second]) for part in parts for p in part.targets.pairs)
    assert seen == Counter((texts[p.first], texts[p.second]) for p in pairs)
    liked = Counter((part.texts[o.place], o.number) for part in parts for o in part.targets.thumbs)
    assert liked == Counter((texts[o.place], o.number) for o in thumbs)


def test_packing_reads_far_fewer_texts_than_pairs_have() -> None:
    pairs = tuple(Pair(a, b, (1.0, 0.0, 0.0)) for a in range(32) for b in range(a + 1, 32))
    whole = EncodedItem(tuple((0, k) for k in range(32)), Targets(pairs=pairs))
    parts = [part for batch in schedule_of([whole], max_responses=8).batches for part in batch]
    assert sum(len(part.texts) for part in parts) < 2 * len(pairs) / 3
