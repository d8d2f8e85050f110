"""The text-generation MDP over B rows, without any Gymnasium in it.

State: the prompt and the tokens so far, per row. Both environments are thin views on this: it keeps no random
generator, resets nothing by itself, and knows nothing of spaces, seeds or autoreset.

Shapes: B = rows, L = max_prompt_tokens + max_new_tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.episodes import StopReason
from lm_gym.errors import ConfigError
from lm_gym.models.reference import Reference, ReferenceScorer
from lm_gym.models.sampling import StopRule
from lm_gym.prompts import Prompt
from lm_gym.rewards import paid_scores, token_rewards
from lm_gym.scoring.protocol import RewardModel, Scores, scores_where

__all__ = ["Outcome", "TextGenerationMDP", "Transition"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one episode."""

    score: float
    """Score on the reward model's own scale; 0 if it abstained or was not asked."""
    score_std: float | None
    """The reward model's own uncertainty, in units of the score; None if it has none, abstained or was not asked."""
    score_valid: bool
    """False if the reward model abstained."""
    scored: bool
    """False for a truncated response, which is not scored."""
    response: str
    """The text that was (or would be) scored."""
    stop_reason: StopReason
    """Reason why the episode ended."""
    episode_return: float
    """Sum of its rewards."""
    episode_length: int
    """Response tokens."""


class Transition(NamedTuple):
    """Result of one step; entries of rows that did not act are 0, False or None."""

    rewards: np.ndarray
    """Shape: (B,), float64."""
    terminated: np.ndarray
    """Shape: (B,), bool."""
    truncated: np.ndarray
    """Shape: (B,), bool."""
    ref_log_probs: np.ndarray | None
    """Shape: (B,), float64, nats; None without a reference."""
    kl: np.ndarray | None
    """k1 of the action, nats. Shape: (B,), float64; None without log-probabilities or reference."""
    outcomes: tuple[Outcome | None, ...]
    """Set where the episode ended. Length B."""


