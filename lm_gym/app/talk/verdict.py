"""Score and KL of an answer that is there already, by the environment's own rollout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.envs.rollout import collect
from lm_gym.envs.task import TextTask
from lm_gym.models.reference import Reference
from lm_gym.models.streaming import Streamed
from lm_gym.policy import Generation
from lm_gym.prompts import PromptSet
from lm_gym.scoring.protocol import RewardModel

from .speaker import Heard, Speaker

__all__ = ["verdict"]


class _Said:
    """A sampler whose one answer was given before."""

    stores_keep_sets = False

    def __init__(self, generation: Generation, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._generation = generation

    def generate(self, prompts: Sequence[np.ndarray], sampling: SamplingConfig) -> Generation:
        return self._generation

    def refresh(self, policy: Any) -> None:
        """Do nothing: it samples no more."""


def verdict(
    speaker: Speaker, heard: Heard, answer: Streamed, reward_model: RewardModel | None, reference: Reference | None
) -> str:
    """Score, KL to the reference, tokens and end of a finished answer, in a line.

    Raises:
        ConfigError, RewardModelError, UnsupportedModelError: see :func:`lm_gym.envs.rollout.collect`.
    """
    parts = [f"{answer.generation.ids.shape[1]} tokens", f"ended by {answer.reason}"]
    if reward_model is None and reference is None:
        return ", ".join(parts)
    task = TextTask.of(
        reference,
        PromptSet(prompts=(heard.prompt,), max_prompt_tokens=len(heard.prompt.ids)),
        tokenizer=speaker.model.tokenizer,
        reward=RewardConfig(kl_coef=0.0),
        sampling=speaker.sampling,
    )
    said = _Said(answer.generation, speaker.model.vocab_size)
    episodes = collect(task, said, [heard.prompt], reward_model, kl_coef=0.0, seed=0)
    if episodes.kl is not None:
        parts.insert(0, f"KL {round(float(episodes.kl.sum()), 2) + 0.0:.2f} nats")
    if reward_model is not None:
        parts.insert(0, f"score {episodes.scores[0]:.3f}" if episodes.score_valid[0] else "no score")
    return ", ".join(parts)
