"""Score and KL of an answer, of a finished one and of one that is being written, by the environment's own rollout."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.envs.rollout import collect
from lm_gym.envs.task import TextTask
from lm_gym.errors import LmGymError
from lm_gym.models.reference import Reference
from lm_gym.models.streaming import Streamed
from lm_gym.policy import Generation
from lm_gym.prompts import PromptSet
from lm_gym.scoring.protocol import RewardModel

from .speaker import Heard, Speaker

__all__ = ["Judge"]

REST = 4
"""An unfinished answer is measured again after this many times as long as it took: a fifth of the time is spent on it
at most."""
LEAST_SECONDS = 0.1
"""Time between two measurements of an unfinished answer, however fast they are."""


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


class Judge:
    """Measures the answers of one speaker."""

    def __init__(
        self,
        speaker: Speaker,
        reward_model: RewardModel | None,
        reference: Reference | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        speaker: gives the answers.
        reward_model: scores them, if there is one.
        reference: model that their KL is taken to, if there is one.
        clock: tells the time, in seconds.
        """
        self._speaker = speaker
        self._reward_model = reward_model
        self._reference = reference
        self._clock = clock
        self._took = 0.0

    def verdict(self, heard: Heard, answer: Streamed) -> str:
        """Score, KL to the reference, tokens and end of a finished answer, in a line.

        Raises:
            ConfigError, RewardModelError, UnsupportedModelError: see :func:`lm_gym.envs.rollout.collect`.
        """
        return ", ".join((*self._measured(heard, answer, self._speaker.sampling), f"ended by {answer.reason}"))

    def follow(self, heard: Heard) -> Callable[[Streamed], str]:
        """Make a function that measures an answer to a message while it is written.

        Returns: what was last measured, in words, for every token; "" before that, and where nothing is measured.
        """
        found, due = "", self._next_time()

        def so_far(answer: Streamed) -> str:
            nonlocal found, due
            if self._reward_model is None and self._reference is None:
                return ""
            start = self._clock()
            if start >= due and answer.whole and answer.reason is None:
                found = self._measured_so_far(heard, answer)
                self._took = self._clock() - start
                due = self._next_time()
            return found

        return so_far

    def _next_time(self) -> float:
        return self._clock() + max(LEAST_SECONDS, REST * self._took)

    def _measured_so_far(self, heard: Heard, answer: Streamed) -> str:
        """The words for an unfinished answer: it is measured as one that the length cap ended here."""
        here = answer.generation.ids.shape[1]
        rules = self._speaker.sampling
        rules = replace(rules, max_new_tokens=here, min_new_tokens=min(rules.min_new_tokens, here))
        try:
            return f"so far: {', '.join(self._measured(heard, answer, rules))}"
        except LmGymError as error:  # the same error ends the answer; one of unfinished text alone costs nothing
            return f"so far: no score ({type(error).__name__})"

    def _measured(self, heard: Heard, answer: Streamed, rules: SamplingConfig) -> list[str]:
        parts = [f"{answer.generation.ids.shape[1]} tokens"]
        if self._reward_model is None and self._reference is None:
            return parts
        model = self._speaker.model
        task = TextTask.of(
            self._reference,
            PromptSet(prompts=(heard.prompt,), max_prompt_tokens=len(heard.prompt.ids)),
            tokenizer=model.tokenizer,
            reward=RewardConfig(kl_coef=0.0),
            sampling=rules,
        )
        said = _Said(answer.generation, model.vocab_size)
        episodes = collect(task, said, [heard.prompt], self._reward_model, kl_coef=0.0, seed=0)
        if episodes.kl is not None:
            parts.insert(0, f"KL {round(float(episodes.kl.sum()), 2) + 0.0:.2f} nats")
        if self._reward_model is not None:
            parts.insert(0, f"score {episodes.scores[0]:.3f}" if episodes.score_valid[0] else "no score")
        return parts
