"""Splits by prompt and by group of prompts."""

from __future__ import annotations

import pytest

from lm_gym.errors import ConfigError
from lm_gym.reward_models import Judgement, split_by_prompt

PAIRS = [Judgement.pair(f"{topic} {side}", "a", "b") for topic in "ABCD" for side in ("pro", "con")] * 2


def test_a_split_keeps_prompts_and_groups_whole() -> None:
    split = split_by_prompt(PAIRS, held_out=0.25, seed=3, group_of=lambda prompt: prompt[0])
    train, held_out = ({one.prompt[0] for one in side} for side in split)
    assert len(held_out) == 1
    assert not train & held_out
    assert len(split.train) + len(split.held_out) == len(PAIRS)
    assert split == split_by_prompt(PAIRS, held_out=0.25, seed=3, group_of=lambda prompt: prompt[0])
    draws = {split_by_prompt(PAIRS, held_out=0.25, seed=s).held_out[0].prompt for s in range(20)}
    assert len(draws) > 2


def test_named_prompts_are_held_out() -> None:
    split = split_by_prompt(PAIRS, held_out=["A pro", "C con"])
    assert {one.prompt for one in split.held_out} == {"A pro", "C con"}


@pytest.mark.parametrize("held_out", [0.0, 1.0, -1, ["nobody"], []])
def test_a_split_that_cannot_be_made_is_refused(held_out: object) -> None:
    with pytest.raises(ConfigError, match=r"^held_out \(--held-out\): "):
        split_by_prompt(PAIRS, held_out=held_out)  # type: ignore[arg-type]


def test_one_prompt_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="at least 2 different prompts"):
        split_by_prompt(PAIRS[:1], held_out=0.5)
