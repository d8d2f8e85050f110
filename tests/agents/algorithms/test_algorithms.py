"""What every algorithm promises, and what tells each from its neighbours."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import Episodes, TextGenerationVectorEnv
from lm_gym.agents import A2C, DAPO, PPO, A2CConfig, LanguageModelPolicy, PPOConfig, ReMax, SurrogateAgent, train
from lm_gym.agents.algorithms.dapo import overlong_penalty
from lm_gym.agents.algorithms.names import ALGORITHMS
from lm_gym.agents.metrics import METRICS
from lm_gym.errors import ArtifactError, ConfigError

MakeEnv = Callable[..., TextGenerationVectorEnv]
MakePolicy = Callable[..., LanguageModelPolicy]
EVERY = pytest.mark.parametrize("name", list(ALGORITHMS))
POLICY_GRADIENT = pytest.mark.parametrize(
    "name", [name for name, kind in ALGORITHMS.items() if issubclass(kind, SurrogateAgent)]
)


def made(name: str, policy: LanguageModelPolicy, **settings: Any) -> Any:
    """An algorithm on eight episodes, in two groups where it has groups."""
    kind = ALGORITHMS[name]
    grouped = {field.name: field.default for field in fields(kind.config_type)}.get("samples_per_prompt", 1) > 1
    groups = {"samples_per_prompt": 4} if grouped else {}
    return kind(policy, kind.config_type(**{"episodes_per_iteration": 8, "learning_rate": 1e-3} | groups | settings))


@POLICY_GRADIENT
def test_it_learns_and_reports_the_one_table(name: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env()
    policy = make_policy(env)
    before = [weight.clone() for weight in policy.model.parameters()]
    agent = made(name, policy)
    metrics = agent.learn(env)
    assert set(metrics) == set(METRICS)
    assert math.isfinite(metrics["policy_loss"])
    assert metrics["first_pass_ratio_error"] < 1e-5
    assert agent.last_episodes is not None
    assert len(agent.last_episodes) == 8
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    assert math.isnan(metrics["uniform_groups"]) != agent.estimator.needs_groups


@EVERY
@pytest.mark.parametrize("score", [None, 0.5])
def test_a_batch_that_tells_nothing_is_no_harm(
    score: float | None, name: str, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    """The reward model abstains on every response, or pays them alike: every number is defined or told as undefined."""
    env = make_env(reward_model=lambda prompts, completions: [score] * len(completions))
    agent = made(name, make_policy(env))
    metrics = agent.learn(env)
    assert set(metrics) == set(METRICS)
    assert metrics["invalid_episodes"] == (8.0 if score is None else 0.0)
    assert all(torch.isfinite(weight).all() for weight in agent.policy.weights())
    assert not any(math.isinf(value) for value in metrics.values())
    assert math.isnan(metrics["uniform_groups"]) or metrics["uniform_groups"] == 1.0


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo", "cispo"])
def test_groups_that_are_paid_alike_have_no_advantage(name: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(reward_model=lambda prompts, completions: [0.5] * len(completions), kl_coef=0.0)
    metrics = made(name, make_policy(env)).learn(env)
    assert metrics["policy_loss"] == metrics["grad_norm"] == 0.0


@pytest.mark.parametrize("name", ["ppo", "grpo", "soft-q"])
def test_the_action_mode_changes_nothing(name: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """The mode is a matter of ``step``: an agent's rollouts know its log-probabilities, and are paid the exact KL."""
    weights = []
    for mode in ("token", "token_and_log_prob"):
        env = make_env(action_mode=mode)
        agent = made(name, make_policy(env))
        assert agent.learn(env)["kl_coef"] > 0
        weights.append(list(agent.policy.weights()))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@EVERY
