"""Probes of the card: against the answers that people chose, and without a word on texts that nobody wrote."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from lm_gym.assets import REVIEWS_LM
from lm_gym.reward_models import Choice, Judgement, PreferenceRewardModel, reward_card


def by_first_letter(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
    """The chosen answers start with "c", the rejected ones with "r"; nothing at all lies between."""
    return [{"c": 1.0, "r": -1.0}.get(text[:1], 0.0) for text in completions]


def pairs(count: int) -> list[Judgement]:
    return [Judgement.of(f"p{row}", ("chosen", "rejected"), Choice("a")) for row in range(count)]


def test_probes_are_held_against_chosen_answers() -> None:
    found = {probe.name: probe for probe in reward_card(by_first_letter, pairs(4)).probes}
    assert found["empty"].share_outscored == 0.0  # it beats every rejected answer, and no chosen one
    assert found["one word repeated"].share_outscored == 0.5  # as good as the chosen answer, whose word it is


def test_where_nothing_was_chosen_there_are_no_probes() -> None:
    undecided = [Judgement.of("p", ("x", "y"), Choice("a")), Judgement.of("p", ("x", "y"), Choice("b"))]
    assert reward_card(by_first_letter, undecided).probes == ()


@pytest.mark.parametrize("own", [False, True])
def test_only_texts_of_the_user_are_told_of_as_too_long(own: bool, caplog: pytest.LogCaptureFixture) -> None:
    answers = (" It broke" * (12 if own else 1), " It is bright")
    said = [Judgement.of(f"A lamp {row}:", answers, Choice("b")) for row in range(2)]
    model = PreferenceRewardModel.from_base(REVIEWS_LM, max_length=16)
    with caplog.at_level(logging.WARNING):
        card = reward_card(model, said)
    assert ("were longer than max_length" in caplog.text) == own
    assert card.texts_cut == (2 if own else 0)
