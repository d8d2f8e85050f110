"""Stable-Baselines3's PPO, unchanged, trains the language model itself, with the true KL.

Command:  python examples/05_stable_baselines3.py
Time:     about 1 minute on two CPU cores
Expected: SB3's own training table, in which ep_rew_mean rises; then the true score on held-out prompts, before and
          after (about 0.10 and 0.25), and what the model now writes. With --small-network the policy is SB3's own
          network, which reads token ids as numbers: it learns habits (end early, avoid rare tokens), not language.
"""

from __future__ import annotations

import argparse

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from lm_gym import evaluate, reviews
from lm_gym.agents.sb3 import LanguageModelActorCriticPolicy, SB3VecEnv
from lm_gym.assets import REVIEWS_LM


def main() -> None:
    """Build the environment, the agent, bind the one to the other; entropy coefficient 0 and gamma 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small-network", action="store_true", help="SB3's own network in the place of the model")
    parser.add_argument("--smoke", action="store_true", help="a few steps")
    options = parser.parse_args()

    rows, steps, updates = (4, 8, 1) if options.smoke else (32, 32, 15)
    settings = {"action_mode": "token_and_log_prob", "max_new_tokens": 16, "kl_coef": 0.05}
    native = gymnasium.make_vec("lm_gym/Reviews-v0", num_envs=rows, **settings)
    env = SB3VecEnv(native)
    policy, arguments = LanguageModelActorCriticPolicy, {"model": REVIEWS_LM}
    if options.small_network:
        policy, arguments = "MultiInputPolicy", {}
    agent = PPO(
        policy,
        VecMonitor(env),
        n_steps=steps,
        batch_size=rows * steps // 4,
        n_epochs=4,
        learning_rate=3e-4,
        gamma=1.0,  # a discount would pay early tokens less for the same text
        ent_coef=0.0,  # the entropy is in the reward already, as part of the KL
        policy_kwargs=arguments,
        seed=0,
        device="cpu",
        verbose=1,
    )
    env.log_prob.bind(agent)  # the environment is paid the agent's own log-probabilities

    def measured() -> str:
        held_out = reviews.prompts("held_out")[: 2 if options.smoke else 64]
        found = evaluate(agent.policy.language_model_policy, native, held_out)
        return f"true score {found.score:.2f}, KL {found.kl:.2f} nats"

    before = "" if options.small_network else measured()
    agent.learn(total_timesteps=updates * steps * rows)
    print("ep_rew_mean is the mean return of an episode: its score minus kl_coef times its KL, in nats")
    if not options.small_network:
        print(f"before: {before}\nafter:  {measured()}")
        for text in agent.policy.language_model_policy.respond(["A review of a lamp:"], max_new_tokens=16, seed=0):
            print(f"A review of a lamp:{text}")


if __name__ == "__main__":
    main()