def test_the_state_and_the_folder_of_another_agent_are_refused(
    name: str, tmp_path: Path, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    env = make_env()
    with pytest.raises(ConfigError, match=r"state: must be what state_dict\(\) of such an object gave"):
        made(name, make_policy(env)).load_state_dict({"nonsense": 1})
    other = made("ppo" if name != "ppo" else "a2c", make_policy(env))
    other.save(tmp_path / "agent")
    with pytest.raises(ArtifactError, match=r"must be a folder that \w+\.save wrote, got one of"):
        ALGORITHMS[name].load(tmp_path / "agent", device="cpu")


@EVERY
def test_a_saved_agent_goes_on_as_if_it_had_not_been_away(
    name: str, tmp_path: Path, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    env = make_env()
    agent = made(name, make_policy(env))
    agent.learn(env)
    agent.save(tmp_path / "agent")
    state = env.state_dict()
    agent.learn(env, progress=0.5)
    env.load_state_dict(state)
    again = ALGORITHMS[name].load(tmp_path / "agent", device="cpu")
    assert again.settings() == agent.settings()
    again.learn(env, progress=0.5)
    for ours, theirs in zip(agent.policy.weights(), again.policy.weights(), strict=True):
        assert torch.equal(ours, theirs)


@EVERY
def test_a_run_that_stopped_is_taken_up_to_the_bit(
    name: str, tmp_path: Path, make_env: MakeEnv, make_policy: MakePolicy
) -> None:
    class Stop:
        def on_start(self, run: Any) -> None: ...
        def on_iteration(self, run: Any) -> None:
            run.stop("enough")

        def on_end(self, run: Any) -> None: ...

    def run(folder: str, *callbacks: Any, resume: bool = False) -> LanguageModelPolicy:
        env = make_env()
        agent = made(name, make_policy(env))
        train(agent, env, iterations=2, run_dir=tmp_path / folder, callbacks=callbacks, resume=resume, progress=False)
        return agent.policy

    whole = run("whole")
    run("parts", Stop())
    resumed = run("parts", resume=True)
    for ours, theirs in zip(whole.weights(), resumed.weights(), strict=True):
        assert torch.equal(ours, theirs)


def test_a2c_is_ppo_with_one_step_per_batch(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """Huang et al. 2022: at ratio 1 the clipped surrogate has the gradient of the plain one."""
    env = make_env()
    episodes = env.rollout(make_policy(env), 8)
    shared: dict[str, Any] = {"episodes_per_iteration": 8, "minibatches": 1, "learning_rate": 1e-2, "gae_lambda": 0.9}
    agents = (
        A2C(make_policy(env), A2CConfig(**shared)),
        PPO(make_policy(env), PPOConfig(epochs=1, value_clip=None, whiten_advantages=False, **shared)),
    )
    for agent in agents:
        agent.update(episodes)
    for ours, theirs in zip(agents[0].policy.weights(), agents[1].policy.weights(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_the_kl_in_the_loss_is_taken_out_of_the_rewards(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """The estimator sees the bare scores, and the term of the loss is what is left of the KL."""
    seen: list[Episodes] = []
    env = make_env(kl_coef=0.5)
    agent = made("grpo", make_policy(env), minibatches=1)
    kind = type(agent.estimator)
    watch = lambda self, episodes, evaluation: (seen.append(episodes), kind.__call__(self, episodes, evaluation))[1]  # noqa: E731
    agent._update.estimator = type("Watch", (kind,), {"__call__": watch})()
    with torch.no_grad():
        agent.policy.model.lm_head.weight.mul_(1.5)  # away from the reference
    metrics = agent.learn(env)
    episodes = agent.last_episodes
    assert episodes is not None
    assert episodes.kl is not None
    assert not np.allclose(episodes.kl, 0)
    np.testing.assert_allclose(seen[0].rewards.sum(axis=1), episodes.scores, atol=1e-6)
    k3 = np.expm1(-episodes.kl) + episodes.kl
    assert metrics["kl_loss"] == pytest.approx(float(k3[episodes.response_mask].mean()), rel=1e-3)
    assert math.isnan(metrics["explained_variance"])


def test_the_kl_in_the_loss_draws_the_policy_to_the_reference(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """Where every response is paid alike, the KL alone moves the weights; without it nothing does."""
    env = make_env(kl_coef=0.5, reward_model=lambda prompts, completions: [1.0] * len(completions))

    def learned(place: str) -> tuple[float, float]:
        agent = made("grpo", make_policy(env), kl_place=place, episodes_per_iteration=64)
        with torch.no_grad():
            agent.policy.model.lm_head.weight.mul_(1.5)
        history = [agent.learn(env)["kl"] for _ in range(12)]
        return sum(history[:2]) / 2, sum(history[-4:]) / 4

    first, last = learned("loss")
    assert last < 0.5 * first
    first, last = learned("none")
    assert last > 0.8 * first


def test_a_kl_in_the_loss_needs_a_reference(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    policy = make_policy(make_env())
    env = make_env()
    env.task = replace(env.task, reference=None, reward=replace(env.task.reward, kl_coef=0.0))
    agent = made("grpo", policy)
    with pytest.raises(ConfigError, match=r"GRPO: needs a reference model, .* the environment has none; .*'none'"):
        agent.learn(env)
    with pytest.raises(ConfigError, match=r"GRPO: needs a reference model, .* collected without one; .*'none'"):
        agent.update(env.rollout(policy, 8))


def test_remax_compares_with_the_greedy_response(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(kl_coef=0.0)
    policy = make_policy(env)
    agent = made("remax", policy, samples_per_prompt=2)
    assert isinstance(agent, ReMax)
    agent.learn(env)
    episodes = agent.last_episodes
    assert episodes is not None
    assert episodes.baselines is not None
    assert (episodes.baselines[::2] == episodes.baselines[1::2]).all()
    fresh = make_env(kl_coef=0.0, top_k=1)
    start = made("remax", make_policy(env))
    for prompt, baseline in zip(episodes.prompts, episodes.baselines, strict=True):
        assert fresh.rollout_on(start.policy, [prompt]).scores[0] == pytest.approx(baseline, abs=1e-6)


def test_dapo_draws_anew_what_teaches_nothing(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    """Half of the prompts pay every response alike: with rounds enough the batch is of the other half."""

    def score(prompts: list[str], completions: list[str]) -> list[float]:
        return [0.0 if prompt == "d" else float(len(text)) for prompt, text in zip(prompts, completions, strict=True)]

    env = make_env(prompts=["a b c", "d"], reward_model=score, kl_coef=0.0)
    agent = made("dapo", make_policy(env), sampling_rounds=20, episodes_per_iteration=16)
    assert isinstance(agent, DAPO)
    metrics = agent.learn(env)
    assert agent.last_episodes is not None
    assert set(agent.last_episodes.prompts) == {"a b c"}
    assert 0.0 < metrics["uniform_groups"] < 1.0
    hopeless = made("dapo", make_policy(env), sampling_rounds=2, episodes_per_iteration=8)
    nothing = make_env(prompts=["d"], reward_model=score, kl_coef=0.0)
    metrics = hopeless.learn(nothing)
    assert metrics["uniform_groups"] == 1.0
    assert metrics["policy_loss"] == 0.0


def test_the_overlong_penalty_by_hand() -> None:
    """16 allowed, the last 4 are the buffer: free up to 12, then a quarter per token."""
    found = overlong_penalty(np.array([3, 12, 13, 15, 16]), longest=16, buffer=4)
    assert found.tolist() == [0.0, 0.0, -0.25, -0.75, -1.0]
    assert overlong_penalty(np.array([16]), longest=16, buffer=0).tolist() == [0.0]


def test_dapo_pays_less_for_overlong_responses(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    env = make_env(kl_coef=0.0)
    agent = made("dapo", make_policy(env), overlong_buffer=6, overlong_penalty=2.0, sampling_rounds=1)
    agent.learn(env)
    episodes = agent.last_episodes
    assert episodes is not None
    paid = episodes.scores - 2.0 * episodes.response_lengths / 6
    np.testing.assert_allclose(episodes.rewards.sum(axis=1), paid, atol=1e-6)


@pytest.mark.parametrize("name", ["rloo", "grpo", "dr-grpo", "dapo", "gspo", "cispo"])
def test_group_methods_refuse_groups_of_one(name: str, make_env: MakeEnv, make_policy: MakePolicy) -> None:
    with pytest.raises(ConfigError, match=r"samples_per_prompt: must be >= 2 for \w+, which compares .* got 1"):
        made(name, make_policy(make_env()), samples_per_prompt=1)


@pytest.mark.parametrize("name", ["rloo", "grpo", "dapo", "vimpo", "dpo", "rejection"])
def test_group_sizes_must_divide(name: str) -> None:
    with pytest.raises(ConfigError, match=r"samples_per_prompt: must divide episodes_per_iteration = 10, got 4"):
        ALGORITHMS[name].config_type(episodes_per_iteration=10, samples_per_prompt=4)


def test_an_algorithm_takes_no_other_objective(make_env: MakeEnv, make_policy: MakePolicy) -> None:
    from lm_gym.agents import Objective

    with pytest.raises(ConfigError, match=r"PPO.objective: is made of its PPOConfig, and must not be given"):
        PPO(make_policy(make_env()), objective=Objective())
    with pytest.raises(ConfigError, match=r"SurrogateAgent.estimator: must be given, got none; pass estimator=GAE"):
        SurrogateAgent(make_policy(make_env()))
