"""Sums over processes, in one process and in two real ones."""

from pathlib import Path

import pytest
import torch

from lm_gym.errors import ConfigError
from lm_gym.processes import ONE_PROCESS, LaunchedProcesses, chosen_processes, launched_processes

from ..helpers.two_processes import printed_by_two

PROGRAM = """
from lm_gym.processes import launched_processes

processes = launched_processes()
mine = torch.tensor([1.0, -2.0]) * (processes.rank + 1)
assert processes.sum(mine).tolist() == [3.0, -6.0]
assert processes.mean(mine).tolist() == [1.5, -3.0]
assert processes.max(mine).tolist() == [2.0, -2.0]
assert mine.tolist() == [processes.rank + 1.0, -2.0 * (processes.rank + 1)]
assert processes.any(processes.rank == 1) and not processes.any(False)
assert processes.gather({"rank": processes.rank}) == [{"rank": 0}, {"rank": 1}]
one, two, frozen = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
frozen.requires_grad_(False)
one.grad = mine.clone()
if processes.rank == 1:
    two.grad = torch.ones(2)
processes.sum_gradients([one, two, frozen])
assert (one.grad.tolist(), two.grad.tolist(), frozen.grad) == ([3.0, -6.0], [1.0, 1.0], None)
print("main" if processes.is_main else "other", processes.rank, processes.size)
"""


def test_one_process_is_alone() -> None:
    values = torch.tensor([1.0, 2.0])
    assert (ONE_PROCESS.rank, ONE_PROCESS.size, ONE_PROCESS.is_main) == (0, 1, True)
    for found in (ONE_PROCESS.sum(values), ONE_PROCESS.mean(values), ONE_PROCESS.max(values)):
        torch.testing.assert_close(found, values)
    assert ONE_PROCESS.gather(3) == [3]
    assert ONE_PROCESS.any(True)
    assert not ONE_PROCESS.any(False)


def test_the_launchers_variables_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launched_processes() is ONE_PROCESS
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    found = launched_processes()
    assert (found.rank, found.size, found.is_main) == (2, 4, False)


def test_several_processes_are_not_left_to_learn_alone_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert chosen_processes(None, "PPO") is ONE_PROCESS
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"^PPO: processes: .*WORLD_SIZE = 2.*left out; .*launched_processes\(\) for"):
        chosen_processes(None, "PPO")
    assert chosen_processes(ONE_PROCESS, "PPO") is ONE_PROCESS
    given = launched_processes()
    assert chosen_processes(given, "PPO") is given
    with pytest.raises(ConfigError, match=r"^PPO: processes: must be None or a Processes, got 2"):
        chosen_processes(2, "PPO")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "rank", "told"),
    [
        ("two", "0", "WORLD_SIZE must be a whole number, as a launcher sets it, got 'two'"),
        ("", "0", "WORLD_SIZE must be a whole number, as a launcher sets it, got ''"),
        ("-2", "0", "WORLD_SIZE must be a whole number, as a launcher sets it, got '-2'"),
        ("2", "1.0", "RANK must be a whole number, as a launcher sets it, got '1.0'"),
        ("2", "2", "got RANK = 2 and WORLD_SIZE = 2"),
        ("0", "0", "got RANK = 0 and WORLD_SIZE = 0"),
    ],
)
def test_launchers_variables_of_nonsense_are_named(
    size: str, rank: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(ConfigError, match=r"^processes: ") as caught:
        launched_processes()
    assert told in str(caught.value)


def test_without_a_process_group_a_sum_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"torch.distributed has no process group.*Accelerator"):
        LaunchedProcesses(0, 2).sum(torch.ones(1))


def test_two_processes_sum(tmp_path: Path) -> None:
    assert printed_by_two(PROGRAM, tmp_path) == ["main 0 2", "other 1 2"]
