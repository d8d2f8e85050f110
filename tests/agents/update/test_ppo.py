"""The learner: its first pass, its invariances, its bookkeeping, and a pinned run."""

import copy
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import Episodes, TextGenerationVectorEnv
from lm_gym.agents import METRICS, PPO, LanguageModelPolicy, PPOConfig, RewardToGo
from lm_gym.errors import ConfigError
from lm_gym.models.decoding import shared_prompts
from lm_gym.models.teacher_forcing import episode_batches

MakeEnv = Callable[..., TextGenerationVectorEnv]
MakePolicy = Callable[..., LanguageModelPolicy]
SAMPLINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.1},
    "min_new_tokens": {"min_new_tokens": 3},
    "stop_strings": {"stop_strings": ("c",)},
    "all": {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_new_tokens": 3, "stop_strings": ("c",)},
}


def agent_of(policy: LanguageModelPolicy, estimator: Any = None, **changes: Any) -> PPO:
    settings = {"episodes_per_iteration": 24, "learning_rate": 1e-3} | changes
    return PPO(policy, PPOConfig(**settings), estimator=estimator)


def gradients(policy: LanguageModelPolicy) -> list[torch.Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in policy.parameters()]


def gradient_of(make_policy: MakePolicy, env: Any, episodes: Episodes, **changes: Any) -> tuple[Any, Any]:
    """Metrics and gradient of one pass of one minibatch, the weights left where they are."""
    policy = make_policy(env, separate_critic=changes.pop("separate_critic", False))
    one_step = {"epochs": 1, "minibatches": 1, "max_grad_norm": None, "learning_rate": 1e-30}
    metrics = agent_of(policy, **(one_step | changes)).update(episodes)
    return metrics, gradients(policy)


def assert_same_update(first: Any, second: Any) -> None:
    (metrics, grads), (other_metrics, other_grads) = first, second
    for name in ("policy_loss", "value_loss", "entropy", "explained_variance", "approx_kl", "ratio_max", "ratio_mean"):
        assert metrics[name] == pytest.approx(other_metrics[name], abs=1e-5), name
    for grad, other in zip(grads, other_grads, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-4, atol=1e-6)


def padded(episodes: Episodes, prompt_columns: int, columns: int, junk: int = 9) -> Episodes:
    """The same episodes with extra columns, which hold anything."""
    changes: dict[str, Any] = {}
    for field in fields(Episodes):
        value = getattr(episodes, field.name)
        if isinstance(value, np.ndarray) and value.ndim == 2:
            extra = prompt_columns if field.name.startswith("prompt_") else columns
            fill = 0 if field.name.endswith("mask") else junk
            changes[field.name] = np.pad(value, ((0, 0), (0, extra)), constant_values=fill)
    if episodes.keep_sets is not None:
        changes["keep_sets"] = episodes.keep_sets.trimmed(episodes.response_mask.shape[1] + columns)
    return replace(episodes, **changes)


FIRST_PASSES = [(name, each) for name in ("gpt2", "llama", "qwen2", "bloom") for each in SAMPLINGS]
FIRST_PASSES += [(name, each) for name in ("t5", "bart") for each in ("plain", "all")]


@pytest.mark.parametrize(("architecture", "sampling"), FIRST_PASSES)
def test_first_pass_has_ratio_1(architecture: str, sampling: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(architecture, **SAMPLINGS[sampling])
    agent = agent_of(make_policy(env), epochs=1, minibatches=1)
    agent.learn(env)  # away from the reference first
    metrics = agent.learn(env)
    assert metrics["first_pass_ratio_error"] <= 1e-5
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-8)  # float32: 6e-9 in T5
    assert metrics["clip_fraction"] == metrics["value_clip_fraction"] == 0.0
    assert metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["log_prob_drift"] < 1e-3
    assert metrics["kl"] != 0.0


