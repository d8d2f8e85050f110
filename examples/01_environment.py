"""Text generation in a plain Gymnasium loop: one action is one token.

Command:  python examples/01_environment.py
Time:     about 10 seconds on two CPU cores
Expected: three episodes; each line of numbers is one token's log-probability under the frozen reference model
"""

from __future__ import annotations

import argparse

import gymnasium

import lm_gym  # registers the environments


def main() -> None:
    """Play some episodes with random tokens from a short list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one episode")
    options = parser.parse_args()

    env = gymnasium.make("lm_gym/Reviews-v0", max_new_tokens=12, kl_coef=0.1, render_mode="ansi")
    env.action_space.seed(0)
    for episode in range(1 if options.smoke else 3):
        observation, info = env.reset(seed=episode)
        print(f"\nprompt: {info['prompt']!r}; {int(observation['attention_mask'].sum())} tokens")
        ended, total = False, 0.0
        while not ended:
            token = env.action_space.sample()  # your agent goes here
            observation, reward, terminated, truncated, info = env.step(token)
            ended, total = terminated or truncated, total + reward
            print(f"{info['ref_log_prob']:.1f}", end=" ")
        print(f"\nreturn {total:.2f} = score {info['score']:.2f} + kl_coef * sum of log pi_ref")
        print(env.render())
    print("lm-gym", lm_gym.__version__)


if __name__ == "__main__":
    main()
