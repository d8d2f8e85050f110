"""The exact tasks of ``benchmarks.exact_tasks``, and a table of what was closed at the end of the run."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks.exact_tasks import Task, build_task

SHARE = "share closed"
"""Name of a test's property: agent, task, seed, share, seconds."""


@pytest.fixture
def make_task() -> Callable[[str, int], Task]:
    return build_task


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def report_share(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Notes a share for the table at the end; as a property it comes from another process of the run too."""

    def report(agent: str, task: str, seed: int, share: float, seconds: float) -> None:
        record_property(SHARE, (agent, task, seed, share, seconds))

    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    shares = [value for one in reports for name, value in one.user_properties if name == SHARE]
    if not shares:
        return
    terminalreporter.section("share of the gap J* - J_ref that was closed (exact)")
    for agent in dict.fromkeys(row[0] for row in shares):
        rows = [row for row in shares if row[0] == agent]
        closed = [row[3] for row in rows]
        terminalreporter.line(f"{agent}: mean {sum(closed) / len(closed):.4f}, worst {min(closed):.4f}")
        for _, task, seed, share, seconds in rows:
            terminalreporter.line(f"    {task:8s} seed {seed}: {share:.4f} in {seconds:.0f} s")
