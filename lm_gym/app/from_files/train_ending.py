"""The end of ``lm-gym train`` in the terminal: before and after, the policies, and the next command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from lm_gym.agents.run_folder import BEST, POLICY
from lm_gym.agents.training import TrainResult
from lm_gym.app.pipeline.next_steps import command_of
from lm_gym.runs.metrics_file import METRICS_FILE, read_metrics

__all__ = ["print_training"]

Row = Mapping[str, float | None]


def print_training(
    result: TrainResult,
    out: Path,
    *,
    model: str,
    reward_model: str,
    prompts: Path,
    held_out: Path | None,
    console: Console,
) -> None:
    """Print what a training run gained.

    Args:
        result: of the run.
        out: its folder.
        model: the language model that it started from.
        reward_model: its handle.
        prompts: file of training prompts.
        held_out: file of held-out prompts; None measured nothing on such.
        console: to print on.
    """
    history = read_metrics(out / METRICS_FILE)
    best = next((row for row in history if row.get("iteration") == result.best_iteration), None)
    console.print()
    if held_out is not None and best is not None and best.get("eval_score") is not None:
        console.print(f"Before and after, on the prompts of {held_out}:", soft_wrap=True)
        console.print(f"  start: score {_shown(best.get('eval_reference_score'))}, KL 0.000", highlight=False)
        after = f"score {_shown(best['eval_score'])}, KL {_shown(best['eval_kl'])}"
        told = f"  best:  {after}, win rate over the start {_share(best['eval_win_rate'])}"
        console.print(
            f"{told} (after iteration {int(best['iteration'] or 0) + 1} of {len(history)})",
            highlight=False,
            soft_wrap=True,
        )
    else:
        for line in _first_and_last(history):
            console.print(line, highlight=False, soft_wrap=True)
    chosen = out / BEST if (out / BEST).is_dir() else out / POLICY
    console.print(f"The trained policy: {out / POLICY}", highlight=False, soft_wrap=True)
    if chosen.name == BEST:
        console.print(f"The best one on the held-out prompts: {chosen}", highlight=False, soft_wrap=True)
    command = ("compare", model, chosen, "--data", held_out or prompts, "--reward-model", reward_model)
    console.print("What to do next, to read both models side by side and count who wins:")
    console.print(f"  {command_of(*command)}", highlight=False, soft_wrap=True)


def _first_and_last(history: Sequence[Row]) -> list[str]:
    if not history:
        return []
    rows = (("first", history[0]), ("last", history[-1]))
    lines = [f"  {name} iteration: score {_shown(row.get('score'))}, KL {_shown(row.get('kl'))}" for name, row in rows]
    return ["Before and after, on the training prompts (--eval-data FILE measures on held-out ones):", *lines]


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"
