"""Annotators: the noisy oracle by its own formula, a pool, and a file of answers; all go on from their state."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lm_gym.errors import ConfigError, DataError, RewardModelError
from lm_gym.reward_models import (
    AnnotatorPool,
    BradleyTerryAnnotator,
    Choice,
    Judgement,
    Question,
    Ranks,
    RecordedAnnotator,
    Response,
    agreement,
    expected_agreement,
)


def length(prompts, completions):
    return [float(len(text)) for text in completions]


@pytest.mark.parametrize("temperature", [2.0, 1.0, 2 / 3])
def test_a_pair_is_chosen_with_the_bradley_terry_probability(temperature: float) -> None:
    annotator = BradleyTerryAnnotator(length, temperature=temperature, seed=0)
    drawn = annotator.ask([Question.of("p", ("abc", "a"))] * 3000)
    wins = np.mean([one.verdict == Choice("a") for one in drawn])
    expected = 1 / (1 + math.exp(-2 / temperature))
    # Four standard errors of a share of 3000 draws.
    assert wins == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 3000))


def test_rankings_follow_plackett_luce() -> None:
    drawn = BradleyTerryAnnotator(length, temperature=1.0, seed=1).ask([Question.of("p", ("a", "ab", "abc"))] * 3000)
    e = math.e
    expected = e**2 / (1 + e + e**2) * e / (1 + e)
    assert np.mean([one.verdict == Ranks((3, 2, 1)) for one in drawn]) == pytest.approx(expected, abs=0.036)
    assert all(sorted(one.places or ()) == [1, 2, 3] for one in drawn)


def test_without_noise_the_truth_decides_and_equals_are_drawn() -> None:
    annotator = BradleyTerryAnnotator(length, temperature=0.0)
    assert annotator.ask([Question.of("p", ["ab", "abc", "a"])])[0].places == (2, 1, 3)
    equal = annotator.ask([Question.of("p", ["aa", "bb"])] * 50)
    assert {one.verdict for one in equal} == {Choice("a"), Choice("b")}


def test_a_judgement_names_its_annotator_and_keeps_who_wrote_the_responses() -> None:
    asked = Question(prompt="p", responses=(Response(text="a", model="m", version="7"), Response(text="ab")))
    (said,) = BradleyTerryAnnotator(length, temperature=0.0, name="ann").ask([asked])
    assert said == Judgement(prompt="p", responses=asked.responses, verdict=Choice("b"), annotator="ann")


def test_the_truth_is_asked_once_for_all_items() -> None:
    calls = []

    def truth(prompts, completions):
        calls.append(len(completions))
        return length(prompts, completions)

    items = [Question.of(f"p{n}", ("a" * (n + 1), "a" * (n + 2), "b")) for n in range(1, 6)]
    judgements = BradleyTerryAnnotator(truth, temperature=0.0).ask(items)
    assert [one.prompt for one in judgements] == [item.prompt for item in items]
    assert all(one.places == (2, 1, 3) for one in judgements)
    assert calls == [15]


def people(seed: int = 2) -> AnnotatorPool:
    pool = [BradleyTerryAnnotator(length, temperature=5.0, seed=n, name=f"annotator {n}") for n in range(3)]
    return AnnotatorPool(pool, seed=seed)


ITEMS = [Question.of(f"p{n}", ("a", "ab")) for n in range(40)]


def test_a_pool_judges_every_item_once_in_order() -> None:
    judgements = people().ask(ITEMS)
    assert [one.prompt for one in judgements] == [item.prompt for item in ITEMS]
    assert {one.annotator for one in judgements} == {"annotator 0", "annotator 1", "annotator 2"}
    assert len({one.places for one in judgements}) == 2
    assert judgements == people().ask(ITEMS)
    assert judgements != people(seed=3).ask(ITEMS)


def test_a_pool_goes_on_from_its_state() -> None:
    pool = people()
    pool.ask(ITEMS)
    state = json.loads(json.dumps(pool.state_dict()))
    ahead = pool.ask(ITEMS)
    fresh = people(seed=9)
    fresh.load_state_dict(state)
    assert fresh.ask(ITEMS) == ahead != people().ask(ITEMS)


def test_recorded_answers_are_given_again_and_the_rest_is_skipped() -> None:
    known = [
        Judgement.pair("p", "x", "y"),
        Judgement.of("p", ("y", "x"), Choice("tie")),
        Judgement.ranking("q", ("x", "y", "z"), (1, 2, 3)),
    ]
    annotator = RecordedAnnotator(known)
    asked = [Question.of("q", ("z", "y", "x")), Question.of("p", ("x", "y")), Question.of("p", ("x", "z"))]
    assert annotator.ask(asked) == [known[2], known[0], known[1]]
    assert annotator.state_dict() == {}
    assert AnnotatorPool([annotator]).ask(asked) == [known[2], known[0], known[1]]


def test_agreement_by_hand() -> None:
    one = [Judgement.ranking("p", ("a", "b", "c"), (1, 2, 3)), Judgement.pair("q", "x", "y")]
    other = [Judgement.ranking("p", ("c", "b", "a"), (2, 1, 2)), Judgement.pair("q", "x", "y")]
    # a>b: no; a>c: tied, half; b>c: yes; x>y: yes.
    assert agreement(one, other) == pytest.approx(2.5 / 4)
    assert agreement(one, one) == 1.0
    with pytest.raises(DataError, match="row 0"):
        agreement(one[:1], other[1:])
    with pytest.raises(DataError, match="same items"):
        agreement(one, other[:1])


def test_expected_agreement_is_what_annotators_reach() -> None:
    items = [Question.of("p", ("a" * n, "a" * (n + 1 + n % 4))) for n in range(1, 1500)]
    truth = BradleyTerryAnnotator(length, temperature=0.0).ask(items)
    noisy = BradleyTerryAnnotator(length, temperature=2.0, seed=4).ask(items)
    expected = expected_agreement([1 + n % 4 for n in range(1, 1500)], 2.0)
    assert agreement(truth, noisy) == pytest.approx(expected, abs=0.05)
    assert expected_agreement([1.0, 0.0], 0.0) == 0.75


def test_bad_settings_truths_and_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature: must be a finite number >= 0, got -1"):
        BradleyTerryAnnotator(length, temperature=-1)
    with pytest.raises(ConfigError, match="at least one annotator"):
        AnnotatorPool([])
    with pytest.raises(RewardModelError, match="it abstained on 'b'"):
        BradleyTerryAnnotator(lambda prompts, completions: [1.0, None]).ask([Question.of("p", ["a", "b"])])
    with pytest.raises(DataError, match="at least 2 responses, got 1"):
        BradleyTerryAnnotator(length).ask([Question.of("p", ["a"])])
    with pytest.raises(DataError, match="at least one response"):
        Question.of("p", [])
