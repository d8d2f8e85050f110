"""Every agent on the built-in reviews: true score against KL, after the same number of sampled tokens, on three seeds.

Command:  python examples/comparisons/13_every_agent.py --out runs/every_agent [--agents ppo rloo] [--tokens 45000]
Time:     30 minutes on one CPU core; what stands in the folder is not run again
Expected: a line per run, and runs/every_agent/every_agent.png; every agent ends above the reference

All agents have one learning rate, and take four optimiser steps at least on 64 responses; the rest are their defaults,
tuned for none. Whatever an agent samples counts, greedy baselines and continuations included; only what A*-PO draws of
the reference, once, comes on top. Beside them stands best-of-n of the reference: scoring alone, without training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium
import torch
from matplotlib.figure import Figure

from lm_gym import TextGenerationVectorEnv, evaluate, reviews
from lm_gym.agents import LanguageModelPolicy, best_of_n_kl_bound, best_of_n_scores
from lm_gym.agents.algorithms.names import ALGORITHMS
from lm_gym.assets import REVIEWS_LM

BEST = "best of n"
CHANGES: dict[str, dict[str, Any]] = {"soft-q": {"backup_steps": None}, "vine-ppo": {"episodes_per_iteration": 4}}
"""One-step backups need more iterations than there are; continuations of 64 responses are more than all tokens."""


class Counting:
    """A sampler that counts the tokens it draws."""

    def __init__(self, policy: LanguageModelPolicy) -> None:
        self.inner, self.tokens = policy.sampler, 0
        self.stores_keep_sets, self.vocab_size = self.inner.stores_keep_sets, self.inner.vocab_size
        self.refresh = self.inner.refresh

    def generate(self, *args: Any) -> Any:
        """One response per prompt."""
        generation = self.inner.generate(*args)
        self.tokens += int(generation.mask.sum())
        return generation


def train(env: TextGenerationVectorEnv, name: str, seed: int, budget: int, episodes: int) -> dict[str, Any]:
    """Train until the tokens are spent, then measure on held-out prompts."""
    env.reset(seed=seed)
    policy, kind = LanguageModelPolicy.from_pretrained(REVIEWS_LM), ALGORITHMS[name]
    sampler = Counting(policy)
    few = [one.name for one in fields(kind.config_type) if one.name == "minibatches" and one.default < 4]
    settings: dict[str, Any] = {"episodes_per_iteration": episodes, "learning_rate": 1e-3, **dict.fromkeys(few, 4)}
    agent = kind(policy, kind.config_type(seed=seed, **settings | CHANGES.get(name, {})), sampler=sampler)
    history, start = [], time.perf_counter()
    while sampler.tokens < budget:
        metrics = agent.learn(env, progress=sampler.tokens / budget)
        history.append([round(metrics["kl"], 3), round(metrics["score"], 4)])
    run = {"agent": name, "seed": seed, "tokens": sampler.tokens, "seconds": round(time.perf_counter() - start)}
    found = evaluate(policy, env, reviews.prompts("held_out"))
    return {**run, "kl": round(found.kl, 3), "score": round(found.score, 4), "history": history}


def best_of_n(env: TextGenerationVectorEnv, seed: int, samples: int) -> dict[str, Any]:
    """Scores of the best of 1, 2, 4, ... responses of the reference, and the bound on their KL."""
    env.reset(seed=seed)
    policy, prompts = LanguageModelPolicy.from_pretrained(REVIEWS_LM), reviews.prompts("held_out")
    scores = env.rollout_on(policy, prompts, samples_per_prompt=samples).scores.reshape(-1, samples)
    sizes = [2**power for power in range(samples.bit_length())]
    points = [[round(best_of_n_kl_bound(n), 3), round(float(best_of_n_scores(scores, n).mean()), 4)] for n in sizes]
    return {"agent": BEST, "seed": seed, "history": points}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """A panel for each agent: a line for each of its runs, a point at its end, and the ends of the others in grey."""
    names = list(dict.fromkeys(run["agent"] for run in runs))
    figure = Figure(figsize=(10, 3 + len(names) / 2), layout="constrained")
    panels = figure.subplots(-(-len(names) // 4), 4, sharex=True, sharey=True, squeeze=False)
    ends = [(run.get("kl", run["history"][-1][0]), run.get("score", run["history"][-1][1])) for run in runs]
    for axes, name in zip(panels.flat, names, strict=False):
        for end, run in zip(ends, runs, strict=True):
            axes.plot(*end, "o", markersize=4, color="C0" if run["agent"] == name else "0.8")
            axes.plot(*zip(*run["history"], strict=True), color="C0", alpha=0.6 * (run["agent"] == name))
        axes.set_title(name)
    figure.suptitle("true score against KL to the reference, in nats")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/every_agent"))
    parser.add_argument("--agents", nargs="*", choices=[*ALGORITHMS, BEST], default=[*ALGORITHMS, BEST])
    parser.add_argument("--tokens", type=int, default=45_000, help="that each agent samples")
    parser.add_argument("--smoke", action="store_true", help="two agents, one iteration of a few episodes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    length, episodes, seeds, samples = (8, 8, (0,), 2) if options.smoke else (48, 64, (0, 1, 2), 32)
    agents, budget = (["rloo", BEST], 1) if options.smoke else (options.agents, options.tokens)
    rules: Any = {"action_mode": "token_and_log_prob", "max_new_tokens": length, "kl_coef": 0.02}
    env = gymnasium.make_vec("lm_gym/Reviews-v0", num_envs=1, **rules)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.smoke else options.out
        (file := folder / "runs.jsonl").parent.mkdir(parents=True, exist_ok=True)
        runs = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        for name, seed in [(name, seed) for name in agents for seed in seeds]:
            if not any((run["agent"], run["seed"]) == (name, seed) for run in runs):
                runs.append(best_of_n(env, seed, samples) if name == BEST else train(env, name, seed, budget, episodes))
                with file.open("a") as lines:
                    lines.write(json.dumps(runs[-1]) + "\n")
                print({key: value for key, value in runs[-1].items() if key != "history"}, flush=True)
        draw(runs, folder / "every_agent.png")


if __name__ == "__main__":
    main()
