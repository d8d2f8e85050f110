"""Commands that are worth typing after a run, with the paths of what it left."""

from __future__ import annotations

import shlex
from pathlib import Path

from lm_gym.app.report.report_data import NextStep
from lm_gym.app.run_models import HELD_OUT_PROMPTS

__all__ = ["TRAIN_PROMPTS", "command_of", "next_steps"]

TRAIN_PROMPTS = "train_prompts.jsonl"
"""File of a run folder with the prompts of RL."""


def command_of(*words: object) -> str:
    """A command of ``lm-gym`` as it is typed in a shell."""
    return shlex.join(["lm-gym", *map(str, words)])


def next_steps(run: Path, *, before: Path, after: Path, reward_model: Path, prompt: str) -> tuple[NextStep, ...]:
    """Three things to do with a finished run.

    Args:
        run: the run folder, with both files of prompts.
        before: model before RL.
        after: model after it.
        reward_model: the newest one.
        prompt: to try the trained model with.
    """
    prompts = run / HELD_OUT_PROMPTS
    against = ("--reward-model", reward_model)
    return (
        NextStep(
            purpose="Let the trained model answer; any prompt will do:",
            command=command_of("generate", "--model", after, "--prompt", prompt, "--count", 3),
        ),
        NextStep(
            purpose="Read the models before and after RL side by side, and count who wins:",
            command=command_of("compare", before, after, "--data", prompts, *against),
        ),
        NextStep(
            purpose="Train with another KL penalty; your own prompts and reward function go in the same places:",
            command=command_of(
                *("train", "--model", before, "--data", run / TRAIN_PROMPTS, "--eval-data", prompts, *against),
                *("--kl-coef", 0.02, "--iterations", 20, "--out", run.with_name(f"{run.name}-kl-0.02")),
            ),
        ),
    )