@pytest.mark.parametrize("sampling", [SAMPLINGS["plain"], SAMPLINGS["all"]], ids=["plain", "all"])
@pytest.mark.parametrize("separate_critic", [False, True])
def test_padding_and_batching_change_nothing(
    separate_critic: bool, sampling: dict[str, Any], make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    """Extra columns, another order of rows, one row a forward pass, four at once: one loss and one gradient."""
    env = make_env(**sampling)
    episodes = env.rollout(make_policy(env), 12)
    assert len(set(episodes.response_lengths)) > 1
    assert len(set(episodes.prompt_lengths)) > 1

    def update(batch: Episodes, **changes: Any) -> Any:
        return gradient_of(make_policy, env, batch, separate_critic=separate_critic, **changes)

    whole = update(episodes)
    assert any(grad.abs().max() > 1e-3 for grad in whole[1])
    assert_same_update(update(padded(episodes, 5, 4)), whole)
    assert_same_update(update(episodes[np.arange(12)[::-1]]), whole)
    assert_same_update(update(episodes, max_batch_tokens=1), whole)
    assert_same_update(update(episodes, max_batch_tokens=40), whole)
    joined = Episodes.concatenate([episodes[:5], episodes[5:]])
    assert_same_update(update(joined), whole)


@pytest.mark.parametrize("separate_critic", [False, True])
def test_running_the_prompt_of_a_group_once_changes_nothing(
    separate_critic: bool, make_env: MakeEnv, make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make_env(prompts=("a b c d e f g h i", "d e f g"), **SAMPLINGS["all"])
    episodes = env.rollout(make_policy(env), 12, samples_per_prompt=6)
    found, sizes = [], []
    for least in (1, 1 << 40):
        monkeypatch.setattr(shared_prompts, "SECOND_PASS_ON_CPU", least)
        sizes.append([len(rows) for rows in episode_batches(episodes, 40, torch.device("cpu"))])
        found.append(gradient_of(make_policy, env, episodes, separate_critic=separate_critic, max_batch_tokens=40))
    assert len(sizes[0]) < len(sizes[1])
    assert_same_update(*found)


def test_padding_does_not_hide_the_largest_ratio(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """All ratios below 1: a pad, whose ratio is 1, must not be the maximum."""
    env = make_env()
    agent = agent_of(make_policy(env), epochs=1, minibatches=1)
    episodes = env.rollout(agent.policy, 6)
    old = agent.policy.log_probs_and_values_in_batches(episodes, 10_000)
    mask = torch.from_numpy(episodes.response_mask)
    raised = old._replace(log_probs=torch.where(mask, old.log_probs + 0.5, 0.0))
    agent.policy.log_probs_and_values_in_batches = lambda *args, **kwargs: raised  # type: ignore[method-assign]
    assert not mask.all()
    assert agent.update(episodes)["ratio_max"] == pytest.approx(np.exp(-0.5), rel=1e-4)


@pytest.mark.parametrize("max_batch_tokens", [1, 30, 16_384])
def test_loss_is_the_mean_over_all_tokens(max_batch_tokens: int, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """Not the mean of the means of micro-batches: worked out here from the episodes alone."""
    env = make_env()
    policy = make_policy(env)
    episodes = env.rollout(policy, 10)
    metrics, grads = gradient_of(
        make_policy, env, episodes, max_batch_tokens=max_batch_tokens, whiten_advantages=False, gae_lambda=1.0
    )
    with torch.no_grad():
        values = policy.log_probs_and_values(episodes).values
    mask = torch.from_numpy(episodes.response_mask)
    rewards = torch.from_numpy(episodes.rewards).float()
    to_go = rewards.flip(1).cumsum(1).flip(1)
    tokens = int(mask.sum())
    assert metrics["policy_loss"] == pytest.approx(-((to_go - values)[mask].sum() / tokens).item(), abs=1e-5)
    assert metrics["value_loss"] == pytest.approx((0.5 * (to_go - values)[mask] ** 2).sum().item() / tokens, rel=1e-4)
    loss = -(policy.log_probs_and_values(episodes).log_probs * (to_go - values))[mask].sum() / tokens
    loss = loss + 0.5 * (0.5 * (policy.log_probs_and_values(episodes).values - to_go) ** 2)[mask].sum() / tokens
    loss.backward()
    for grad, expected in zip(grads, gradients(policy), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-5)


def test_abstained_episodes_do_not_influence_the_update(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    def abstains_on_long(prompts: list[str], completions: list[str]) -> list[float | None]:
        return [None if len(text.split()) > 4 else 1.0 for text in completions]

    env = make_env(reward_model=abstains_on_long)
    episodes = env.rollout(make_policy(env), 24)
    valid = np.flatnonzero(episodes.score_valid)
    assert 0 < len(valid) < 24
    results = [gradient_of(make_policy, env, batch) for batch in (episodes, episodes[valid])]
    assert_same_update(*results)
    assert results[0][0]["invalid_episodes"] == 24 - len(valid)
    assert results[0][0]["score"] == 1.0
    nonsense = episodes.rewards + 100.0 * ~episodes.score_valid[:, None]
    assert_same_update(gradient_of(make_policy, env, replace(episodes, rewards=nonsense)), results[1])


def test_a_batch_of_abstentions_leaves_the_weights(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(reward_model=lambda prompts, completions: [None] * len(prompts))
    policy = make_policy(env)
    before = [parameter.clone() for parameter in policy.parameters()]
    metrics = agent_of(policy).learn(env)
    assert metrics["invalid_episodes"] == 24.0
    assert math.isnan(metrics["score"])  # not 0, which would be a score
    assert set(metrics) == set(METRICS)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_truncated_episodes_bootstrap(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """The value after the last token is what a capped episode is paid in the place of a score."""
    env = make_env(on_length_limit="truncate", max_new_tokens=3)
    policy = make_policy(env)
    agent = agent_of(policy, whiten_advantages=False, gae_lambda=1.0)
    episodes = env.rollout(policy, 24)
    assert episodes.truncated.any()
    assert episodes.terminated.any()
    old = policy.log_probs_and_values_in_batches(episodes, 10_000)
    targets = agent.estimator(episodes, old)
    rewards = torch.from_numpy(episodes.rewards).float().sum(1)
    bootstrap = torch.where(torch.from_numpy(episodes.truncated), old.final_values, 0.0)
    torch.testing.assert_close(targets.returns[:, 0], rewards + bootstrap, rtol=1e-4, atol=1e-5)
    assert old.final_values[torch.from_numpy(episodes.truncated)].abs().min() > 0
    assert agent.update(episodes)["invalid_episodes"] == 0.0  # a truncated episode is not an abstention


def test_separate_critic_keeps_the_gradients_apart(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    policy = make_policy(env, separate_critic=True)
    agent_of(policy, learning_rate=1e-2).learn(env)
    assert policy.critic is not None
    episodes = env.rollout(policy, 8)
    trunk = dict(policy.language_model.trunk.named_parameters())
    critic = dict(policy.critic.trunk.named_parameters())
    assert any(not torch.equal(trunk[name], critic[name]) for name in trunk)
    policy_loss = policy.log_probs_and_values(episodes).log_probs.sum()
    value_loss = policy.log_probs_and_values(episodes).values.sum()
    for loss, reached, untouched in ((policy_loss, trunk, critic), (value_loss, critic, trunk)):
        found = torch.autograd.grad(loss, list(reached.values()), retain_graph=True)
        assert all(grad.abs().max() > 0 for grad in found)
        none = torch.autograd.grad(loss, list(untouched.values()), allow_unused=True)
        assert all(grad is None for grad in none)


def test_separate_critic_learns(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(max_new_tokens=3)
    policy = make_policy(env, separate_critic=True)
    agent = agent_of(policy, episodes_per_iteration=128, learning_rate=3e-3)
    history = [agent.learn(env, progress=done / 10) for done in range(10)]
    assert history[-1]["explained_variance"] > 0.3 > history[0]["explained_variance"]
    assert history[-1]["episode_return"] > history[0]["episode_return"] + 0.1


def test_shared_trunk_gets_both_gradients(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    policy = make_policy(env)
    episodes = env.rollout(policy, 8)
    evaluation = policy.log_probs_and_values(episodes)
    for loss in (evaluation.log_probs.sum(), evaluation.values.sum()):
        found = torch.autograd.grad(loss, list(policy.language_model.trunk.parameters()), retain_graph=True)
        assert all(grad.abs().max() > 0 for grad in found)


def test_reward_to_go_is_the_published_form(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """``-ratio * R`` on the first pass, nothing else: the value head is not touched."""
    env = make_env()
    policy = make_policy(env)
    episodes = env.rollout(policy, 10)
    metrics, grads = gradient_of(make_policy, env, episodes, estimator=RewardToGo(), whiten_advantages=False)
    mask = torch.from_numpy(episodes.response_mask)
    to_go = torch.from_numpy(episodes.rewards).float().flip(1).cumsum(1).flip(1)
    assert metrics["policy_loss"] == pytest.approx(-to_go[mask].mean().item(), abs=1e-5)
    (-(policy.log_probs_and_values(episodes).log_probs * to_go)[mask].sum() / mask.sum()).backward()
    for grad, expected in zip(grads, gradients(policy), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-5)


def test_learn_returns_every_metric_of_the_table(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    agent = agent_of(make_policy(env))
    metrics = agent.learn(env)
    assert set(metrics) == set(METRICS)
    assert all(type(value) is float for value in metrics.values())
    undefined = {name for name, value in metrics.items() if not np.isfinite(value)}
    others = {"soft_bellman_error", "regression_error", "preference_margin", "preference_accuracy", "kept_share"}
    assert undefined == {"uniform_groups", *others}  # no groups, and other agents' own
    assert metrics["optimizer_steps"] == 16.0
    assert metrics["kl_coef"] == env.kl_coef


def test_learning_rate_decays_to_0(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    agent = agent_of(make_policy(env), learning_rate=1e-3, epochs=1)
    rates = [agent.learn(env, progress=done / 4)["learning_rate"] for done in range(4)]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    constant = agent_of(make_policy(env), learning_rate_decay="none", epochs=1)
    assert [constant.learn(env)["learning_rate"] for _ in range(2)] == [1e-3, 1e-3]


def test_target_kl_stops_the_passes(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    metrics = agent_of(make_policy(env), learning_rate=0.1, target_kl=1e-3).learn(env)
    assert metrics["optimizer_steps"] == 4.0


def test_entropy_bonus_raises_entropy(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(reward_model=None, kl_coef=0.0)
    found = {}
    for coef in (0.0, 1.0):
        agent = agent_of(make_policy(env), entropy_coef=coef, value_coef=0.0)
        found[coef] = [agent.learn(env, progress=done / 8)["entropy"] for done in range(8)][-1]
    assert found[1.0] > found[0.0] + 0.05


def test_state_dict_makes_the_next_iteration_identical(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    agent = agent_of(make_policy(env))
    agent.learn(env)
    twin = agent_of(make_policy(env))
    twin.policy.load_state_dict(copy.deepcopy(agent.policy.state_dict()))
    twin.load_state_dict(copy.deepcopy(agent.state_dict()))
    episodes = env.rollout(agent.policy, 24)
    assert agent.update(episodes) == twin.update(episodes)
    for ours, theirs in zip(agent.policy.parameters(), twin.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs: must be a whole number >= 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate: must be a finite number > 0"),
        ({"gae_lambda": 1.5}, r"gae_lambda: must be a finite number in \[0, 1\], got 1.5"),
        ({"minibatches": 65}, "minibatches: must be at most episodes_per_iteration = 64, got 65"),
        ({"learning_rate_decay": "fast"}, 'learning_rate_decay: must be "linear" or "none", got \'fast\''),
        ({"max_grad_norm": -1.0}, "max_grad_norm: must be None or a finite number > 0, got -1.0"),
        ({"learning_rate": math.nan}, "learning_rate: must be a finite number > 0"),
        ({"samples_per_prompt": 5}, "samples_per_prompt: must divide episodes_per_iteration = 64, got 5"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PPOConfig(**settings)


def test_a_policy_must_not_be_the_reference_itself(make_env: MakeEnv) -> None:
    env = make_env()
    agent = agent_of(LanguageModelPolicy(env.reference.language_model))  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="must not share weights"):
        agent.learn(env)
