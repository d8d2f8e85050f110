"""Every algorithm on three text MDPs whose optimum is known exactly: the share of the gap that it closed, and its KL.

Command:  python -m benchmarks.exact_tasks [--runs ppo rloo] [--out docs/agents/exact_tasks.jsonl]
Time:     1 to 5 minutes per algorithm on one CPU core

Each run adds one line to the file; what stands in it is not run again. The tasks serve ``tests/learning`` too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lm_gym import Reference, RewardConfig, SamplingConfig, TextGenerationVectorEnv, TextTask
from lm_gym.agents import LanguageModelPolicy
from lm_gym.agents.algorithms.names import ALGORITHMS
from lm_gym.agents.policy import own_copy
from lm_gym.testing import Solution, policy_value, solve, state_log_probs, tiny_language_model
from lm_gym.testing.models import Architecture
from lm_gym.tools.files import append_jsonl, read_jsonl

__all__ = ["OUT", "RUNS", "TASKS", "Task", "build_task", "measure", "read_runs", "summary"]

OUT = Path(__file__).resolve().parents[1] / "docs" / "agents" / "exact_tasks.jsonl"
PROMPT = "a b"
SEEDS = (0, 1, 2)
ITERATIONS = {"dense": 100, "order": 100, "sparse": 250}
"""Task -> iterations of a run; half of all responses to "sparse" and more are paid nothing."""
COMMON: dict[str, Any] = {"episodes_per_iteration": 256, "learning_rate": 3e-3}
FEWEST_STEPS = 4
"""An algorithm whose default takes fewer optimiser steps on a batch takes so many."""
SLOWER: dict[str, Any] = {"learning_rate": 1e-3}
"""Of two whose steps are noisy where most responses are paid nothing: at the common rate they close .96 and .89."""
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ALGORITHMS},
    "remax": ("remax", SLOWER),
    "a-star-po": ("a-star-po", SLOWER),
    "grpo, as the environment pays": ("grpo", {"kl_place": "reward", "scale_by_deviation": False}),
    "soft-q": ("soft-q", {"batch_episodes": 128, "replay_episodes": 4096}),
    "dpo, Bradley-Terry": ("dpo", {"judge": "bradley_terry"}),
    "soft-q, from the end": ("soft-q", {"batch_episodes": 128, "replay_episodes": 4096, "backup_steps": None}),
}
"""Run -> algorithm, and the settings in which it differs from the algorithm's defaults and the common ones."""


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


TASKS: dict[str, tuple[Callable[..., list[float]], int, float]] = {
    "dense": (dense, 8, 0.1),
    "sparse": (sparse, 5, 0.05),
    "order": (order, 6, 0.1),
}
"""Name -> reward, tokens of the vocabulary, beta."""


@dataclass(frozen=True)
class Task:
    """A text MDP of 5 to 8 tokens and four steps, and its solution."""

    name: str
    reward: Callable[[list[str], list[str]], list[float]]
    reference: Reference
    reward_config: RewardConfig
    sampling: SamplingConfig
    solution: Solution

    def env(self) -> TextGenerationVectorEnv:
        """The environment that pays it, not yet reset."""
        rules: dict[str, Any] = {"reward": self.reward_config, "sampling": self.sampling}
        task = TextTask.of(self.reference, [PROMPT], action_mode="token_and_log_prob", **rules)
        return TextGenerationVectorEnv(task, self.reward)


def build_task(name: str, seed: int, architecture: Architecture = "gpt2") -> Task:
    """A task by name. Args: name: one of TASKS; seed: of the weights of a reference of this architecture."""
    reward, vocab_size, kl_coef = TASKS[name]
    model = tiny_language_model(architecture, vocab_size=vocab_size, max_length=8, seed=seed, initializer_range=0.1)
    reference = Reference(model)
    config, sampling = RewardConfig(kl_coef=kl_coef), SamplingConfig(max_new_tokens=4)
    solution = solve(reference, reward, PROMPT, reward_config=config, sampling=sampling)
    return Task(name, reward, reference, config, sampling, solution)


