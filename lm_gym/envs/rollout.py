"""The fused rollout: prompts and a sampler in, paid episodes out. The same reward function as ``step``."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from lm_gym.config import ScoreNormalizer
from lm_gym.envs.task import LOG_PROB_SLACK, TextTask
from lm_gym.episodes import Episodes, StopReason
from lm_gym.errors import UnsupportedModelError
from lm_gym.policy import Generation, Policy, Sampler
from lm_gym.prompts import Prompt
from lm_gym.rewards import paid_scores, token_rewards
from lm_gym.scoring.protocol import RewardModel, Scores, scores_where

__all__ = ["PhaseTimer", "collect", "continuation_values", "sampler_of"]


class PhaseTimer:
    """Seconds by phase, summed over calls."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block under ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def collect(
    task: TextTask,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    reward_model: RewardModel | None,
    *,
    kl_coef: float,
    seed: int,
    samples_per_prompt: int = 1,
    timer: PhaseTimer | None = None,
) -> Episodes:
    """Generate responses, score them, and pay them.

    Args:
        task: rules and reference.
        sampler: decodes by the task's rules; that it did is checked.
        prompts: ``samples_per_prompt`` episodes each, side by side.
        reward_model: one batched call; None pays a score of 0.
        kl_coef: beta.
        seed: of the sampler's draws.
        timer: collects the phases "rollout" (decoding), "reference" and "score".

    Raises:
        UnsupportedModelError: the sampler's vocabulary is not the reference's, or it did not stop where the rules say,
            or its answer breaks the contract of :class:`lm_gym.policy.Generation`,
            or the reference has no finite log-probability for a token.
        RewardModelError: the reward model failed.
    """
    timer = timer or PhaseTimer()
    group = np.repeat(np.arange(len(prompts), dtype=np.int64), samples_per_prompt)
    prompts = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
    if task.reference is not None and sampler.vocab_size != task.vocab_size:
        raise UnsupportedModelError(
            f"sampler {type(sampler).__name__}: must share the reference's vocabulary of {task.vocab_size} tokens, "
            f"got {sampler.vocab_size}; start policy and reference from the same base model"
        )
    with timer.phase("rollout"):
        generation = sampler.generate([prompt.ids for prompt in prompts], replace(task.sampling, seed=seed))
    generation = _checked(generation, len(prompts), sampler, truncates=task.sampling.truncates)
    return _settled(task, sampler, prompts, group, generation, reward_model, kl_coef, timer)


def continuation_values(
    task: TextTask,
    sampler: Sampler,
    episodes: Episodes,
    prompts: Sequence[Prompt],
    reward_model: RewardModel | None,
    *,
    kl_coef: float,
    seed: int,
    samples: int,
    timer: PhaseTimer | None = None,
) -> np.ndarray:
    """Mean return of fresh continuations of each response, from the state before each of its tokens: unbiased values of
    the policy without a critic (Kazemnejad et al. 2024, arXiv:2410.01679, eq. 7). What they are paid is what
    :func:`collect` pays.

    Args:
        task, sampler, reward_model, kl_coef, timer: see :func:`collect`.
        episodes: as collected.
        prompts: of each of them. Length B.
        seed: of the draws.
        samples: continuations of each state.

    Returns: 0 off the response. A state whose continuations all got no score has the value of the one before it (0 at
        the start). Shape: (B, T), float64.

    Raises:
        UnsupportedModelError, RewardModelError: see :func:`collect`.
    """
    timer = timer or PhaseTimer()
    width = episodes.response_mask.shape[1]
    values = np.zeros((len(episodes), width))
    for start in range(width):
        rows = np.flatnonzero(episodes.response_mask[:, start])
        repeated = np.repeat(rows, samples)
        whole = _continued(task, sampler, episodes, prompts, repeated, start, seed + start, timer)
        asked = [prompts[row] for row in repeated.tolist()]
        found = _settled(task, sampler, asked, repeated, whole, reward_model, kl_coef, timer)
        returns = np.where(found.abstained, np.nan, found.rewards[:, start:].sum(axis=1)).reshape(-1, samples)
        counted = ~np.isnan(returns)
        mean = np.nansum(returns, axis=1) / np.maximum(counted.sum(axis=1), 1)
        before = values[rows, start - 1] if start else 0.0
        values[rows, start] = np.where(counted.any(axis=1), mean, before)
    return values


def _continued(
    task: TextTask,
    sampler: Sampler,
    episodes: Episodes,
    prompts: Sequence[Prompt],
    rows: np.ndarray,
    start: int,
    seed: int,
    timer: PhaseTimer,
) -> Generation:
    """Whole responses whose first ``start`` tokens are those of the episodes in ``rows``."""
    heads, log_probs = episodes.response_ids[rows, :start], episodes.log_probs[rows, :start]
    states = [np.concatenate([prompts[row].ids, head]) for row, head in zip(rows, heads, strict=True)]
    rules = replace(
        task.sampling,
        seed=seed,
        max_new_tokens=task.sampling.max_new_tokens - start,
        min_new_tokens=max(0, task.sampling.min_new_tokens - start),
    )
    with timer.phase("rollout"):
        tails = sampler.generate(states, rules)
    tails = _checked(tails, len(rows), sampler, truncates=rules.truncates)
    return Generation(
        ids=np.concatenate([heads, tails.ids], axis=1),
        mask=np.concatenate([np.ones(heads.shape, dtype=bool), tails.mask], axis=1),
        log_probs=np.concatenate([log_probs, tails.log_probs], axis=1),
    )


def _settled(
    task: TextTask,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    group: np.ndarray,
    generation: Generation,
    reward_model: RewardModel | None,
    kl_coef: float,
    timer: PhaseTimer,
) -> Episodes:
    """Responses as paid episodes."""
    reasons, texts = _endings(task, prompts, generation, type(sampler).__name__)
    episodes = _unpaid(task, prompts, group, generation, reasons, texts)
    if task.reference is not None:
        with timer.phase("reference"):
            episodes = replace(episodes, ref_log_probs=task.reference.log_probs(episodes))
    with timer.phase("score"):
        rows = [prompt.columns for prompt in prompts]
        asked, limit = episodes.terminated, task.reward.score_timeout_s
        scores = scores_where(reward_model, episodes.prompts, episodes.responses, asked, rows, timeout_s=limit)
    return _paid(episodes, scores, task, kl_coef, None if reward_model is None else reward_model.normalizer)


def sampler_of(source: Policy | Sampler) -> Sampler:
    """The sampler itself, or the one that a policy brings.

    Raises:
        UnsupportedModelError: it is neither a sampler nor a policy.
    """
    if isinstance(source, Sampler):
        return source
    if isinstance(source, Policy):
        return source.sampler
    raise UnsupportedModelError(
        "rollout: needs a Policy (sampler, act, log_probs_and_values) or a Sampler (stores_keep_sets, vocab_size, "
        f"generate, refresh), got {type(source).__name__}, which lacks some of them"
    )


def _checked(generation: Generation, rows: int, sampler: Sampler, *, truncates: bool) -> Generation:
    """A sampler's answer to ``rows`` prompts, in the types of :class:`lm_gym.Episodes`.

    Raises:
        UnsupportedModelError: it is not what :class:`lm_gym.policy.Generation` says.
    """
    ids, mask, log_probs = (np.asarray(each) for each in (generation.ids, generation.mask, generation.log_probs))

    def require(holds: Any, rule: str, got: Any) -> None:
        if not holds:
            raise UnsupportedModelError(
                f"sampler {type(sampler).__name__}: must answer {rows} prompts with {rule}, got {got}; "
                "see lm_gym.policy.Generation"
            )

    def require_everywhere(holds: np.ndarray, rule: str, values: np.ndarray) -> None:
        wrong = np.argwhere(mask & ~holds)
        require(not len(wrong), rule, f"{values[tuple(wrong[0])]} in row {wrong[0][0]}" if len(wrong) else "")

    require(ids.ndim == 2 and len(ids) == rows, f"ids of shape ({rows}, T)", f"ids of shape {ids.shape}")
    require(mask.shape == ids.shape, f"a mask of shape {ids.shape}, that of its ids", mask.shape)
    require(log_probs.shape == ids.shape, f"log-probabilities of shape {ids.shape}, that of its ids", log_probs.shape)
    require(np.issubdtype(ids.dtype, np.integer), "ids of an integer type", ids.dtype)
    require(mask.dtype == np.bool_, "a mask of bool", mask.dtype)
    gap = mask[:, 1:] & ~mask[:, :-1]
    require(not gap.any(), "a mask that counts the first tokens of a row", f"a gap in row {gap.any(axis=1).argmax()}")
    require_everywhere((ids >= 0) & (ids < sampler.vocab_size), f"tokens in [0, {sampler.vocab_size})", ids)
    usable = np.isfinite(log_probs) & (log_probs <= LOG_PROB_SLACK)
    require_everywhere(usable, "log-probabilities that are finite and at most 0", log_probs)
    stored = generation.keep_sets is not None or not (truncates and sampler.stores_keep_sets)
    require(stored, "the keep set of each token, which it says it stores", "none")
    return replace(generation, ids=ids.astype(np.int64), mask=mask, log_probs=log_probs.astype(np.float32))


