"""The cache that grows in place holds what transformers' own would hold, whatever is done to its layers meanwhile."""

import torch
from transformers.cache_utils import DynamicCache

from lm_gym.models.decoding.caches import LEAST_ROOM, GrowingCache


def slots(rows: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn((2, rows, 2, count, 4), generator=generator)
    return keys, values


def test_it_holds_what_a_cache_that_copies_holds() -> None:
    ours, theirs = GrowingCache(), DynamicCache()
    rows = 4
    for step, count in enumerate([5, 1, 1, 40, 1, 1, 3, 1]):
        if step == 2:
            for cache in (ours, theirs):
                cache.batch_select_indices(torch.tensor([3, 0, 0]))
            rows = 3
        if step == 5:
            for cache in (ours, theirs):
                cache.layers[0].keys = cache.layers[0].keys[:, :, 7:].contiguous()
                cache.layers[0].values = cache.layers[0].values[:, :, 7:].contiguous()
        if step == 6:  # a restarted row is written into its slots
            for cache in (ours, theirs):
                cache.layers[0].keys[[1], :, -4:] = slots(1, 4, 99)[0]
        found, expected = (cache.update(*slots(rows, count, step), 0) for cache in (ours, theirs))
        for got, wanted in zip(found, expected, strict=True):
            assert torch.equal(got, wanted)
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_slots_are_written_in_place_until_the_room_is_used_up() -> None:
    cache = GrowingCache()
    places = [cache.update(*slots(2, count, 0), 0)[0].data_ptr() for count in [3, *[1] * LEAST_ROOM, 1]]
    assert len(set(places[:-1])) == 1
    assert places[-1] != places[0]
