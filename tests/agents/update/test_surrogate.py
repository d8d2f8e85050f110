"""The learner's joints: another estimator, groups, several processes, and a run that diverges."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import Episodes, TextGenerationVectorEnv
from lm_gym.agents import (
    PPO,
    LanguageModelPolicy,
    PPOConfig,
    RewardToGo,
    SurrogateAgent,
    SurrogateConfig,
    Targets,
    train,
)
from lm_gym.errors import ConfigError, DivergedError
from lm_gym.processes import ONE_PROCESS
from lm_gym.testing import tiny_language_model

from ...helpers.two_processes import printed_by_two

MakeEnv = Callable[..., TextGenerationVectorEnv]
MakePolicy = Callable[..., LanguageModelPolicy]


class GroupMean:
    """An estimator as a user writes one: the return less the mean return of the responses to the same prompt."""

    needs_values = False
    needs_groups = True

    def __call__(self, episodes: Episodes, evaluation: Any) -> Targets:
        returns = torch.from_numpy(episodes.rewards.sum(axis=1)).float()
        group = torch.from_numpy(episodes.group)
        sums = torch.zeros(int(group.max()) + 1).index_add(0, group, returns)
        means = (sums / group.bincount())[group]
        grid = (returns - means)[:, None] * torch.from_numpy(episodes.response_mask)
        return Targets(advantages=grid, returns=grid)


def test_another_estimator_is_all_that_another_algorithm_needs(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(kl_coef=0.0, max_new_tokens=3)
    config = SurrogateConfig(episodes_per_iteration=64, samples_per_prompt=8, learning_rate=3e-3, epochs=1)
    agent = SurrogateAgent(make_policy(env), config, estimator=GroupMean())
    history = [agent.learn(env, progress=done / 8) for done in range(8)]
    assert history[-1]["score"] > history[0]["score"] + 0.2
    assert math.isnan(history[0]["explained_variance"])
    assert history[0]["value_loss"] == 0.0
    episodes = agent.last_episodes
    assert episodes is not None
    assert episodes.group.tolist() == np.repeat(np.arange(8), 8).tolist()
    assert all(len({episodes.prompts[row] for row in np.flatnonzero(episodes.group == g)}) == 1 for g in range(8))


def test_estimators_of_one_name_are_two_estimators(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """A run must not be taken up with another class that happens to be called the same."""
    policy, config = make_policy(make_env()), SurrogateConfig(samples_per_prompt=2)
    other = type("GroupMean", (GroupMean,), {"__module__": "elsewhere"})
    names = [
        SurrogateAgent(policy, config, estimator=kind()).settings()["estimator"]["name"] for kind in (GroupMean, other)
    ]
    assert names[0] != names[1]


def test_groups_stay_whole_when_a_member_abstains(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    seen: list[Episodes] = []

    class Watching(GroupMean):
        def __call__(self, episodes: Episodes, evaluation: Any) -> Targets:
            seen.append(episodes)
            return super().__call__(episodes, evaluation)

    env = make_env(reward_model=lambda prompts, completions: [None, 1.0] * (len(prompts) // 2))
    agent = SurrogateAgent(
        make_policy(env), SurrogateConfig(episodes_per_iteration=8, samples_per_prompt=2), estimator=Watching()
    )
    metrics = agent.learn(env)
    assert metrics["invalid_episodes"] == 4.0
    assert np.bincount(seen[0].group).tolist() == [2, 2, 2, 2]
    assert np.bincount(seen[0].group[~seen[0].abstained]).tolist() == [1, 1, 1, 1]


def test_an_estimator_of_groups_refuses_groups_of_one(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    with pytest.raises(ConfigError, match=r"samples_per_prompt: must be >= 2 for GroupMean.*got 1"):
        SurrogateAgent(make_policy(make_env()), estimator=GroupMean())


@pytest.mark.parametrize("given", [GroupMean, lambda episodes, evaluation: None])
def test_what_is_no_estimator_is_named(given: Any, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    with pytest.raises(ConfigError, match=r"PPO.estimator: must be an object with needs_values, needs_groups .*got"):
        PPO(make_policy(make_env()), PPOConfig(samples_per_prompt=2), estimator=given)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (lambda shape: Targets(torch.zeros(shape[0]), torch.zeros(shape)), r"advantages .* got shape \(8,\)"),
        (lambda shape: Targets(torch.zeros(shape), torch.zeros(shape[0], 1)), r"returns .* got shape \(8, 1\)"),
        (lambda shape: Targets(np.zeros(shape), torch.zeros(shape)), "advantages .* got ndarray"),  # type: ignore[arg-type]
        (lambda shape: (torch.zeros(shape), torch.zeros(shape)), "Targets, got tuple"),
    ],
)
def test_targets_that_do_not_fit_the_batch_are_named(
    targets: Any, words: str, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    class Mistaken(RewardToGo):
        def __call__(self, episodes: Episodes, evaluation: Any) -> Any:
            return targets(episodes.response_mask.shape)

    env = make_env()
    agent = PPO(make_policy(env), PPOConfig(episodes_per_iteration=8, whiten_advantages=False), estimator=Mistaken())
    with pytest.raises(ConfigError, match=f"estimator Mistaken: must return .*{words}"):
        agent.learn(env)


@pytest.mark.parametrize("count", [0, 3])
def test_a_rollout_of_broken_groups_is_refused(count: int, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    with pytest.raises(ConfigError, match=rf"rollout: .*got {count}\b"):
        env.rollout(make_policy(env), count, samples_per_prompt=2)


def test_an_estimator_without_values_does_not_train_the_value_head(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    policy = make_policy(env, separate_critic=True)
    critic = policy.critic
    assert critic is not None
    before = [weight.clone() for weight in (*policy.value_head.parameters(), *critic.trunk.parameters())]
    PPO(policy, PPOConfig(episodes_per_iteration=8, learning_rate=1e-2), estimator=RewardToGo()).learn(env)
    after = (*policy.value_head.parameters(), *critic.trunk.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("fault", ["score", "weight"])
def test_a_diverged_update_stops_before_the_step(fault: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(reward_model=lambda prompts, completions: [1e30 if fault == "score" else 1.0] * len(prompts))
    policy = make_policy(env)
    agent = PPO(policy, PPOConfig(episodes_per_iteration=8, learning_rate=1e-2))
    episodes = env.rollout(policy, 8)
    if fault == "weight":
        with torch.no_grad():
            policy.value_head.bias.fill_(math.nan)
    before = [weight.clone() for weight in policy.parameters()]
    with pytest.raises(DivergedError, match=r"PPO: loss and gradient must be finite, got .* lower learning_rate"):
        agent.update(episodes)
    for weight, old in zip(policy.parameters(), before, strict=True):
        torch.testing.assert_close(weight, old, rtol=0, atol=0, equal_nan=True)
    assert all(weight.grad is None for weight in policy.parameters())


PROGRAM = """
from dataclasses import replace
import numpy as np
import torch
from lm_gym import Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import (
    PPO, LanguageModelPolicy, PPOConfig, RejectionSampling, RejectionSamplingConfig, SoftQ, SoftQConfig
)
from lm_gym.agents.policy import own_copy
from lm_gym.processes import ONE_PROCESS, launched_processes
from lm_gym.testing import tiny_language_model

