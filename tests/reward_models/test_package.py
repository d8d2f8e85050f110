from __future__ import annotations

import inspect

import pytest

import lm_gym.reward_models as package
from lm_gym.scoring.protocol import RewardModel


def test_every_exported_name_exists_and_is_documented() -> None:
    for name in package.__all__:
        assert inspect.getdoc(getattr(package, name)), name
    assert sorted(package.__all__) == package.__all__
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = package.Nothing


def test_the_models_keep_the_protocol(reward_of) -> None:
    total = package.WeightedSum({"o": (1.0, lambda completions: [])})
    for model in (package.OracleRewardModel(), total, reward_of("gpt2")):
        assert isinstance(model, RewardModel)
        assert isinstance(model.name, str)
