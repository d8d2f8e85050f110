"""The page of other libraries: every entry is really run, small, before the page is written.

Knows: the lines that each library needs beside its own usual ones. Entries of libraries that the project does not
install were run once by hand, in an environment of their own; the page says so.

Command:  python -m scripts.compatibility docs/guides/other_libraries.md
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts import compatibility_trials as trials

__all__ = ["BY_HAND", "ENTRIES", "Entry", "page"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the table."""

    library: str
    """Name of the distribution."""
    what: str
    """Part of the library that is run."""
    glue: tuple[str, ...] | None = ()
    """Lines that it needs beside its own usual ones; None: it does not work, as ``note`` says."""
    kl: str = "-"
    """Place of the KL to the reference."""
    note: str = ""
    """Reason, or what to know."""
    run: Callable[[], None] = lambda: None
    """Runs it, and fails where the row is wrong."""


EXACT, OTHER = "exact", "without the agent's own term"
HAND_OVER = ("env = PolicyLogProb(env, handle := PolicyHandle())", "handle.bind(agent)")
ENTRIES = (
    Entry(
        library="gymnasium",
        what="wrappers: RecordEpisodeStatistics, NormalizeReward, ClipReward, TransformReward, TimeLimit, "
        "FlattenObservation, FilterObservation",
        run=trials.run_single_wrappers,
    ),
    Entry(
        library="gymnasium",
        what="wrappers of continuous actions: RescaleAction",
        glue=None,
        note="a token is no point of a Box; Gymnasium refuses it",
        run=trials.run_action_wrappers,
    ),
    Entry(
        library="gymnasium",
        what="vector wrappers: RecordEpisodeStatistics, NormalizeReward, ClipReward, FlattenObservation, "
        "DictInfoToList",
        run=trials.run_vector_wrappers,
    ),
    Entry(
        library="gymnasium",
        what="vector wrapper NumpyToTorch",
        glue=('make_vec(..., info_keys="numeric")',),
        note="a tensor holds no text",
        run=trials.run_numpy_to_torch,
    ),
    Entry(library="gymnasium", what="SyncVectorEnv, every autoreset mode", run=trials.run_sync),
    Entry(
        library="gymnasium",
        what="AsyncVectorEnv",
        note="each process has a reference of its own; `make_vec` without a vectorization_mode runs one for all rows",
        run=trials.run_async,
    ),
    Entry(
        library="stable_baselines3",
        what="PPO, A2C with the language model as their policy",
        glue=("env = SB3VecEnv(gymnasium.make_vec(...))", "env.log_prob.bind(agent)"),
        kl=EXACT,
        run=trials.run_sb3_language_model,
    ),
    Entry(
        library="stable_baselines3",
        what="PPO, A2C with a network of SB3",
        glue=HAND_OVER,
        kl=EXACT,
        note="`gamma=1`, `ent_coef=0`; the network reads ids as numbers",
        run=trials.run_sb3_on_policy,
    ),
    Entry(
        library="stable_baselines3",
        what="VecMonitor, VecNormalize(norm_obs=False), VecCheckNan around SB3VecEnv",
        run=trials.run_sb3_wrappers,
    ),
    Entry(library="stable_baselines3", what="DQN", kl=OTHER, run=trials.run_sb3_values),
    Entry(
        library="stable_baselines3",
        what="SAC, TD3, DDPG",
        glue=None,
        note="continuous actions only",
        run=trials.run_sb3_continuous,
    ),
    Entry(
        library="sb3_contrib",
        what="MaskablePPO, RecurrentPPO, TRPO",
        glue=HAND_OVER,
        kl=EXACT,
        note="MaskablePPO asks the environment's `action_masks()`: the reference's support under top_k, top_p, min_p",
        run=trials.run_contrib_on_policy,
    ),
    Entry(library="sb3_contrib", what="QRDQN", kl=OTHER, run=trials.run_contrib_values),
    Entry(
        library="sb3_contrib",
        what="TQC, CrossQ",
        glue=None,
        note="continuous actions only",
        run=trials.run_contrib_continuous,
    ),
)
BY_HAND = (
    Entry(
        library="trl 1.16.0",
        what="reward functions: think_format_reward, accuracy_reward, reasoning_accuracy_reward",
        glue=("reward_model=TRLReward(function)",),
        note="a function of plain texts needs no line",
    ),
    Entry(
        library="trl 1.16.0",
        what="get_cosine_scaled_reward, get_soft_overlong_punishment, get_repetition_penalty_reward",
        glue=None,
        note="they need token ids, and a reward model reads text; refused when they are passed",
    ),
    Entry(
        library="tianshou 2.0.1",
        what="PPO, DQN over DummyVectorEnv",
        glue=('env = FlattenObservation(gymnasium.make(id, info_keys="numeric"))',),
        kl=OTHER,
        note="without it the buffer finds NaN where an info lacks a key",
    ),
    Entry(
        library="torchrl 0.14.1",
        what="ClipPPOLoss, DQNLoss with Collector and GymEnv",
        glue=(
            'GymEnv(id, categorical_action_encoding=True, info_keys="numeric")',
            'DTypeCastTransform(torch.int64, torch.float32, in_keys=["input_ids"])',
        ),
        kl=OTHER,
    ),
    Entry(
        library="skrl 2.1.1",
        what="PPO, DQN with SequentialTrainer",
        glue=('wrap_env(gymnasium.make_vec(id, num_envs=2, autoreset_mode="SameStep"))',),
        kl=OTHER,
        note="in the default mode, NextStep, it would learn from the ignored actions",
    ),
    Entry(
        library="pufferlib-core 3.0.23",
        what="GymnasiumPufferEnv in its Serial backend",
        kl=OTHER,
    ),
    Entry(
        library="pufferlib-core 3.0.23",
        what="its trainer, PuffeRL",
        glue=None,
        note="not tried: it needs a compiled extension that did not load without CUDA",
    ),
)
INTRODUCTION = """# Other libraries

What was run, at small size, and what it needs beside its own usual lines. `exact` means that the reward holds the KL
of the agent's own policy ([action modes](../concepts/action_modes.md) says how and why); an agent that picks plain
tokens is paid `beta * log pi_ref` instead, without its own term.

A loop of your own, in one file and in every autoreset mode, is `examples/other_libraries/14_one_file_ppo.py` (in
CleanRL's style).

## Run on every change

This table is written by `python -m scripts.compatibility docs/guides/other_libraries.md`, which runs every row; the
tests run every row, too.

"""
BY_HAND_TITLE = """
## Run once, by hand

Not installed by the project and not run by its tests: each in an environment of its own, with the version named.

"""


def version_of(library: str) -> str:
    """Name and tested version, from ``constraints.txt``."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(library)}==(\S+)$", pins, flags=re.MULTILINE)
    return f"{library.replace('_', '-')} {found[1]}" if found else library


def table(entries: tuple[Entry, ...]) -> str:
    """Entries as a table of Markdown."""
    lines = ["| Library | What | Works | KL | To know |", "|---|---|---|---|---|"]
    for entry in entries:
        glue = entry.glue
        works = "no" if glue is None else "as is" if not glue else f"{len(glue)} line{'s' * (len(glue) > 1)}: "
        works += "; ".join(f"`{line}`" for line in glue or ())
        lines.append(f"| {version_of(entry.library)} | {entry.what} | {works} | {entry.kl} | {entry.note or '-'} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page, in Markdown."""
    return INTRODUCTION + table(ENTRIES) + BY_HAND_TITLE + table(BY_HAND)


def main() -> None:
    """Run every entry, then write the page."""
    warnings.simplefilter("ignore")
    for entry in ENTRIES:
        entry.run()
        print(f"{entry.library}: {entry.what}", flush=True)
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
