"""Time this library's PPO on the workload of ``peers/trl_ppo.py``, or its GRPO on that of ``peers/trl_grpo.py``.

Same model, same data, same steps. ``--grpo`` takes groups of ``--group`` responses, the KL in the loss, and one epoch
in ``--steps`` optimiser steps.

A random-weight GPT-2 on the CPU in fp32, prompts of random tokens, responses of exactly 48 tokens at temperature 1, KL
to a frozen copy, 4 epochs of 4 minibatches over all episodes. The shared trunk is the default; ``--separate-critic``
trains a value model of the same size, as TRL does; ``--lora-rank`` trains low-rank updates of the weights, which are
then the reference's too, unless ``--second-copy`` gives that its own. The EOS id lies just past the model's vocabulary,
so no response stops early; the reward is 1 if the last token's id is even.

The last line on stdout is one JSON object with the keys of the peer's.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.workload import random_language_model
from lm_gym import LanguageModel, LoraSettings, Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import GRPO, PPO, GRPOConfig, LanguageModelPolicy, PPOConfig, SurrogateAgent
from lm_gym.models.language_model import own_copy
from lm_gym.models.lora import add_adapter


def parse_options() -> argparse.Namespace:
    """The options of the peer, and those of what it has no like of."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--response-tokens", type=int, default=48)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--separate-critic", action="store_true")
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--second-copy", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--grpo", action="store_true")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    return parser.parse_args()


def last_is_even(prompts: list[str], completions: list[str]) -> list[float]:
    """1 if the last token's id is even, else 0."""
    return [float(int(text.split()[-1]) % 2 == 0) for text in completions]


def rss_bytes() -> int:
    """Resident memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def make_sides(options: argparse.Namespace, model: LanguageModel) -> tuple[LanguageModelPolicy, Reference]:
    """The policy and its reference."""
    settings = {
        "separate_critic": options.separate_critic,
        "gradient_checkpointing": options.gradient_checkpointing,
    }
    if not options.lora_rank:
        return LanguageModelPolicy(own_copy(model), **settings), Reference(model)
    second = Reference(own_copy(model)) if options.second_copy else None
    lora = LoraSettings(rank=options.lora_rank)
    adapter = add_adapter(model.model, lora, task="CAUSAL_LM", base=None)
    policy = LanguageModelPolicy(LanguageModel(model.model, model.tokenizer, adapter=adapter), **settings)
    return policy, policy.reference() if second is None else second


def make_agent(options: argparse.Namespace, policy: LanguageModelPolicy) -> tuple[SurrogateAgent, int]:
    """The agent, and its optimiser steps in one iteration."""
    settings = {
        "episodes_per_iteration": options.episodes,
        "learning_rate": options.learning_rate,
        "learning_rate_decay": "none",
    }
    if not options.grpo:
        return PPO(policy, PPOConfig(**settings)), 16
    grouped = {"samples_per_prompt": options.group, "minibatches": options.steps}
    return GRPO(policy, GRPOConfig(**settings, **grouped)), options.steps


def main() -> None:
    """Run, and print one JSON line."""
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    imports_rss = rss_bytes()
    model = random_language_model(
        vocab=options.vocab,
        layers=options.layers,
        width=options.width,
        heads=options.heads,
        positions=options.prompt_tokens + options.response_tokens,
        seed=options.seed,
    )
    rng = np.random.default_rng(options.seed)
    prompts = [" ".join(map(str, rng.integers(options.vocab, size=options.prompt_tokens))) for _ in range(256)]
    policy, reference = make_sides(options, model)
    task = TextTask.of(reference, prompts, max_new_tokens=options.response_tokens, stop_token_ids=(), kl_coef=0.05)
    env = TextGenerationVectorEnv(task, last_is_even)
    env.reset(seed=options.seed)
    agent, steps = make_agent(options, policy)
    baseline = rss_bytes()
    seconds, cpu_seconds = [], []
    for _ in range(options.iterations):
        started, cpu_started = time.perf_counter(), time.process_time()
        metrics = agent.learn(env)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    assert metrics["response_length"] == options.response_tokens
    assert metrics["optimizer_steps"] == steps
    tokens = options.episodes * options.response_tokens
    report = {
        "peer": "lm-gym" + (" (separate critic)" if options.separate_critic else ""),
        "tokens_per_second": tokens / statistics.median(seconds[1:]),
        "tokens_per_cpu_second": tokens / statistics.median(cpu_seconds[1:]),
        "seconds_per_iteration": seconds[1:],
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "baseline_rss_bytes": baseline,
        "imports_rss_bytes": imports_rss,
        "config": vars(options),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
