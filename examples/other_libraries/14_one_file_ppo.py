"""PPO in one file, in CleanRL's style, with no library of agents: torch, transformers and ``gymnasium.make_vec``.

Command:  python examples/other_libraries/14_one_file_ppo.py --autoreset NextStep
Time:     about 2 minutes on two CPU cores
Expected: one line per update; the score of the episodes that ended rises. The lines are the same for NextStep, SameStep
          and Disabled, since a row's transitions are: what a mode asks of an agent is in `collect`.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import lm_gym  # noqa: F401 (registers the environments)
from lm_gym.assets import REVIEWS_LM

GAE_LAMBDA, CLIP, VALUE_COEF, EPOCHS, MINIBATCHES, LEARNING_RATE = 0.95, 0.2, 0.5, 4, 4, 3e-4


class Agent(nn.Module):
    """A language model and a value head on the same state."""

    def __init__(self) -> None:
        super().__init__()
        self.model = AutoModelForCausalLM.from_pretrained(REVIEWS_LM).eval()
        self.value = nn.Linear(self.model.config.hidden_size, 1, bias=False)
        nn.init.zeros_(self.value.weight)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of every next token (B, V) and values (B,), after right-padded prefixes (B, L)."""
        out = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        last = (torch.arange(len(ids)), mask.sum(1) - 1)
        return torch.log_softmax(out.logits[last], -1), self.value(out.hidden_states[-1][last]).squeeze(-1)


@torch.no_grad()
def collect(env: Any, agent: Agent, steps: int, seed: int) -> tuple[list[Tensor], list[float]]:
    """``steps`` transitions of every row, with advantages and returns; and the scores of the episodes that ended.

    Every row draws by its own generator and starts anew, so nothing depends on the steps that a mode spends.
    """
    mode = env.metadata["autoreset_mode"].value
    draws = [np.random.default_rng([seed, row]) for row in range(env.num_envs)]
    observation, _ = env.reset(seed=seed)
    rows: list[list[Any]] = [[] for _ in range(env.num_envs)]
    resets = np.zeros(env.num_envs, dtype=bool)  # NextStep: this step begins an episode, and its action is ignored
    scores: dict[int, list[float]] = {row: [] for row in range(env.num_envs)}
    while min(len(row) for row in rows) <= steps:
        ids, mask = (torch.from_numpy(observation[key]) for key in ("input_ids", "attention_mask"))
        log_probs, values = agent(ids, mask)
        uniform = [0.5 if resets[row] else draws[row].random() for row in range(env.num_envs)]
        cumulative = log_probs.double().exp().cumsum(1)
        tokens = torch.searchsorted(cumulative, torch.tensor(uniform)[:, None] * cumulative[:, -1:]).squeeze(1)
        taken = log_probs.gather(1, tokens[:, None]).squeeze(1)
        action = {"token": tokens.numpy(), "log_prob": taken.numpy()}
        observation, rewards, terminated, _, info = env.step(action)
        last = info.get("final_info", info)  # SameStep: info is of the episode that began
        for row in np.flatnonzero(~resets):
            rows[row].append((ids[row], mask[row], tokens[row], taken[row], values[row], rewards[row], terminated[row]))
            if terminated[row] and len(rows[row]) <= steps:
                scores[row].append(float(last["score"][row]))
        if mode == "Disabled" and terminated.any():  # the agent begins the episodes itself
            observation, _ = env.reset(options={"reset_mask": terminated})
        resets = terminated if mode == "NextStep" else np.zeros_like(terminated)
    batch = [transition for row in rows for transition in with_advantages(row[: steps + 1])]
    columns = [torch.stack([torch.as_tensor(value) for value in column]) for column in zip(*batch, strict=True)]
    return columns, [score for each in scores.values() for score in each]


def with_advantages(row: list[Any]) -> list[tuple[Any, ...]]:
    """GAE with gamma 1 over all transitions but the last, whose value the row ends in.

    An episode that ends is terminated here; under on_length_limit="truncate" its last value would be that of the state
    that it ended in (the observation in NextStep and Disabled, info["final_obs"] in SameStep).
    """
    found, advantage = [], 0.0
    for transition, (*_, after, _, _) in zip(row[-2::-1], row[:0:-1], strict=True):
        *state, value, reward, ended = transition
        error = reward + (0.0 if ended else float(after)) - float(value)
        advantage = error + (0.0 if ended else GAE_LAMBDA * advantage)
        found.append((*state, np.float32(advantage), np.float32(advantage + float(value))))
    return found[::-1]


def learn(autoreset: str, rows: int, steps: int, updates: int) -> list[str]:
    """One line per update."""
    rules = {"action_mode": "token_and_log_prob", "kl_coef": 0.05, "max_new_tokens": 16, "autoreset_mode": autoreset}
    env = gymnasium.make_vec("lm_gym/Reviews-v0", num_envs=rows, **rules)
    torch.manual_seed(0)
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE, eps=1e-5)
    lines = []
    for update in range(updates):
        (ids, mask, tokens, old, advantages, returns), scores = collect(env, agent, steps, seed=1000 * update)
        for part in torch.cat([torch.randperm(len(ids)) for _ in range(EPOCHS)]).chunk(EPOCHS * MINIBATCHES):
            log_probs, values = agent(ids[part], mask[part])
            ratio = (log_probs.gather(1, tokens[part, None]).squeeze(1) - old[part]).exp()
            scaled = (advantages[part] - advantages[part].mean()) / (advantages[part].std() + 1e-8)
            gain = torch.min(scaled * ratio, scaled * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
            loss = VALUE_COEF * (values - returns[part]).square().mean() - gain
            agent.zero_grad(), loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
        lines.append(f"update {update}: score {np.mean(scores):.4f} of {len(scores)} episodes, loss {loss.item():.4f}")
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoreset", choices=["NextStep", "SameStep", "Disabled"], default="NextStep")
    parser.add_argument("--smoke", action="store_true", help="a few steps")
    options = parser.parse_args()
    learn(options.autoreset, *((4, 12, 1) if options.smoke else (32, 32, 15)))
