"""The card: every number of it on judgements small enough to count by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models import (
    Choice,
    EnsembleRewardModel,
    Judgement,
    Ranks,
    Thumb,
    Vote,
    Votes,
    error_detection,
    evaluate_reward_model,
    learning_curve,
    refuse_leaks,
    reward_card,
)
from lm_gym.reward_models.measuring.words_baseline import text_baseline_accuracy
from lm_gym.scoring.adapters import as_reward_model
from lm_gym.scoring.protocol import CountsCutTexts, HasMemberScores, RewardModel, Scores

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
    ]  # the choice is one person's word, and no share
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
    assert (by_text["y"].share, by_text["y"].votes) == (pytest.approx(2 / 3), 3)
    assert by_text["long long answer"].votes == 1


def test_it_is_plain_json_with_the_names_that_scripts_rely_on() -> None:
    found = json.loads(json.dumps(reward_card(model, SAID, group_of=group_of).to_json()))
    assert {"accuracy", "nll", "ece", "length_baseline_accuracy", "n", "by_group"} <= set(found)
    assert found["n"] == 6
    assert found["by_group"] == {"p": 0.5, "q": 0.5}
    assert len(found["probes"]) == 7


def test_every_key_is_explained_in_the_docs() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "rewards" / "reward_card.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    explained = set(re.findall(r"`(\w+)`", " ".join(rows)))
    found = set(reward_card(model, SAID, group_of=group_of).to_json())
    assert found == explained


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
        rankings.append(Judgement.pair(f"p{number % 4}", good, bad))
    assert text_baseline_accuracy(rankings) == 1.0
    shuffled = [r if n // 4 % 2 else Judgement.ranking(r.prompt, r.texts, (2, 1)) for n, r in enumerate(rankings)]
    found = text_baseline_accuracy(shuffled)
    assert found is not None
    assert 0.3 < found < 0.7
    assert text_baseline_accuracy([Judgement.pair("one", "a b", "c d")]) is None


def test_each_text_is_scored_once() -> None:
    asked: list[tuple[str, str]] = []

    def counted(prompts: Sequence[str], completions: Sequence[str]) -> list[float | None]:
        asked.extend(zip(prompts, completions, strict=True))
        return model(prompts, completions)

    assert reward_card(counted, SAID, group_of=group_of).evaluation.accuracy == pytest.approx(0.5)
    assert len(asked) == len(set(asked))


def test_quarters_by_margin_are_those_of_the_definition() -> None:
    evaluation = reward_card(model, SAID, group_of=group_of).evaluation
    # Differences: p 1 right, 1 wrong; q 1 right (x, y), 2 right (x, z), 1 wrong (z, y), 1 wrong (the choice).
    assert [(one.low, one.high, one.pairs) for one in evaluation.by_margin] == [
        (1.0, 1.0, 2),
        (1.0, 1.0, 2),
        (1.0, 1.0, 1),
        (2.0, 2.0, 1),
    ]
    assert evaluation.by_margin[-1].accuracy == 1.0
    assert sum(one.pairs * one.accuracy for one in evaluation.by_margin) == pytest.approx(3)


def test_the_closest_calls_come_first() -> None:
    # The score is the number in the text: wrong by 1, right by 2, wrong by 3, right by 8.
    rankings = [Judgement.pair("p", *texts) for texts in (("1", "2"), ("4", "2"), ("3", "6"), ("9", "1"))]
    found = evaluate_reward_model(lambda prompts, completions: [float(text) for text in completions], rankings[::-1])
    assert [(one.low, one.accuracy) for one in found.by_margin] == [(1.0, 0.0), (2.0, 1.0), (3.0, 0.0), (8.0, 1.0)]


def noisy_member(seed: int, noise: dict[str, float]) -> Callable[..., list[float]]:
    def score(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        found = []
        for text in completions:
            rng = np.random.default_rng([seed, *text.encode()])
            found.append(len(text) + noise.get(text[:4], 0.0) * float(rng.normal()))
        return found

    return score


def test_an_ensemble_that_disagrees_where_it_errs_is_a_detector() -> None:
    rng = np.random.default_rng(0)
    noise = {"calm": 0.1, "wild": 40.0}
    rankings = []
    for number in range(300):
        kind = ("calm", "wild")[number % 2]
        short, long = (f"{kind} {'x' * int(length)}" for length in (rng.integers(1, 20), rng.integers(25, 45)))
        rankings.append(Judgement.pair(f"p{number}", long, short))
    ensemble = EnsembleRewardModel([noisy_member(seed, noise) for seed in range(5)])
    found = error_detection(ensemble, rankings)
    assert found is not None
    assert found.pairs == 300
    assert 5 < found.errors < 150
    assert found.by_spread > 0.6
    assert found.by_disagreement is not None
    assert found.by_disagreement > 0.6
    # The area is the chance that an error has the larger spread, counted pair by pair.
    values, _ = ensemble.member_scores(
        [one.prompt for one in rankings for _ in (0, 1)], [text for one in rankings for text in one.texts]
    )
    margins = values[:, ::2] - values[:, 1::2]
    wrong, spread = margins.mean(axis=0) < 0, margins.std(axis=0)
    for measure, area in ((spread, found.by_spread), (expit(margins).std(axis=0), found.by_disagreement)):
        wins = [(a > b) + 0.5 * (a == b) for a in measure[wrong] for b in measure[~wrong]]
        assert area == pytest.approx(np.mean(wins))
    assert found.errors == wrong.sum()
    assert error_detection(as_reward_model(model), rankings) is None  # no spread
    judged = [Judgement.ranking(one.prompt, one.texts, one.places) for one in rankings]
    assert reward_card(ensemble, judged).error_detection == found


def test_a_spread_of_the_models_own_is_used() -> None:
    class Unsure(RewardModel):
        def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
            return Scores.of([len(text) for text in responses], std=[4.0 if "?" in text else 0.1 for text in responses])

    rankings = [Judgement.pair("p", "long enough", "s"), Judgement.pair("q", "s?", "long")]
    found = error_detection(Unsure(), rankings)
    assert found is not None
    assert (found.errors, found.by_spread, found.by_disagreement) == (1, 1.0, None)
    assert error_detection(Unsure(), rankings[:1]) is None  # no error to detect


class Pooled:
    """A reward model of one's own that inherits from nothing: two members, and texts of five letters are cut."""

    name, normalizer, columns, all_columns = "pooled", None, (), False

    def identity(self) -> None:
        return None

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        return Scores.of(self.member_scores(prompts, responses)[0].mean(axis=0))

    def member_scores(self, prompts: Sequence[str], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        values = np.array([[float(len(text)) for text in responses], [float("?" in text) for text in responses]])
        return values, np.ones(len(responses), dtype=bool)

    def count_cut(self, prompts: Sequence[str], responses: Sequence[str]) -> int:
        return sum(len(text) > 4 for text in responses)


def test_what_a_model_of_ones_own_tells_stands_on_the_card() -> None:
    rankings = [Judgement.pair("p", "long enough", "s"), Judgement.pair("q", "s?", "long")]
    found = reward_card(Pooled(), rankings)
    assert isinstance(Pooled(), HasMemberScores)
    assert isinstance(Pooled(), CountsCutTexts)
    assert (found.texts, found.texts_cut) == (4, 1)
    assert found.error_detection is not None
    assert found.error_detection.by_disagreement is not None
    assert error_detection(as_reward_model(Pooled()), rankings) == found.error_detection
    silent = reward_card(model, rankings)
    assert (silent.texts_cut, silent.error_detection) == (None, None)


def test_a_learning_curve_grows_within_the_same_judgements() -> None:
    asked: list[list[Judgement]] = []

    def fit(part: list[Judgement]) -> RewardModel:
        asked.append(part)
        if len(part) < 4:
            raise DataError("all of one class")
        return as_reward_model(model)

    judgements = [Judgement.of(f"t{number}", ("x", "y"), Choice("a")) for number in range(16)]
    points = list(learning_curve(fit, judgements, SAID, shares=(1.0, 0.125, 0.5), group_of=group_of))
    assert [len(part) for part in asked] == [2, 8, 16]
    assert {one.prompt for one in asked[0]} < {one.prompt for one in asked[1]}
    assert [(point.judgements, point.accuracy) for point in points] == [(8, 0.5), (16, 0.5)]
    assert points[0].accuracy_standard_error is not None
    with pytest.raises(ConfigError, match=r"shares: must be .* in \(0, 1\]"):
        list(learning_curve(fit, judgements, SAID, shares=(0.0,)))
    assert reward_card(model, SAID, learning_curve=points).to_json()["learning_curve"][1]["judgements"] == 16


def test_each_annotator_is_held_against_the_others_and_the_model() -> None:
    def said(texts: tuple[str, str], *votes: tuple[str, str]) -> Judgement:
        return Judgement.of("p", texts, Votes(tuple(Vote(winner, annotator=who) for who, winner in votes)))  # type: ignore[arg-type]

    found = reward_card(
        model,
        [
            said(("x", "y"), ("first", "a"), ("second", "a"), ("third", "b")),
            said(("y", "x"), ("first", "b"), ("second", "a")),
        ],
    ).agreement
    assert found is not None
    assert found.named == 3
    by_name = {one.annotator: one for one in found.annotators}
    # "first": the others split (half), then disagree with it; the model prefers x both times, as "first" does.
    assert (by_name["first"].votes, by_name["first"].with_majority, by_name["first"].with_model) == (2, 0.25, 1.0)
    assert (by_name["third"].votes, by_name["third"].with_majority, by_name["third"].with_model) == (1, 0.0, 0.0)
    assert by_name["second"].with_model == 0.5
    assert [one.votes for one in found.annotators] == [2, 2, 1]
