"""The exact optimum of a small KL-regularised text MDP, and the exact value of any policy in it.

The objective is ``J(pi) = E_pi[R(y) - beta * sum_t (log pi(a_t|s_t) - log pi_ref(a_t|s_t))]`` with gamma 1, where R is
all that is paid at the end. Without truncation ``pi*(y) ~ pi_ref(y) exp(R(y) / beta)`` and
``J* = beta log E_ref[exp(R / beta)]`` (Ziegler et al. 2019, arXiv:1909.08593, section 2; Rafailov et al. 2023,
arXiv:2305.18290, eq. 4), with the reference tempered token by token. What is solved here is the same thing state by
state, ``V(s) = beta * logsumexp_a (log pi_ref(a|s) + Q(s, a) / beta)``, because that form survives truncation: with
``min_new_tokens`` the sum leaves out the stop tokens and with ``top_k`` it runs over the k largest terms. Under
``top_p`` and ``min_p`` the set of distributions that a policy can have is not known token by token, and :func:`solve`
refuses; the value of a *given* policy (:func:`expected_return`) is exact under every setting.

A share of the gap closed, ``(J - J_ref) / (J* - J_ref)``, is therefore free of sampling noise.

Shapes: S = states, V = vocabulary, R = responses; see ``lm_gym.testing.text_mdp``. Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.errors import ConfigError, UnsupportedModelError
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.reference import Reference
from lm_gym.models.sampling import stop_ids_of, truncated_logits
from lm_gym.prompts import Prompt
from lm_gym.scoring.adapters import RewardModelLike
from lm_gym.tools.settings import checked

from .text_mdp import MAX_RESPONSES, TextMDP, enumerate_mdp, prefix_logits

__all__ = ["PolicyValue", "Solution", "expected_return", "policy_value", "share_closed", "solve", "state_log_probs"]


class PolicyValue(NamedTuple):
    """Exact value of a policy."""

    expected_return: float
    """J: expected paid score minus beta times KL, in score units."""
    expected_reward: float
    """E[R]: expected paid score, in score units."""
    kl: float
    """KL(pi || pi_ref) over whole responses, in nats."""
    expected_length: float
    """Mean response tokens, the stop token included."""
    state_values: np.ndarray
    """Expected return from each state on. Shape: (S,)."""
    response_probs: np.ndarray
    """Probability of each response. Shape: (R,)."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The optimum of a text MDP."""

    mdp: TextMDP
    """The MDP that was solved."""
    optimal_return: float
    """J*, in score units."""
    reference_return: float
    """J_ref: of a policy that has the reference's weights and is sampled under the same truncation."""
    log_probs: np.ndarray
    """pi*(a|s), in nats; -inf where an optimal policy under the truncation has no mass. Shape: (S, V)."""
    state_values: np.ndarray
    """V*(s), in score units. Shape: (S,)."""
    optimum: PolicyValue
    """pi*, evaluated like any other policy: its KL, expected reward and response distribution."""
    reference: PolicyValue
    """The policy of ``reference_return``, likewise."""

    @property
    def kl(self) -> float:
        """KL(pi* || pi_ref) over whole responses, in nats."""
        return self.optimum.kl

    @property
    def response_probs(self) -> np.ndarray:
        """pi*(y). Shape: (R,)."""
        return self.optimum.response_probs

    def share_closed(self, expected_return: float) -> float:
        """``(J - J_ref) / (J* - J_ref)``: 0 at the reference, 1 at the optimum."""
        return (expected_return - self.reference_return) / (self.optimal_return - self.reference_return)


def solve(
    reference: Reference,
    reward: RewardModelLike,
    prompt: str | Prompt,
    *,
    reward_config: RewardConfig,
    sampling: SamplingConfig,
    reward_draws: int = 1,
    max_responses: int = MAX_RESPONSES,
) -> Solution:
    """The exact optimum of answering one prompt.

    Args:
        reference: the frozen model.
        reward: scores text.
        prompt: text, or tokenised.
        reward_config: ``kl_coef`` > 0 and ``on_length_limit="terminate"``.
        sampling: as the policy will be sampled; ``top_p`` and ``min_p`` have no exact optimum.
        reward_draws: calls averaged per response, for a random reward (its mean decides).
        max_responses: refuse a larger MDP.

    Raises:
        ConfigError: settings without an exact optimum, or too many responses.
        RewardModelError: the reward model failed, or abstained on a response.
    """
    sampling = checked("solver: sampling", sampling, SamplingConfig)
    for name in ("top_p", "min_p"):
        if getattr(sampling, name) not in (None, 1.0 if name == "top_p" else None):
            raise ConfigError(
                f"solver: {name} must be None, got {getattr(sampling, name)}; under it the distributions that a policy "
                "can have depend on its own probabilities and no dynamic programme gives the optimum; use top_k, or "
                "expected_return() for the value of a given policy"
            )
    mdp = enumerate_mdp(
        reference,
        reward,
        prompt,
        reward_config=reward_config,
        sampling=sampling,
        reward_draws=reward_draws,
        max_responses=max_responses,
    )
    log_probs, values = _soft_optimum(mdp)
    optimum = policy_value(log_probs, mdp)
    start = policy_value(state_log_probs(reference, mdp), mdp)
    return Solution(
        mdp=mdp,
        optimal_return=float(values[0]),
        reference_return=start.expected_return,
        log_probs=log_probs,
        state_values=values,
        optimum=optimum,
        reference=start,
    )


