from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.reward_models import OracleRewardModel


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
    with pytest.raises(ArtifactError, match="must be whole JSON"):
        OracleRewardModel.load(folder)


def test_an_unknown_truth_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        OracleRewardModel(truth="poems")


def test_the_oracle_needs_no_torch() -> None:
    light = "import sys, lm_gym.reward_models as r; r.OracleRewardModel; r.WeightedSum; r.BradleyTerryAnnotator; "
    for code, expected in ((light, "False"), (light + "r.plackett_luce_nll; ", "True")):
        command = [sys.executable, "-c", code + "print('torch' in sys.modules)"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected
