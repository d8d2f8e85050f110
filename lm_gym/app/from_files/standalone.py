"""Single stages for the command line: training an agent, generation, comparison, each from files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_gym.agents.callbacks import Callback, TrainingRun
from lm_gym.app.options import ResponseOptions, SampleOptions, TrainOptions, TrainResponseOptions, UpdateOptions
from lm_gym.app.pipeline.stages import answered, load_policy, make_env, reference_for, run_agent
from lm_gym.app.run_models import SETTINGS
from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.errors import ConfigError, OutputExistsError, PromptError
from lm_gym.prompts import with_system_prompt
from lm_gym.scoring.handles import load_reward_model
from lm_gym.scoring.protocol import Scores, checked_scores, columns_for
from lm_gym.sources.rows import read_rows
from lm_gym.tools.console.terminal import visible
from lm_gym.tools.files import write_jsonl, write_text
from lm_gym.tools.settings import checked

from .algorithm import algorithm_of
from .judgement_files import pair_rows
from .train_ending import print_training

__all__ = ["compare_models", "generate_texts", "train_policy"]

PROMPT_KEYS = ("prompt", "messages")


def train_policy(
    options: TrainOptions,
    update: UpdateOptions,
    responses: TrainResponseOptions,
    out: Path,
    *,
    settings: str,
    resume: bool,
    overwrite: bool,
    console: Console,
) -> None:
    """Training from files.

    Args:
        options, update, responses: of the command.
        out: the run folder.
        settings: text of the file of settings that the folder gets.
        resume: go on with the run in ``out``, if there is one.
        overwrite: delete the run in ``out`` first.
        console: to print on.

    Raises:
        Interrupted: a signal stopped it; what was done is saved.
    """
    algorithm, config = algorithm_of(update, seed=options.seed)
    if options.pairs and update.agent != "dpo":
        raise ConfigError(
            f"--pairs: must go with --agent dpo, which alone learns from pairs, got --agent {update.agent}"
        )
    pairs = pair_rows(options.pairs, console) if options.pairs else None
    policy = load_policy(
        options.model,
        lora_rank=update.lora_rank,
        separate_critic=update.separate_critic,
        gradient_checkpointing=update.gradient_checkpointing,
        device=options.device,
        dtype=options.dtype,
    )
    env = make_env(
        reference_for(policy, options.model, device=options.device, dtype=options.dtype),
        read_prompt_rows(options.data),
        load_reward_model(options.reward_model),
        reward=RewardConfig(
            kl_coef=update.kl_coef,
            missing_eos_penalty=update.missing_eos_penalty,
            score_timeout_s=options.score_timeout,
        ),
        sampling=sampling_of(responses),
        system_prompt=options.system,
        scored_chat=options.scored_chat,
    )
    result = run_agent(
        out,
        policy,
        env,
        config,
        algorithm=algorithm,
        pairs=pairs,
        iterations=options.iterations,
        eval_prompts=() if options.eval_data is None else read_prompt_rows(options.eval_data),
        kl_target=update.kl_target,
        kl_horizon=2.0 * update.episodes,
        seed=options.seed,
        resume=resume,
        overwrite=overwrite,
        eval_every=options.eval_every,
        save_every=options.save_every,
        tracker=options.tracker,
        callbacks=[_SettingsFile(settings)],
    )
    print_training(
        result,
        out,
        model=options.model,
        reward_model=options.reward_model,
        prompts=options.data,
        held_out=options.eval_data,
        console=console,
    )


class _SettingsFile(Callback):
    """Writes the settings into the run folder before the first iteration, so that a killed run has them too."""

    def __init__(self, settings: str) -> None:
        self._settings = settings

    def on_start(self, run: TrainingRun) -> None:
        if run.folder is not None:
            write_text(run.folder / SETTINGS, self._settings)


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
        ConfigError: there is no prompt, the count is below 1, or ``out`` is the file of prompts or no .jsonl.
        OutputExistsError: ``out`` is a folder, or a file that was not to be overwritten.
    """
    prompts: list[str | Mapping[str, Any]] = [*given]
    prompts += [] if path is None else _without_columns(read_prompt_rows(path))
    if not prompts:
        raise ConfigError('generate: needs --prompt "..." or --data FILE, got neither')
    if count < 1:
        raise ConfigError(f"generate: --count must be >= 1, got {count}")
    if path is not None and out is not None and path.resolve() == out.resolve():
        raise ConfigError(f"generate: --out must not be the file of prompts, which it would replace, got {out}")
    if out is not None:
        _refuse_existing(out, overwrite=overwrite)
        if out.suffix != ".jsonl":
            raise ConfigError(f"generate: --out must end in .jsonl, which is what is written, got {out}; rename it")
    drawn = answered(model, prompts, count, sampling_of(options), **_asked(options))
    if out is not None:
        told = [with_system_prompt(prompt, options.system) for prompt in prompts]
        given_and_drawn = [(_turns_of(prompt), one) for prompt, one in zip(told, drawn, strict=True)]
        rows = [turns | {"prompt": one.prompt, "response": t} for turns, one in given_and_drawn for t in one.texts]
        write_jsonl(out, rows)
        return
    for one in drawn:
        for text in one.texts:
            console.print(Text.assemble((visible(one.prompt), "bold"), visible(text)), soft_wrap=True)


