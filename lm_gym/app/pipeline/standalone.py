"""Single stages for the command line: PPO, generation, comparison, each from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_gym.agents.ppo import PPOConfig
from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.errors import ConfigError, OutputExistsError, PromptError
from lm_gym.scoring.handles import load_reward_model
from lm_gym.scoring.protocol import Scores, checked_scores, columns_for
from lm_gym.tools.files import read_jsonl, write_jsonl

from .options import SampleOptions, TrainOptions
from .stages import make_env, ppo_policy_folder, run_ppo, sample_answers

__all__ = ["compare_models", "generate_texts", "train_policy"]


def train_policy(options: TrainOptions, out: Path, *, resume: bool, overwrite: bool, console: Console) -> None:
    """PPO from files.

    Raises:
        Interrupted: a signal stopped it; what was done is saved.
    """
    env = make_env(
        options.model,
        read_prompt_rows(options.prompts),
        load_reward_model(options.reward_model),
        reward=RewardConfig(kl_coef=options.kl_coef, score_timeout_s=options.score_timeout),
        sampling=SamplingConfig(max_new_tokens=options.max_new_tokens, temperature=options.temperature),
    )
    config = PPOConfig(
        episodes_per_iteration=options.episodes,
        minibatches=min(4, options.episodes),
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    result = run_ppo(
        out,
        options.model,
        env,
        config,
        iterations=options.iterations,
        eval_prompts=() if options.eval_prompts is None else read_prompt_rows(options.eval_prompts),
        kl_target=options.kl_target,
        kl_horizon=2.0 * options.episodes,
        seed=options.seed,
        resume=resume,
        overwrite=overwrite,
        separate_critic=options.separate_critic,
    )
    last = result.history[-1] if result.history else {}
    shown = ", ".join(f"{name} {last[name]:.3f}" for name in ("score", "kl", "entropy") if name in last)
    console.print(f"done: {ppo_policy_folder(out)}{shown and '; '}{shown}")


def generate_texts(
    model: str,
    given: Sequence[str],
    path: Path | None,
    options: SampleOptions,
    *,
    count: int,
    out: Path | None,
    overwrite: bool,
    console: Console,
) -> None:
    """Print or write responses to prompts of the command line and of a file.

    Raises:
        ConfigError: there is no prompt, the count is below 1, or ``out`` is the file of prompts.
        OutputExistsError: ``out`` is a folder, or a file that was not to be overwritten.
    """
    prompts = [*given, *([] if path is None else read_prompts(path))]
    if not prompts:
        raise ConfigError('generate: needs --prompt "..." or --prompts FILE, got neither')
    if count < 1:
        raise ConfigError(f"generate: --count must be >= 1, got {count}")
    if path is not None and out is not None and path.resolve() == out.resolve():
        raise ConfigError(f"generate: --out must not be the file of prompts, which it would replace, got {out}")
    if out is not None:
        _refuse_existing(out, overwrite=overwrite)
    drawn = sample_answers(model, prompts, count, sampling_of(options), seed=options.seed)
    if out is not None:
        rows = [{"prompt": p, "response": text} for p, texts in zip(prompts, drawn, strict=True) for text in texts]
        write_jsonl(out, rows)
        return
    for prompt, texts in zip(prompts, drawn, strict=True):
        for text in texts:
            console.print(Text.assemble((prompt, "bold"), text), soft_wrap=True)


def _refuse_existing(file: Path, *, overwrite: bool) -> None:
    if file.is_dir():
        raise OutputExistsError(f"output file {file}: must be a file, got a folder; choose another path")
    if file.exists() and not overwrite:
        raise OutputExistsError(
            f"output file {file}: must be new, and there is one; replace it: --overwrite (overwrite=True), or choose "
            "another path"
        )


def compare_models(
    a: str,
    b: str,
    path: Path,
    options: SampleOptions,
    *,
    reward_model: str | None,
    limit: int,
    console: Console,
) -> None:
    """A table of two models' responses, and who wins if there is a reward model."""
    if limit < 1:
        raise ConfigError(f"compare: --limit must be >= 1, got {limit}")
    prompts = read_prompts(path)
    rows_of = {row["prompt"]: row for row in read_jsonl(path)}
    texts = [
        [drawn[0] for drawn in sample_answers(model, prompts, 1, sampling_of(options), seed=options.seed)]
        for model in (a, b)
    ]
    table = Table("prompt", a, b, show_lines=True)
    if reward_model is None:
        rows = [(prompt, one, two) for prompt, one, two in zip(prompts, *texts, strict=True)]
    else:
        scorer = load_reward_model(reward_model)
        columns = columns_for(scorer, [rows_of[prompt] for prompt in prompts])
        one, two = (checked_scores(scorer, prompts, side, columns) for side in texts)
        rows = [
            (prompt, f"{mine}\n({_shown(one, row)})", f"{theirs}\n({_shown(two, row)})")
            for row, (prompt, mine, theirs) in enumerate(zip(prompts, *texts, strict=True))
        ]
        table.caption = _comparison(one, two)
    for row in rows[:limit]:
        table.add_row(*row)
    console.print(table)


def _shown(scores: Scores, row: int) -> str:
    return f"{scores.value[row]:.3f}" if scores.valid[row] else "no score"


def _comparison(one: Scores, two: Scores) -> str:
    """Means and wins over the prompts on which neither side was abstained on."""
    counted = one.valid & two.valid
    left_out = len(counted) - int(counted.sum())
    abstained = f"; left out: {left_out} prompts on which the reward model abstained" if left_out else ""
    if not counted.any():
        return f"no prompt has two scores{abstained}"
    a, b = one.value[counted], two.value[counted]
    wins = float(((a > b) + 0.5 * (a == b)).mean())
    return (
        f"mean score {a.mean():.3f} against {b.mean():.3f}; "
        f"the first wins {wins:.0%} of {len(a)} prompts (ties count half){abstained}"
    )


def sampling_of(options: SampleOptions) -> SamplingConfig:
    """The sampler's settings."""
    return SamplingConfig(max_new_tokens=options.max_new_tokens, temperature=options.temperature)


def read_prompt_rows(path: Path) -> list[dict[str, Any]]:
    """Every different row of a file, with whatever columns it has."""
    rows: dict[str, dict[str, Any]] = {json.dumps(row, sort_keys=True): row for row in read_jsonl(path)}
    return list(rows.values())


def read_prompts(path: Path) -> list[str]:
    """The ``prompt`` of every row of a file.

    Raises:
        PromptError: a row has none.
    """
    prompts = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if not isinstance(row.get("prompt"), str):
            raise PromptError(f"{path}, row {number}: must have a text under 'prompt', got the keys {sorted(row)}")
        prompts.append(row["prompt"])
    return list(dict.fromkeys(prompts))
