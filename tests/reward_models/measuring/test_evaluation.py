from __future__ import annotations

import json
import math

import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models import Judgement, evaluate_reward_model

SCORES = {"a": 2.0, "b b": 1.0, "c c c": 1.0, "d": -1.0}


def lookup(prompts, completions):
    return [SCORES.get(text) for text in completions]


def nll(gap: float) -> float:
    return math.log1p(math.exp(-gap))


def test_numbers_by_hand() -> None:
    rankings = [
        Judgement.ranking("p", ("a", "b b", "c c c"), (1, 2, 3)),  # gaps 1, 1, 0
        Judgement.ranking("q", ("d", "b b"), (1, 2)),  # gap -2: wrong
        Judgement.ranking("q", ("a", "d"), (1, 2)),  # gap 3, equal lengths
    ]
    result = evaluate_reward_model(lookup, rankings)
    assert (result.pairs, result.abstained) == (5, 0)
    assert result.accuracy == pytest.approx((1 + 1 + 0.5 + 0 + 1) / 5)
    assert result.length_accuracy == pytest.approx((1 + 1 + 1 + 1 + 0.5) / 5)  # fewer words win
    assert (result.length_rule, result.longer_wins["words"]) == ("fewer words", pytest.approx(0.1))
    assert result.gain == pytest.approx(0.7 - 0.9)
    assert result.nll == pytest.approx((2 * nll(1) + nll(0) + nll(-2) + nll(3)) / 5)
    assert (result.pairs_at_matched_length, result.accuracy_at_matched_length) == (1, 1.0)
    assert [(group.group, group.pairs) for group in result.groups] == [("p", 3), ("q", 2)]
    assert [group.accuracy for group in result.groups] == pytest.approx([2.5 / 3, 0.5])
    # Bins: .5 holds p = .5 (right: half); .7 holds two of .731; .85 one of .881 (wrong); .95 one of .953.
    used = {round(b.low, 2): (b.pairs, b.accuracy) for b in result.bins if b.pairs}
    assert used == {0.5: (1, 0.5), 0.7: (2, 1.0), 0.85: (1, 0.0), 0.95: (1, 1.0)}
    assert [len(result.bins), result.bins[0].low, result.bins[9].high] == [10, 0.5, 1.0]
    sure = [1 / (1 + math.exp(-gap)) for gap in (1, 2, 3)]
    assert result.ece == pytest.approx((2 * (1 - sure[0]) + sure[1] + (1 - sure[2])) / 5)
    # Residuals from .7 sum to +.4 in p and -.4 in q: sqrt(2 / 1 * .32) / 5.
    assert result.accuracy_standard_error == pytest.approx(0.16)


def test_ties_form_no_pair_and_abstentions_are_counted() -> None:
    rankings = [Judgement.ranking("p", ("a", "b b", "d"), (1, 1, 2)), Judgement.ranking("p", ("a", "unknown"), (1, 2))]
    result = evaluate_reward_model(lookup, rankings)
    assert (result.pairs, result.abstained) == (2, 1)
    assert result.accuracy == 1.0
    assert result.accuracy_standard_error is None


def test_groups_of_prompts() -> None:
    rankings = [Judgement.ranking(f"t {side}", ("a", "d"), (1, 2)) for side in ("pro", "con")]
    result = evaluate_reward_model(lookup, rankings, group_of=lambda prompt: prompt.split()[0])
    assert [(group.group, group.pairs) for group in result.groups] == [("t", 2)]


def test_the_result_is_json() -> None:
    result = evaluate_reward_model(lookup, [Judgement.ranking("p", ("a", "d"), (1, 2))])
    assert json.loads(json.dumps(result.to_json()))["bins"][9]["pairs"] == 1


def test_an_empty_response_is_shorter_than_any() -> None:
    result = evaluate_reward_model(lambda prompts, completions: [0.0] * 2, [Judgement.ranking("p", ("a", ""), (1, 2))])
    assert (result.length_accuracy, result.accuracy, result.pairs_at_matched_length) == (1.0, 0.5, 0)
    assert result.nll == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "rankings", [[], [Judgement.ranking("p", ("a", "d"), (1, 1))], [Judgement.ranking("p", ("x", "y"), (1, 2))]]
)
def test_nothing_to_compare_is_refused(rankings) -> None:
    with pytest.raises(DataError, match="at least one comparison with two scores"):
        evaluate_reward_model(lookup, rankings)
