"""A batch or a state that an agent cannot learn from is refused by name, and leaves the agent as it was."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym.agents import DPO, GRPO, PPO, VIMPO, AStarPO, LanguageModelPolicy, PPOConfig, RejectionSampling, SoftQ
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.models.language_model import own_copy
from lm_gym.testing import tiny_language_model

Make = Callable[..., Any]
NEEDS_LOG_RATIO = (SoftQ, AStarPO, VIMPO, DPO)
SMALL = PPOConfig(episodes_per_iteration=8, learning_rate=1e-3)


def without_reference(episodes: Episodes) -> Episodes:
    return replace(episodes, ref_log_probs=None, kl=None)


@pytest.mark.parametrize("kind", [PPO, GRPO, RejectionSampling, *NEEDS_LOG_RATIO])
def test_bad_batches_are_refused_and_change_nothing(kind: Any, make_env: Make, make_policy: Make) -> None:
    env = make_env()
    agent = kind(make_policy(env))
    episodes = env.rollout(agent.policy, 4, samples_per_prompt=2)
    foreign = replace(episodes, response_ids=episodes.response_ids + 100)
    unpaid = replace(episodes, rewards=np.full_like(episodes.rewards, np.nan))
    cases: list[tuple[Any, str]] = [
        (None, "must be "),
        (episodes[np.arange(0)], "must hold at least one, got none"),
        (foreign, "must hold tokens of the policy, whose vocabulary is 16, got token 1"),
        (unpaid, "must have finite rewards, got nan"),
    ]
    if kind in NEEDS_LOG_RATIO:
        cut = make_env(top_k=3).rollout(agent.policy, 4, samples_per_prompt=2)
        cases += [
            (without_reference(episodes), "no reference"),
            (replace(episodes, kl_coef=0 * episodes.kl_coef), "got kl_coef = 0 "),
            (cut, "and truncated sampling; set kl_coef"),
        ]
    if kind is AStarPO:
        cases.append((episodes, "must have baselines, and have none"))
    weights, state = [one.clone() for one in agent.policy.weights()], deepcopy(agent.state_dict())
    for batch, words in cases:
        with pytest.raises(ConfigError, match=rf"{kind.__name__}\.update: episodes.*{words}"):
            agent.update(batch)
    assert str(agent.state_dict()) == str(state)
    assert all(torch.equal(a, b) for a, b in zip(weights, agent.policy.weights(), strict=True))


def test_a_progress_that_is_none_is_refused(make_env: Make, make_policy: Make) -> None:
    env = make_env()
    agent = PPO(make_policy(env))
    with pytest.raises(ConfigError, match=r"PPO\.update: progress"):
        agent.update(env.rollout(agent.policy, 4), progress=2.0)


def test_given_pairs_come_by_twos(make_env: Make, make_policy: Make) -> None:
    env = make_env()
    agent = DPO(make_policy(env), pairs=[{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(ConfigError, match=r"DPO\.update: episodes must be pairs, .* got 3"):
        agent.update(env.rollout(agent.policy, 3))


def bfloat16_policy() -> LanguageModelPolicy:
    short = own_copy(tiny_language_model())
    short.model.to(torch.bfloat16)
    return LanguageModelPolicy(short)


def test_a_refused_state_is_not_half_taken(make_env: Make, make_policy: Make) -> None:
    """Adam's state of a bfloat16 agent has the shapes of a float32 agent's, and came in before the copies were seen."""
    env = make_env()
    short, wide = PPO(bfloat16_policy(), SMALL), PPO(make_policy(env), SMALL)
    short.learn(env)
    with pytest.raises(ConfigError, match=r"must be that of as many bfloat16 weights"):
        wide.load_state_dict(short.state_dict())
    assert wide.state_dict()["optimizer"]["state"] == {}
    state = short.state_dict()
    for masters in (None, dict.fromkeys(state["optimizer"]["masters"], 3)):
        with pytest.raises(ConfigError, match=r"PPO state: must be that of as many bfloat16 weights"):
            short.load_state_dict(state | {"optimizer": state["optimizer"] | {"masters": masters}})
    with pytest.raises(ConfigError, match=r"PPO state: optimizer must be that of an agent .* got None"):
        short.load_state_dict(state | {"optimizer": None})


def test_a_state_with_the_slow_copy_of_another_model_is_not_half_taken(make_env: Make, make_policy: Make) -> None:
    env = make_env()
    first, second = (SoftQ(make_policy(env)) for _ in range(2))
    first.learn(env)
    state = first.state_dict()
    head = {name: torch.zeros(3) for name in state["slow"]["critic"]}
    with pytest.raises(ConfigError, match=r"its part 'critic' holds value_head.* of shape \(3,\)"):
        second.load_state_dict(state | {"slow": state["slow"] | {"critic": head}})
    assert second.state_dict()["optimizer"]["state"] == {}


def test_moments_of_other_shapes_are_refused(make_env: Make, make_policy: Make) -> None:
    env = make_env()
    agent = PPO(make_policy(env), SMALL)
    agent.learn(env)
    state = deepcopy(agent.state_dict())
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ConfigError, match=r"PPO state: optimizer must be that of an agent with the same weights"):
        PPO(make_policy(env), SMALL).load_state_dict(state)


def test_an_agent_keeps_no_tensor_of_the_state_it_took(make_env: Make, make_policy: Make) -> None:
    """Torch's optimiser steps on the very tensors that it is given, those of the agent whose state they were."""
    env = make_env()
    first, second = (PPO(make_policy(env), SMALL) for _ in range(2))
    first.learn(env)
    second.load_state_dict(first.state_dict())
    kept = deepcopy(first.state_dict())
    second.learn(env)
    moments = first.state_dict()["optimizer"]["state"]
    assert all(torch.equal(moments[n]["exp_avg"], kept["optimizer"]["state"][n]["exp_avg"]) for n in moments)
