"""An agent of your own under ``train()``: evaluation, trackers, checkpoints and resume come with it.

Command:  python examples/12_agent_under_train.py
Time:     about 1 minute on two CPU cores
Expected: a line per iteration, and the best policy by its return on held-out prompts

The agent is REINFORCE with a moving baseline. ``train()`` needs ``policy``, ``last_episodes``, ``learn`` and
``settings``; with a run folder also ``state_dict`` and ``load_state_dict``: what the next iteration depends on, but for
the weights of the policy. An agent without them is refused a folder, since its run could not be taken up again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import torch

from lm_gym import Episodes, TextGenerationVectorEnv, reviews
from lm_gym.agents import LanguageModelPolicy, train
from lm_gym.agents.metrics import episode_metrics
from lm_gym.assets import REVIEWS_LM


class Reinforce:
    """Push up what did better than a moving average of the returns."""

    def __init__(self, policy: LanguageModelPolicy, *, episodes: int, learning_rate: float) -> None:
        self.policy = policy
        self.last_episodes: Episodes | None = None
        self._settings = {"episodes": episodes, "learning_rate": learning_rate}
        self._optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)
        self._baseline: float | None = None

    def learn(self, env: TextGenerationVectorEnv, *, progress: float) -> dict[str, float]:
        """One iteration. Returns: metrics; ``kl`` and ``score`` at least."""
        episodes = self.last_episodes = env.rollout(self.policy, int(self._settings["episodes"]))
        returns = torch.from_numpy(episodes.rewards.sum(axis=1)).float()
        mean = float(returns.mean())
        self._baseline = mean if self._baseline is None else 0.9 * self._baseline + 0.1 * mean
        log_probs = self.policy.log_probs_and_values(episodes).log_probs.sum(dim=1)
        loss = -((returns - self._baseline) * log_probs).mean()
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.policy.parameters()), 1.0)
        self._optimizer.step()
        self.policy.refresh()
        return {**episode_metrics(episodes), "policy_loss": float(loss.detach())}

    def settings(self) -> dict[str, Any]:
        """What decides how it learns: a run is only taken up with the same."""
        return self._settings

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and baseline."""
        return {"optimizer": self._optimizer.state_dict(), "baseline": self._baseline}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._baseline = state["baseline"]


def main() -> None:
    """Train it as PPO is trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two iterations of a few episodes")
    options = parser.parse_args()
    iterations, episodes, held_out = (2, 4, 4) if options.smoke else (20, 64, 48)

    env = gymnasium.make_vec(
        "lm_gym/Reviews-v0", num_envs=1, action_mode="token_and_log_prob", max_new_tokens=48, kl_coef=0.02
    )
    agent = Reinforce(LanguageModelPolicy.from_pretrained(REVIEWS_LM), episodes=episodes, learning_rate=3e-4)
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            agent,
            env,
            iterations=iterations,
            run_dir=Path(folder) / "run",
            eval_prompts=reviews.prompts("held_out")[:held_out],
            eval_every=5,
        )
    scores = [metrics["score"] for metrics in result.history]
    print(f"score {scores[0]:.3f} -> {scores[-1]:.3f}; the best policy came after iteration {result.best_iteration}")


if __name__ == "__main__":
    main()
