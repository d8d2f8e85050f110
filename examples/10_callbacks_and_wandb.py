"""Callbacks: one that stops the run by a rule of its own, and Weights & Biases without a network.

Command:  python examples/10_callbacks_and_wandb.py [--out runs/callbacks]
Time:     about 1 minute on two CPU cores
Expected: a line per iteration; the run stops once the KL has been above 4 nats three times in a row, or at its end;
          with wandb installed (``pip install 'lm-gym[wandb]'``) an offline run lies in the folder, for ``wandb sync``
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path

import gymnasium

from lm_gym.agents import PPO, Callback, LanguageModelPolicy, PPOConfig, TrainingRun, WandbTracker, train
from lm_gym.assets import REVIEWS_LM


class StopsWhenItStrays(Callback):
    """Ends a run whose KL stays above a limit; its count is part of a checkpoint."""

    def __init__(self, limit: float, patience: int) -> None:
        self.limit, self.patience, self.count = limit, patience, 0

    def on_iteration(self, run: TrainingRun) -> None:
        """Count, show, and stop."""
        self.count = self.count + 1 if run.metrics["kl"] > self.limit else 0
        print(f"iteration {run.iteration}: score {run.metrics['score']:.3f}, KL {run.metrics['kl']:.2f} nats")
        if self.count >= self.patience:
            run.stop(f"the KL was above {self.limit:g} nats {self.count} times in a row")

    def state_dict(self) -> dict[str, int]:
        """For a resumed run."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take it back."""
        self.count = state["count"]


def main() -> None:
    """Train without a KL penalty, watched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the run; without it nothing is kept")
    parser.add_argument("--smoke", action="store_true", help="two iterations of a few episodes")
    options = parser.parse_args()
    iterations, episodes = (2, 4) if options.smoke else (30, 32)

    env = gymnasium.make_vec(
        "lm_gym/Reviews-v0", num_envs=1, action_mode="token_and_log_prob", kl_coef=0.0, max_new_tokens=32
    )
    config = PPOConfig(episodes_per_iteration=episodes, learning_rate=1e-3)
    agent = PPO(LanguageModelPolicy.from_pretrained(REVIEWS_LM), config)
    callbacks: list[Callback] = [StopsWhenItStrays(limit=4.0, patience=3)]
    if importlib.util.find_spec("wandb") is None:
        print("wandb is not installed: no W&B run is written (pip install 'lm-gym[wandb]')")
    else:
        callbacks.append(WandbTracker("lm-gym-examples", mode="offline"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary) / "run"
        result = train(agent, env, iterations=iterations, run_dir=folder, callbacks=callbacks, progress=False)
        print("stopped:", result.stop_reason or "at the end")
        print("written:", ", ".join(sorted(path.name for path in folder.iterdir())))


if __name__ == "__main__":
    main()
