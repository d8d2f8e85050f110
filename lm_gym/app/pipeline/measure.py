"""One language model, measured on the held-out prompts: a row of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lm_gym.agents.policy import LanguageModelPolicy
from lm_gym.agents.update.functional import masked_mean
from lm_gym.app.report.report_data import ModelRow, Role, Sample
from lm_gym.envs.evaluation import Evaluation, evaluate
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.reward_models.judgements.annotator import Question
from lm_gym.reward_models.measuring.evaluation import evaluate_reward_model
from lm_gym.scoring.protocol import RewardModel

from .plan import LoopPlan

__all__ = ["MatchedLength", "matched_length_gain", "measure"]

SAMPLES = 5
LENGTH_TOLERANCE = 0.1


class MatchedLength(NamedTuple):
    """Scores compared among responses of about the same length."""

    gain: float | None
    """Mean difference to the partners' scores; None if no response has one."""
    share: float
    """Share of responses that have a partner."""


def matched_length_gain(ours: Episodes, theirs: Episodes) -> MatchedLength:
    """Compare every response with the reference responses whose word count differs by at most 10 %.

    A reward model learned from people partly measures length; this takes length out of a comparison.
    """
    words = np.array([len(text.split()) for text in theirs.responses])
    gains = []
    for text, score in zip(ours.responses, ours.scores, strict=True):
        count = len(text.split())
        partners = np.abs(words - count) <= LENGTH_TOLERANCE * max(count, 1)
        if partners.any():
            gains.append(float(score - theirs.scores[partners].mean()))
    return MatchedLength(float(np.mean(gains)) if gains else None, len(gains) / max(len(ours), 1))


def measure(
    plan: LoopPlan,
    env: TextGenerationVectorEnv,
    model: Path,
    *,
    name: str,
    description: str,
    trained_against: RewardModel | None,
    role: Role | None = None,
) -> ModelRow:
    """At least two responses to every held-out prompt: scored, shown to the annotator, compared with the reference.

    Args:
        plan: prompts, truth and annotator.
        env: reference and newest reward model.
        model: folder of the language model.
        name, description: for the table.
        trained_against: the reward model whose accuracy on these responses is wanted; None leaves it out.
        role: part of the model in the story.
    """
    policy = LanguageModelPolicy.from_pretrained(model)
    prompts = plan.measured_prompts()
    found = evaluate(policy, env, prompts, seed=plan.seed)
    looked = policy.log_probs_and_values_in_batches(found.episodes, max_batch_tokens=8192)
    mask = torch.from_numpy(found.episodes.response_mask).to(looked.entropy.device)
    matched = _matched(found)
    texts = found.episodes.responses
    truth = None if plan.true_score is None else _truth(plan, prompts, texts)
    return ModelRow(
        name=name,
        description=description,
        score=found.score,
        kl=found.kl,
        win_rate=found.win_rate,
        win_rate_low=found.win_rate_low,
        win_rate_high=found.win_rate_high,
        response_length=found.response_length,
        eos_share=found.eos_share,
        entropy=float(masked_mean(looked.entropy, mask)),
        true_score=None if truth is None else float(np.mean(truth)),
        true_score_standard_error=None if truth is None else float(np.std(truth, ddof=1) / len(truth) ** 0.5),
        role=role,
        grammatical=_grammatical(plan, prompts, texts),
        reward_accuracy=_accuracy(plan, trained_against, prompts, texts),
        matched_length_gain=matched.gain,
        matched_length_share=matched.share,
        samples=_samples(plan, found),
    )


def _matched(found: Evaluation) -> MatchedLength:
    if found.reference_episodes is None:
        return MatchedLength(None, 0.0)
    return matched_length_gain(found.episodes, found.reference_episodes)


def _truth(plan: LoopPlan, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    assert plan.true_score is not None
    return [float(value or 0.0) for value in plan.true_score(list(prompts), list(texts))]


def _grammatical(plan: LoopPlan, prompts: Sequence[str], texts: Sequence[str]) -> float | None:
    if plan.is_grammatical is None:
        return None
    return float(np.mean([plan.is_grammatical(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]))


def _accuracy(
    plan: LoopPlan, reward_model: RewardModel | None, prompts: Sequence[str], texts: Sequence[str]
) -> float | None:
    """Share of pairs of this model's own responses that the reward model orders as the annotator does."""
    if reward_model is None or plan.annotator is None:
        return None
    pairs = [Question.of(prompts[row], (texts[row], texts[row + 1])) for row in range(0, len(prompts), 2)]
    different = [pair for pair in pairs if len(set(pair.texts)) == 2]
    if not different:
        return None
    state = plan.annotator.state_dict()  # put back: every model is measured under the same noise, whatever the order
    judgements = plan.annotator.ask(different)
    plan.annotator.load_state_dict(state)
    return evaluate_reward_model(reward_model, judgements).accuracy


def _samples(plan: LoopPlan, found: Evaluation) -> tuple[Sample, ...]:
    episodes = found.episodes
    rows = [row * len(episodes) // SAMPLES for row in range(SAMPLES)]
    truth: list[float | None] = [None] * len(rows)
    if plan.true_score is not None:
        truth = list(_truth(plan, [episodes.prompts[row] for row in rows], [episodes.responses[row] for row in rows]))
    return tuple(
        Sample(
            prompt=episodes.prompts[row],
            response=episodes.responses[row],
            score=float(episodes.scores[row]) if episodes.score_valid[row] else None,
            true_score=value,
        )
        for row, value in zip(rows, truth, strict=True)
    )
