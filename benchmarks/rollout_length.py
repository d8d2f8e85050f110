"""Whether a rollout's time follows the tokens really generated.

Two models of equal size and cost: one never stops, the other stops with a fixed probability per token, so that its
lengths are geometric with a mean of a quarter of the cap. Prints the ratio of times, taken in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch

from benchmarks.workload import random_language_model
from lm_gym import Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import LanguageModelPolicy
from lm_gym.agents.policy import own_copy

VOCAB, PROMPT, CAP, EPISODES = 4096, 32, 192, 32


def timed_rollout(env: TextGenerationVectorEnv, policy: LanguageModelPolicy) -> tuple[float, float]:
    """Seconds, and mean response length in tokens."""
    started = time.perf_counter()
    episodes = env.rollout(policy, EPISODES)
    return time.perf_counter() - started, float(episodes.response_lengths.mean())


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    prompts = [" ".join(map(str, rng.integers(VOCAB, size=PROMPT))) for _ in range(64)]
    sides = []
    for stopping in (False, True):
        model = random_language_model(vocab=VOCAB)
        # Random weights draw almost uniformly, so a set of stop tokens has its share of the vocabulary as probability.
        stops = tuple(range(4 * VOCAB // CAP)) if stopping else ()
        task = TextTask.of(Reference(model), prompts, max_new_tokens=CAP, stop_token_ids=stops)
        env = TextGenerationVectorEnv(task)
        env.reset(seed=0)
        sides.append((env, LanguageModelPolicy(own_copy(model))))
    full: list[tuple[float, float]] = []
    short: list[tuple[float, float]] = []
    for _ in range(options.repeats + 1):
        full.append(timed_rollout(*sides[0]))
        short.append(timed_rollout(*sides[1]))
    full, short = full[1:], short[1:]
    report = {
        "benchmark": "rollout length",
        "full_seconds": statistics.median(seconds for seconds, _ in full),
        "geometric_seconds": statistics.median(seconds for seconds, _ in short),
        "mean_length_share": statistics.mean(length for _, length in short) / CAP,
        "time_ratio": statistics.median(s[0] / f[0] for s, f in zip(short, full, strict=True)),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
