"""What composed and saved reward models say of themselves: normaliser, columns, and who scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from lm_gym import RewardConfig, RewardModel, SamplingConfig, ScoreNormalizer, Scores, load_reward_model
from lm_gym.app.pipeline.stages import make_env
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.reward_models import (
    CachedRewardModel,
    EnsembleRewardModel,
    JudgeRewardModel,
    LengthReward,
    OracleRewardModel,
    RemoteJudge,
    WeightedSum,
)
from lm_gym.scoring.protocol import checked_scores
from lm_gym.testing import check_reward_model

LOW, HIGH = ScoreNormalizer(gain=0.5, bias=-1.0), ScoreNormalizer(gain=10.0)


class Words(RewardModel):
    """The number of words, by its own normaliser."""

    def __init__(self, normalizer: ScoreNormalizer | None, std: float | None = None) -> None:
        self.normalizer, self.std = normalizer, std

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:  # type: ignore[override]
        counts = [float(len(text.split())) for text in responses]
        return Scores.of(counts, None if self.std is None else [self.std] * len(counts))


def right(completions: Sequence[str], answer: Sequence[str]) -> list[float]:
    return [float(one in text) for one, text in zip(answer, completions, strict=True)]


def wrong(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    return [float(one not in text) for one, text in zip(answer, completions, strict=True)]


def test_an_ensemble_averages_normalised_scores() -> None:
    ensemble = EnsembleRewardModel([Words(LOW), Words(HIGH)])
    found = ensemble.score(["p"], ["a b c d"])
    assert found.value.tolist() == [20.5]  # (.5 * 4 - 1 + 10 * 4) / 2
    assert found.std is not None
    assert found.std.tolist() == [19.5]
    assert ensemble.normalizer is None


def test_a_sum_weighs_normalised_scores() -> None:
    model = WeightedSum({"low": (2.0, Words(LOW, std=3.0)), "raw": (1.0, Words(None, std=1.0))})
    found = model.score(["p"], ["a b c d"])
    assert found.value.tolist() == [6.0]  # 2 * (.5 * 4 - 1) + 4
    assert found.std is not None
    np.testing.assert_allclose(found.std, [np.hypot(3.0, 1.0)], rtol=1e-6)
    assert model.normalizer is None
    assert model.table(["p"], ["a b c d"])[0]["terms"] == {"low": 2.0, "raw": 4.0}


def test_a_cache_and_an_oracle_pass_the_normaliser_on() -> None:
    inner = Words(LOW)
    cached, oracle = CachedRewardModel(inner), OracleRewardModel(inner)
    assert cached.score(["p"], ["a b"]).value.tolist() == [2.0]
    assert cached.normalizer == oracle.normalizer == LOW
    inner.normalizer = HIGH
    assert cached.normalizer == oracle.normalizer == HIGH


def test_the_others_have_none_of_their_own() -> None:
    assert LengthReward(target=3, tolerance=2).normalizer is None
    assert RemoteJudge(lambda prompt, response: 1.0).normalizer is None
    assert JudgeRewardModel.normalizer is None
    assert OracleRewardModel().normalizer is None


def test_composed_models_pass_on_what_their_parts_ask_for() -> None:
    texts, answers = (["p", "p"], ["it is 4", "it is 5"]), {"answer": ["4", "4"], "other": [0, 1]}
    parts: list[Any] = [
        EnsembleRewardModel([right, Words(None)]),
        WeightedSum({"right": (1.0, right), "words": (1.0, Words(None))}),
        CachedRewardModel(right),
        OracleRewardModel(right),
    ]
    for model, expected in zip(parts, ([2.0, 1.5], [4.0, 3.0], [1.0, 0.0], [1.0, 0.0]), strict=True):
        assert (model.columns, model.all_columns) == (("answer",), False)
        assert checked_scores(model, *texts, answers).value.tolist() == expected
        with pytest.raises(RewardModelError, match="needs the column 'answer'"):
            checked_scores(model, *texts)
    both = EnsembleRewardModel([right, wrong])
    assert (both.columns, both.all_columns) == (("answer",), True)
    assert checked_scores(both, *texts, answers).value.tolist() == [0.5, 0.5]


def test_a_cache_tells_columns_apart_and_refuses_what_it_cannot_write() -> None:
    cached = CachedRewardModel(right)
    texts = ["p", "p"], ["it is 4", "it is 4"]
    assert cached.score(*texts, answer=["4", "5"]).value.tolist() == [1.0, 0.0]
    assert cached.score(*texts, answer=["5", "4"]).value.tolist() == [0.0, 1.0]
    with pytest.raises(RewardModelError, match="a column must hold plain JSON values"):
        cached.score(["p"], ["it is 4"], answer=[object()])


def test_two_models_on_one_file_keep_their_scores_apart(tmp_path: Path, reward_of: Any) -> None:
    path = tmp_path / "scores.sqlite"
    columns = {"answer": ["4"]}
    one, other = (CachedRewardModel(function, path=path) for function in (right, wrong))
    assert checked_scores(one, ["p"], ["it is 4"], columns).value.tolist() == [1.0]
    assert checked_scores(other, ["p"], ["it is 4"], columns).value.tolist() == [0.0]
    first, second = reward_of("gpt2"), reward_of("gpt2", seed=1)
    expected = [model.score(["one"], ["good"]).value.tolist() for model in (first, second)]
    assert expected[0] != expected[1]
    assert [
        CachedRewardModel(m, path=path).score(["one"], ["good"]).value.tolist() for m in (first, second)
    ] == expected


def test_a_file_needs_to_know_who_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    for nameless in (Words(None), lambda completions: [1.0], LengthReward(target=3, tolerance=2)):
        with pytest.raises(ConfigError, match=r"does not say who it is; pass identity='\.\.\.'"):
            CachedRewardModel(nameless, path=path)
    short, long = (
        CachedRewardModel(LengthReward(target=target, tolerance=2), path=path, identity=f"length {target}")
        for target in (1, 9)
    )
    assert short.score(["p"], ["word"]).value.tolist() == [1.0]
    assert long.score(["p"], ["word"]).value.tolist() == [0.0]


def test_composed_models_know_who_they_are_if_their_parts_do(reward_of: Any) -> None:
    model = reward_of("gpt2")
    assert model.identity() == reward_of("gpt2").identity() != reward_of("gpt2", seed=1).identity()
    assert OracleRewardModel().identity() == "truth reviews"
    assert OracleRewardModel(right).identity() == f"{__name__}:right"
    plain = EnsembleRewardModel([model, right])
    assert plain.identity() is not None
    assert plain.identity() != EnsembleRewardModel([model, right], rule="worst").identity()
    assert EnsembleRewardModel([model, Words(None)]).identity() is None
    assert WeightedSum({"a": (1.0, model)}).identity() != WeightedSum({"a": (2.0, model)}).identity()
    assert WeightedSum({"a": (1.0, Words(None))}).identity() is None
    assert CachedRewardModel(model).identity() == model.identity()


def test_one_folder_pays_the_same_through_every_door(tmp_path: Path, save_base: Any, reward_of: Any) -> None:
    model = reward_of("gpt2")
    model.normalizer = ScoreNormalizer(gain=50.0, bias=3.0, fitted_on="by hand")
    folder = model.save(tmp_path / "rm")
    prompt = "A review:"
    settings: dict[str, Any] = {"kl_coef": 0.0, "max_new_tokens": 4}
    made = gymnasium.make("lm_gym/Reviews-v0", prompts=[prompt], reward_model=str(folder), **settings)
    sampling, reward = SamplingConfig(max_new_tokens=4), RewardConfig(kl_coef=0.0)
    vector = make_env(REVIEWS_LM, [prompt], load_reward_model(folder), reward=reward, sampling=sampling)
    swapped = gymnasium.make("lm_gym/Reviews-v0", prompts=[prompt], **settings)
    swapped.unwrapped.reward_model = load_reward_model(folder)  # type: ignore[attr-defined]
    paid = []
    for env in (made, swapped):
        env.reset(seed=0)
        *_, (_, reward_paid, _, _, info) = [env.step(token) for token in (5, 6, 7, 8)]
        paid.append(reward_paid)
    vector.reset(seed=0)
    for token in (5, 6, 7, 8):
        action = {"token": np.array([token]), "log_prob": np.array([-1.0], dtype=np.float32)}
        _, rewards, *_ = vector.step(action)
    assert paid == pytest.approx([50.0 * info["score"] + 3.0] * 2, rel=1e-6)
    assert rewards.tolist() == pytest.approx(paid[:1], rel=1e-6)


def test_the_conformance_check_covers_models_that_read_columns() -> None:
    answers = {"answer": ["bright", "Four", "x", "🙂", "dull", "An"]}
    for model in (
        right,
        EnsembleRewardModel([right, wrong]),
        WeightedSum({"a": (1.0, right)}),
        CachedRewardModel(right),
    ):
        check_reward_model(model, columns=answers, saved=False)
    with pytest.raises(ConfigError, match="needs the column 'answer'"):
        check_reward_model(right)
