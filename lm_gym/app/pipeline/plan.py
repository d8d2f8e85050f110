"""The plan of a run of the loop: its models, texts, annotators, and the length of each stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any

from lm_gym.agents import SupervisedConfig
from lm_gym.agents.algorithms.ppo import PPOConfig
from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.errors import ConfigError
from lm_gym.pretrained.handles import digest_handle
from lm_gym.reward_models.judgements.annotator import Annotator
from lm_gym.reward_models.judgements.splits import Split
from lm_gym.reward_models.scalar.config import RewardTrainingConfig
from lm_gym.runs.folder import RunIdentity
from lm_gym.scoring.adapters import RewardFunction
from lm_gym.tools.digests import digest_json, digest_parts
from lm_gym.tools.settings import Bounds, Count, Positive, Seed, Text, settings

__all__ = ["LoopPlan"]

PLAIN = (
    "answers_per_prompt",
    "iterations",
    "kl_horizon",
    "kl_target",
    "prompts_per_round",
    "reference_arms",
    "rounds",
    "seed",
)
CONFIGS = ("ppo", "reward", "reward_training", "sampling", "supervised")
MEASURED = 96
"""Responses that a model is measured on, at least."""


@settings
class LoopPlan:
    """Plan of one run: base LM -> SFT -> judgements -> reward model -> RL with a KL penalty -> judgements -> ..."""

    title: str
    """Heading of the report."""
    summary: str
    """Description of the run, for the report."""
    base: Path
    """Folder of the language model that everything starts from."""
    train_prompts: tuple[Text, ...]
    """Prompts of judgements and RL."""
    held_out_prompts: tuple[Text, ...]
    """Prompts that models are measured on."""
    demonstrations: tuple[Mapping[str, Any], ...] = ()
    """Rows for supervised fine-tuning; none skips it."""
    annotator: Annotator | None = None
    """Asked about fresh answers in every round."""
    judgements: Split | None = None
    """Judgements that exist before the run starts, in place of an annotator; no prompt (or group) is on both sides."""
    rounds: Count = 1
    """Times that judgements, reward model and RL are done."""
    prompts_per_round: Count = 128
    """Prompts whose answers the annotator is asked about in a round."""
    answers_per_prompt: Annotated[int, Bounds(least=2)] = 4
    """Answers to a prompt in one question to the annotator."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Settings of sampling, for judgements, RL and measurement."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Start value of the KL coefficient and the other rules of payment."""
    kl_target: Positive | None = None
    """Nats per response that an adaptive controller holds; None keeps the coefficient."""
    kl_horizon: Positive = 1000.0
    """The controller's horizon, in episodes."""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    """Settings of supervised fine-tuning."""
    reward_training: RewardTrainingConfig = field(default_factory=RewardTrainingConfig)
    """Settings of the reward model."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """Settings of RL."""
    iterations: Count = 100
    """Length of RL in one round."""
    reference_arms: bool = True
    """Also run the same PPO without the KL, and fine-tuning on the winners of the same judgements."""
    true_score: RewardFunction | None = None
    """The hidden truth, for the report only; no stage learns from it."""
    is_grammatical: Callable[[str, str], bool] | None = None
    """True where (prompt, response) is grammatical; for the report only."""
    group_of: Callable[[str], str] | None = None
    """Group of a prompt, for the reward model's standard errors."""
    seed: Seed = 0
    """Seed of every stage."""

    def __post_init__(self) -> None:
        if (self.annotator is None) == (self.judgements is None):
            raise ConfigError("LoopPlan: needs exactly one of annotator and judgements")
        if self.judgements is not None and self.rounds != 1:
            raise ConfigError(f"LoopPlan.rounds: must be 1 with fixed judgements, got {self.rounds}")
        if not self.train_prompts or not self.held_out_prompts:
            raise ConfigError("LoopPlan: needs training prompts and held-out prompts, got none of one kind")
        if set(self.train_prompts) & set(self.held_out_prompts):
            raise ConfigError("LoopPlan: held-out prompts must not be among the training prompts, and some are")

    @property
    def stage_count(self) -> int:
        """Stages of the loop, the measurement of all models at the end included."""
        in_round = 2 if self.annotator is None else 3
        return bool(self.demonstrations) + self.rounds * in_round + 2 * self.reference_arms + 1

    def identity(self, *, settings: Mapping[str, Any] | None = None, **inputs: str) -> RunIdentity:
        """Everything that decides what a run of the plan makes.

        Args:
            settings: further ones, such as those of a stage before the loop.
            inputs: digests in place of the plan's own, or beside them.
        """
        plain = {name: getattr(self, name) for name in PLAIN}
        configs = {name: asdict(getattr(self, name)) for name in CONFIGS}
        texts = [*self.train_prompts, "held out", *self.held_out_prompts]
        fixed = () if self.judgements is None else (*self.judgements.train, "held out", *self.judgements.held_out)
        own = {
            "prompts": digest_json(texts),
            "demonstrations": digest_json(self.demonstrations),
            "judgements": digest_parts(repr(one) for one in fixed),
            "annotator": "none" if self.annotator is None else digest_json(self.annotator.state_dict()),
        }
        if "base" not in inputs:
            own["base"] = digest_handle(self.base)
        return RunIdentity(kind="loop", settings={**plain, **configs, **(settings or {})}, inputs=own | inputs)

    def measured_prompts(self) -> list[str]:
        """The held-out prompts, each an even number of times and together at least 96."""
        times = max(1, math.ceil(MEASURED / (2 * len(self.held_out_prompts))))
        return [prompt for prompt in self.held_out_prompts for _ in range(2 * times)]
