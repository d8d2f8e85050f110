"""What running the prompt of a group once brings: every phase of GRPO's iteration, with it and without, in turns.

A random-weight GPT-2 on the CPU in fp32, groups of 8 responses of exactly 64 tokens to prompts of 256. Decoding,
the reference's pass, and the update (old log-probabilities, then one epoch) in one step and in two.

    python -m benchmarks.shared_prompts
    python -m benchmarks.shared_prompts --layers 12 --width 768 --heads 12 --vocab 50257 --groups 1
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.ppo_side import last_is_even
from benchmarks.workload import random_language_model
from lm_gym import Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import GRPO, GRPOConfig, LanguageModelPolicy
from lm_gym.agents.policy import own_copy
from lm_gym.models.decoding.shared_prompts import SharedPrompts


def every_prompt_apart() -> AbstractContextManager[Any]:
    """Within it no two prompts are found equal."""

    def of(prompts: Sequence[np.ndarray]) -> SharedPrompts:
        return SharedPrompts(list(prompts), np.arange(len(prompts)))

    return patch.object(SharedPrompts, "of", of)


def cpu_seconds_of(phase: Callable[[], object]) -> float:
    """The process's CPU time of one call, which other work on the machine does not lengthen."""
    started = time.process_time()
    phase()
    return time.process_time() - started


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"layers": 4, "width": 256, "heads": 4, "vocab": 4096, "groups": 4, "group": 8}
    numbers |= {"prompt-tokens": 256, "response-tokens": 64, "repeats": 3, "threads": 0}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = random_language_model(
        vocab=options.vocab,
        layers=options.layers,
        width=options.width,
        heads=options.heads,
        positions=options.prompt_tokens + options.response_tokens,
    )
    rng = np.random.default_rng(0)
    prompts = [" ".join(map(str, rng.integers(options.vocab, size=options.prompt_tokens))) for _ in range(64)]
    reference = Reference(model)
    task = TextTask.of(reference, prompts, max_new_tokens=options.response_tokens, stop_token_ids=(), kl_coef=0.05)
    env = TextGenerationVectorEnv(task, last_is_even)
    env.reset(seed=0)
    count = options.groups * options.group
    policy = LanguageModelPolicy(own_copy(model))
    episodes = env.rollout(policy, count, samples_per_prompt=options.group)
    agents = [
        GRPO(
            policy,
            GRPOConfig(episodes_per_iteration=count, samples_per_prompt=options.group, minibatches=steps),
        )
        for steps in (1, 2)
    ]
    phases: dict[str, Callable[[], object]] = {
        "decoding": lambda: policy.sampler.generate(episodes.prompt_rows(), env.sampling),
        "reference": lambda: reference.log_probs(episodes),
        "old_log_probs": lambda: policy.log_probs_and_values_in_batches(episodes, 16_384, values=False),
        "update": lambda: agents[0].update(episodes),
        "update_in_two": lambda: agents[1].update(episodes),
    }
    report: dict[str, Any] = {"benchmark": "prompts of groups run once, CPU time of every row apart over it"}
    for name, phase in phases.items():
        pairs = []
        for _ in range(options.repeats + 1):
            with every_prompt_apart():
                apart = cpu_seconds_of(phase)
            pairs.append((apart, cpu_seconds_of(phase)))
        report[name] = statistics.median(apart / once for apart, once in pairs[1:])
        report[f"{name}_cpu_seconds"] = statistics.median(once for _, once in pairs[1:])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