def _endings(
    task: TextTask, prompts: Sequence[Prompt], generation: Generation, name: str
) -> tuple[tuple[StopReason, ...], tuple[str, ...]]:
    """Stop reason and text of each response, by the task's rule."""
    rule = task.stop_rule()
    reasons: list[StopReason] = []
    texts: list[str] = []
    for row, length in enumerate(generation.mask.sum(axis=1)):
        ids, prompt_ids = generation.ids[row, :length], prompts[row].ids
        reason = rule.reason(prompt_ids, ids) if length else None
        if reason is None or rule.is_passed(prompt_ids, ids):
            raise UnsupportedModelError(
                f"sampler {name}: must end a response at the first stop token or stop string of the environment, or at "
                f"its {task.sampling.max_new_tokens} tokens, and {'ran past it' if reason else 'stopped early'} in row "
                f"{row} ({length} tokens, {ids[-3:].tolist()} at the end); it must obey the sampling rules it is handed"
            )
        reasons.append(reason)
        texts.append(rule.text(prompt_ids, ids, reason))
    return tuple(reasons), tuple(texts)


def _unpaid(
    task: TextTask,
    prompts: Sequence[Prompt],
    group: np.ndarray,
    generation: Generation,
    reasons: tuple[StopReason, ...],
    texts: tuple[str, ...],
) -> Episodes:
    width = max(len(prompt.ids) for prompt in prompts)
    prompt_ids = np.full((len(prompts), width), task.pad_id, dtype=np.int64)
    prompt_mask = np.zeros((len(prompts), width), dtype=bool)
    for row, prompt in enumerate(prompts):
        prompt_ids[row, : len(prompt.ids)] = prompt.ids
        prompt_mask[row, : len(prompt.ids)] = True
    capped = np.array([reason == "length" for reason in reasons])
    truncated = capped & (task.reward.on_length_limit == "truncate")
    return Episodes(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        response_ids=generation.ids,
        response_mask=generation.mask,
        log_probs=generation.log_probs,
        ref_log_probs=None,
        kl=None,
        rewards=np.zeros(generation.mask.shape),
        kl_coef=np.zeros(len(prompts)),
        scores=np.zeros(len(prompts), dtype=np.float32),
        score_valid=np.zeros(len(prompts), dtype=bool),
        terminated=~truncated,
        truncated=truncated,
        stop_reasons=reasons,
        group=group,
        prompts=tuple(prompt.text for prompt in prompts),
        responses=texts,
        temperature=task.sampling.temperature,
        max_new_tokens=task.sampling.max_new_tokens,
        keep_sets=generation.keep_sets,
    )


def _paid(
    episodes: Episodes, scores: Scores, task: TextTask, kl_coef: float, normalizer: ScoreNormalizer | None
) -> Episodes:
    mask = episodes.response_mask
    capped = np.array([reason == "length" for reason in episodes.stop_reasons])
    last = mask & (np.arange(mask.shape[1]) == episodes.response_lengths[:, None] - 1)
    paid: dict[str, Any] = token_rewards(
        log_probs=episodes.log_probs,
        ref_log_probs=episodes.ref_log_probs,
        response_mask=mask,
        last_token=last,
        paid=paid_scores(scores, capped, task.reward, normalizer),
        kl_coef=kl_coef,
    )._asdict()
    paid |= {"scores": scores.value, "score_std": scores.std, "score_valid": scores.valid}
    return replace(episodes, kl_coef=np.full(len(episodes), kl_coef), **paid)
