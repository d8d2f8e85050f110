from __future__ import annotations

import json
import re

import pytest

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models import Ranking, load_rankings, rankings_from_rows, split_by_prompt, to_rows


def test_both_row_forms_are_read_and_written_back() -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "note": 1},
        {"prompt": "q", "responses": ["x", "y", ""], "ranks": [2, 1, 3]},
    ]
    rankings = rankings_from_rows(rows)
    assert rankings == [Ranking("p", ("a", "b"), (1, 2)), Ranking("q", ("x", "y", ""), (2, 1, 3))]
    assert rankings_from_rows(to_rows(rankings)) == rankings


def test_pairs_of_a_ranking_with_a_tie() -> None:
    assert list(Ranking("p", ("a", "b", "c"), (2, 1, 2)).pairs()) == [(1, 0), (1, 2)]
    assert list(Ranking("p", ("a", "b"), (1, 1)).pairs()) == []
    assert Ranking("p", ("a", "b"), (1, 1)).is_tie


def test_two_copies_of_a_text_form_no_pair() -> None:
    assert list(Ranking("p", ("a", "b", "a"), (1, 2, 3)).pairs()) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("ranks", [(1, 2, 3), (3, 1, 2), (1, 1, 2), (1, 1, 3), (1, 2, 2), (1, 1, 1)])
def test_places_are_a_ranking_with_either_way_of_counting_ties(ranks: tuple[int, ...]) -> None:
    assert Ranking("p", ("a", "b", "c"), ranks).ranks == ranks


@pytest.mark.parametrize("ranks", [(0, 1, 2), (1, 3, 4), (1, 2, 4), (2, 2, 3), (1.0, 2.0, 3.0), (True, 2, 3)])
def test_other_numbers_are_not_a_ranking(ranks: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="places that start at 1 and leave no gap"):
        Ranking("p", ("a", "b", "c"), ranks)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "p", "chosen": "a"}, "it has no 'rejected'"),
        ({"prompt": "p"}, "it has no 'responses'"),
        ({"chosen": "a", "rejected": "b"}, "it has no 'prompt'"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "ranks": [1, 2]}, "mixes the two"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "at least 2 different responses, got 1 in ('a', 'a')"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "must be strings, got None"),
        ({"prompt": "p", "responses": ["a"], "ranks": [1]}, "at least 2 different responses, got 1"),
        ({"prompt": "p", "responses": ["a", "b"], "ranks": [1]}, "1 ranks for 2 responses"),
        ({"prompt": "p", "responses": ["a", "b"], "ranks": [1, 1]}, "all 2 are tied"),
        ({"prompt": "p", "responses": ["a", "a", "b"], "ranks": [1, 1, 1]}, "all 3 are tied"),
        ({"prompt": "p", "responses": "ab", "ranks": [1, 2]}, "responses must be a list"),
        ({"prompt": "p", "responses": ["a", "b"], "ranks": [1, 7]}, "leave no gap"),
        (["p", "a", "b"], "got list"),
    ],
)
def test_a_bad_row_is_named_by_source_and_number(row: object, text: str) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError, match=f"votes, row 2: .*{re.escape(text)}"):
        rankings_from_rows([good, row], source="votes")  # type: ignore[list-item]


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="at least one comparison"):
        rankings_from_rows([])


def test_a_file_is_named_in_its_errors(tmp_path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "a"}) + "\n")
    with pytest.raises(DataError, match=r"pairs\.jsonl, row 1"):
        load_rankings(path)


RANKINGS = [Ranking(f"{topic} {side}", ("a", "b"), (1, 2)) for topic in "ABCD" for side in ("pro", "con")] * 2


def test_a_split_keeps_prompts_and_groups_whole() -> None:
    split = split_by_prompt(RANKINGS, held_out=0.25, seed=3, group_of=lambda prompt: prompt[0])
    train, held_out = ({ranking.prompt[0] for ranking in side} for side in split)
    assert len(held_out) == 1
    assert not train & held_out
    assert len(split.train) + len(split.held_out) == len(RANKINGS)
    assert split == split_by_prompt(RANKINGS, held_out=0.25, seed=3, group_of=lambda prompt: prompt[0])
    draws = {split_by_prompt(RANKINGS, held_out=0.25, seed=s).held_out[0].prompt for s in range(20)}
    assert len(draws) > 2


def test_named_prompts_are_held_out() -> None:
    split = split_by_prompt(RANKINGS, held_out=["A pro", "C con"])
    assert {ranking.prompt for ranking in split.held_out} == {"A pro", "C con"}


@pytest.mark.parametrize("held_out", [0.0, 1.0, -1, ["nobody"], []])
def test_a_split_that_cannot_be_made_is_refused(held_out: object) -> None:
    with pytest.raises(ConfigError, match="split_by_prompt"):
        split_by_prompt(RANKINGS, held_out=held_out)  # type: ignore[arg-type]


def test_one_prompt_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="at least 2 different prompts"):
        split_by_prompt(RANKINGS[:1], held_out=0.5)
