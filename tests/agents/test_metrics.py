from types import SimpleNamespace

import pytest
import torch

from lm_gym.agents import metrics
from lm_gym.envs.rollout import PhaseTimer


@pytest.mark.parametrize(("platform", "resident"), [("linux", 300 * 1024), ("darwin", 300 * 1024 * 1024)])
def test_peak_memory_is_in_mebibytes_on_every_platform(monkeypatch, platform, resident):
    """ru_maxrss is in KiB on Linux and in bytes on macOS (getrusage(2) of each)."""
    monkeypatch.setattr(metrics.sys, "platform", platform)
    monkeypatch.setattr(metrics.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=resident))
    assert metrics.phase_metrics(PhaseTimer(), 1, torch.device("cpu"))["peak_memory_mb"] == 300.0
