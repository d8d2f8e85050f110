"""Which agents the two action modes are exact for, by enumeration; ``docs/concepts/action_modes.md`` quotes it.

Every policy here is a table, every expectation a sum: nothing is sampled. S = states, V = vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tiny_models import single_env
from torch import Tensor

from lm_gym import Reference, RewardConfig, SamplingConfig
from lm_gym.testing import Solution, TextMDP, policy_value, solve, tiny_language_model

STEPS = 3000


def score_letters(prompts: list[str], completions: list[str]) -> list[float]:
    """Each "a" or "b" is worth a quarter: longer text can score more."""
    return [sum(word in "ab" for word in text.split()) / 4 for text in completions]


def score_first(prompts: list[str], completions: list[str]) -> list[float]:
    """Only the first letter counts: text may be as short as one likes."""
    return [float(text.split()[:1] == ["c"]) for text in completions]


def score_order(prompts: list[str], completions: list[str]) -> list[float]:
    """Neighbours in alphabetical order."""
    return [
        sum(left < right for left, right in zip(text.split(), text.split()[1:], strict=False)) / 3
        for text in completions
    ]


TASKS: dict[str, tuple[Callable[..., list[float]], float]] = {
    "letters": (score_letters, 0.2),
    "first": (score_first, 0.1),
    "order": (score_order, 0.15),
}


class Shares(NamedTuple):
    """Share of the gap closed and mean response length."""

    share: float
    length: float


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(tiny_language_model(vocab_size=5, max_length=8, initializer_range=0.1))


@pytest.fixture(params=TASKS, ids=TASKS.keys())
def solution(request: pytest.FixtureRequest, reference: Reference) -> Solution:
    reward, kl_coef = TASKS[request.param]
    config, sampling = RewardConfig(kl_coef=kl_coef), SamplingConfig(max_new_tokens=4)
    return solve(reference, reward, "a b", reward_config=config, sampling=sampling)


def token_mode_rewards(mdp: TextMDP) -> np.ndarray:
    """``beta log pi_ref + [last] R``: what ``step`` pays in action mode "token". Shape: (S, V)."""
    ends = np.where(mdp.ends, mdp.paid[np.where(mdp.ends, mdp.successors, 0)], 0.0)
    return mdp.kl_coef * mdp.ref_log_probs + ends


def backed_up(mdp: TextMDP, state_value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Backward induction ``Q = r + V(next)`` with the token-mode reward. Returns: Q of shape (S, V)."""
    q = token_mode_rewards(mdp)
    values = np.zeros(len(mdp.states))
    for level in reversed(list(mdp.levels())):
        q[level] += np.where(mdp.ends[level], 0.0, values[np.where(mdp.ends[level], 0, mdp.successors[level])])
        values[level] = state_value(q[level])
    return q


def log_softmax(values: np.ndarray) -> np.ndarray:
    return values - np.logaddexp.reduce(values, axis=1)[:, None]


def shares(solution: Solution, log_probs: np.ndarray) -> Shares:
    found = policy_value(log_probs, solution.mdp)
    return Shares(solution.share_closed(found.expected_return), found.expected_length)


class Tabular:
    """Exact policy gradient on a softmax table, by autograd through the state distribution."""

    def __init__(self, mdp: TextMDP) -> None:
        self.mdp = mdp
        self.logits = torch.from_numpy(mdp.ref_log_probs).clone().requires_grad_(True)
        self.rewards = torch.from_numpy(token_mode_rewards(mdp))

    def reach(self, probs: Tensor) -> Tensor:
        """Probability of each state, with gradient. Shape: (S,)."""
        levels = list(self.mdp.levels())
        parts = [torch.ones(1, dtype=torch.float64)]
        for level in levels[:-1]:
            parts.append((parts[-1][:, None] * probs[level])[torch.from_numpy(~self.mdp.ends[level])])
        return torch.cat(parts)

    def ascend(self, objective: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        """Adam on an objective of log-probabilities (S, V) and state probabilities (S,). Returns: (S, V)."""
        optimizer = torch.optim.Adam([self.logits], lr=0.05)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            optimizer.zero_grad()
            log_probs = torch.log_softmax(self.logits, -1)
            (-objective(log_probs, self.reach(log_probs.exp()))).backward()
            optimizer.step()
            decay.step()
        return torch.log_softmax(self.logits, -1).detach().numpy()


def entropies(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs).sum(-1)


def test_the_table_is_what_step_pays(reference: Reference) -> None:
    reward, kl_coef = TASKS["letters"]
    sampling = SamplingConfig(max_new_tokens=4)
    solution = solve(reference, reward, "a b", reward_config=RewardConfig(kl_coef=kl_coef), sampling=sampling)
    table = token_mode_rewards(solution.mdp)
    env = single_env(reference, ["a b"], reward, kl_coef=kl_coef, max_new_tokens=4)
    env.reset(seed=0)
    state = 0
    for token in (3, 1, 2, 0):
        assert env.step(token)[1] == pytest.approx(table[state, token], abs=1e-5)
        state = int(solution.mdp.successors[state, token])


def test_entropy_in_the_return_makes_token_mode_the_same_objective(solution: Solution) -> None:
    """For any policy: token-mode return + beta * sum of entropies = the KL-regularised return."""
    mdp = solution.mdp
    rng = np.random.default_rng(0)
    for _ in range(5):
        log_probs = log_softmax(3 * rng.standard_normal(mdp.ref_log_probs.shape))
        table = Tabular(mdp)
        tensor = torch.from_numpy(log_probs)
        reach = table.reach(tensor.exp())
        in_token_mode = (reach * ((tensor.exp() * table.rewards).sum(-1) + mdp.kl_coef * entropies(tensor))).sum()
        assert in_token_mode.item() == pytest.approx(policy_value(log_probs, mdp).expected_return)


def test_soft_value_iteration_in_token_mode_is_exact(solution: Solution) -> None:
    """Soft Q-learning's fixed point at temperature beta: entropy in the backup."""
    beta = solution.mdp.kl_coef
    q = backed_up(solution.mdp, lambda q: beta * np.logaddexp.reduce(q / beta, axis=1))
    assert beta * np.logaddexp.reduce(q[0] / beta) == pytest.approx(solution.optimal_return)
    assert log_softmax(q / beta) == pytest.approx(solution.log_probs, abs=1e-9)


def test_policy_gradient_with_entropy_in_the_return_reaches_the_optimum(solution: Solution) -> None:
    table = Tabular(solution.mdp)
    beta = solution.mdp.kl_coef

    def objective(log_probs: Tensor, reach: Tensor) -> Tensor:
        return (reach * ((log_probs.exp() * table.rewards).sum(-1) + beta * entropies(log_probs))).sum()

    assert shares(solution, table.ascend(objective)).share > 0.999


def ent_coef_fixed_point(solution: Solution) -> np.ndarray:
    """Each state alone maximises ``E[Q] + beta H``, but Q holds no entropy of later states: pi ~ exp(Q / beta)."""
    beta = solution.mdp.kl_coef

    def without_entropy(q: np.ndarray) -> np.ndarray:
        return (np.exp(log_softmax(q / beta)) * q).sum(1)

    return log_softmax(backed_up(solution.mdp, without_entropy) / beta)


def test_entropy_in_the_loss_has_another_fixed_point_and_prefers_short_text(
    solution: Solution, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    found = shares(solution, ent_coef_fixed_point(solution))
    best = shares(solution, solution.log_probs)
    record_property("share_closed", found.share)
    assert best.share == pytest.approx(1.0)
    assert found.length < best.length
    assert found.share == pytest.approx(EXPECTED[request.node.callspec.id][0], abs=5e-3)
    assert (best.length, found.length) == pytest.approx(EXPECTED[request.node.callspec.id][1:], abs=5e-3)


EXPECTED = {"letters": (0.281, 3.83, 2.73), "first": (0.933, 3.39, 2.59), "order": (-0.157, 3.80, 2.29)}
"""Share closed by ``ent_coef = beta``, mean length of the optimum, mean length with ``ent_coef = beta``."""


def test_gradient_with_entropy_in_the_loss_goes_to_that_fixed_point(solution: Solution) -> None:
    """The gradient that an actor-critic agent follows: states as they are visited, no credit for later entropy."""
    table = Tabular(solution.mdp)
    beta = solution.mdp.kl_coef

    def objective(log_probs: Tensor, reach: Tensor) -> Tensor:
        expected = (reach * (log_probs.exp() * table.rewards).sum(-1)).sum()
        return expected + beta * (reach.detach() * entropies(log_probs)).sum()

    reached = shares(solution, table.ascend(objective))
    fixed = shares(solution, ent_coef_fixed_point(solution))
    assert reached.share == pytest.approx(fixed.share, abs=0.02)
    assert reached.length == pytest.approx(fixed.length, abs=0.05)
