"""The one-file PPO learns the same in every autoreset mode, which differ in the steps that they spend."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from gymnasium.vector import AutoresetMode

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "other_libraries" / "14_one_file_ppo.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("one_file_ppo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_learns_the_same_in_every_autoreset_mode(script: Any) -> None:
    lines = [script.learn(mode.value, rows=2, steps=18, updates=2) for mode in AutoresetMode]
    assert lines[0] == lines[1] == lines[2]
    assert len(set(lines[0])) == 2


def test_advantages_by_hand(script: Any) -> None:
    """Two steps that end an episode, one of the next; the last transition gives the value that the row ends in."""
    row = [(0, 0, 0, 0.0, value, reward, ended) for value, reward, ended in
           [(1.0, 0.5, False), (2.0, 4.0, True), (3.0, 1.0, False), (5.0, 9.0, False)]]  # fmt: skip
    found = [(advantage, target) for *_, advantage, target in script.with_advantages(row)]
    second, third = 4.0 - 2.0, 1.0 + 5.0 - 3.0
    first = 0.5 + 2.0 - 1.0 + 0.95 * second
    assert found == [(pytest.approx(a), pytest.approx(a + v)) for a, v in ((first, 1.0), (second, 2.0), (third, 3.0))]
