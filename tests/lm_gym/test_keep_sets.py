"""Keep sets against a plain boolean array of shape (B, T, V)."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_gym.errors import ConfigError
from lm_gym.keep_sets import KeepSetRecorder, KeepSets


class Case(NamedTuple):
    keep: np.ndarray
    """Shape: (B, T, V); True everywhere off the mask."""
    mask: np.ndarray
    """Shape: (B, T); each row counts a prefix of at least one token."""


@st.composite
def cases(draw: st.DrawFn, vocab_size: int | None = None, max_rows: int = 5) -> Case:
    vocab = vocab_size or draw(st.sampled_from([3, 8, 33, 64, 300]))
    rows, width = draw(st.integers(1, max_rows)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = rng.integers(1, width + 1, rows)
    mask = np.arange(width) < lengths[:, None]
    # Densities from almost nothing (ids are smaller) to everything (nothing is stored).
    density = rng.choice([0.0, 0.02, 0.3, 0.9, 1.0], size=(rows, width, 1))
    keep = rng.random((rows, width, vocab)) < density
    keep[..., rng.integers(vocab)] = True
    keep[~mask] = True
    return Case(keep, mask)


def recorded(case: Case, max_bytes: int = 1 << 20) -> KeepSets:
    """Recorded as a decode does it: column by column, the rows that are still open."""
    rows, width, vocab = case.keep.shape
    recorder = KeepSetRecorder(rows, width, vocab, max_bytes=max_bytes)
    for column in range(width):
        active = np.flatnonzero(case.mask[:, column])
        recorder.record(active, column, case.keep[active, column])
    return recorder.finish()


def assert_dense(sets: KeepSets, case: Case) -> None:
    count = int(case.mask.sum())
    np.testing.assert_array_equal(sets.dense(0, count, case.mask), case.keep[case.mask])


@given(cases())
@settings(max_examples=60)
def test_dense_gives_back_what_was_recorded(case: Case) -> None:
    assert_dense(recorded(case), case)


@given(cases(), st.data())
@settings(max_examples=60)
def test_any_run_of_tokens_gives_back_its_own_subsets(case: Case, data: st.DataObject) -> None:
    count = int(case.mask.sum())
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count + 3))
    np.testing.assert_array_equal(
        recorded(case).dense(start, stop, case.mask), case.keep[case.mask][start : min(stop, count)]
    )


@given(cases(), st.data())
@settings(max_examples=60)
def test_selected_rows_keep_their_subsets(case: Case, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(case.mask) - 1), max_size=6)), dtype=np.int64)
    chosen = recorded(case)[rows]
    assert chosen.kind.shape == (len(rows), case.mask.shape[1])
    assert_dense(chosen, Case(case.keep[rows], case.mask[rows]))


@given(cases(vocab_size=64), cases(vocab_size=64))
@settings(max_examples=40)
def test_concatenated_batches_keep_their_subsets(first: Case, second: Case) -> None:
    width = max(first.mask.shape[1], second.mask.shape[1])

    def wide(case: Case) -> Case:
        extra = width - case.mask.shape[1]
        return Case(
            np.pad(case.keep, ((0, 0), (0, extra), (0, 0)), constant_values=True),
            np.pad(case.mask, ((0, 0), (0, extra))),
        )

    joined = KeepSets.concatenate([recorded(first), recorded(second)], width)
    parts = [wide(first), wide(second)]
    assert_dense(joined, Case(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))))


@given(cases())
@settings(max_examples=30)
def test_trimmed_to_the_longest_response_nothing_changes(case: Case) -> None:
    width = int(case.mask.sum(axis=1).max())
    assert_dense(recorded(case).trimmed(width), Case(case.keep[:, :width], case.mask[:, :width]))
    wider = Case(
        np.pad(case.keep[:, :width], ((0, 0), (0, 2), (0, 0)), constant_values=True),
        np.pad(case.mask[:, :width], ((0, 0), (0, 2))),
    )
    assert_dense(recorded(case).trimmed(width + 2), wider)


def one_token(keep: np.ndarray) -> KeepSets:
    return recorded(Case(keep[None, None, :], np.ones((1, 1), dtype=bool)))


def test_the_smaller_of_the_two_forms_is_stored() -> None:
    # V = 320: a bit mask takes 40 bytes, an id 4; nine ids are smaller than the mask, ten are not.
    few, many = np.zeros(320, dtype=bool), np.zeros(320, dtype=bool)
    few[:9] = True
    many[:10] = True
    ids, bits = one_token(few), one_token(many)
    assert ids.kind.tolist() == [[1]]
    assert ids.ids.tolist() == list(range(9))
    assert ids.offsets.tolist() == [0, 9]
    assert bits.kind.tolist() == [[2]]
    assert bits.bits.shape == (1, 40)
    assert bits.ids.size == 0


def test_a_full_set_stores_nothing() -> None:
    sets = one_token(np.ones(40, dtype=bool))
    assert sets.kind.tolist() == [[0]]
    assert (sets.ids.size, sets.bits.size) == (0, 0)


def test_nbytes_counts_every_array() -> None:
    keep = np.zeros(320, dtype=bool)
    keep[:9] = True
    assert one_token(keep).nbytes == 1 + 9 * 4 + 2 * 8 + 0


def test_trimming_below_a_stored_subset_is_refused() -> None:
    keep = np.ones((1, 3, 8), dtype=bool)
    keep[0, 2, 0] = False
    sets = recorded(Case(keep, np.ones((1, 3), dtype=bool)))
    with pytest.raises(ValueError, match="width 2 cuts off tokens with a stored subset"):
        sets.trimmed(2)


def test_the_memory_limit_is_held() -> None:
    keep = np.zeros((2, 4, 64), dtype=bool)
    keep[..., :32] = True  # 8 bytes of bits per token, 16 per column
    case = Case(keep, np.ones((2, 4), dtype=bool))
    assert recorded(case, max_bytes=64).bits.shape == (8, 8)
    with pytest.raises(ConfigError, match=r"must fit in max_keep_set_bytes = 63, and .* needed more by token 4"):
        recorded(case, max_bytes=63)
