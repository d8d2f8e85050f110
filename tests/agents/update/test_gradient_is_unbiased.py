"""The mean of many PPO gradients against the exact gradient of J, by enumeration: what is left is chance, not bias.

J = E[sum of rewards, KL included]. On the first pass PPO's gradient per episode estimates that of J; with lambda 1 any
baseline leaves it unbiased, whatever beta and however noisy the scores. So a share of the gap that PPO leaves open at a
large beta with noisy scores is variance (docs/log.md has the numbers).
"""

import numpy as np
import pytest
import torch

from lm_gym import Reference, RewardConfig, SamplingConfig, TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.agents.policy import own_copy
from lm_gym.testing import solve, tiny_language_model
from lm_gym.testing.text_mdp import TextMDP

BATCHES, EPISODES = 48, 128


def true_score(prompts: list[str], completions: list[str]) -> list[float]:
    return [sum(word == "b" for word in text.split()) + float("a c" in text) for text in completions]


def exact_return(policy: LanguageModelPolicy, mdp: TextMDP) -> torch.Tensor:
    """J as a differentiable number: backward induction over every state, by plain calls of the model."""
    states = [torch.tensor([[*mdp.prompt.ids, *state]]) for state in mdp.states]
    log_probs = [torch.log_softmax(policy.model(ids).logits[0, -1], -1) for ids in states]
    reference = torch.from_numpy(mdp.ref_log_probs).float()
    values: list[torch.Tensor] = [torch.zeros(())] * len(states)
    for number in reversed(range(len(states))):
        following = [
            torch.tensor(float(mdp.paid[after])) if ends else values[after]
            for after, ends in zip(mdp.successors[number], mdp.ends[number], strict=True)
        ]
        kl = log_probs[number] - reference[number]
        values[number] = (log_probs[number].exp() * (torch.stack(following) - mdp.kl_coef * kl)).sum()
    return values[0]


@pytest.mark.parametrize(("beta", "noise"), [(0.5, 0.0), (0.5, 0.5), (0.05, 0.5)])
def test_what_the_mean_gradient_lacks_is_chance(beta: float, noise: float) -> None:
    model = tiny_language_model(vocab_size=5, max_length=8, initializer_range=0.1)
    reference, rng = Reference(model), np.random.default_rng(1)

    def noisy_score(prompts: list[str], completions: list[str]) -> list[float]:
        return [value + noise * rng.normal() for value in true_score(prompts, completions)]

    rules = {"reward": RewardConfig(kl_coef=beta), "sampling": SamplingConfig(max_new_tokens=3)}
    mdp = solve(reference, true_score, "a b", reward_config=rules["reward"], sampling=rules["sampling"]).mdp  # type: ignore[arg-type]
    task = TextTask.of(reference, ["a b"], action_mode="token_and_log_prob", **rules)  # type: ignore[arg-type]
    env = TextGenerationVectorEnv(task, noisy_score)
    env.reset(seed=0)
    policy = LanguageModelPolicy(own_copy(model))
    PPO(policy, PPOConfig(episodes_per_iteration=64, learning_rate=3e-3)).learn(env)  # away from the reference
    weights = list(policy.model.parameters())
    exact = torch.cat([part.reshape(-1) for part in torch.autograd.grad(exact_return(policy, mdp), weights)])
    still = PPOConfig(
        epochs=1, minibatches=1, learning_rate=1e-30, max_grad_norm=None, whiten_advantages=False, gae_lambda=1.0,
        value_coef=0.0, episodes_per_iteration=EPISODES,
    )  # fmt: skip
    agent = PPO(policy, still)
    found = []
    for _ in range(BATCHES):
        episodes = env.rollout(policy, EPISODES)
        agent.update(episodes)
        per_episode = -float(episodes.response_lengths.sum()) / EPISODES  # the loss is a mean over tokens
        found.append(per_episode * torch.cat([weight.grad.reshape(-1) for weight in weights]))  # type: ignore[union-attr]
    batches = torch.stack(found)
    chance = float((batches.var(0).sum() / BATCHES).sqrt())
    off = float((batches.mean(0) - exact).norm())
    # The noise lies in a few directions of the weights, so its norm may pass the expected one by far; twice is rare.
    assert off < 2.0 * chance, (off, chance, float(exact.norm()))
    assert 2.0 * chance < 0.2 * float(exact.norm())  # small enough to see a bias
