"""What a run of the loop is made of: models, texts, people, and how long each stage takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lm_gym.agents import SupervisedConfig
from lm_gym.agents.ppo import PPOConfig
from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.errors import ConfigError
from lm_gym.reward_models.comparisons import Ranking
from lm_gym.reward_models.training import RewardTrainingConfig
from lm_gym.scoring import RewardFunction

__all__ = ["Judge", "LoopPlan", "Rankings"]

MEASURED = 96
"""Responses that a model is measured on, at least."""


class Judge(Protocol):
    """Whoever ranks answers: simulated annotators, or people."""

    def __call__(self, items: Sequence[tuple[str, Sequence[str]]], *, seed: int) -> list[Ranking]:
        """Rank the answers to each prompt. Args: items: (prompt, answers) each; seed: of any chance in it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rankings:
    """Judgements that exist before the run starts."""

    train: tuple[Ranking, ...]
    """To fit the reward model to."""
    held_out: tuple[Ranking, ...]
    """To measure it on; no prompt (or group) of these is in ``train``."""


@dataclass(frozen=True, kw_only=True)
class LoopPlan:
    """base LM -> SFT -> rankings -> reward model -> RL with a KL leash -> rankings of the new policy -> ..."""

    title: str
    """Heading of the report."""
    summary: str
    """What is run, for the report."""
    base: Path
    """Folder of the language model that everything starts from."""
    train_prompts: tuple[str, ...]
    """Prompts of rankings and RL."""
    held_out_prompts: tuple[str, ...]
    """Prompts that models are measured on."""
    demonstrations: tuple[Mapping[str, Any], ...] = ()
    """Rows for supervised fine-tuning; none skips it."""
    judge: Judge | None = None
    """Ranks fresh answers in every round."""
    rankings: Rankings | None = None
    """Judgements given from the start; used where there is no judge."""
    rounds: int = 1
    """Times that rankings, reward model and RL are done."""
    prompts_per_round: int = 128
    """Prompts whose answers are ranked in a round."""
    answers_per_prompt: int = 4
    """Answers that are ranked against each other."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How answers are drawn, in rankings, RL and measurement."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Start value of the KL coefficient and the other rules of payment."""
    kl_target: float | None = None
    """Nats per response that an adaptive controller holds; None keeps the coefficient."""
    kl_horizon: float = 1000.0
    """The controller's horizon, in episodes."""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    """Settings of supervised fine-tuning."""
    reward_training: RewardTrainingConfig = field(default_factory=RewardTrainingConfig)
    """Settings of the reward model."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """Settings of RL."""
    iterations: int = 100
    """Length of RL in one round."""
    reference_arms: bool = True
    """Also run the same PPO without the KL, and fine-tuning on the winners of the same rankings."""
    true_score: RewardFunction | None = None
    """The hidden truth, for the report only; no stage learns from it."""
    is_grammatical: Callable[[str, str], bool] | None = None
    """Whether (prompt, response) is grammatical, for the report only."""
    group_of: Callable[[str], str] | None = None
    """Group of a prompt, for the reward model's standard errors."""
    seed: int = 0
    """Of every stage."""

    def __post_init__(self) -> None:
        if (self.judge is None) == (self.rankings is None):
            raise ConfigError("LoopPlan: needs exactly one of judge and rankings")
        if self.rounds < 1 or (self.rankings is not None and self.rounds != 1):
            raise ConfigError(f"LoopPlan.rounds: must be >= 1, and 1 with fixed rankings, got {self.rounds}")
        if not self.train_prompts or not self.held_out_prompts:
            raise ConfigError("LoopPlan: needs training prompts and held-out prompts, got none of one kind")
        if set(self.train_prompts) & set(self.held_out_prompts):
            raise ConfigError("LoopPlan: held-out prompts must not be among the training prompts, and some are")

    def measured_prompts(self) -> list[str]:
        """The held-out prompts, each an even number of times and together at least 96."""
        times = max(1, math.ceil(MEASURED / (2 * len(self.held_out_prompts))))
        return [prompt for prompt in self.held_out_prompts for _ in range(2 * times)]
