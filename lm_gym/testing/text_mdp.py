"""A text MDP that is small enough to write down: every state, every response and what each is paid.

Knows: how responses are enumerated under the environment's own stop rule, scored by its own reward function, and put
under its own reference. Does not know: optima and policies (``lm_gym.testing.solver``).

Shapes: S = states (prefixes that a token may follow), V = vocabulary, R = responses, T = longest response,
P = prompt tokens, L = P + max_new_tokens. Log-probabilities are in nats, rewards in score units.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.episodes import StopReason
from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.models.decoder import decoder_for
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.reference import Reference
from lm_gym.models.sampling import StopRule, stop_ids_of, with_stop_ids
from lm_gym.prompts import Prompt, load_prompts
from lm_gym.rewards import paid_scores
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.protocol import RewardModel, checked_scores, columns_for
from lm_gym.tools.settings import Count, checked

__all__ = ["MAX_RESPONSES", "TextMDP", "enumerate_mdp", "prefix_logits"]

MAX_RESPONSES = 100_000
"""Default limit on the number of responses that are enumerated."""
BATCH_TOKENS = 16_384
"""Padded tokens per forward pass."""


@dataclass(frozen=True, kw_only=True)
class TextMDP:
    """Every state and every response to one prompt. State 0 is the empty response; states are ordered by length."""

    prompt: Prompt
    """The prompt that is answered."""
    sampling: SamplingConfig
    """Rules that the responses obey, with the stop tokens named."""
    kl_coef: float
    """beta, in score units per nat, > 0."""
    pad_id: int
    """Id written to places that no mask counts."""
    states: tuple[tuple[int, ...], ...]
    """Response tokens so far. Length S."""
    depths: np.ndarray
    """Response tokens of each state. Shape: (S,), int64."""
    ref_log_probs: np.ndarray
    """Of every next token under the tempered reference, never truncated. Shape: (S, V), float64."""
    ends: np.ndarray
    """True where the token ends the response. Shape: (S, V), bool."""
    successors: np.ndarray
    """Index of the response where ``ends``, else of the next state. Shape: (S, V), int64."""
    responses: tuple[tuple[int, ...], ...]
    """Token ids, the stop token included. Length R."""
    texts: tuple[str, ...]
    """Response texts as they are scored. Length R."""
    stop_reasons: tuple[StopReason, ...]
    """Length R."""
    paid: np.ndarray
    """All that is paid at the end, before any KL: weight, clip, normaliser and penalty in it. Shape: (R,), float64."""

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.ends.shape[1]

    def levels(self) -> Iterator[slice]:
        """The states of each length, shortest first, as slices of the S axis."""
        bounds = np.searchsorted(self.depths, np.arange(int(self.depths[-1]) + 2))
        return (slice(int(start), int(stop)) for start, stop in itertools.pairwise(bounds))

    def observations(self) -> dict[str, np.ndarray]:
        """Observations of the environment in each state.

        Returns: ``input_ids`` (S, L) int64 and ``attention_mask`` (S, L) int8.
        """
        start = len(self.prompt.ids)
        ids = np.full((len(self.states), start + self.sampling.max_new_tokens), self.pad_id, dtype=np.int64)
        ids[:, :start] = self.prompt.ids
        for row, tokens in enumerate(self.states):
            ids[row, start : start + len(tokens)] = tokens
        mask = np.arange(ids.shape[1]) < start + self.depths[:, None]
        return {"input_ids": ids, "attention_mask": mask.astype(np.int8)}


def enumerate_mdp(
    reference: Reference,
    reward: RewardModelLike,
    prompt: str | Prompt,
    *,
    reward_config: RewardConfig,
    sampling: SamplingConfig,
    reward_draws: int = 1,
    max_responses: int = MAX_RESPONSES,
) -> TextMDP:
    """Write down every response to ``prompt`` and what the environment would pay for it.

    Args:
        reference: the frozen model.
        reward: scores text; see ``reward_draws`` if it is random.
        prompt: text, or tokenised.
        reward_config: ``kl_coef`` > 0 and ``on_length_limit="terminate"``.
        sampling: temperature, length cap, stop strings; truncations do not change what is written down.
        reward_draws: calls of the reward model per response, averaged after weight and clip (for a random one).
        max_responses: refuse a larger MDP.

    Raises:
        ConfigError: settings without an exact solution, or too many responses.
        RewardModelError: the reward model failed, or abstained on a response.
    """
    model = checked("solver: reference", reference, Reference).language_model
    reward_config = checked("solver: reward_config", reward_config, RewardConfig)
    sampling = checked("solver: sampling", sampling, SamplingConfig)
    max_responses = checked("solver: max_responses", max_responses, Count)
    reward_draws = checked("solver: reward_draws", reward_draws, Count)
    _check(reward_config)
    sampling = with_stop_ids(sampling, model.eos_ids, model.vocab_size)
    loaded = prompt if isinstance(prompt, Prompt) else load_prompts([prompt], model.tokenizer)[0]
    tree = _grow(model, loaded, sampling, max_responses)
    mdp_logits = prefix_logits(model, loaded, tree.states)
    ref_log_probs = torch.log_softmax(mdp_logits.double() / sampling.temperature, dim=-1).cpu().numpy()
    capped = np.array([reason == "length" for reason in tree.stop_reasons])
    return TextMDP(
        prompt=loaded,
        sampling=sampling,
        kl_coef=reward_config.kl_coef,
        pad_id=model.pad_id,
        states=tuple(tree.states),
        depths=np.array([len(tokens) for tokens in tree.states], dtype=np.int64),
        ref_log_probs=ref_log_probs,
        ends=np.array(tree.ends, dtype=bool),
        successors=np.array(tree.successors, dtype=np.int64),
        responses=tuple(tree.responses),
        texts=tuple(tree.texts),
        stop_reasons=tuple(tree.stop_reasons),
        paid=_paid(as_reward_model(reward), loaded, tree.texts, capped, reward_config, reward_draws),
    )


@torch.inference_mode()
def prefix_logits(model: LanguageModel, prompt: Prompt, states: Any) -> torch.Tensor:
    """Logits of the next token in each state, before any temperature.

    Args:
        model: any language model of the same vocabulary.
        prompt: P tokens.
        states: response tokens so far, as sequences of ints. Length S.

    Returns: on the CPU. Shape: (S, V), float32.
    """
    longest = max(len(tokens) for tokens in states)
    rows = max(1, BATCH_TOKENS // (len(prompt.ids) + longest + 1))
    parts = []
    for first in range(0, len(states), rows):
        # The state before a token is the same whichever token follows.
        followed = [np.array([*tokens, model.pad_id], dtype=np.int64) for tokens in states[first : first + rows]]
        before = decoder_for(model).teacher_forced([prompt.ids] * len(followed), followed).before
        last = np.cumsum([len(tokens) for tokens in followed]) - 1
        parts.append(model.logits(before[torch.from_numpy(last).to(before.device)]).cpu())
    return torch.cat(parts)


class _Tree:
    """Lists that grow level by level."""

    def __init__(self) -> None:
        self.states: list[tuple[int, ...]] = [()]
        self.ends: list[list[bool]] = []
        self.successors: list[list[int]] = []
        self.responses: list[tuple[int, ...]] = []
        self.texts: list[str] = []
        self.stop_reasons: list[StopReason] = []


def _grow(model: LanguageModel, prompt: Prompt, sampling: SamplingConfig, max_responses: int) -> _Tree:
    rule = StopRule(model.response_text, sampling)
    _check_size(model.vocab_size, len(set(stop_ids_of(sampling))), sampling, max_responses)
    tree = _Tree()
    for state in tree.states:  # grows while it is read: breadth first
        ends, successors = [], []
        for token in range(model.vocab_size):
            tokens = (*state, token)
            reason = rule.reason(prompt.ids, np.array(tokens))
            ends.append(reason is not None)
            if reason is None:
                successors.append(len(tree.states))
                tree.states.append(tokens)
                continue
            successors.append(len(tree.responses))
            tree.responses.append(tokens)
            tree.texts.append(rule.text(prompt.ids, np.array(tokens), reason))
            tree.stop_reasons.append(reason)
        tree.ends.append(ends)
        tree.successors.append(successors)
    return tree


def _paid(
    model: RewardModel, prompt: Prompt, texts: list[str], capped: np.ndarray, config: RewardConfig, draws: int
) -> np.ndarray:
    total = np.zeros(len(texts))
    columns = columns_for(model, [prompt.columns] * len(texts))
    for _ in range(draws):
        scores = checked_scores(model, [prompt.text] * len(texts), texts, columns)
        if not scores.valid.all():
            row = int(np.flatnonzero(~scores.valid)[0])
            raise RewardModelError(
                f"reward model {model.name}: must score every response for an exact solution, and it abstained on "
                f"{texts[row]!r}; agents leave such an episode out, so it has no value"
            )
        total += paid_scores(scores, capped, config, model.normalizer)
    return total / draws


def _check(config: RewardConfig) -> None:
    if config.kl_coef <= 0:
        raise ConfigError(
            f"solver: kl_coef must be > 0, got {config.kl_coef}; without a KL term the optimum is not unique"
        )
    if config.on_length_limit != "terminate":
        raise ConfigError(
            f'solver: on_length_limit must be "terminate", got {config.on_length_limit!r}; a truncated response has no '
            "return of its own, only the agent's bootstrap"
        )


def _check_size(vocab_size: int, num_stops: int, sampling: SamplingConfig, limit: int) -> None:
    words, cap = vocab_size - num_stops, sampling.max_new_tokens
    count = sum(num_stops * words**length for length in range(cap)) + words**cap
    if count > limit:
        raise ConfigError(
            f"solver: at most max_responses = {limit} responses can be enumerated, got {count} (vocabulary "
            f"{vocab_size}, max_new_tokens {cap}); use a smaller vocabulary or a lower cap, or raise the limit"
        )
