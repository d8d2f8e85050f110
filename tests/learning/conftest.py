"""Three text MDPs whose optimum is known exactly, and a table of what was closed at the end of the run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from lm_gym import Reference, RewardConfig, SamplingConfig
from lm_gym.testing import Solution, solve, tiny_language_model

PROMPT = "a b"
SHARE = "share closed"
"""Name of a test's property: agent, task, seed, share, seconds."""


def dense(prompts: list[str], completions: list[str]) -> list[float]:
    """Every "b", "d" or "f" counts: the score says something about every token."""
    return [sum(word in "bdf" for word in text.split()) / 4 for text in completions]


def sparse(prompts: list[str], completions: list[str]) -> list[float]:
    """1 for the few responses with "c a" or "d b" in them, else 0."""
    return [float("c a" in text or "d b" in text) for text in completions]


def order(prompts: list[str], completions: list[str]) -> list[float]:
    """Share of neighbours in alphabetical order: what a token is worth depends on the one before."""
    return [
        sum(left < right for left, right in zip(text.split(), text.split()[1:], strict=False)) / 3
        for text in completions
    ]


@dataclass(frozen=True)
class Task:
    """A text MDP of 5 to 8 tokens and four steps, and its solution."""

    name: str
    reward: Callable[[list[str], list[str]], list[float]]
    reference: Reference
    reward_config: RewardConfig
    sampling: SamplingConfig
    solution: Solution


SETTINGS: dict[str, tuple[Callable[..., list[float]], int, float]] = {
    "dense": (dense, 8, 0.1),
    "sparse": (sparse, 5, 0.05),
    "order": (order, 6, 0.1),
}


def build(name: str, seed: int) -> Task:
    reward, vocab_size, kl_coef = SETTINGS[name]
    model = tiny_language_model(vocab_size=vocab_size, max_length=8, seed=seed, initializer_range=0.1)
    reference = Reference(model)
    config, sampling = RewardConfig(kl_coef=kl_coef), SamplingConfig(max_new_tokens=4)
    solution = solve(reference, reward, PROMPT, reward_config=config, sampling=sampling)
    return Task(name, reward, reference, config, sampling, solution)


@pytest.fixture
def make_task() -> Callable[[str, int], Task]:
    return build


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
