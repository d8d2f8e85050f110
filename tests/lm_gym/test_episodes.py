"""The batch of finished episodes: selection, joining and rows without padding."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_gym import Episodes
from lm_gym.keep_sets import KeepSetRecorder, KeepSets

VOCAB = 40
PAD = 39


def random_keep_sets(rng: np.random.Generator, mask: np.ndarray) -> KeepSets:
    recorder = KeepSetRecorder(*mask.shape, VOCAB, max_bytes=1 << 20)
    for column in range(mask.shape[1]):
        rows = np.flatnonzero(mask[:, column])
        keep = rng.random((len(rows), VOCAB)) < rng.choice([0.02, 0.5, 1.0], size=(len(rows), 1))
        keep[:, 0] = True
        recorder.record(rows, column, keep)
    return recorder.finish()


def make(
    seed: int,
    rows: int = 3,
    *,
    kept: bool = True,
    reference: bool = True,
    temperature: float = 1.0,
) -> Episodes:
    rng = np.random.default_rng(seed)
    prompt_lengths, lengths = rng.integers(1, 5, rows), rng.integers(1, 6, rows)
    prompt_mask = np.arange(prompt_lengths.max()) < prompt_lengths[:, None]
    mask = np.arange(lengths.max()) < lengths[:, None]

    def numbers(dtype: Any = np.float32) -> np.ndarray:
        return np.where(mask, rng.normal(size=mask.shape), 0).astype(dtype)

    truncated = rng.random(rows) < 0.3
    return Episodes(
        prompt_ids=np.where(prompt_mask, rng.integers(0, VOCAB, prompt_mask.shape), PAD),
        prompt_mask=prompt_mask,
        response_ids=np.where(mask, rng.integers(0, VOCAB, mask.shape), 0),
        response_mask=mask,
        log_probs=numbers(),
        ref_log_probs=numbers() if reference else None,
        kl=numbers(np.float64) if reference else None,
        rewards=numbers(np.float64),
        kl_coef=rng.random(rows),
        scores=rng.normal(size=rows).astype(np.float32),
        score_valid=rng.random(rows) < 0.8,
        terminated=~truncated,
        truncated=truncated,
        group=np.arange(rows) // 2,
        stop_reasons=tuple(rng.choice(["eos", "stop_string", "length"], rows).tolist()),
        prompts=tuple(f"p{seed}-{row}" for row in range(rows)),
        responses=tuple(f"r{seed}-{row}" for row in range(rows)),
        temperature=temperature,
        max_new_tokens=8,
        keep_sets=random_keep_sets(rng, mask) if kept else None,
    )


def row_content(episodes: Episodes, row: int) -> dict[str, Any]:
    """One episode without any padding."""
    prompt, response = episodes.prompt_mask[row], episodes.response_mask[row]
    out: dict[str, Any] = {"temperature": episodes.temperature}
    for field in fields(episodes):
        value = getattr(episodes, field.name)
        if isinstance(value, KeepSets):
            starts = episodes.response_mask.sum(axis=1).cumsum() - episodes.response_mask.sum(axis=1)
            first = int(starts[row])
            out["keep"] = value.dense(first, first + int(response.sum()), episodes.response_mask).tolist()
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            out[field.name] = value[row][prompt if field.name.startswith("prompt") else response].tolist()
        elif isinstance(value, tuple | np.ndarray):
            out[field.name] = value[row]
    return out


@given(st.integers(0, 10_000), st.lists(st.integers(0, 4), max_size=8))
@settings(max_examples=60)
def test_selected_rows_keep_their_content_and_lose_their_padding(seed: int, rows: list[int]) -> None:
    episodes = make(seed, rows=5)
    chosen = episodes[rows]
    assert len(chosen) == len(rows)
    for place, row in enumerate(rows):
        assert row_content(chosen, place) == row_content(episodes, row)
    if rows:
        assert chosen.response_mask.shape[1] == episodes.response_lengths[rows].max()
        assert chosen.prompt_mask.shape[1] == episodes.prompt_lengths[rows].max()


@given(st.integers(0, 10_000), st.integers(0, 6), st.integers(0, 6), st.sampled_from([1, 2, -1]))
@settings(max_examples=30)
def test_a_slice_selects_like_the_rows_it_names(seed: int, start: int, stop: int, step: int) -> None:
    episodes = make(seed, rows=5)
    rows = list(range(5))[start:stop:step]
    chosen = episodes[start:stop:step]
    assert chosen.prompts == tuple(episodes.prompts[row] for row in rows)


def test_a_boolean_mask_selects_the_rows_where_it_is_true() -> None:
    episodes = make(1, rows=4)
    chosen = episodes[np.array([True, False, False, True])]
    assert chosen.prompts == ("p1-0", "p1-3")


def rows_of(episodes: Episodes) -> list[dict[str, Any]]:
    return [row_content(episodes, row) for row in range(len(episodes))]


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 4)), min_size=1, max_size=4), st.booleans())
@settings(max_examples=60)
def test_concatenated_rows_keep_their_content(parts: list[tuple[int, int]], with_reference: bool) -> None:
    batches = [make(seed, rows, reference=with_reference) for seed, rows in parts]
    joined = Episodes.concatenate(batches)
    contents = [row_content(batch, row) for batch in batches for row in range(len(batch))]
    found = [row_content(joined, row) for row in range(len(joined))]
    groups = [(number, content.pop("group")) for number, batch in enumerate(batches) for content in rows_of(batch)]
    assert [{**row, "group": 0} for row in found] == [{**row, "group": 0} for row in contents]
    # Rows share a group in the whole exactly where they shared one in the same part.
    together = [[one["group"] == other["group"] for other in found] for one in found]
    assert together == [[one == other for other in groups] for one in groups]


def test_a_batch_without_keep_sets_joins_one_that_has_them() -> None:
    joined = Episodes.concatenate([make(1, kept=False), make(2), make(3, kept=False)])
    count = int(joined.response_mask[:3].sum())
    assert joined.keep_sets is not None
    assert joined.keep_sets.dense(0, count, joined.response_mask).all()
    assert row_content(joined, 4)["keep"] == row_content(make(2), 1)["keep"]


def test_splitting_and_joining_gives_the_batch_back() -> None:
    episodes = make(7, rows=6)
    again = Episodes.concatenate([episodes[:2], episodes[2:3], episodes[3:]])
    for row in range(6):  # the parts are no longer known to have come from one batch, so their groups are apart
        assert row_content(again, row) | {"group": 0} == row_content(episodes, row) | {"group": 0}


@pytest.mark.parametrize("order", [1, -1])
def test_a_field_that_only_some_parts_have_is_refused_by_name(order: int) -> None:
    parts = [make(1), make(2, reference=False)][::order]
    with pytest.raises(ValueError, match=r"Episodes.concatenate: every part must have .*ref_log_probs"):
        Episodes.concatenate(parts)


def test_other_temperatures_are_not_joined() -> None:
    with pytest.raises(ValueError, match=r"every part must have the same temperature, got \[1.0, 0.5\]"):
        Episodes.concatenate([make(1), make(2, temperature=0.5)])


def test_nothing_to_join_is_refused() -> None:
    with pytest.raises(ValueError, match="needs at least one batch, got none"):
        Episodes.concatenate([])


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_rows_have_no_padding(seed: int) -> None:
    episodes = make(seed, rows=4)
    for name, rows in (("prompt", episodes.prompt_rows()), ("response", episodes.response_rows())):
        ids, mask = getattr(episodes, f"{name}_ids"), getattr(episodes, f"{name}_mask")
        assert [row.tolist() for row in rows] == [ids[number][mask[number]].tolist() for number in range(4)]


def test_without_keep_sets_drops_them_alone() -> None:
    episodes = make(3)
    bare = episodes.without_keep_sets()
    assert bare.keep_sets is None
    assert bare.log_probs is episodes.log_probs


@pytest.mark.parametrize("name", ["log_probs", "rewards", "kl", "response_ids", "ref_log_probs"])
def test_a_grid_of_another_shape_is_refused(name: str) -> None:
    episodes = make(3)
    with pytest.raises(ValueError, match=rf"^Episodes.{name}: must have shape"):
        replace(episodes, **{name: getattr(episodes, name)[:, :-1]})


@pytest.mark.parametrize("name", ["scores", "stop_reasons", "prompts", "terminated"])
def test_another_number_of_rows_is_refused(name: str) -> None:
    episodes = make(3)
    with pytest.raises(ValueError, match=rf"^Episodes.{name}: must have 3 rows, got 2"):
        replace(episodes, **{name: getattr(episodes, name)[:2]})


@pytest.mark.parametrize("name", ["prompt_ids", "prompt_mask"])
def test_prompts_of_another_shape_are_refused(name: str) -> None:
    episodes = make(3)
    with pytest.raises(ValueError, match=r"^Episodes.prompt_(ids|mask): must have"):
        replace(episodes, **{name: getattr(episodes, name)[:2]})
