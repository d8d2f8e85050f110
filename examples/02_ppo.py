"""Token-level PPO with a KL penalty on the built-in reviews, against the task's own true score.

Command:  python examples/02_ppo.py
Time:     about 2 minutes on two CPU cores
Expected: the score of the held-out prompts rises from the reference's while the KL stays near its target
"""

from __future__ import annotations

import argparse

import gymnasium

from lm_gym import AdaptiveKL, evaluate, reviews
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, ProgressDisplay, train
from lm_gym.assets import REVIEWS_LM


def main() -> None:
    """Train for a few iterations and compare with the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two iterations of a few episodes")
    options = parser.parse_args()
    iterations, episodes = (2, 8) if options.smoke else (25, 64)

    env = gymnasium.make_vec(
        "lm_gym/Reviews-v0", num_envs=episodes, action_mode="token_and_log_prob", max_new_tokens=64, kl_coef=0.02
    )
    env.reset(seed=0)
    policy = LanguageModelPolicy.from_pretrained(REVIEWS_LM)
    config = PPOConfig(episodes_per_iteration=episodes, learning_rate=3e-4)
    prompts = reviews.prompts("held_out")[: 4 if options.smoke else 64]

    before = evaluate(policy, env, prompts)
    train(
        PPO(policy, config),
        env,
        iterations=iterations,
        adaptive_kl=AdaptiveKL(target=6.0, horizon=600),
        callbacks=[ProgressDisplay()],
    )
    after = evaluate(policy, env, prompts, reference_episodes=before.reference_episodes)
    for name, found in (("before", before), ("after", after)):
        print(f"{name:>6}: score {found.score:.3f}, KL {found.kl:.2f} nats")
    print(f"on {after.win_rate:.0%} of the prompts the policy's answer beats the reference's")
    print(after.episodes.prompts[0], after.episodes.responses[0])


if __name__ == "__main__":
    main()
