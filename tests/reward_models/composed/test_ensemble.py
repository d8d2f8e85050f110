"""Several reward models as one, probes, and the choice of pairs, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm_gym import Scores, load_reward_model
from lm_gym.config import ScoreNormalizer
from lm_gym.errors import ArtifactError, ConfigError, DataError
from lm_gym.reward_models import EnsembleRewardModel, choose_pairs, pair_utility, probe_reward_model
from lm_gym.reward_models.measuring.probes import PROBES
from lm_gym.testing import check_reward_model


class Table:
    """Scores by text."""

    def __init__(self, values: dict[str, float | None]) -> None:
        self.values = values
        self.normalizer: ScoreNormalizer | None = None

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        found = [self.values.get(text, 0.0) for text in responses]
        return Scores(
            value=np.array([one or 0.0 for one in found], dtype=np.float32),
            valid=np.array([one is not None for one in found], dtype=bool),
        )


MEMBERS = [Table({"x": 1.0, "y": 4.0}), Table({"x": 3.0, "y": None}), Table({"x": 5.0, "y": 1.0})]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 3.0), ({"rule": "worst"}, 1.0), ({"rule": "mean_minus_std", "penalty": 2.0}, 3 - 2 * np.sqrt(8 / 3))],
)
def test_the_three_rules_by_hand(settings: dict[str, Any], expected: float) -> None:
    scores = EnsembleRewardModel(MEMBERS, **settings).score(["p", "p"], ["x", "y"])
    assert scores.value[0] == pytest.approx(expected)
    assert scores.std is not None
    assert scores.std[0] == pytest.approx(np.sqrt(8 / 3))
    assert scores.valid.tolist() == [True, False]
    assert scores.value[1] == 0.0


def test_an_ensemble_keeps_the_contract() -> None:
    check_reward_model(
        EnsembleRewardModel([lambda prompts, completions: [float(len(c)) for c in completions]] * 2), saved=False
    )


def test_the_weights_of_members_come_back_and_belong_to_the_identity(reward_of: Any, tmp_path: Path) -> None:
    members = [reward_of("gpt2"), reward_of("llama")]
    made = EnsembleRewardModel(members, weights=(0.25, 1.5), training={"groups": ["one"]})
    again: Any = load_reward_model(made.save(tmp_path / "both"))
    prompts, texts = ["one", "two"], ["good film", "bad"]
    assert again.score(prompts, texts).value.tolist() == made.score(prompts, texts).value.tolist()
    expected = 0.25 * members[0].score(prompts, texts).value + 1.5 * members[1].score(prompts, texts).value
    assert made.score(prompts, texts).value.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert (again.weights, again.training) == ((0.25, 1.5), {"groups": ["one"]})
    assert again.identity() == made.identity()
    assert EnsembleRewardModel(members, weights=(0.25, 1.0)).identity() != made.identity()


def test_an_ensemble_of_saved_members_comes_back(reward_of: Any, tmp_path: Path) -> None:
    ensemble = EnsembleRewardModel([reward_of("gpt2"), reward_of("llama")], rule="mean_minus_std", penalty=0.5)
    folder = ensemble.save(tmp_path / "both")
    again = load_reward_model(folder)
    assert isinstance(again, EnsembleRewardModel)
    first, second = (one.score(["one", "two"], ["good film", "bad"]) for one in (ensemble, again))
    assert first.value.tolist() == pytest.approx(second.value.tolist(), abs=1e-6)
    assert first.std is not None
    assert second.std is not None
    assert first.std.tolist() == pytest.approx(second.std.tolist(), abs=1e-6)
    (folder / "member-1" / "lm_gym_reward_model.json").unlink()
    with pytest.raises(ArtifactError):
        load_reward_model(folder)


def test_one_flipped_byte_in_a_member_is_found(reward_of: Any, tmp_path: Path) -> None:
    folder = EnsembleRewardModel([reward_of("gpt2"), reward_of("llama")]).save(tmp_path / "both")
    weights = folder / "member-1" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"member-1.*model.safetensors: must have the .* and it has changed since"):
        load_reward_model(folder)


def test_a_member_of_another_ensemble_is_found(reward_of: Any, tmp_path: Path) -> None:
    folder = EnsembleRewardModel([reward_of("gpt2"), reward_of("llama")]).save(tmp_path / "both")
    reward_of("bert").save(folder / "member-1")  # whole, and not the one that was saved
    with pytest.raises(ArtifactError, match=r"lm_gym_manifest.json: must have the .* and it has changed since"):
        load_reward_model(folder)


def test_bad_ensembles_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2 members"):
        EnsembleRewardModel(MEMBERS[:1])
    with pytest.raises(ConfigError, match="rule: must be"):
        EnsembleRewardModel(MEMBERS, rule="median")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="penalty"):
        EnsembleRewardModel(MEMBERS, penalty=-1.0)
    with pytest.raises(ConfigError, match=r"RewardModel with save\(\), and 'Table' is none"):
        EnsembleRewardModel(MEMBERS).save(tmp_path / "x")


def test_utilities_by_hand() -> None:
    margins = np.array([[0.0, 2.0, 3.0], [0.0, -2.0, 3.0]])
    disagreement = pair_utility(margins, "disagreement")
    p = 1 / (1 + np.exp(-2.0))
    assert disagreement.tolist() == pytest.approx([0.0, p - 0.5, 0.0])
    information = pair_utility(margins, "information")
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert information.tolist() == pytest.approx([0.0, np.log(2) - entropy, 0.0], abs=1e-9)


def test_pairs_that_members_disagree_on_come_first_and_unscored_ones_last() -> None:
    ensemble = EnsembleRewardModel([Table({"x": 3.0, "n": None}), Table({"x": -3.0, "z": 0.5})])
    candidates = [("p", "n", "w"), ("p", "z", "w"), ("p", "x", "w"), ("p", "v", "w")]
    for rule in ("disagreement", "information"):
        assert choose_pairs(candidates, 4, rule=rule, ensemble=ensemble) == [2, 1, 3, 0]  # type: ignore[arg-type]
    assert sorted(choose_pairs(candidates, 4, rule="random")) == [0, 1, 2, 3]
    assert choose_pairs(candidates, 2, rule="random", seed=1) == choose_pairs(candidates, 2, rule="random", seed=1)
    with pytest.raises(ConfigError, match="needs ensemble"):
        choose_pairs(candidates, 1, rule="information")
    with pytest.raises(ConfigError, match=r"count must lie in 0\.\.4"):
        choose_pairs(candidates, 5, rule="random")


def test_what_members_disagree_on_is_asked_on_the_scale_they_learned() -> None:
    """Sure members agree however different their scores are; a normaliser would make them look unsure."""
    members = [Table({"sure": 40.0, "open": 0.4}), Table({"sure": 90.0, "open": -0.4})]
    for member in members:
        member.normalizer = ScoreNormalizer(gain=0.01)
    ensemble = EnsembleRewardModel(members)
    candidates = [("p", "sure", "w"), ("p", "open", "w")]
    assert choose_pairs(candidates, 2, rule="disagreement", ensemble=ensemble) == [1, 0]
    assert ensemble.member_scores(["p"], ["sure"])[0].tolist() == [[40.0], [90.0]]
    assert ensemble.score(["p"], ["sure"]).value[0] == pytest.approx(0.65)


def test_probes_find_a_model_that_likes_length() -> None:
    def length(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        return [float(len(text)) for text in completions]

    results = {one.name: one for one in probe_reward_model(length, ["Why?"], [["a fine answer", "no"]])}
    assert set(results) == set(PROBES)
    assert results["empty"].share_outscored == 0.0
    assert results["best answer padded"].share_above_best == 1.0
    assert results["prompt echoed"].share_outscored == 0.5
    assert results["best answer cut in half"].share_above_best == 0.0
    with pytest.raises(DataError, match="at least one answer"):
        probe_reward_model(length, ["Why?"], [[]])


def test_a_probe_that_ties_counts_half_and_abstentions_are_counted() -> None:
    shy = probe_reward_model(lambda completions: [None if not text else 0.0 for text in completions], ["q"], [["a"]])
    results = {one.name: one for one in shy}
    assert results["thanks repeated"].share_outscored == 0.5
    assert (results["empty"].abstained, results["empty"].share_outscored) == (1, None)
