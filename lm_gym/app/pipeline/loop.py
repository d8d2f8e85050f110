"""The loop: fine-tune, collect judgements, fit the reward model, learn against it, collect again, report.

One function for every run: the demo and ``lm-gym run`` are two plans.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lm_gym.agents import supervised_finetune
from lm_gym.app.report.report_data import Curve, ModelRow, Report, RewardModelRow, Role
from lm_gym.app.run_models import HELD_OUT_PROMPTS
from lm_gym.errors import ConfigError
from lm_gym.reward_models.judgements.record import Judgement
from lm_gym.reward_models.judgements.splits import Split
from lm_gym.reward_models.scalar.preference import PreferenceRewardModel
from lm_gym.runs.metrics_file import METRICS_FILE, read_metrics
from lm_gym.tools.files import reading, write_json, write_jsonl

from .measure import measure
from .next_steps import TRAIN_PROMPTS, next_steps
from .plan import LoopPlan
from .stages import (
    check_prompts,
    collect_judgements,
    fit_reward_model,
    load_policy,
    make_env,
    ppo_policy_folder,
    read_evaluation,
    read_judgements,
    reference_for,
    run_agent,
    sample_answers,
    truth_metrics,
    winners,
)
from .story import (
    about_comparison,
    about_fine_tuning,
    about_imitation,
    about_judgements,
    about_measurement,
    about_ppo,
    about_reward_model,
    told_of_judgements,
    told_of_loss,
    told_of_ppo,
    told_of_reward_model,
    told_of_row,
)
from .workspace import Workspace, machine_description

__all__ = ["run_loop"]

NORMALIZER_PROMPTS = 64
ANNOTATOR_STATE = "annotator.json"
NOTES = (
    "Every model answers each held-out prompt at least twice; the intervals of win rates take all as independent; "
    "that makes them somewhat too narrow.",
    "Scores in the table are those of the newest reward model for every row; a curve shows the scores that its own "
    "reward model gave. Reward models are normalised on samples of the reference, and their scales differ.",
)


@dataclass(frozen=True, kw_only=True)
class _Round:
    number: int
    judgements: list[Judgement]
    reward_model: PreferenceRewardModel
    measured: RewardModelRow
    policy: Path
    curve: Curve


def run_loop(plan: LoopPlan, workspace: Workspace, *, command: str, prompts_fit: bool = False) -> Report:
    """Run a plan in a workspace; every stage that is done already is read back.

    Args:
        plan: of the run.
        workspace: the run folder.
        command: the command line, for the report.
        prompts_fit: the prompts were held against the plan's base already, which is not loaded once more for that.

    Returns: the report, also written as ``report.json``.
    """
    if workspace.is_finished:
        return Report.load(workspace.folder)
    if not prompts_fit:
        check_prompts(plan.base, [*plan.train_prompts, *plan.held_out_prompts], plan.sampling)
    reference = _fine_tuned(plan, workspace)
    rounds: list[_Round] = []
    for number in range(1, plan.rounds + 1):
        rounds.append(_round(plan, workspace, number, reference, rounds))
    models = [*_main_models(plan, reference, rounds), *_comparison_models(plan, workspace, reference, rounds)]
    workspace.chapter(about_measurement(plan))
    rows = [_measured(plan, workspace, model, reference, rounds[-1].reward_model) for model in models]
    for name, prompts in ((TRAIN_PROMPTS, plan.train_prompts), (HELD_OUT_PROMPTS, plan.held_out_prompts)):
        write_jsonl(workspace.folder / name, [{"prompt": prompt} for prompt in prompts])
    report = _report(plan, workspace, command, rows, rounds, models)
    report.save(workspace.folder)
    workspace.finish()
    return report


@dataclass(frozen=True, kw_only=True)
class _Model:
    name: str
    description: str
    folder: Path
    trained_against: PreferenceRewardModel | None
    role: Role
    curve: Curve | None = None


def _fine_tuned(plan: LoopPlan, workspace: Workspace) -> Path:
    """The reference of everything that follows: the base, fine-tuned if there are demonstrations."""
    if not plan.demonstrations:
        return plan.base

    def make(folder: Path) -> str:
        rows = list(plan.demonstrations)
        found = supervised_finetune(plan.base, rows, folder / "model", plan.supervised, resume=True)
        return told_of_loss(found.train_loss, found.rows)

    return workspace.stage("sft", make, lambda folder: folder / "model", about=about_fine_tuning(plan))


def _round(plan: LoopPlan, workspace: Workspace, number: int, reference: Path, earlier: Sequence[_Round]) -> _Round:
    start = earlier[-1].policy if earlier else reference
    name = f"round-{number}"
    train, held_out = _judgements(plan, workspace, name, number, start)
    everything = [one for before in earlier for one in before.judgements] + train

    def fit(folder: Path) -> str:
        samples = _reference_samples(plan, reference)
        config = replace(plan.reward_training, seed=plan.seed)
        fit_reward_model(
            folder,
            reference,
            everything,
            held_out,
            samples,
            config,
            group_of=plan.group_of,
            true_score=plan.true_score,
        )
        return told_of_reward_model(read_evaluation(folder))

    def load(folder: Path) -> tuple[PreferenceRewardModel, RewardModelRow]:
        found = read_evaluation(folder)
        row = RewardModelRow(name=f"round {number}", trained_on=found.pop("trained_on"), evaluation=found)
        return PreferenceRewardModel.load(folder / "model"), row

    about = about_reward_model(number, len(everything))
    reward_model, measured = workspace.stage(f"{name}/reward", fit, load, about=about)
    policy, curve = _reinforced(
        plan, workspace, f"{name}/ppo", start, reference, reward_model, label=f"round {number}", round_number=number
    )
    return _Round(
        number=number, judgements=train, reward_model=reward_model, measured=measured, policy=policy, curve=curve
    )


def _judgements(plan: LoopPlan, workspace: Workspace, name: str, number: int, start: Path) -> Split:
    if plan.judgements is not None:
        return plan.judgements
    annotator = plan.annotator
    assert annotator is not None  # LoopPlan checks that there is one or the other
    seed = plan.seed + 1000 * number

    def make(folder: Path) -> str:
        count = min(plan.prompts_per_round, len(plan.train_prompts))
        chosen = random.Random(seed).sample(list(plan.train_prompts), count)
        for file, prompts in (("train", chosen), ("held_out", list(plan.held_out_prompts))):
            collect_judgements(
                start,
                prompts,
                annotator,
                folder / f"{file}.jsonl",
                answers=plan.answers_per_prompt,
                sampling=plan.sampling,
                seed=seed,
            )

        write_json(folder / ANNOTATOR_STATE, annotator.state_dict())
        return told_of_judgements(read_judgements(folder))

    def load(folder: Path) -> Split:
        path, remedy = folder / ANNOTATOR_STATE, "delete the stage's folder, and go on with --resume"
        with reading(path, remedy=remedy):
            try:
                annotator.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return read_judgements(folder)

    return workspace.stage(f"{name}/judgements", make, load, about=about_judgements(plan, number))


def _reference_samples(plan: LoopPlan, reference: Path) -> list[tuple[str, str]]:
    """Texts of the reference that normalisers are fitted on, the same for every round."""
    chosen = random.Random(plan.seed).sample(list(plan.train_prompts), min(NORMALIZER_PROMPTS, len(plan.train_prompts)))
    repeats = max(2, NORMALIZER_PROMPTS // len(chosen))
    drawn = sample_answers(reference, chosen, repeats, plan.sampling, seed=plan.seed)
    return [(prompt, text) for prompt, texts in zip(chosen, drawn, strict=True) for text in texts]


def _reinforced(
    plan: LoopPlan,
    workspace: Workspace,
    name: str,
    start: Path,
    reference: Path,
    reward_model: PreferenceRewardModel,
    *,
    label: str,
    round_number: int | None,
) -> tuple[Path, Curve]:
    """PPO from ``start`` against a reward model; outside the rounds without the KL penalty, the KL is measured only."""
    reward = replace(plan.reward, kl_coef=0.0) if round_number is None else plan.reward
    target = None if round_number is None else plan.kl_target

    def make(folder: Path) -> str:
        policy = load_policy(start)
        frozen = reference_for(policy, reference)
        env = make_env(frozen, plan.train_prompts, reward_model, reward=reward, sampling=plan.sampling)
        run_agent(
            folder,
            policy,
            env,
            replace(plan.ppo, seed=plan.seed),
            iterations=plan.iterations,
            eval_prompts=plan.held_out_prompts,
            kl_target=target,
            kl_horizon=plan.kl_horizon,
            seed=plan.seed,
            resume=True,
            episode_metrics=truth_metrics(plan.true_score),
            title=f"PPO, {label}",
        )
        return told_of_ppo(read_metrics(folder / METRICS_FILE))

    def load(folder: Path) -> tuple[Path, Curve]:
        history = read_metrics(folder / METRICS_FILE)
        return ppo_policy_folder(folder), Curve(name=label, history=history, kl_target=target)

    about = about_comparison() if round_number is None else about_ppo(plan, round_number)
    return workspace.stage(name, make, load, about=about)


def _main_models(plan: LoopPlan, reference: Path, rounds: Sequence[_Round]) -> list[_Model]:
    first = rounds[0].reward_model
    role: Role = "base" if plan.demonstrations else "start"
    models = [
        _Model(name="base", description="the pretrained model", folder=plan.base, trained_against=first, role=role)
    ]
    if plan.demonstrations:
        text = f"fine-tuned on {len(plan.demonstrations)} demonstrations; every KL is measured to it"
        models.append(
            _Model(name="before RL (SFT)", description=text, folder=reference, trained_against=first, role="start")
        )
    for found in rounds:
        text = f"PPO with a KL penalty against the reward model fitted to {found.measured.trained_on} judgements"
        models.append(
            _Model(
                name=f"round {found.number}",
                description=text,
                folder=found.policy,
                trained_against=found.reward_model,
                role="rl",
                curve=found.curve,
            )
        )
    return models


def _comparison_models(plan: LoopPlan, workspace: Workspace, reference: Path, rounds: Sequence[_Round]) -> list[_Model]:
    """Models to compare with, from the same judgements: PPO without the KL penalty, fine-tuning on the winners."""
    if not plan.reference_arms:
        return []
    first = rounds[0]
    unpenalised, curve = _reinforced(
        plan, workspace, "without-kl", reference, reference, first.reward_model, label="without KL", round_number=None
    )
    rows = winners([one for found in rounds for one in found.judgements])

    def make(folder: Path) -> str:
        found = supervised_finetune(reference, rows, folder / "model", plan.supervised, resume=True)
        return told_of_loss(found.train_loss, found.rows)

    about = about_imitation(len(rows))
    imitator = workspace.stage("sft-on-winners", make, lambda folder: folder / "model", about=about)
    return [
        _Model(
            name="without KL",
            description="the same PPO as round 1 without the KL penalty",
            folder=unpenalised,
            trained_against=first.reward_model,
            role="rl_without_kl",
            curve=curve,
        ),
        _Model(
            name="SFT on winners",
            description=f"no RL: fine-tuned on the {len(rows)} top-ranked answers of the same judgements",
            folder=imitator,
            trained_against=rounds[-1].reward_model,
            role="imitation",
        ),
    ]


def _measured(
    plan: LoopPlan, workspace: Workspace, model: _Model, reference: Path, newest: PreferenceRewardModel
) -> ModelRow:
    def make(folder: Path) -> str:
        env = make_env(reference, plan.held_out_prompts, newest, reward=plan.reward, sampling=plan.sampling)
        row = measure(
            plan,
            env,
            model.folder,
            name=model.name,
            description=model.description,
            trained_against=model.trained_against,
            role=model.role,
        )
        row.save(folder)
        return told_of_row(row)

    return workspace.stage(f"measured/{model.name.replace(' ', '-')}", make, ModelRow.load, part=model.name)


def _report(
    plan: LoopPlan,
    workspace: Workspace,
    command: str,
    rows: Sequence[ModelRow],
    rounds: Sequence[_Round],
    models: Sequence[_Model],
) -> Report:
    return Report(
        title=plan.title,
        summary=plan.summary,
        command=command,
        machine=machine_description(),
        seconds=sum(workspace.seconds.values()),
        rows=tuple(rows),
        curves=tuple(model.curve for model in models if model.curve),
        reward_models=tuple(found.measured for found in rounds),
        notes=NOTES,
        stage_seconds=dict(workspace.seconds),
        next_steps=next_steps(
            workspace.folder,
            before=next(model.folder for model in models if model.role == "start"),
            after=rounds[-1].policy,
            reward_model=workspace.folder / f"round-{rounds[-1].number}" / "reward" / "model",
            prompt=plan.held_out_prompts[0],
        ),
    )