def settings_of(kind: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run. Args: kind: class of the agent; changes: of this run."""
    defaults = {one.name: one.default for one in fields(kind.config_type)}
    steps = {"minibatches": FEWEST_STEPS} if defaults.get("minibatches", FEWEST_STEPS) < FEWEST_STEPS else {}
    return COMMON | steps | changes


def measure(
    algorithm: str, changes: dict[str, Any], name: str, seed: int, *, iterations: int | None = None
) -> dict[str, Any]:
    """Train once, and measure by enumeration after the last iteration.

    Args:
        algorithm: of ALGORITHMS.
        changes: settings in which it differs from its defaults and the common ones.
        name: of the task.
        seed: of reference and run.
        iterations: None takes the task's.

    Returns: a line of the file, without the name of the run.
    """
    kind: Any = ALGORITHMS[algorithm]
    task, iterations = build_task(name, seed), ITERATIONS[name] if iterations is None else iterations
    env, policy = task.env(), LanguageModelPolicy(own_copy(task.reference.language_model))
    env.reset(seed=seed)
    settings = settings_of(kind, changes)
    agent = kind(policy, kind.config_type(seed=seed, **settings))
    start = time.perf_counter()
    for done in range(iterations):
        agent.learn(env, progress=done / iterations)
    seconds = time.perf_counter() - start
    found = policy_value(state_log_probs(policy, task.solution.mdp), task.solution.mdp)
    best = task.solution.optimum
    return {
        "task": name,
        "seed": seed,
        "iterations": iterations,
        "settings": settings,
        "share": round(task.solution.share_closed(found.expected_return), 4),
        "score": round(found.expected_reward, 4),
        "best_score": round(best.expected_reward, 4),
        "kl": round(found.kl, 3),
        "best_kl": round(best.kl, 3),
        "seconds": round(seconds, 1),
    }


def read_runs(path: Path = OUT) -> list[dict[str, Any]]:
    """Lines of the file, in the order of RUNS; none if there is no file."""
    lines = read_jsonl(path) if path.is_file() else []
    places = {run: place for place, run in enumerate(RUNS)}
    return sorted(lines, key=lambda line: (places[line["run"]], list(TASKS).index(line["task"]), line["seed"]))


def summary(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Mean and worst of some runs: share, score and KL beside the optimum's, seconds."""
    lines = list(lines)
    means = {
        name: sum(line[name] for line in lines) / len(lines)
        for name in ("share", "score", "best_score", "kl", "best_kl", "seconds")
    }
    return {**means, "worst": min(line["share"] for line in lines), "runs": len(lines)}


def _show(lines: list[dict[str, Any]]) -> None:
    table = Table("run", "task", "share", "worst", "score (optimum)", "KL (optimum)", "seconds")
    for run, name in product(RUNS, TASKS):
        if here := [line for line in lines if (line["run"], line["task"]) == (run, name)]:
            found = summary(here)
            score, kl = (
                f"{found['score']:.3f} ({found['best_score']:.3f})",
                f"{found['kl']:.2f} ({found['best_kl']:.2f})",
            )
            share, seconds = f"{found['share']:.3f}", f"{found['seconds']:.0f}"
            table.add_row(run, name, share, f"{found['worst']:.3f}", score, kl, seconds)
    Console(width=120).print(table)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {(line["run"], line["task"], line["seed"]) for line in read_runs(options.out)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for key in product(options.runs, TASKS, SEEDS):
        if key not in done:
            line = {"run": key[0], **measure(*RUNS[key[0]], *key[1:])}
            append_jsonl(options.out, line)
            print(f"{key[0]}, {key[1]}, seed {key[2]}: {line['share']:.3f} in {line['seconds']:.0f} s", flush=True)
    _show(read_runs(options.out))


if __name__ == "__main__":
    main()
