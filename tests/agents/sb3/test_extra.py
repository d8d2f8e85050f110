"""Stable-Baselines3 is an extra: its absence is told. That nothing else imports it, the linter of imports holds."""

import importlib
import sys

import pytest

from lm_gym.errors import MissingExtraError


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "stable_baselines3"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    for name in [name for name in sys.modules if name.startswith("lm_gym.agents.sb3")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r"^lm_gym.agents.sb3: needs .*install 'lm-gym\[sb3\]'"):
        importlib.import_module("lm_gym.agents.sb3")
