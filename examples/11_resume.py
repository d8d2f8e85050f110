"""A run that is stopped and taken up again ends with the weights of one that was not, to the bit.

Command:  python examples/11_resume.py
Time:     about half a minute on two CPU cores
Expected: "equal to the bit: True"

The same holds after Ctrl-C, a kill or a full disk: the call with ``resume=True`` goes on from the newest whole
checkpoint, and starts the run where there is none. See docs/guides/runs.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import gymnasium
import torch

from lm_gym.agents import PPO, Callback, LanguageModelPolicy, PPOConfig, TrainingRun, train
from lm_gym.assets import REVIEWS_LM


class StopsAfter(Callback):
    """Stands for whatever stops a run: a signal, a scheduler, the end of the day."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def on_iteration(self, run: TrainingRun) -> None:
        """Stop in the middle, once."""
        if run.iteration == self.iterations - 1:
            run.stop("the day is over")


def run(folder: Path, iterations: int, episodes: int, *callbacks: Callback) -> LanguageModelPolicy:
    """The same call every time; agent and environment are made as at the start."""
    env = gymnasium.make_vec("lm_gym/Reviews-v0", num_envs=1, action_mode="token_and_log_prob", max_new_tokens=32)
    policy = LanguageModelPolicy.from_pretrained(REVIEWS_LM)
    agent = PPO(policy, PPOConfig(episodes_per_iteration=episodes, learning_rate=3e-4))
    result = train(agent, env, iterations=iterations, run_dir=folder, resume=True, callbacks=callbacks, progress=False)
    print(
        f"{folder.name}: {len(result.history)} of {iterations} iterations in this call; {result.stop_reason or 'done'}"
    )
    return policy


def main() -> None:
    """Once undisturbed, once in two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two iterations of a few episodes")
    options = parser.parse_args()
    iterations, episodes = (2, 4) if options.smoke else (6, 32)
    with tempfile.TemporaryDirectory() as temporary:
        undisturbed = run(Path(temporary) / "undisturbed", iterations, episodes)
        run(Path(temporary) / "in two parts", iterations, episodes, StopsAfter(iterations // 2))
        resumed = run(Path(temporary) / "in two parts", iterations, episodes)
    pairs = zip(undisturbed.parameters(), resumed.parameters(), strict=True)
    equal = all(torch.equal(ours, theirs) for ours, theirs in pairs)
    print("equal to the bit:", equal)
    if not equal:
        raise SystemExit("a resumed run must end as an undisturbed one does")


if __name__ == "__main__":
    main()
