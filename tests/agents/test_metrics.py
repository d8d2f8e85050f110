from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lm_gym import Evaluation, Scores
from lm_gym.agents import metrics
from lm_gym.envs.rollout import PhaseTimer


@pytest.mark.parametrize(("platform", "resident"), [("linux", 300 * 1024), ("darwin", 300 * 1024 * 1024)])
def test_peak_memory_is_in_mebibytes_on_every_platform(monkeypatch, platform, resident):
    """ru_maxrss is in KiB on Linux and in bytes on macOS (getrusage(2) of each)."""
    monkeypatch.setattr(metrics.sys, "platform", platform)
    monkeypatch.setattr(metrics.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=resident))
    assert metrics.phase_metrics(PhaseTimer(), 1, torch.device("cpu"))["peak_memory_mb"] == 300.0


def test_the_deviation_over_episodes_is_not_the_reward_models_own_std(make_env, make_policy):
    class Unsure:
        def score(self, prompts, responses):
            lengths = np.array([len(text) for text in responses], dtype=np.float64)
            return Scores.of(lengths, std=lengths + 100)

    env = make_env(reward_model=Unsure())
    episodes = env.rollout(make_policy(env), 8)
    found = metrics.episode_metrics(episodes)
    assert found["score_deviation"] == pytest.approx(np.std(episodes.scores), rel=1e-6)
    assert 0 < found["score_deviation"] < 100 <= episodes.score_std.min()
    assert "score_std" not in metrics.METRICS.keys() | {field.name for field in fields(Evaluation)}
