"""Stable-Baselines3's PPO, unchanged, in the text environment with the true KL.

Command:  python examples/05_stable_baselines3.py
Time:     about 1 minute on two CPU cores
Expected: SB3's own training table; ep_rew_mean rises. SB3's small network reads token ids as numbers, so it learns
          habits (end early, avoid rare tokens), not language: for that, give it a language model as its policy.
"""

from __future__ import annotations

import argparse

import gymnasium
from stable_baselines3 import PPO

from lm_gym import PolicyHandle, PolicyLogProb


def main() -> None:
    """Build the environment first, bind the policy once it exists, learn with entropy coefficient 0 and gamma 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few steps")
    options = parser.parse_args()

    handle = PolicyHandle()
    inner = gymnasium.make("lm_gym/Reviews-v0", action_mode="token_and_log_prob", max_new_tokens=8, kl_coef=0.05)
    env = PolicyLogProb(inner, handle)
    agent = PPO("MultiInputPolicy", env, n_steps=64, batch_size=32, gamma=1.0, ent_coef=0.0, seed=0, verbose=1)
    handle.bind(agent.policy)
    agent.learn(total_timesteps=64 if options.smoke else 4096)
    print("ep_rew_mean is the mean return of an episode: its score minus kl_coef times its KL, in nats")


if __name__ == "__main__":
    main()
