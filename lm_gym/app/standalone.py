"""Single stages for the command line: reward models, PPO, generation, comparison, each from files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lm_gym.agents.ppo import PPOConfig
from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.errors import ConfigError, OutputExistsError, PromptError
from lm_gym.files import read_jsonl, write_jsonl
from lm_gym.handles import load_reward_model
from lm_gym.reward_models.comparisons import Ranking, load_rankings, split_by_prompt
from lm_gym.reward_models.evaluation import RewardEvaluation, evaluate_reward_model
from lm_gym.reward_models.training import RewardTrainingConfig
from lm_gym.scoring import checked_scores

from .options import RewardOptions, SampleOptions, TrainOptions
from .stages import fit_reward_model, make_env, run_ppo, sample_answers

__all__ = ["compare_models", "evaluate_files", "generate_texts", "train_policy", "train_reward_model"]


def grouped_by(separator: str | None) -> Callable[[str], str]:
    """Group of a prompt: what stands before the separator, or the whole prompt."""

    def group_of(prompt: str) -> str:
        return prompt if separator is None else prompt.split(separator)[0]

    return group_of


def train_reward_model(options: RewardOptions, out: Path, *, overwrite: bool, console: Console) -> None:
    """Fit a reward model on some prompt groups and measure it on others."""
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise OutputExistsError(f"output folder {out}: must be new or empty, and it holds something; pass --overwrite")
    rankings = [ranking for path in options.data for ranking in load_rankings(path)]
    group_of = grouped_by(options.group_separator)
    split = split_by_prompt(rankings, held_out=options.held_out, seed=options.seed, group_of=group_of)
    config = RewardTrainingConfig(epochs=options.epochs, learning_rate=options.learning_rate, seed=options.seed)
    samples = [(ranking.prompt, text) for ranking in split.train for text in ranking.responses]
    fit_reward_model(out, options.model, split.train, split.held_out, samples, config, group_of=group_of)
    found = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    console.print(
        f"{out / 'model'}: accuracy {found['accuracy']:.3f} on {found['pairs']} held-out pairs "
        f"(length alone {found['length_accuracy']:.3f}); fitted to {found['trained_on']} rankings"
    )


def evaluate_files(
    model: str, data: Sequence[Path], *, group_separator: str | None, as_json: bool, console: Console
) -> None:
    """Measure a reward model on the rankings of some files."""
    rankings: list[Ranking] = [ranking for path in data for ranking in load_rankings(path)]
    found = evaluate_reward_model(load_reward_model(model), rankings, group_of=grouped_by(group_separator))
    if as_json:
        console.print_json(json.dumps(evaluation_json(found)))
        return
    table = Table(title=f"{model} on {found.pairs} pairs", show_header=False)
    for name, value in (
        ("accuracy", f"{found.accuracy:.3f}"),
        ("length-only baseline", f"{found.length_accuracy:.3f}"),
        ("negative log-likelihood, nats", f"{found.nll:.3f}"),
        ("expected calibration error", f"{found.ece:.3f}"),
        ("abstained pairs", str(found.abstained)),
    ):
        table.add_row(name, value)
    console.print(table)


def evaluation_json(found: RewardEvaluation) -> dict[str, object]:
    """The evaluation with the short names that scripts rely on beside its own."""
    return {
        **found.to_json(),
        "n": found.pairs,
        "length_baseline_accuracy": found.length_accuracy,
        "by_group": {group.group: group.accuracy for group in found.groups},
    }


def train_policy(options: TrainOptions, out: Path, *, resume: bool, overwrite: bool, console: Console) -> None:
    """PPO from files."""
    env = make_env(
        options.model,
        read_prompts(options.prompts),
        load_reward_model(options.reward_model),
        reward=RewardConfig(kl_coef=options.kl_coef),
        sampling=SamplingConfig(max_new_tokens=options.max_new_tokens, temperature=options.temperature),
    )
    config = PPOConfig(
        total_iterations=options.iterations,
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
        eval_prompts=() if options.eval_prompts is None else read_prompts(options.eval_prompts),
        kl_target=options.kl_target,
        kl_horizon=2.0 * options.episodes,
        seed=options.seed,
        resume=resume,
        overwrite=overwrite,
        separate_critic=options.separate_critic,
    )
    last = result.history[-1] if result.history else {}
    shown = ", ".join(f"{name} {last[name]:.3f}" for name in ("score", "kl", "entropy") if name in last)
    console.print(f"{'interrupted' if result.interrupted else 'done'}: {out / 'checkpoints'}; {shown}")


def generate_texts(
    model: str,
    given: Sequence[str],
    path: Path | None,
    options: SampleOptions,
    *,
    count: int,
    out: Path | None,
    console: Console,
) -> None:
    """Print or write responses to prompts of the command line and of a file."""
    prompts = [*given, *([] if path is None else read_prompts(path))]
    if not prompts:
        raise ConfigError('generate: needs --prompt "..." or --prompts FILE, got neither')
    drawn = sample_answers(model, prompts, count, sampling_of(options), seed=options.seed)
    if out is not None:
        rows = [{"prompt": p, "response": text} for p, texts in zip(prompts, drawn, strict=True) for text in texts]
        write_jsonl(out, rows)
        return
    for prompt, texts in zip(prompts, drawn, strict=True):
        for text in texts:
            console.print(f"[bold]{prompt}[/bold]", end="", highlight=False)
            console.print(text, highlight=False, markup=False)


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
    prompts = read_prompts(path)
    texts = [
        [drawn[0] for drawn in sample_answers(model, prompts, 1, sampling_of(options), seed=options.seed)]
        for model in (a, b)
    ]
    table = Table("prompt", a, b, show_lines=True)
    if reward_model is None:
        rows = [(prompt, one, two) for prompt, one, two in zip(prompts, *texts, strict=True)]
    else:
        judge = load_reward_model(reward_model)
        scores = [checked_scores(judge, prompts, side).value for side in texts]
        rows = [
            (prompt, f"{one}\n({s:.3f})", f"{two}\n({t:.3f})")
            for prompt, one, two, s, t in zip(prompts, *texts, *scores, strict=True)
        ]
        wins = float(((scores[0] > scores[1]) + 0.5 * (scores[0] == scores[1])).mean())
        table.caption = (
            f"mean score {scores[0].mean():.3f} against {scores[1].mean():.3f}; "
            f"the first wins {wins:.0%} of {len(prompts)} prompts (ties count half)"
        )
    for row in rows[:limit]:
        table.add_row(*row)
    console.print(table)


def sampling_of(options: SampleOptions) -> SamplingConfig:
    """The sampler's settings."""
    return SamplingConfig(max_new_tokens=options.max_new_tokens, temperature=options.temperature)


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