processes = launched_processes()
reference = Reference(tiny_language_model("gpt2"))
score = lambda prompts, completions: [None if len(text) > 9 else len(text) / 5 for text in completions]
task = TextTask.of(reference, ["a b c", "d", "e f"], action_mode="token_and_log_prob", max_new_tokens=6, top_k=9)
env = TextGenerationVectorEnv(task, score, num_envs=2)
env.reset(seed=0)
config = PPOConfig(
    episodes_per_iteration=12, epochs=1, minibatches=1, learning_rate=1e-30, max_grad_norm=None, max_batch_tokens=40
)


def updated(kind, config, rows, processes):
    policy = LanguageModelPolicy(own_copy(reference.language_model))
    with torch.no_grad():
        policy.value_head.weight.fill_(0.1)
    batch = replace(episodes, keep_sets=None) if kind is SoftQ else episodes  # which refuses truncated sampling
    metrics = kind(policy, config, processes=processes).update(batch[rows])
    return metrics, [torch.zeros_like(one) if one.grad is None else one.grad for one in policy.parameters()]


episodes = env.rollout(LanguageModelPolicy(own_copy(reference.language_model)), 12)
assert episodes.abstained.any()
rejection = RejectionSamplingConfig(
    episodes_per_iteration=12, samples_per_prompt=1, threshold=0.7, learning_rate=1e-30, max_grad_norm=None
)
q = dict(episodes_per_iteration=12, updates=1, learning_rate=1e-30, max_grad_norm=None, max_batch_tokens=40)
abstained, scored = np.flatnonzero(episodes.abstained), np.flatnonzero(~episodes.abstained)
for kind, settings, one, other in (
    (PPO, config, np.arange(5), np.arange(5, 12)),
    (RejectionSampling, rejection, np.arange(5), np.arange(5, 12)),
    (SoftQ, SoftQConfig(**q), np.arange(5), np.arange(5, 12)),
    (SoftQ, SoftQConfig(**q, backup_steps=None), abstained, scored),  # a process that keeps nothing
):
    alone, expected = updated(kind, settings, np.arange(12), ONE_PROCESS)
    shared, found = updated(kind, settings, one if processes.is_main else other, processes)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for name, value in alone.items():
        np.testing.assert_allclose(shared[name], value, rtol=1e-4, atol=1e-5, err_msg=f"{kind} {name}")