class TextGenerationMDP:
    """B rows of text generation under one reference, one reward model and one set of rules."""

    def __init__(
        self,
        *,
        num_rows: int,
        max_prompt_tokens: int,
        reference: Reference | None,
        stop_rule: StopRule,
        reward: RewardConfig,
        sampling: SamplingConfig,
        pad_id: int,
    ) -> None:
        """Args:
        num_rows: B.
        max_prompt_tokens: longest prompt that can be started, in tokens.
        reference: frozen model, or None for no KL.
        stop_rule: of the responses.
        reward: settings of payment; ``kl_coef`` is the start value of :attr:`kl_coef`.
        sampling: temperature and cap.
        pad_id: id written to places that no mask counts.
        """
        length = max_prompt_tokens + sampling.max_new_tokens
        self.kl_coef = reward.kl_coef
        self.prompts: list[Prompt | None] = [None] * num_rows
        self.running = np.zeros(num_rows, dtype=bool)
        self._reward = reward
        self._sampling = sampling
        self._stop_rule = stop_rule
        self._pad_id = pad_id
        self._ids = np.full((num_rows, length), pad_id, dtype=np.int64)
        self._mask = np.zeros((num_rows, length), dtype=np.int8)
        self._starts = np.zeros(num_rows, dtype=np.int64)
        self._ends = np.zeros(num_rows, dtype=np.int64)
        self._returns = np.zeros(num_rows)
        self._scorer: ReferenceScorer | None = None
        if reference is not None:
            self._scorer = ReferenceScorer(reference, num_rows, length, sampling.temperature)

    @property
    def input_ids(self) -> np.ndarray:
        """Right-padded prompt and response. Shape: (B, L), int64. Not a copy."""
        return self._ids

    @property
    def attention_mask(self) -> np.ndarray:
        """1 where a token counts. Shape: (B, L), int8. Not a copy."""
        return self._mask

    def response_ids(self, row: int) -> np.ndarray:
        """Response tokens of one row so far. Shape: (t,), int64. Not a copy."""
        return self._ids[row, self._starts[row] : self._ends[row]]

    def prompt_ids(self, row: int) -> np.ndarray:
        """Prompt tokens of one row. Shape: (P,), int64. Not a copy."""
        return self._ids[row, : self._starts[row]]

    def start(self, rows: Sequence[int], prompts: Sequence[Prompt]) -> None:
        """Begin new episodes in some rows; if the reference fails at it, no row has an episode any more."""
        if self._scorer is not None:
            with self._none_goes_on_after_an_error(self._scorer):
                self._scorer.start(list(rows), [prompt.ids for prompt in prompts])
        for row, prompt in zip(rows, prompts, strict=True):
            size = len(prompt.ids)
            self._ids[row] = self._pad_id
            self._mask[row] = 0
            self._ids[row, :size] = prompt.ids
            self._mask[row, :size] = 1
            self._starts[row] = self._ends[row] = size
            self._returns[row] = 0.0
            self.prompts[row] = prompt
            self.running[row] = True

    def step(
        self,
        tokens: np.ndarray,
        log_probs: np.ndarray | None,
        active: np.ndarray,
        reward_model: RewardModel | None,
    ) -> Transition:
        """Append one token to each active row; every active row must be running.

        If this raises, the episodes are as they were; but where the reference's own pass over the tokens failed, no row
        has an episode any more.

        Args:
            tokens: checked token ids; 0 in rows that are not active. Shape: (B,), int64.
            log_probs: checked log-probabilities of them, or None. Shape: (B,), float64.
            active: rows that act. Shape: (B,), bool.
            reward_model: scores the responses that end here; None pays a score of 0.
        """
        rows = np.flatnonzero(active)
        ref_log_probs = None if self._scorer is None else self._scorer.log_probs(tokens, active)
        self._ids[rows, self._ends[rows]] = tokens[rows]
        self._mask[rows, self._ends[rows]] = 1
        self._ends[rows] += 1
        try:
            reasons = self._reasons(active)
            ended = np.array([reason is not None for reason in reasons])
            capped = np.array([reason == "length" for reason in reasons])
            truncated = capped & (self._reward.on_length_limit == "truncate")
            scores, texts = self._scores(reasons, ended & ~truncated, reward_model)
            normalizer = None if reward_model is None else reward_model.normalizer
            paid = token_rewards(
                log_probs=None if log_probs is None else log_probs[:, None],
                ref_log_probs=None if ref_log_probs is None else ref_log_probs[:, None],
                response_mask=active[:, None],
                last_token=ended[:, None],
                paid=paid_scores(scores, capped, self._reward, normalizer),
                kl_coef=self.kl_coef,
            )
        except BaseException:
            self._take_back(rows)
            raise
        if self._scorer is not None and (active & ~ended).any():
            with self._none_goes_on_after_an_error(self._scorer):
                self._scorer.advance(tokens, self.running & ~ended)
        self._returns += paid.rewards[:, 0]
        self.running &= ~ended
        return Transition(
            rewards=paid.rewards[:, 0],
            terminated=ended & ~truncated,
            truncated=truncated,
            ref_log_probs=ref_log_probs,
            kl=None if paid.kl is None else paid.kl[:, 0],
            outcomes=tuple(
                None if reason is None else self._outcome(row, reason, scores, bool(truncated[row]), texts[row])
                for row, reason in enumerate(reasons)
            ),
        )

    def reference_support(self) -> np.ndarray:
        """Tokens that the rules of sampling keep of the reference's next distribution in each row's state.

        Returns: all True in a row that has ended or never begun. Shape: (B, V), bool.

        Raises:
            ConfigError: there is no reference.
        """
        if self._scorer is None:
            raise ConfigError(
                "action_masks: needs the reference, whose support they are, and there is none; make the environment "
                "with a model"
            )
        support = self._scorer.support(self._ends - self._starts, self._sampling)
        support[~self.running] = True
        return support

    @contextmanager
    def _none_goes_on_after_an_error(self, scorer: ReferenceScorer) -> Iterator[None]:
        """A pass of the reference; if it fails midway (out of memory, an interrupt), its cache may hold half a token,
        by which every later one would be paid another KL."""
        try:
            yield
        except BaseException:
            self.running[:] = False
            self.prompts = [None] * len(self.prompts)
            scorer.forget()
            raise

    def _reasons(self, active: np.ndarray) -> list[StopReason | None]:
        """Why the response of each active row is over; None where it is not."""
        return [
            self._stop_rule.reason(self.prompt_ids(row), self.response_ids(row)) if active[row] else None
            for row in range(len(active))
        ]

    def _take_back(self, rows: np.ndarray) -> None:
        """Undo the append of this step: what raises before the reference's pass leaves the episode as it was."""
        self._ends[rows] -= 1
        self._ids[rows, self._ends[rows]] = self._pad_id
        self._mask[rows, self._ends[rows]] = 0

    def _scores(
        self, reasons: Sequence[StopReason | None], scored: np.ndarray, reward_model: RewardModel | None
    ) -> tuple[Scores, list[str]]:
        """Verdicts on the rows that end here, and every row's text."""
        texts = [
            "" if reason is None else self._stop_rule.text(self.prompt_ids(row), self.response_ids(row), reason)
            for row, reason in enumerate(reasons)
        ]
        prompts = ["" if prompt is None else prompt.text for prompt in self.prompts]
        rows = [{} if prompt is None else prompt.columns for prompt in self.prompts]
        limit = self._reward.score_timeout_s
        return scores_where(reward_model, prompts, texts, scored, rows, timeout_s=limit), texts

    def _outcome(self, row: int, reason: StopReason, scores: Scores, truncated: bool, text: str) -> Outcome:
        return Outcome(
            score=float(scores.value[row]),
            score_std=None if scores.std is None or not scores.valid[row] else float(scores.std[row]),
            score_valid=bool(scores.valid[row]),
            scored=not truncated,
            response=text,
            stop_reason=reason,
            episode_return=float(self._returns[row]),
            episode_length=int(self._ends[row] - self._starts[row]),
        )
