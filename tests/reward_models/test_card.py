"""The card: every number of it on judgements small enough to count by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models import Choice, Judgement, Ranking, Ranks, Thumb, Vote, Votes, refuse_leaks, reward_card
from lm_gym.reward_models.card import text_baseline_accuracy

SCORES = {"x": 2.0, "y": 1.0, "z": 0.0, "long long answer": -1.0}


def model(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
    return [SCORES.get(text, -5.0) for text in completions]


def voted(prompt: str, texts: tuple[str, str], *winners: str) -> Judgement:
    votes = tuple(Vote(winner, f"because {winner}") for winner in winners)  # type: ignore[arg-type]
    return Judgement.of(prompt, texts, Votes(votes))


SAID = [
    voted("p/1", ("x", "y"), "a", "a", "a", "b", "a"),
    voted("p/2", ("y", "x"), "a", "a", "b"),
    Judgement.of("q/1", ("x", "y", "z"), Ranks((1, 3, 2))),
    Judgement.of("q/1", ("z", "long long answer"), Choice("b"), comment="says more"),
    Judgement.of("q/1", ("x",), Thumb(True)),
]


def group_of(prompt: str) -> str:
    return prompt.split("/")[0]


def test_the_numbers_by_hand() -> None:
    card = reward_card(model, SAID, group_of=group_of)
    # p: right, wrong; q: x > y and x > z right, z > y wrong; the choice wrong.
    assert card.evaluation.pairs == 6
    assert card.evaluation.accuracy == pytest.approx(3 / 6)
    assert {group.group: group.accuracy for group in card.evaluation.groups} == {"p": 0.5, "q": 0.5}
    assert card.rank_correlation == pytest.approx(0.5)  # places 1, 3, 2 against 1, 2, 3
    assert card.length_correlation is not None
    assert card.length_correlation < 0
    assert [(one.low, one.pairs, one.accuracy) for one in card.by_share] == [
        (0.5, 1, 0.0),
        (0.7, 1, 1.0),
        (0.9, 1, 0.0),
    ]
    assert card.agreement is not None
    assert card.agreement.pairs == 2
    assert {probe.name: probe.share_outscored for probe in card.probes}["empty"] == 0.0
    assert card.seen_groups == ()


def test_disagreements_come_once_each_with_their_comments() -> None:
    twice = [Judgement.of("p/2", ("y", "x"), Choice("a")), *SAID]
    card = reward_card(model, twice, group_of=group_of)
    assert sorted((one.preferred, one.rejected, one.margin) for one in card.disagreements) == [
        ("long long answer", "z", 1.0),
        ("y", "x", 1.0),
    ]
    by_text = {one.preferred: one for one in card.disagreements}
    assert by_text["long long answer"].comments == ("says more",)
    assert by_text["y"].comments == ("because a", "because a", "because b")
    assert by_text["y"].share == pytest.approx(2 / 3)


def test_it_is_plain_json_with_the_names_that_scripts_rely_on() -> None:
    found = json.loads(json.dumps(reward_card(model, SAID, group_of=group_of).to_json()))
    assert {"accuracy", "nll", "ece", "length_baseline_accuracy", "n", "by_group"} <= set(found)
    assert found["n"] == 6
    assert found["by_group"] == {"p": 0.5, "q": 0.5}
    assert len(found["probes"]) == 7


def test_groups_that_were_trained_on_are_listed_and_leaks_are_refused() -> None:
    assert reward_card(model, SAID, group_of=group_of, trained_on=["q", "r"]).seen_groups == ("q",)
    refuse_leaks(SAID[:2], SAID[2:], group_of=group_of)
    with pytest.raises(ConfigError, match="both trained and measured on, and 1 are, 'p'"):
        refuse_leaks(SAID[:1], SAID[1:], group_of=group_of)


def test_without_a_comparison_there_is_no_card() -> None:
    with pytest.raises(DataError, match="at least one comparison"):
        reward_card(model, [SAID[-1]])


def test_the_text_baseline_finds_words_that_win_in_other_groups() -> None:
    rng = np.random.default_rng(0)
    fillers = [f"w{number}" for number in range(30)]
    rankings = []
    for number in range(200):
        good, bad = (" ".join([mark, *rng.choice(fillers, 6)]) for mark in ("brilliant", "awful"))
        rankings.append(Ranking.pair(f"p{number % 4}", good, bad))
    assert text_baseline_accuracy(rankings) == 1.0
    shuffled = [r if n // 4 % 2 else Ranking(r.prompt, r.responses, (2, 1)) for n, r in enumerate(rankings)]
    found = text_baseline_accuracy(shuffled)
    assert found is not None
    assert 0.3 < found < 0.7
    assert text_baseline_accuracy([Ranking.pair("one", "a b", "c d")]) is None


def test_each_text_is_scored_once() -> None:
    asked: list[tuple[str, str]] = []

    def counted(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
        asked.extend(zip(prompts, completions, strict=True))
        return model(prompts, completions)

    assert reward_card(counted, SAID, group_of=group_of).evaluation.accuracy == pytest.approx(0.5)
    assert len(asked) == len(set(asked))
