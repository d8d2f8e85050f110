"""A*-PO and VIMPO: their equation at the exact optimum, values by hand, what is kept, and what the actor does."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import Reference, RewardConfig, SamplingConfig
from lm_gym.agents import VIMPO, AStarPO, AStarPOConfig, ReMax, ReMaxConfig, VIMPOConfig
from lm_gym.agents.algorithms.closed_form import soft_value
from lm_gym.errors import ConfigError
from lm_gym.testing import Solution, solve, tiny_language_model

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def solution() -> Solution:
    """Responses of up to three tokens out of five, at beta .3."""
    reference = Reference(tiny_language_model(vocab_size=5, max_length=8, initializer_range=0.3))
    score = lambda prompts, completions: [len(set(text.split())) / 2 for text in completions]  # noqa: E731
    rules = RewardConfig(kl_coef=0.3)
    return solve(reference, score, "a b", reward_config=rules, sampling=SamplingConfig(max_new_tokens=3))


def test_the_optimum_solves_the_recurrence(solution: Solution) -> None:
    """Every state and token: V(s') = V(s) + beta log pi*/pi_ref - r, and nothing is left at the end."""
    mdp = solution.mdp
    after = solution.state_values[:, None] + mdp.kl_coef * (solution.log_probs - mdp.ref_log_probs)
    ends = mdp.ends
    np.testing.assert_allclose(after[ends] - mdp.paid[mdp.successors[ends]], 0.0, atol=1e-12)
    np.testing.assert_allclose(after[~ends], solution.state_values[mdp.successors[~ends]], atol=1e-12)


def test_the_optimum_solves_the_equation_of_whole_responses(solution: Solution) -> None:
    """beta log pi*(y) / pi_ref(y) = R(y) - V*, with V* the soft mean over the reference's responses."""
    mdp = solution.mdp
    start = solution.reference.response_probs
    value = mdp.kl_coef * math.log(start @ np.exp(mdp.paid / mdp.kl_coef))
    assert value == pytest.approx(solution.optimal_return, abs=1e-12)
    ratios = np.log(solution.response_probs / start)
    np.testing.assert_allclose(mdp.kl_coef * ratios, mdp.paid - value, atol=1e-9)


def test_the_published_recurrence_has_another_fixed_point() -> None:
    """Two tokens: one leads to a sure .9, one to a chance of a hundredth at 1. With the KL of each state taken out the
    first token is not charged for the 4.6 nats that the second must pay."""
    beta, first = 0.1, np.array([0.5, 0.5])
    second, reward = np.array([[0.5, 0.5], [0.01, 0.99]]), np.array([[0.9, 0.9], [1.0, 0.0]])

    def tilted(probs: np.ndarray, values: np.ndarray) -> np.ndarray:
        found = probs * np.exp(values / beta)
        return found / found.sum(-1, keepdims=True)

    inner = tilted(second, reward)
    mean, later_kl = (inner * reward).sum(1), (inner * np.log(inner / second)).sum(1)

    def paid(start: np.ndarray) -> float:
        return float(start @ (mean - beta * later_kl - beta * np.log(start / first)))

    soft, local = tilted(first, mean - beta * later_kl), tilted(first, mean)
    own_kl = local @ np.log(local / first)
    # Each solves its own recurrence: V(s') = V(s) + beta log pi/pi_ref, less beta times the state's KL as published.
    np.testing.assert_allclose(paid(soft) + beta * np.log(soft / first), mean - beta * later_kl)
    np.testing.assert_allclose(local @ mean + beta * (np.log(local / first) - own_kl), mean)
    assert soft[0] > 0.95 > 0.5 > local[0]
    assert paid(local) < paid(soft) - 0.2


def test_a_wrong_value_moves_no_fixed_point_on_the_policys_own_responses() -> None:
    """Five responses as a softmax: at the optimum the mean gradient is 0 whatever is taken for V*, on policy; on the
    reference's responses it is 0 at V* alone."""
    rng = np.random.default_rng(0)
    beta, returns = 0.4, torch.from_numpy(rng.normal(size=5))
    reference = torch.from_numpy(rng.normal(size=5)).log_softmax(0)
    best = (reference + returns / beta).log_softmax(0)
    value = beta * torch.logsumexp(reference + returns / beta, 0)

    def gradient(drawn: torch.Tensor, off: float) -> float:
        logits = best.clone().requires_grad_()
        error = beta * (logits.log_softmax(0) - reference) - (returns - value - off)
        (drawn.exp() * 0.5 * error**2).sum().backward()
        assert logits.grad is not None
        return float(logits.grad.abs().max())

    assert max(gradient(best, 0.0), gradient(best, 0.3), gradient(reference, 0.0)) < 1e-12
    assert gradient(reference, 0.3) > 1e-2


def test_soft_values_by_hand() -> None:
    assert soft_value(np.array([2.0, 2.0]), 0.1) == pytest.approx(2.0)
    assert soft_value(np.array([0.0, math.log(3)]), 1.0) == pytest.approx(math.log(2))  # log of (1 + 3) / 2
    assert soft_value(np.array([0.0, 1000.0]), 1e-2) == pytest.approx(1000 - 1e-2 * math.log(2))  # no overflow


def test_few_samples_give_too_low_a_value() -> None:
    """Scores of 0 and 1 alike, two samples, every draw: the mean estimate is below the value, more so at small beta."""
    bias = []
    for beta in (1.0, 0.1):
        exact = beta * math.log((1 + math.exp(1 / beta)) / 2)
        draws = [soft_value(np.array(pair), beta) for pair in itertools.product((0.0, 1.0), repeat=2)]
        bias.append(np.mean(draws) - exact)
    assert bias[1] < bias[0] < 0
    assert bias[1] == pytest.approx((0 + 1 + 2 * 0.930685) / 4 - 0.930690, abs=1e-4)


def test_on_fresh_responses_it_is_reinforce_with_the_value_as_baseline(make_env: Make, make_policy: Make) -> None:
    """One step each, from gradients that are scaled to one length."""
    env = make_env(kl_coef=0.3)
    policies = [make_policy(env) for _ in range(2)]
    for policy in policies:
        with torch.no_grad():
            policy.model.lm_head.weight.mul_(1.5)  # away from the reference: the log-ratio counts
    episodes = replace(env.rollout(policies[0], 16), baselines=np.linspace(-1, 1, 16))
    shared: dict[str, Any] = {"episodes_per_iteration": 16, "max_grad_norm": 1e-3, "learning_rate": 1e-2}
    AStarPO(policies[0], AStarPOConfig(**shared)).update(episodes)
    ReMax(policies[1], ReMaxConfig(**shared)).update(episodes)
    for ours, theirs in zip(*(list(policy.model.parameters()) for policy in policies), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_the_reference_answers_each_prompt_once(make_env: Make, make_policy: Make) -> None:
    calls: list[int] = []

    def score(prompts: list[str], completions: list[str]) -> list[float | None]:
        calls.append(len(prompts))
        first = len(prompts) == 6
        both = zip(prompts, completions, strict=True)
        return [None if first and prompt == "d" else float(len(text)) for prompt, text in both]

    env = make_env(reward_model=score, prompts=["a b c", "d"], kl_coef=0.5)
    agent = AStarPO(make_policy(env), AStarPOConfig(episodes_per_iteration=8, value_samples=3))
    metrics = agent.learn(env)
    assert calls == [6, 8]  # three responses to each of two prompts, then the policy's
    agent.learn(env)
    assert calls == [6, 8, 8]
    episodes = agent.last_episodes
    assert episodes is not None
    assert episodes.baselines is not None
    unknown = np.array(episodes.prompts) == "d"
    assert np.isnan(episodes.baselines[unknown]).all()  # every answer to it abstained: nothing is learned from it
    assert len(set(episodes.baselines[~unknown])) == 1
    assert math.isfinite(metrics["regression_error"])
    env.kl_coef = 1.0  # what was paid is kept, so the value follows beta
    agent.learn(env)
    again = agent.last_episodes
    assert again is not None
    assert again.baselines is not None
    assert np.nanmin(again.baselines) < np.nanmin(episodes.baselines)


def test_the_error_of_vimpo_is_the_deviation_within_a_group(make_env: Make, make_policy: Make) -> None:
    """The policy is the reference: every log-ratio is 0, and what is left is the score less its group's mean."""
    env = make_env(kl_coef=0.2)
    agent = VIMPO(make_policy(env), VIMPOConfig(episodes_per_iteration=16, samples_per_prompt=8))
    metrics = agent.learn(env)
    assert agent.last_episodes is not None
    scores = agent.last_episodes.scores.reshape(2, 8)
    left = scores - scores.mean(1, keepdims=True)
    assert metrics["regression_error"] == pytest.approx(np.sqrt((left**2).mean()), rel=1e-4)
    assert metrics["uniform_groups"] == 0.0


def test_the_actor_draws_away_from_the_reference_whatever_the_reward(make_env: Make, make_policy: Make) -> None:
    """Where all are paid alike the optimum is the reference; the actor moves a policy that is near it further off."""
    env = make_env(kl_coef=0.5, reward_model=lambda prompts, completions: [1.0] * len(completions))

    def kl_after(actor_coef: float) -> float:
        policy = make_policy(env)
        with torch.no_grad():
            policy.model.lm_head.weight.mul_(1.3)
        settings: dict[str, Any] = {"episodes_per_iteration": 64, "samples_per_prompt": 8, "learning_rate": 1e-3}
        agent = VIMPO(policy, VIMPOConfig(actor_coef=actor_coef, **settings))
        history = [agent.learn(env)["kl"] for _ in range(10)]
        return sum(history[-3:]) / sum(history[:3])

    assert kl_after(0.0) < 0.8
    assert kl_after(1.0) > 1.2


@pytest.mark.parametrize("kind", [AStarPO, VIMPO])
def test_what_has_no_closed_form_is_refused(kind: Any, make_env: Make, make_policy: Make) -> None:
    for settings, words in (({"kl_coef": 0.0}, "got kl_coef = 0 and untruncated"), ({"top_k": 3}, "and truncated")):
        env = make_env(**settings)
        with pytest.raises(ConfigError, match=rf"{kind.__name__}: needs a kl_coef above 0 .*{words}"):
            kind(make_policy(env)).learn(env)
    with pytest.raises(ConfigError, match=r"VIMPOConfig.samples_per_prompt: must be a whole number >= 2, got 1"):
        VIMPOConfig(samples_per_prompt=1)
