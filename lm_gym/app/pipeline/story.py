"""The words of a run as it goes: the purpose of each stage, and what it found.

Knows: plans and results. Does not know: how a stage is done, or when it is printed (:mod:`.workspace`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_gym.agents.supervised.pretrain import PretrainResult
from lm_gym.app.report.report_data import ModelRow
from lm_gym.reward_models.judgements.splits import Split

from .plan import LoopPlan

__all__ = [
    "Chapter",
    "about_comparison",
    "about_fine_tuning",
    "about_imitation",
    "about_judgements",
    "about_measurement",
    "about_ppo",
    "about_pretraining",
    "about_reward_model",
    "told_of_judgements",
    "told_of_loss",
    "told_of_ppo",
    "told_of_pretraining",
    "told_of_reward_model",
    "told_of_row",
]


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Heading of a stage."""

    title: str
    """A few words."""
    purpose: str
    """A sentence or two on what the stage does."""


def about_pretraining(texts: int) -> Chapter:
    """Heading of training a language model from scratch."""
    return Chapter(
        title="pretraining",
        purpose=f"Trains a tokenizer and a small language model from scratch on {texts} files of text and the answers "
        "of the training side.",
    )


def told_of_pretraining(found: PretrainResult) -> str:
    """Result of pretraining."""
    loss = found.validation_loss
    told = "nothing held out to measure it on" if loss is None else f"validation loss {loss:.3f} nats per token"
    return f"a model of {found.parameters:,} weights, {told}"


def about_fine_tuning(plan: LoopPlan) -> Chapter:
    """Heading of supervised fine-tuning."""
    return Chapter(
        title="supervised fine-tuning",
        purpose=f"Fine-tunes the base model on {len(plan.demonstrations)} demonstrations. The result is the frozen "
        "reference that every KL is measured to.",
    )


def about_judgements(plan: LoopPlan, number: int) -> Chapter:
    """Heading of collecting judgements in a round."""
    model = "the reference" if number == 1 else f"the policy of round {number - 1}"
    count = min(plan.prompts_per_round, len(plan.train_prompts))
    return Chapter(
        title=f"judgements, round {number}",
        purpose=f"Draws {plan.answers_per_prompt} answers of {model} to each of {count} prompts, and to each of "
        f"{len(plan.held_out_prompts)} held-out ones, and has the annotators rank them.",
    )


def told_of_judgements(found: Split) -> str:
    """Result of collecting judgements."""
    return f"{len(found.train)} rankings to learn from, {len(found.held_out)} held out to measure with"


def about_reward_model(number: int, judgements: int) -> Chapter:
    """Heading of a reward model's fit."""
    return Chapter(
        title=f"reward model, round {number}",
        purpose=f"Fits a scoring head on the reference to {judgements} judgements, and measures it on pairs of answers "
        "that it has not seen.",
    )


def told_of_reward_model(found: Mapping[str, Any]) -> str:
    """Result of a fit: accuracy beside its ceiling and the rule of length.

    Args: found: the measurements, ``true_score_accuracy`` among them where there is a truth.
    """
    error, ceiling = found.get("accuracy_standard_error"), found.get("true_score_accuracy")
    parts = [f"orders {_percent(found['accuracy'])} of {found['pairs']} held-out pairs as they were judged"]
    parts[0] += "" if error is None else f" (standard error {100 * error:.1f} points)"
    if ceiling is not None:
        parts.append(f"the hidden true score itself orders {_percent(ceiling)}, the ceiling under this noise")
    parts.append(
        f"the rule that {found.get('length_rule', 'more words')} win orders {_percent(found['length_accuracy'])}"
    )
    return "; ".join(parts)


def about_ppo(plan: LoopPlan, number: int) -> Chapter:
    """Heading of RL with the KL penalty."""
    beta = f"beta = {plan.reward.kl_coef:g}"
    if plan.kl_target is not None:
        beta += f" at first and then whatever holds the KL at {plan.kl_target:g} nats a response"
    start = "the reference" if number == 1 else f"the policy of round {number - 1}"
    return Chapter(
        title=f"PPO, round {number}",
        purpose=f"Trains {start} for {plan.iterations} iterations of {plan.ppo.episodes_per_iteration} responses. "
        f"The reward is the reward model's score minus beta * KL, with {beta}.",
    )


def about_comparison() -> Chapter:
    """Heading of RL without the KL penalty."""
    return Chapter(
        title="PPO without the KL penalty",
        purpose="The same PPO as in round 1 with beta = 0, to see what the penalty is for.",
    )


def told_of_ppo(history: Sequence[Mapping[str, float | None]]) -> str:
    """Result of RL: its first and its last iteration."""
    names = {"score": "score", "kl": "KL", "entropy": "entropy", "true_score": "true score"}
    if not history:
        return "no iteration"
    first, last = history[0], history[-1]
    parts = [
        f"{shown} {_number(first[name])} to {_number(last[name])}"
        for name, shown in names.items()
        if first.get(name) is not None and last.get(name) is not None
    ]
    return f"{', '.join(parts)} (training prompts, first to last iteration)"


def about_imitation(rows: int) -> Chapter:
    """Heading of fine-tuning on the winners."""
    return Chapter(
        title="fine-tuning on the winners",
        purpose=f"No RL: fine-tunes the reference on the {rows} top-ranked answers of the same judgements, to compare "
        "with.",
    )


def told_of_loss(loss: float, rows: int) -> str:
    """Result of fine-tuning."""
    return f"training loss {loss:.3f} nats per token on {rows} rows"


def about_measurement(plan: LoopPlan) -> Chapter:
    """Heading of the measurement of all models."""
    prompts = plan.measured_prompts()
    return Chapter(
        title="measurement",
        purpose=f"Every model writes {len(prompts)} answers to the {len(plan.held_out_prompts)} held-out prompts; the "
        "newest reward model scores them all.",
    )


def told_of_row(row: ModelRow) -> str:
    """Result of one measurement."""
    names = {"score": "score", "kl": "KL", "true_score": "true score"}
    found = {shown: getattr(row, name) for name, shown in names.items()}
    return ", ".join(f"{shown} {_number(value)}" for shown, value in found.items() if value is not None)


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _number(value: float | None) -> str:
    text = "?" if value is None else f"{value:.2f}"
    return text.replace("-0.00", "0.00")
