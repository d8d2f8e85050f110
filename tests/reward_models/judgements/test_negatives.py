"""Answers that are spoiled on purpose."""

from __future__ import annotations

import pytest

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models import Judgement, Thumb
from lm_gym.reward_models.judgements.negatives import first_words, spoiled_pairs

SAID = [
    Judgement.pair(f"p{number}", f"It is number {number}. Some more words follow here.", "no") for number in range(60)
]


def test_a_third_each_is_empty_cut_and_padded() -> None:
    made = spoiled_pairs([*SAID, Judgement.of("q", ("fine",), Thumb(True))], share=0.5, seed=0)
    kinds = {"empty": 0, "cut": 0, "padded": 0}
    for one in made:
        better, worse = one.texts
        assert [tuple(pair) for pair in one.pairs()] == [(0, 1)]
        assert better in {said.texts[0] for said in SAID if said.prompt == one.prompt}
        kind = "padded" if worse.startswith(better) else "cut" if worse else "empty"
        kinds[kind] += 1
        assert kind != "cut" or (better.startswith(worse) and len(worse.split()) <= 0.75 * len(better.split()))
    assert kinds == {"empty": 10, "cut": 10, "padded": 10}
    assert spoiled_pairs(SAID, share=0.5, seed=0) == spoiled_pairs(SAID, share=0.5, seed=0)
    assert spoiled_pairs(SAID, share=0.5, seed=1) != spoiled_pairs(SAID, share=0.5, seed=0)


def test_a_cut_answer_differs_in_nothing_but_its_end() -> None:
    said = [Judgement.pair(f"p{number}", " One line.\n\n- Another  one, of more words.", "no") for number in range(9)]
    (better,) = {one.texts[0] for one in said}
    cut = [text for one in spoiled_pairs(said, share=1.0) if 0 < len(text := one.texts[1]) < len(better)]
    assert len(cut) == 3
    assert all(better.startswith(text) for text in cut)
    assert first_words(better, 4) == " One line.\n\n- Another"
    assert (first_words(" one", 0), first_words("", 2)) == (" one", "")


def test_bad_input_is_named() -> None:
    for share in (0.0, 1.5, float("nan"), "half"):
        with pytest.raises(ConfigError, match="spoiled_pairs: share"):
            spoiled_pairs(SAID, share=share)
    with pytest.raises(DataError, match="compare two responses"):
        spoiled_pairs([Judgement.of("p", ("x",), Thumb(True))], share=0.5)