def policy_value(log_probs: np.ndarray, mdp: TextMDP) -> PolicyValue:
    """The exact value of a policy that is given as a table.

    Args:
        log_probs: of every next token in every state, in nats; -inf where the policy has no mass. Shape: (S, V).
        mdp: the states.

    Raises:
        ConfigError: a wrong shape, or rows that are no distributions.
    """
    mdp = checked("policy_value: mdp", mdp, TextMDP)
    log_probs = checked("policy_value: log_probs", log_probs, np.ndarray)
    probs = _checked_probs(log_probs, mdp)
    kl = _times(probs, log_probs - mdp.ref_log_probs).sum(1)
    reach = np.zeros(len(mdp.states))
    reach[0] = 1.0
    response_probs = np.zeros(len(mdp.responses))
    for level in mdp.levels():
        mass = reach[level, None] * probs[level]
        ends, successors = mdp.ends[level], mdp.successors[level]
        response_probs[successors[ends]] = mass[ends]
        reach[successors[~ends]] = mass[~ends]
    values = np.zeros(len(mdp.states))
    for level in reversed(list(mdp.levels())):
        values[level] = _times(probs[level], _following(mdp, values, level)).sum(1) - mdp.kl_coef * kl[level]
    return PolicyValue(
        expected_return=float(values[0]),
        expected_reward=float(response_probs @ mdp.paid),
        kl=float(reach @ kl),
        expected_length=float(reach.sum()),
        state_values=values,
        response_probs=response_probs,
    )


def state_log_probs(policy: Any, mdp: TextMDP) -> np.ndarray:
    """The distribution that a language-model policy samples from in every state: tempered, truncated, renormalised.

    Args:
        policy: a LanguageModel, or anything that has one as ``language_model`` (a LanguageModelPolicy, a Reference).
        mdp: the states, and the sampling rules.

    Returns: in nats, -inf where the sampler may not draw. Shape: (S, V).

    Raises:
        UnsupportedModelError: no language model in it, or one of another vocabulary.
    """
    mdp = checked("state_log_probs: mdp", mdp, TextMDP)
    model = policy if isinstance(policy, LanguageModel) else getattr(policy, "language_model", None)
    if not isinstance(model, LanguageModel) or model.vocab_size != mdp.vocab_size:
        raise UnsupportedModelError(
            f"policy {type(policy).__name__}: must have a language_model over {mdp.vocab_size} tokens, got {model!r}; "
            "for any other policy fill an (S, V) table and call policy_value()"
        )
    logits = prefix_logits(model, mdp.prompt, mdp.states).double()
    parts = [truncated_logits(logits[level], depth, mdp.sampling) for depth, level in enumerate(mdp.levels())]
    return torch.log_softmax(torch.cat(parts), dim=-1).numpy()


def expected_return(policy: Any, mdp: TextMDP) -> float:
    """J of a language-model policy, by enumeration; see :func:`state_log_probs` for arguments and errors."""
    return policy_value(state_log_probs(policy, mdp), mdp).expected_return


def share_closed(policy: Any, solution: Solution) -> float:
    """Share of the gap between reference and optimum that a language-model policy has closed, exactly."""
    solution = checked("share_closed: solution", solution, Solution)
    return solution.share_closed(expected_return(policy, solution.mdp))


def _soft_optimum(mdp: TextMDP) -> tuple[np.ndarray, np.ndarray]:
    """Backward induction. Returns: pi* (S, V) in nats and V* (S,)."""
    log_probs = np.empty_like(mdp.ref_log_probs)
    values = np.zeros(len(mdp.states))
    top_k = mdp.sampling.top_k
    for level in reversed(list(mdp.levels())):
        weights = mdp.ref_log_probs[level] + _following(mdp, values, level) / mdp.kl_coef
        if int(mdp.depths[level.start]) < mdp.sampling.min_new_tokens:
            weights[:, list(stop_ids_of(mdp.sampling))] = -np.inf
        if top_k is not None and top_k < mdp.vocab_size:
            dropped = np.argpartition(-weights, top_k - 1, axis=1)[:, top_k:]
            np.put_along_axis(weights, dropped, -np.inf, axis=1)
        total = np.logaddexp.reduce(weights, axis=1)
        log_probs[level] = weights - total[:, None]
        values[level] = mdp.kl_coef * total
    return log_probs, values


def _following(mdp: TextMDP, values: np.ndarray, level: slice) -> np.ndarray:
    """Value after each action, the action's own KL not counted: the paid score, or the next state's value."""
    ends, successors = mdp.ends[level], mdp.successors[level]
    following = np.empty(ends.shape)
    following[ends] = mdp.paid[successors[ends]]
    following[~ends] = values[successors[~ends]]
    return following


def _times(probs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``probs * values`` with 0 * inf = 0."""
    return np.where(probs > 0, probs * np.where(probs > 0, values, 0.0), 0.0)


def _checked_probs(log_probs: np.ndarray, mdp: TextMDP) -> np.ndarray:
    if log_probs.shape != mdp.ref_log_probs.shape:
        raise ConfigError(
            f"policy_value: log_probs must have shape {mdp.ref_log_probs.shape}, one row per state of the MDP, "
            f"got {log_probs.shape}"
        )
    probs = np.exp(log_probs.astype(np.float64))
    error = np.abs(probs.sum(1) - 1.0)
    if not error.max() < 1e-4:
        raise ConfigError(
            f"policy_value: every row of log_probs must be a distribution, and row {int(error.argmax())} sums to "
            f"{probs.sum(1)[error.argmax()]:.6g}; pass normalised log-probabilities"
        )
    return probs
