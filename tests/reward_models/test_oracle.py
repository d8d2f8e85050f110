from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from lm_gym.errors import ArtifactError, ConfigError, DataError, RewardModelError
from lm_gym.reward_models import (
    BradleyTerryAnnotator,
    OracleRewardModel,
    Ranking,
    agreement,
    expected_agreement,
    rank_all,
)


def length(prompts, completions):
    return [float(len(text)) for text in completions]


def test_the_oracle_returns_the_truth() -> None:
    assert OracleRewardModel(length).score(["p", "p"], ["ab", "abcd"]).value.tolist() == [2.0, 4.0]


def test_the_built_in_truth_is_that_of_the_reviews() -> None:
    from lm_gym.reviews import prompts, sample_review, true_score

    rng, prompt = np.random.default_rng(0), prompts("train")[0]
    texts = [sample_review(prompt, rng) for _ in range(3)]
    rows = [prompt] * len(texts)
    assert OracleRewardModel().score(rows, texts).value.tolist() == pytest.approx(true_score(rows, texts))


@pytest.mark.parametrize("temperature", [2.0, 1.0, 2 / 3])
def test_a_pair_is_chosen_with_the_bradley_terry_probability(temperature: float) -> None:
    judge = BradleyTerryAnnotator(length, temperature=temperature, seed=0)
    wins = np.mean([judge.choose("p", "abc", "a") == 0 for _ in range(3000)])
    expected = 1 / (1 + math.exp(-2 / temperature))
    # Four standard errors of a share of 3000 draws.
    assert wins == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 3000))


def test_rankings_follow_plackett_luce() -> None:
    judge = BradleyTerryAnnotator(length, temperature=1.0, seed=1)
    texts = ("a", "ab", "abc")
    drawn = [judge.rank("p", texts).ranks for _ in range(3000)]
    e = math.e
    expected = e**2 / (1 + e + e**2) * e / (1 + e)
    assert np.mean([ranks == (3, 2, 1) for ranks in drawn]) == pytest.approx(expected, abs=0.036)
    assert all(sorted(ranks) == [1, 2, 3] for ranks in drawn)


def test_without_noise_the_truth_decides_and_equals_are_drawn() -> None:
    judge = BradleyTerryAnnotator(length, temperature=0.0)
    assert judge.rank("p", ["ab", "abc", "a"]).ranks == (2, 1, 3)
    assert {judge.choose("p", "aa", "bb") for _ in range(50)} == {0, 1}


def test_a_judge_repeats_under_its_seed_and_from_its_state() -> None:
    first, second = (BradleyTerryAnnotator(length, temperature=3.0, seed=5) for _ in range(2))
    texts = ["a", "ab", "abc", "abcd"]
    assert [first.rank("p", texts) for _ in range(5)] == [second.rank("p", texts) for _ in range(5)]
    state = json.loads(json.dumps(first.state_dict()))
    ahead = [first.rank("p", texts) for _ in range(5)]
    first.load_state_dict(state)
    assert [first.rank("p", texts) for _ in range(5)] == ahead


def test_a_pool_judges_every_item_once_and_asks_the_truth_once() -> None:
    calls = []

    def truth(prompts, completions):
        calls.append(len(completions))
        return length(prompts, completions)

    judges = [BradleyTerryAnnotator(truth, temperature=0.0, seed=seed) for seed in range(3)]
    items = [(f"p{n}", ("a" * (n + 1), "a" * (n + 2), "b")) for n in range(1, 6)]
    rankings = rank_all(items, judges, seed=0)
    assert [ranking.prompt for ranking in rankings] == [prompt for prompt, _ in items]
    assert all(ranking.ranks == (2, 1, 3) for ranking in rankings)
    assert calls == [15]


def test_a_pool_repeats_under_its_seeds() -> None:
    items = [(f"p{n}", ("a", "ab")) for n in range(40)]
    runs = [
        rank_all(items, [BradleyTerryAnnotator(length, temperature=5.0, seed=s) for s in range(3)], seed=2)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len({ranking.ranks for ranking in runs[0]}) == 2


def test_agreement_by_hand() -> None:
    one = [Ranking("p", ("a", "b", "c"), (1, 2, 3)), Ranking("q", ("x", "y"), (1, 2))]
    other = [Ranking("p", ("c", "b", "a"), (2, 1, 2)), Ranking("q", ("y", "x"), (2, 1))]
    # a>b: no; a>c: tied, half; b>c: yes; x>y: yes.
    assert agreement(one, other) == pytest.approx(2.5 / 4)
    assert agreement(one, one) == 1.0
    with pytest.raises(DataError, match="row 0"):
        agreement(one[:1], other[1:])
    with pytest.raises(DataError, match="same items"):
        agreement(one, other[:1])


def test_expected_agreement_is_what_judges_reach() -> None:
    items = [("p", ("a" * n, "a" * (n + 1 + n % 4))) for n in range(1, 1500)]
    truth = rank_all(items, [BradleyTerryAnnotator(length, temperature=0.0)])
    noisy = rank_all(items, [BradleyTerryAnnotator(length, temperature=2.0, seed=4)])
    expected = expected_agreement([1 + n % 4 for n in range(1, 1500)], 2.0)
    assert agreement(truth, noisy) == pytest.approx(expected, abs=0.05)
    assert expected_agreement([1.0, 0.0], 0.0) == 0.75


def test_save_names_the_truth_and_load_refuses_anything_else(tmp_path) -> None:
    folder = OracleRewardModel().save(tmp_path / "oracle")
    assert json.loads((folder / "lm_gym_reward_model.json").read_text()) == {
        "kind": "oracle",
        "format": 1,
        "truth": "reviews",
    }
    assert OracleRewardModel.load(folder).name == "oracle"
    with pytest.raises(ArtifactError, match="never names code"):
        OracleRewardModel(length).save(tmp_path / "own")
    (folder / "lm_gym_reward_model.json").write_text(json.dumps({"kind": "oracle", "truth": "os:system"}))
    with pytest.raises(ArtifactError, match="os:system"):
        OracleRewardModel.load(folder)
    (folder / "lm_gym_reward_model.json").write_text('{"kind": "ora')
    with pytest.raises(ArtifactError, match="must hold a whole"):
        OracleRewardModel.load(folder)


def test_bad_settings_and_truths_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature must be finite and >= 0, got -1"):
        BradleyTerryAnnotator(length, temperature=-1)
    with pytest.raises(ConfigError, match="must be one of"):
        OracleRewardModel(truth="poems")
    with pytest.raises(ConfigError, match="at least one annotator"):
        rank_all([], [])
    with pytest.raises(RewardModelError, match="it abstained on 'b'"):
        BradleyTerryAnnotator(lambda prompts, completions: [1.0, None]).rank("p", ["a", "b"])
    with pytest.raises(DataError, match="at least 2 different responses"):
        BradleyTerryAnnotator(length).rank("p", ["a"])


def test_the_oracle_needs_no_torch() -> None:
    light = "import sys, lm_gym.reward_models as r; r.OracleRewardModel; r.WeightedSum; r.Ranking; "
    for code, expected in ((light, "False"), (light + "r.plackett_luce_nll; ", "True")):
        command = [sys.executable, "-c", code + "print('torch' in sys.modules)"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected
