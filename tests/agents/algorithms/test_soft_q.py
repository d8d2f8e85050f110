"""Soft Q-learning: its error by hand and at the exact optimum, what it refuses, what it keeps."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym.agents import LanguageModelPolicy, SoftQ, SoftQConfig
from lm_gym.agents.algorithms.soft_q import bellman_errors
from lm_gym.agents.metrics import METRICS
from lm_gym.errors import ConfigError, DivergedError
from lm_gym.models.language_model import own_copy
from lm_gym.processes import Processes
from lm_gym.testing import tiny_language_model

MakeEnv = Callable[..., Any]


def test_the_error_by_hand() -> None:
    """Two responses, of three tokens and of two; the second was truncated and bootstraps from 7."""
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]])
    log_ratios = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.0]])
    rewards = torch.tensor([[0.0, 0.0, 10.0], [0.0, 1.0, 0.0]])
    slow = torch.tensor([[1.5, 2.5, 3.5, 0.0], [4.5, 5.5, 7.0, 0.0]])
    lengths = torch.tensor([3, 2])

    def errors(steps: int | None) -> list[list[float]]:
        found = bellman_errors(values, log_ratios, rewards, slow, lengths, steps=steps)
        return [row[:size] for row, size in zip(found.tolist(), [3, 2], strict=True)]

    one = [[1 + 0.1 - 2.5, 2 + 0.2 - 3.5, 3 + 0.3 - 10], [4 + 0.4 - 5.5, 5 + 0.5 - 1 - 7]]
    two = [[1 + 0.3 - 3.5, 2 + 0.5 - 10, 3 + 0.3 - 10], [4 + 0.9 - 1 - 7, 5 + 0.5 - 1 - 7]]
    end = [[1 + 0.6 - 10, 2 + 0.5 - 10, 3 + 0.3 - 10], [4 + 0.9 - 1 - 7, 5 + 0.5 - 1 - 7]]
    for steps, expected in ((1, one), (2, two), (None, end), (9, end)):
        for ours, theirs in zip(errors(steps), expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("steps", [1, 2, None])
def test_the_error_is_0_at_the_optimum_alone(steps: int | None) -> None:
    """Two tokens of a vocabulary of three, by enumeration: pi* and V* solve it for every response, pi_ref does not."""
    rng = np.random.default_rng(0)
    beta, reward = 0.3, torch.from_numpy(rng.normal(size=(3, 3)))
    first = torch.from_numpy(rng.normal(size=3)).log_softmax(0)
    second = torch.from_numpy(rng.normal(size=(3, 3))).log_softmax(1)
    inner = beta * torch.logsumexp(second + reward / beta, 1)  # V* after the first token
    start = beta * torch.logsumexp(first + inner / beta, 0)
    best = (first + (inner - start) / beta, second + (reward - inner[:, None]) / beta)
    torch.testing.assert_close(best[0].exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    a, b = (one.flatten() for one in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))

    def errors(policy: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        ratios = beta * torch.stack([policy[0][a] - first[a], policy[1][a, b] - second[a, b]], 1)
        values = torch.stack([start.expand(9), inner[a]], 1)
        rewards = torch.stack([torch.zeros(9, dtype=torch.float64), reward[a, b]], 1)
        slow = torch.cat([values, torch.zeros(9, 1, dtype=torch.float64)], 1)
        return bellman_errors(values, ratios, rewards, slow, torch.full((9,), 2), steps=steps)

    assert errors(best).abs().max() < 1e-12
    assert errors((first, second)).abs().max() > 0.1


def test_it_learns_from_what_it_keeps(make_env: MakeEnv, make_policy: Callable[..., Any]) -> None:
    env = make_env(reward_model=lambda prompts, completions: [None, *(len(text) / 9 for text in completions[1:])])
    agent = SoftQ(make_policy(env), SoftQConfig(episodes_per_iteration=8, replay_episodes=12, updates=3))
    metrics = agent.learn(env)
    assert set(metrics) == set(METRICS)
    assert metrics["invalid_episodes"] == 1.0
    assert metrics["optimizer_steps"] == 3.0
    assert math.isfinite(metrics["soft_bellman_error"])
    assert len(agent.state_dict()["replay"]["responses"]) == 7
    agent.learn(env)
    kept = agent.state_dict()["replay"]["responses"]
    assert len(kept) == 12
    assert agent.last_episodes is not None
    assert kept[-7:] == agent.last_episodes.responses[1:]  # the newest stay


def test_old_responses_are_learned_from_at_the_beta_of_today(
    make_env: MakeEnv, make_policy: Callable[..., Any]
) -> None:
    """Beta was raised between two rollouts: all errors are those of the environment as it is, by plain loops."""
    env = make_env(kl_coef=0.1)
    policy = make_policy(env)
    with torch.no_grad():
        policy.model.transformer.wte.weight.mul_(1.3)  # no longer the reference
    policy.refresh()
    settings: dict[str, Any] = {"updates": 1, "learning_rate": 1e-30, "backup_steps": None}
    agent = SoftQ(policy, SoftQConfig(episodes_per_iteration=4, **settings))
    first = env.rollout(policy, 4)
    agent.update(first)
    env.kl_coef = 0.5
    second = env.rollout(policy, 4)
    errors = []
    for episodes in (first, second):
        values = policy.log_probs_and_values(episodes, entropy=False).values.tolist()
        for row, size in enumerate(episodes.response_lengths):
            left = [0.5 * episodes.kl[row, t:size].sum() - episodes.scores[row] for t in range(size)]
            errors += [value + rest for value, rest in zip(values[row], left, strict=False)]
    assert agent.update(second)["soft_bellman_error"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kl_coef": 0.0}, r"got kl_coef = 0 and untruncated"),
        ({"top_k": 3}, r"got kl_coef = 0\.1 and truncated sampling"),
    ],
)
def test_what_makes_no_q_function_is_refused(
    settings: dict[str, Any], words: str, make_env: MakeEnv, make_policy: Callable[..., Any]
) -> None:
    env = make_env(**settings)
    with pytest.raises(ConfigError, match=rf"SoftQ: needs a kl_coef above 0 and untruncated sampling, .*{words}"):
        SoftQ(make_policy(env)).learn(env)


def test_a_process_without_a_score_steps_with_the_others(make_env: MakeEnv, make_policy: Callable[..., Any]) -> None:
    """Here every response abstains; the other process has tokens, and waits for this one at every step."""

    class Two(Processes):
        size = 2

        def sum(self, values: torch.Tensor) -> torch.Tensor:
            return values + 4

    env = make_env(reward_model=lambda prompts, completions: [None] * len(completions))
    agent = SoftQ(make_policy(env), SoftQConfig(episodes_per_iteration=4, updates=3), processes=Two())
    before = [weight.clone() for weight in agent.policy.weights()]
    metrics = agent.learn(env)
    assert metrics["optimizer_steps"] == 3.0
    assert metrics["soft_bellman_error"] == 2.0
    assert all(torch.equal(a, b) for a, b in zip(before, agent.policy.weights(), strict=True))


def test_a_diverged_step_is_not_taken(make_env: MakeEnv, make_policy: Callable[..., Any]) -> None:
    env = make_env()
    policy = make_policy(env)
    with torch.no_grad():
        policy.value_head.bias.fill_(math.nan)
    before = [weight.clone() for weight in policy.model.parameters()]
    with pytest.raises(DivergedError, match=r"SoftQ: loss and gradient must be finite, got a squared error of nan"):
        SoftQ(policy, SoftQConfig(episodes_per_iteration=8)).learn(env)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))


def test_the_state_of_another_kind_of_backup_is_refused(make_env: MakeEnv, make_policy: Callable[..., Any]) -> None:
    env = make_env()
    state = SoftQ(make_policy(env)).state_dict()
    with pytest.raises(ConfigError, match=r"SoftQ state: must come from an agent whose backup_steps"):
        SoftQ(make_policy(env), SoftQConfig(backup_steps=None)).load_state_dict(state)


def bfloat16_agent() -> SoftQ:
    model = own_copy(tiny_language_model())
    model.model.to(torch.bfloat16)
    policy = LanguageModelPolicy(model)
    next(iter(policy.weights())).requires_grad_(False)
    return SoftQ(policy, SoftQConfig(episodes_per_iteration=4, batch_episodes=4, updates=2, learning_rate=1e-3))


def test_the_slow_copy_of_bfloat16_weights_arrives_and_is_resumed_to_the_bit(make_env: MakeEnv) -> None:
    """A twentieth of the way at each step: rounded to bfloat16, most of the steps would be none at all."""
    env = make_env()
    agent = bfloat16_agent()
    for _ in range(2):
        agent.learn(env)
    again = bfloat16_agent()
    again.policy.load_state_dict(agent.policy.state_dict())
    again.load_state_dict(agent.state_dict())
    episodes = env.rollout(agent.policy, 4)
    assert again.update(episodes) == agent.update(episodes)
    slow = [weight.clone() for weight in agent._slow_weights.parameters]
    assert {weight.dtype for weight in slow} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(slow, again._slow_weights.parameters, strict=True))
    for _ in range(400):
        agent._follow()
    assert agent._slow is not None
    torch.testing.assert_close(agent._slow_weights.parameters, agent._optimizer.weights)
    torch.testing.assert_close(list(agent._slow.weights()), list(agent.policy.weights()), rtol=2**-7, atol=1e-5)


def test_episodes_on_which_it_diverged_are_not_kept(make_env: MakeEnv, make_policy: Callable[..., Any]) -> None:
    env = make_env()
    agent = SoftQ(make_policy(env), SoftQConfig(episodes_per_iteration=4, updates=1))
    episodes = env.rollout(agent.policy, 4)
    with pytest.raises(DivergedError):
        agent.update(replace(episodes, rewards=episodes.rewards + 1e30))
    assert agent.state_dict()["replay"] is None
    assert math.isfinite(agent.update(episodes)["soft_bellman_error"])
