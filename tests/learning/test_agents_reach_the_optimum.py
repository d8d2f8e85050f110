"""Every algorithm on three text MDPs, measured against their exact optimum; no sampling noise in the measurement.

One run of each task, on three seeds, as ``benchmarks.exact_tasks`` makes it; PPO has a file of its own.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from benchmarks.exact_tasks import RUNS, measure

pytestmark = pytest.mark.slow
TASKS = [("dense", 0), ("order", 1), ("sparse", 2)]
"""Task and seed of each run."""
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce, learned": ("reinforce", {"baseline": "learned"}),
    **{
        run: RUNS[run]
        for run in (
            "a2c",
            "reinforce",
            "reinforce++",
            "remax",
            "rloo",
            "dr-grpo",
            "grpo, as the environment pays",
            "soft-q",
            "soft-q, from the end",
        )
    },
}
"""Run -> algorithm and settings: those that are held to the optimum on every task."""
SHORTER = {run: RUNS[run] for run in ("vine-ppo", "a-star-po", "vimpo", "dpo, Bradley-Terry")}
"""Those that are held to it on two tasks, for their time."""
ITERATIONS = {"vine-ppo": 40}
"""Run -> iterations, where it needs fewer than the task has."""


@pytest.mark.parametrize(
    ("run", "task", "seed"),
    [(run, *task) for run, task in [*product(WHOLE, TASKS), *product(SHORTER, TASKS[:2])]],
)
def test_it_closes_the_gap(run: str, task: str, seed: int, report_share: Callable[..., None]) -> None:
    """Those whose fixed point is the optimum of what the environment pays."""
    found = measure(*(WHOLE | SHORTER)[run], task, seed, iterations=ITERATIONS.get(run))
    report_share(run, task, seed, found["share"], found["seconds"])
    assert found["share"] >= 0.95


@pytest.mark.parametrize(("task", "seed"), TASKS)
@pytest.mark.parametrize("run", ["grpo", "dapo", "gspo", "cispo"])
def test_it_improves_on_the_reference(run: str, task: str, seed: int, report_share: Callable[..., None]) -> None:
    """Scaled by the deviation and with the KL in the loss they pass the optimum: more score, more KL."""
    found = measure(*RUNS[run], task, seed, iterations=100)
    report_share(run, task, seed, found["share"], found["seconds"])
    assert found["share"] > 0.3
