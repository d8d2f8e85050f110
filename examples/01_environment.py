"""Text generation in a plain Gymnasium loop: one action is one token, and a language model acts.

Command:  python examples/01_environment.py
Time:     about 10 seconds on two CPU cores
Expected: three reviews in sentences; each number is the KL of one token, 0 because the model that acts is the reference
          itself, so the return is the score; then the same with random tokens, for which the KL is paid
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

import lm_gym  # registers the environments
from lm_gym.agents import LanguageModelPolicy
from lm_gym.assets import REVIEWS_LM

Act = Callable[[dict[str, np.ndarray]], tuple[Any, Any]]


def play(env: gymnasium.Env[Any, Any], act: Act, seed: int) -> None:
    """One episode."""
    observation, info = env.reset(seed=seed)
    print(f"\n{act.__name__} acts; prompt: {info['prompt']!r}, {int(observation['attention_mask'].sum())} tokens")
    print("KL of each token, nats:", end=" ")
    ended, total = False, 0.0
    while not ended:
        token, log_prob = act(observation)
        observation, reward, terminated, truncated, info = env.step({"token": token, "log_prob": log_prob})
        ended, total = terminated or truncated, total + float(reward)
        print(f"{info['kl']:.1f}", end=" ")
    print(f"\nreturn {total:.2f} = score {info['score']:.2f} - kl_coef * sum of the KL; end: {info['stop_reason']}")
    print(env.render())


def main() -> None:
    """Let the built-in language model write, then chance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one episode of each")
    options = parser.parse_args()

    env = gymnasium.make(
        "lm_gym/Reviews-v0", action_mode="token_and_log_prob", max_new_tokens=48, kl_coef=0.1, render_mode="ansi"
    )
    policy = LanguageModelPolicy.from_pretrained(REVIEWS_LM)
    rng = np.random.default_rng(0)

    def model(observation: dict[str, np.ndarray]) -> tuple[Any, Any]:
        return policy.act(observation, env.get_wrapper_attr("sampling"))  # your agent goes here

    def chance(observation: dict[str, np.ndarray]) -> tuple[Any, Any]:
        return rng.integers(policy.vocab_size), -np.log(policy.vocab_size)

    for episode in range(1 if options.smoke else 3):
        play(env, model, seed=episode)
    play(env, chance, seed=0)
    print("lm-gym", lm_gym.__version__)


if __name__ == "__main__":
    main()
