"""``lm-gym demo``: the whole loop, offline, on the built-in reviews, with simulated annotators of known noise."""

from __future__ import annotations

from dataclasses import replace

from lm_gym import reviews
from lm_gym.agents import SupervisedConfig
from lm_gym.agents.algorithms.ppo import PPOConfig
from lm_gym.assets import REVIEWS_LM
from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.errors import ConfigError
from lm_gym.reward_models.judgements.annotator import AnnotatorPool
from lm_gym.reward_models.judges.simulated_annotator import BradleyTerryAnnotator
from lm_gym.reward_models.scalar.config import RewardTrainingConfig

from .plan import LoopPlan

__all__ = ["demo_plan"]

ANNOTATORS = 5
ANNOTATOR_TEMPERATURE = 0.1
"""Noise of the annotators, in units of the true score (its spread over base-model samples is about .2)."""


def demo_plan(*, seed: int = 0, smoke: bool = False) -> LoopPlan:
    """The plan of ``lm-gym demo``.

    Args:
        seed: of every stage.
        smoke: a run of seconds that goes through every stage and learns nothing of note.

    Raises:
        ConfigError: the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"demo: seed: must be >= 0, got {seed}")
    plan = LoopPlan(
        title="RLHF on short product reviews",
        summary=(
            "The built-in language model is fine-tuned on a few demonstrations; simulated annotators, who see a hidden "
            "true score through Bradley-Terry noise, rank four answers per prompt; a reward model is fitted to the "
            "rankings; PPO learns against it under a KL penalty; then all from the rankings on is done once more "
            "with the new policy."
        ),
        base=REVIEWS_LM,
        train_prompts=tuple(reviews.prompts("train")),
        held_out_prompts=tuple(reviews.prompts("held_out")[:48]),
        demonstrations=tuple(reviews.demonstrations(96, seed)),
        annotator=_annotators(seed),
        rounds=2,
        prompts_per_round=384,
        answers_per_prompt=4,
        sampling=SamplingConfig(max_new_tokens=64, temperature=0.8),
        reward=RewardConfig(kl_coef=0.1),
        kl_target=4.0,
        kl_horizon=1200,
        supervised=SupervisedConfig(epochs=2, batch_size=16, learning_rate=2e-4),
        reward_training=RewardTrainingConfig(epochs=3, learning_rate=5e-4, items_per_step=16),
        iterations=20,
        ppo=PPOConfig(episodes_per_iteration=128, learning_rate=2e-4, max_batch_tokens=8192),
        true_score=reviews.true_score,
        is_grammatical=reviews.is_grammatical,
        seed=seed,
    )
    return _shortened(plan) if smoke else plan


def _annotators(seed: int) -> AnnotatorPool:
    pool = [
        BradleyTerryAnnotator(
            reviews.true_score,
            temperature=ANNOTATOR_TEMPERATURE,
            seed=100 * seed + number,
            name=f"annotator {number}",
        )
        for number in range(ANNOTATORS)
    ]
    return AnnotatorPool(pool, seed=seed)


def _shortened(plan: LoopPlan) -> LoopPlan:
    return replace(
        plan,
        held_out_prompts=plan.held_out_prompts[:6],
        demonstrations=plan.demonstrations[:8],
        prompts_per_round=8,
        supervised=replace(plan.supervised, epochs=1),
        reward_training=replace(plan.reward_training, epochs=1),
        iterations=2,
        ppo=replace(plan.ppo, episodes_per_iteration=8, epochs=1),
    )