def _asked(options: SampleOptions) -> dict[str, Any]:
    return {"seed": options.seed, "system_prompt": options.system, "scored_chat": options.scored_chat}


def _turns_of(prompt: str | Mapping[str, Any]) -> dict[str, Any]:
    """The turns of a chat under "messages", where every reader of prompts looks first; nothing for a text."""
    given = {} if isinstance(prompt, str) else prompt
    turns = given.get("messages", given.get("prompt"))
    return {"messages": turns} if isinstance(turns, list) else {}


def _refuse_existing(file: Path, *, overwrite: bool) -> None:
    checked("--out", file, Path)
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
    rows = read_prompt_rows(path)
    one, two = (answered(model, rows, 1, sampling_of(options), **_asked(options)) for model in (a, b))
    prompts = [found.prompt for found in one]  # a chat as the first model's template writes it, if by one at all
    texts = [[found.texts[0] for found in side] for side in (one, two)]
    table = Table("prompt", a, b, show_lines=True)
    shown = texts
    if reward_model is not None:
        scorer = load_reward_model(reward_model)
        columns = columns_for(scorer, [_columns_of(row) for row in rows])
        scores = [checked_scores(scorer, prompts, side, columns) for side in texts]
        shown = [
            [f"{text}\n({_shown(found, row)})" for row, text in enumerate(side)]
            for side, found in zip(texts, scores, strict=True)
        ]
        table.caption = _comparison(*scores)
    for row in list(zip(prompts, *shown, strict=True))[:limit]:
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


def sampling_of(options: ResponseOptions) -> SamplingConfig:
    """The sampler's settings."""
    return SamplingConfig(**{one.name: getattr(options, one.name) for one in fields(ResponseOptions)})


def read_prompt_rows(path: Path) -> list[dict[str, Any]]:
    """Every different row of a file of prompts, with whatever columns it has.

    Raises:
        PromptError: a row has neither "prompt" nor "messages".
    """
    rows: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(read_rows(path), start=1):
        if not set(PROMPT_KEYS) & set(row):
            raise PromptError(
                f"{path}, row {number}: must have a text under 'prompt' or a chat under 'messages', got the keys "
                f"{sorted(row)}"
            )
        rows[json.dumps(row, sort_keys=True)] = row
    return list(rows.values())


def _columns_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row of prompts, as a reward model in an environment is given them."""
    return {name: value for name, value in row.items() if name not in PROMPT_KEYS}


def _without_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The different prompts of some rows, without the columns that only a reward model reads."""
    bare = [{name: row[name] for name in PROMPT_KEYS if name in row} for row in rows]
    return list({json.dumps(row, sort_keys=True): row for row in bare}.values())