print("equal")
"""


def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    """Uneven shares of one batch, abstentions in it: gradients and every metric are those of the whole; of soft Q from
    all that both keep, a process that keeps nothing among them."""
    assert printed_by_two(PROGRAM, tmp_path) == ["equal", "equal"]


def test_an_agent_under_a_launcher_is_told_of_the_other_processes(
    make_env: MakeEnv, make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(make_env())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"^PPO: processes: must be given where a launcher started several"):
        PPO(policy, PPOConfig())
    assert PPO(policy, PPOConfig(), processes=ONE_PROCESS).processes is ONE_PROCESS


class Foreign:
    """A policy of some other library."""


def test_what_is_no_policy_is_named() -> None:
    words = "must be a LanguageModelPolicy, .* got Foreign; make one by LanguageModelPolicy.from_pretrained"
    with pytest.raises(ConfigError, match=rf"PPO\.policy: {words}"):
        PPO(Foreign(), PPOConfig())  # type: ignore[arg-type]
    model = tiny_language_model("gpt2").model
    with pytest.raises(ConfigError, match=r"must be given a LanguageModel, got GPT2LMHeadModel; wrap a model"):
        LanguageModelPolicy(model)  # type: ignore[arg-type]


def test_an_estimator_that_holds_a_tensor_is_named_where_a_run_has_to_be_told_apart(
    tmp_path: Path, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    class Baseline(RewardToGo):
        def __init__(self, baseline: Any) -> None:
            super().__init__()
            self.baseline = baseline

    env = make_env()
    config = PPOConfig(episodes_per_iteration=8)
    agent = PPO(make_policy(env), config, estimator=Baseline(torch.zeros(2)))
    words = r"settings\.estimator\.baseline is a value of type torch\.Tensor; .*x\.tolist\(\)"
    with pytest.raises(ConfigError, match=words):
        train(agent, env, iterations=1, run_dir=tmp_path / "run", tensorboard=False)
    agent.estimator = Baseline([0.0, 0.0])
    train(agent, env, iterations=1, run_dir=tmp_path / "run", tensorboard=False)
