"""An agent of your own in a page: REINFORCE with a moving baseline, stepping the vector environment token by token.

Command:  python examples/04_your_own_agent.py
Time:     about 1 minute on two CPU cores
Expected: the mean score rises over the updates
"""

from __future__ import annotations

import argparse

import gymnasium
import numpy as np
import torch

import lm_gym  # noqa: F401 (registers the environments)
from lm_gym.assets import REVIEWS_LM


def main() -> None:
    """Sample, sum the rewards, push up what did better than average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two short updates")
    options = parser.parse_args()
    updates, rows, length = (2, 4, 8) if options.smoke else (20, 32, 48)

    from transformers import AutoModelForCausalLM

    env = gymnasium.make_vec(
        "lm_gym/Reviews-v0",
        num_envs=rows,
        action_mode="token_and_log_prob",
        max_new_tokens=length,
        kl_coef=0.02,
    )
    model = AutoModelForCausalLM.from_pretrained(REVIEWS_LM).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    torch.manual_seed(0)
    baseline = None
    for update in range(updates):
        observation, _ = env.reset(seed=update * rows)
        alive, returns, scores = np.ones(rows, dtype=bool), np.zeros(rows), np.zeros(rows)
        log_prob_sums = torch.zeros(rows)
        while alive.any():
            ids = torch.from_numpy(observation["input_ids"])
            last = torch.from_numpy(observation["attention_mask"].sum(1).astype(np.int64)) - 1
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[torch.arange(rows), last]
            policy = torch.distributions.Categorical(logits=logits)
            tokens = policy.sample()
            log_probs = policy.log_prob(tokens)
            action = {"token": tokens.numpy(), "log_prob": log_probs.detach().numpy().clip(max=0)}
            observation, rewards, terminated, _, info = env.step(action)
            log_prob_sums = log_prob_sums + log_probs * torch.from_numpy(alive)
            returns += rewards * alive
            scores = np.where(terminated & alive, info.get("score", scores), scores)
            alive &= ~terminated  # a row that ended starts again by itself; its new episode does not count
        baseline = returns.mean() if baseline is None else 0.9 * baseline + 0.1 * returns.mean()
        advantage = torch.from_numpy(returns - baseline).float()
        loss = -(advantage * log_prob_sums).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(f"update {update:2d}: score {scores.mean():.3f}, return {returns.mean():.3f}")


if __name__ == "__main__":
    main()
