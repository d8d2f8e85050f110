"""How fast ``TextGenerationVectorEnv.step`` is beside a bare cached decode loop of the same model.

Both do one forward pass of 16 rows per token over the same tokens; the loop does nothing else. The two take turns.
Prints the ratio of rates, and how much a step slows down from the 1st to the 200th token in each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch
from transformers import DynamicCache

from benchmarks.workload import random_language_model
from lm_gym import LanguageModel, Reference, TextGenerationVectorEnv, TextTask

ROWS, PROMPT, STEPS, EDGE = 16, 32, 200, 20


@torch.inference_mode()
def bare_loop(model: LanguageModel, prompts: torch.Tensor, tokens: np.ndarray) -> list[float]:
    """Seconds of each step of ``model(token, cache)``."""
    cache = DynamicCache()
    model.model(input_ids=prompts, past_key_values=cache, use_cache=True, logits_to_keep=1)
    seconds = []
    for column in range(STEPS):
        started = time.perf_counter()
        ids = torch.from_numpy(tokens[:, column : column + 1].copy())
        model.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        seconds.append(time.perf_counter() - started)
    return seconds


def env_steps(env: TextGenerationVectorEnv, tokens: np.ndarray) -> list[float]:
    """Seconds of each ``step``."""
    env.reset(seed=0)
    seconds = []
    for column in range(STEPS):
        started = time.perf_counter()
        env.step(tokens[:, column])
        seconds.append(time.perf_counter() - started)
    return seconds


def growth(runs: list[list[float]]) -> float:
    """Median time of the last steps over that of the first."""
    first = statistics.median(second for run in runs for second in run[:EDGE])
    return statistics.median(second for run in runs for second in run[-EDGE:]) / first


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = random_language_model()
    rng = np.random.default_rng(0)
    prompts = rng.integers(4096, size=(ROWS, PROMPT))
    tokens = rng.integers(4096, size=(ROWS, STEPS + 1))
    texts = [" ".join(map(str, row)) for row in prompts]
    env = TextGenerationVectorEnv(
        TextTask.of(Reference(model), texts, max_new_tokens=STEPS + 1, stop_token_ids=()), num_envs=ROWS
    )
    ours: list[list[float]] = []
    bare: list[list[float]] = []
    for _ in range(options.repeats + 1):
        bare.append(bare_loop(model, torch.from_numpy(prompts), tokens))
        ours.append(env_steps(env, tokens))
    ours, bare = ours[1:], bare[1:]
    ratios = [sum(b) / sum(o) for o, b in zip(ours, bare, strict=True)]
    report = {
        "benchmark": "step rate",
        "env_tokens_per_second": ROWS * STEPS / statistics.median(map(sum, ours)),
        "bare_tokens_per_second": ROWS * STEPS / statistics.median(map(sum, bare)),
        "rate_ratio": statistics.median(ratios),
        "env_growth": growth(ours),
        "bare_growth": growth(bare),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
