"""Values of states: the value head and fresh continuations, held against exact values by enumeration."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import Episodes, Reference, TextGenerationVectorEnv, TextTask
from lm_gym.agents import A2C, PPO, A2CConfig, GivenValues, LanguageModelPolicy, PPOConfig, VinePPO, VinePPOConfig
from lm_gym.agents.policy import own_copy
from lm_gym.agents.update.functional import explained_variance
from lm_gym.envs.rollout import continuation_values
from lm_gym.errors import ConfigError
from lm_gym.testing import enumerate_mdp, policy_value, state_log_probs, tiny_language_model

Make = Callable[..., Any]


def vowels(prompts: list[str], completions: list[str]) -> list[float]:
    return [sum(word in "ae" for word in text.split()) / 2 for text in completions]


class Exact:
    """Responses of up to three tokens of five, a policy that is not the reference, and its value in every state."""

    def __init__(self, **settings: Any) -> None:
        reference = Reference(tiny_language_model(vocab_size=5, max_length=8, initializer_range=0.3))
        self.task = TextTask.of(
            reference, ["a b"], action_mode="token_and_log_prob", max_new_tokens=3, kl_coef=0.2, **settings
        )
        self.env = TextGenerationVectorEnv(self.task, vowels)
        self.env.reset(seed=0)
        self.policy = LanguageModelPolicy(own_copy(reference.language_model), separate_critic=True)
        with torch.no_grad():
            self.policy.model.lm_head.weight.mul_(1.5)
        rules: dict[str, Any] = {"reward_config": self.task.reward, "sampling": self.task.sampling}
        self.mdp = enumerate_mdp(reference, vowels, self.task.prompts[0], **rules)
        values = policy_value(state_log_probs(self.policy, self.mdp), self.mdp).state_values
        self._value_of = dict(zip(self.mdp.states, values, strict=True))

    def values(self, episodes: Episodes) -> np.ndarray:
        """Exact value of the state before each token. Shape: (B, T)."""
        found = np.zeros(episodes.response_mask.shape)
        for row, column in zip(*np.nonzero(episodes.response_mask), strict=True):
            found[row, column] = self._value_of[tuple(episodes.response_ids[row, :column].tolist())]
        return found


@pytest.fixture(scope="module", params=[{}, {"top_k": 3}, {"min_new_tokens": 2}], ids=["free", "top-k", "min-new"])
def exact(request: pytest.FixtureRequest) -> Exact:
    return Exact(**request.param)


def test_continuations_give_the_exact_values(exact: Exact) -> None:
    """Of every state that was met often the mean estimate lies within three standard errors of its value; KL, cap and
    truncation included."""
    episodes = exact.env.rollout(exact.policy, 64)
    prompts = [exact.task.prompts[0]] * 64
    found = continuation_values(
        exact.task, exact.policy.sampler, episodes, prompts, exact.env.reward_model, kl_coef=0.2, seed=1, samples=8
    )
    mask, true = episodes.response_mask, exact.values(episodes)
    assert not found[~mask].any()
    states: dict[float, float] = {}
    for value in np.unique(true[mask]):
        estimates = found[mask & (true == value)]
        if len(estimates) >= 8:
            states[value] = (estimates.mean() - value) / (estimates.std(ddof=1) / math.sqrt(len(estimates)))
    assert len(states) >= 3
    assert max(abs(error) for error in states.values()) < 3


def test_the_value_head_learns_the_exact_values_while_the_policy_waits() -> None:
    """The critic warms up: at its end the values explain the exact ones, and no weight of the policy has moved."""
    exact = Exact()
    before = [weight.clone() for weight in exact.policy.model.parameters()]
    config = PPOConfig(
        episodes_per_iteration=512,
        critic_warmup_iterations=6,
        learning_rate=5e-3,
        value_clip=None,
        gae_lambda=1.0,
    )
    agent = PPO(exact.policy, config)

    def explained() -> float:
        episodes = exact.env.rollout(exact.policy, 512)
        values = exact.policy.log_probs_and_values_in_batches(episodes, 4096).values
        mask = torch.from_numpy(episodes.response_mask)
        return float(explained_variance(values, torch.from_numpy(exact.values(episodes)).float(), mask))

    assert explained() < 0.1
    for done in range(6):
        metrics = agent.learn(exact.env, progress=done / 6)
    assert explained() > 0.9
    assert metrics["approx_kl"] == 0.0
    assert metrics["explained_variance"] > 0.3  # of returns, whose own noise no value explains
    assert all(torch.equal(a, b) for a, b in zip(before, exact.policy.model.parameters(), strict=True))
    agent.learn(exact.env)
    assert not all(torch.equal(a, b) for a, b in zip(before, exact.policy.model.parameters(), strict=True))


def test_a_warm_up_is_taken_up_where_it_was_left(tmp_path: Path, make_env: Make, make_policy: Make) -> None:
    """Saved after the first of two warm iterations: the second is warm, the third is not. Frozen weights stay so."""
    env = make_env()
    policy = make_policy(env)
    frozen = policy.model.transformer.wte.weight.requires_grad_(False)
    config = A2CConfig(episodes_per_iteration=8, critic_warmup_iterations=2, learning_rate=1e-3)
    agent = A2C(policy, config)
    agent.learn(env)
    agent.save(tmp_path / "agent")
    again = A2C.load(tmp_path / "agent", device="cpu")
    start = [weight.clone() for weight in policy.model.parameters()]
    for expected in (True, False):
        again.learn(env)
        weights = list(again.policy.model.parameters())
        assert all(torch.equal(a, b) for a, b in zip(start, weights, strict=True)) == expected
    assert not frozen.requires_grad
    assert policy.value_head.weight.requires_grad


def test_a_warm_up_of_no_critic_is_refused(make_env: Make, make_policy: Make) -> None:
    words = r"PPOConfig.critic_warmup_iterations: must be 0 where no value head is trained, .* RewardToGo .* got 3"
    with pytest.raises(ConfigError, match=words):
        PPO(make_policy(make_env()), PPOConfig(critic_warmup_iterations=3, advantage="return"))


def test_advantages_on_given_values_by_hand(make_env: Make, make_policy: Make) -> None:
    """V of 1, 2, 4 and 10 at the end: the value after a token less that before it; at lambda 1 the return less V."""
    env = make_env(max_new_tokens=3, min_new_tokens=3, kl_coef=0.0)
    episodes = env.rollout(make_policy(env), 1)
    rewards, values = np.array([[0.0, 0.0, 10.0]]), np.array([[1.0, 2.0, 4.0]])
    given = type(episodes)(**{**vars(episodes), "rewards": rewards, "state_values": values})
    evaluation: Any = type("Evaluation", (), {"log_probs": torch.zeros(1)})()
    assert GivenValues()(given, evaluation).advantages.tolist() == [[1.0, 2.0, 6.0]]
    assert GivenValues(lam=1.0)(given, evaluation).advantages.tolist() == [[9.0, 8.0, 6.0]]
    with pytest.raises(ConfigError, match=r"GivenValues: needs episodes.state_values, got none; use VinePPO"):
        GivenValues()(episodes, evaluation)


def test_a_state_without_a_score_has_the_value_of_the_one_before(make_env: Make, make_policy: Make) -> None:
    env = make_env(reward_model=lambda prompts, completions: [None] * len(completions))
    agent = VinePPO(make_policy(env), VinePPOConfig(episodes_per_iteration=4, continuations=2))
    agent.learn(env)
    assert agent.last_episodes is not None
    assert agent.last_episodes.state_values is not None
    assert not agent.last_episodes.state_values.any()


def test_stop_strings_are_refused(make_env: Make, make_policy: Make) -> None:
    env = make_env(stop_strings=["c"])
    with pytest.raises(ConfigError, match=r"VinePPO: needs an environment without stop strings, .* got \('c',\)"):
        VinePPO(make_policy(env)).learn(env)


def test_an_encoder_decoder_is_refused(make_env: Make, make_policy: Make) -> None:
    """Its response is no part of its prompt, so that no state is a prompt to go on from."""
    env = make_env("t5")
    with pytest.raises(ConfigError, match=r"VinePPO: needs a causal language model, .* T5ForConditionalGeneration"):
        VinePPO(make_policy(env)).learn(env)
