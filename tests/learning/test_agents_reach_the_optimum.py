"""Every algorithm on three text MDPs, measured against their exact optimum; no sampling noise in the measurement.

One run of each task, on three seeds; PPO has a file of its own.
"""

import time
from collections.abc import Callable
from typing import Any

import pytest

from lm_gym import TextGenerationVectorEnv, TextTask
from lm_gym.agents import LanguageModelPolicy
from lm_gym.agents.algorithms.names import ALGORITHMS
from lm_gym.agents.policy import own_copy
from lm_gym.testing import share_closed

pytestmark = pytest.mark.slow
FOUR: dict[str, Any] = {"minibatches": 4}
REPLAY: dict[str, Any] = {"batch_episodes": 128, "replay_episodes": 4096}
TASKS = pytest.mark.parametrize(
    ("task", "seed", "iterations"), [("dense", 0, 100), ("order", 1, 100), ("sparse", 2, 250)]
)


def train(task: Any, name: str, seed: int, iterations: int, **settings: Any) -> float:
    rules = {"reward": task.reward_config, "sampling": task.sampling, "action_mode": "token_and_log_prob"}
    env = TextGenerationVectorEnv(TextTask.of(task.reference, ["a b"], **rules), task.reward)
    env.reset(seed=seed)
    policy = LanguageModelPolicy(own_copy(task.reference.language_model))
    kind: Any = ALGORITHMS[name]
    agent = kind(policy, kind.config_type(episodes_per_iteration=256, learning_rate=3e-3, seed=seed, **settings))
    for done in range(iterations):
        agent.learn(env, progress=done / iterations)
    return share_closed(policy, task.solution)


@TASKS
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a2c", FOUR),
        ("reinforce", FOUR),
        ("reinforce", FOUR | {"baseline": "learned"}),
        ("reinforce++", FOUR),
        ("remax", FOUR),
        ("rloo", FOUR),
        ("dr-grpo", FOUR),
        ("grpo", FOUR | {"kl_place": "reward", "scale_by_deviation": False}),
        ("soft-q", REPLAY),
        ("soft-q", REPLAY | {"backup_steps": None}),
    ],
)
def test_it_closes_the_gap(
    name: str,
    settings: dict[str, Any],
    task: str,
    seed: int,
    iterations: int,
    make_task: Callable[[str, int], Any],
    report_share: Callable[..., None],
) -> None:
    """Those whose fixed point is the optimum of what the environment pays."""
    start = time.perf_counter()
    share = train(make_task(task, seed), name, seed, iterations, **settings)
    changed = [f"{key}={value}" for key, value in settings.items() if key not in FOUR | REPLAY]
    report_share(" ".join([name, *changed]), task, seed, share, time.perf_counter() - start)
    assert share >= 0.95


@pytest.mark.parametrize(("task", "seed"), [("dense", 0), ("order", 1)])
@pytest.mark.parametrize(
    ("name", "settings", "iterations"),
    [
        ("vine-ppo", {}, 40),
        ("a-star-po", FOUR, 100),
        ("vimpo", FOUR, 100),
        ("dpo", FOUR | {"judge": "bradley_terry"}, 100),
    ],
)
def test_it_closes_the_gap_of_the_shorter_tasks(
    name: str,
    settings: dict[str, Any],
    task: str,
    seed: int,
    iterations: int,
    make_task: Callable[[str, int], Any],
    report_share: Callable[..., None],
) -> None:
    test_it_closes_the_gap(name, settings, task, seed, iterations, make_task, report_share)


@TASKS
@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo", "cispo"])
def test_it_improves_on_the_reference(
    name: str,
    task: str,
    seed: int,
    iterations: int,
    make_task: Callable[[str, int], Any],
    report_share: Callable[..., None],
) -> None:
    """Scaled by the deviation and with the KL in the loss they pass the optimum: more score, more KL."""
    start = time.perf_counter()
    share = train(make_task(task, seed), name, seed, min(iterations, 100), **FOUR)
    report_share(name, task, seed, share, time.perf_counter() - start)
    assert share > 0.3
