"""DPO: its loss and pairs by hand, its fixed point by enumeration, and pairs that are given."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym.agents import DPO, DPOConfig, train
from lm_gym.agents.algorithms.dpo import best_and_worst, dpo_loss, neighbours
from lm_gym.agents.metrics import METRICS
from lm_gym.errors import ConfigError, DataError

from ...helpers.paid_for_kl import with_kl

Make = Callable[..., Any]
ROWS = [
    {"prompt": "a b", "chosen": "c d", "rejected": "e"},
    {"prompt": "d", "chosen": "f", "rejected": "g h i"},
    {"prompt": "a b", "chosen": "b", "rejected": "a"},
]


def test_the_loss_by_hand() -> None:
    margins, chance = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 0.25])
    expected = [math.log(2), math.log1p(math.exp(-2)), 0.25 * math.log1p(math.e) + 0.75 * math.log1p(math.exp(-1))]
    assert dpo_loss(margins, chance).tolist() == pytest.approx(expected)


def test_pairs_by_hand() -> None:
    """Group 0: best 2, worst 1; group 1 is paid alike; of group 2 one response counts, of group 3 the last two."""
    returns = np.array([1.0, 0.0, 3.0, 2.0, 2.0, 5.0, 1.0, 9.0, 4.0, 6.0])
    group = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 3])
    counted = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, 1], dtype=bool)
    assert best_and_worst(returns, group, counted).tolist() == [[2, 1], [9, 8]]
    assert neighbours(group, counted).tolist() == [[0, 1], [3, 4], [8, 9]]
    nobody = np.zeros(10, dtype=bool)
    assert best_and_worst(returns, group, nobody).shape == neighbours(group, nobody).shape == (0, 2)


def test_the_fixed_point_by_enumeration() -> None:
    """Five responses as a softmax, all pairs of the policy's own draws: the mean gradient is 0 at pi_ref exp(R / beta)
    for a judge by chance, and nowhere for one that always tells the better."""
    rng = np.random.default_rng(0)
    beta, returns = 0.4, torch.from_numpy(rng.normal(size=5))
    reference = torch.from_numpy(rng.normal(size=5)).log_softmax(0)
    first, second = (one.flatten() for one in torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij"))
    by_chance = torch.sigmoid(returns[first] - returns[second])
    for_sure = torch.heaviside(returns[first] - returns[second], torch.tensor(0.5, dtype=torch.float64))

    def gradient(log_probs: torch.Tensor, chance: torch.Tensor) -> float:
        logits = log_probs.clone().requires_grad_()
        ratios = beta * (logits.log_softmax(0) - reference)
        drawn = log_probs.exp()[first] * log_probs.exp()[second]
        (drawn * dpo_loss(ratios[first] - ratios[second], chance)).sum().backward()
        assert logits.grad is not None
        return float(logits.grad.abs().max())

    best = (reference + returns / beta).log_softmax(0)
    assert gradient(best, by_chance) < 1e-12
    assert gradient(reference, by_chance) > 1e-2
    for scale in (0.0, 1.0, 3.0):  # reference, optimum, past it
        assert gradient((reference + scale * returns / beta).log_softmax(0), for_sure) > 1e-4


def test_online_the_best_of_a_group_is_set_against_the_worst(make_env: Make, make_policy: Make) -> None:
    env = make_env(kl_coef=0.2)
    agent = DPO(make_policy(env), DPOConfig(episodes_per_iteration=32, samples_per_prompt=4, learning_rate=1e-2))
    metrics = agent.learn(env)
    assert metrics["policy_loss"] == pytest.approx(math.log(2), abs=1e-5)  # no margin before the first step
    assert metrics["preference_margin"] == pytest.approx(0.0, abs=1e-5)
    assert set(metrics) == set(METRICS)
    episodes = agent.last_episodes
    assert episodes is not None
    again = agent.update(episodes)
    assert again["preference_margin"] > 0.01
    assert again["preference_accuracy"] > 0.7
    assert 0 <= again["uniform_groups"] < 1


def test_what_is_paid_alike_makes_no_pair_whatever_its_kl(make_env: Make, make_policy: Make) -> None:
    env = make_env(reward_model=lambda prompts, completions: [1.0] * len(completions))
    agent = DPO(make_policy(env), DPOConfig(episodes_per_iteration=8, samples_per_prompt=4))
    episodes = with_kl(env.rollout(agent.policy, 8, samples_per_prompt=4), np.tile([-1.5, 0.0], 4))
    assert len(set(episodes.rewards_without_kl.sum(axis=1))) == 2  # 1 + .15 - .15 is less than 1
    assert agent.update(episodes)["optimizer_steps"] == 0.0


def test_a_judge_by_chance_is_sure_of_any_difference(make_env: Make, make_policy: Make) -> None:
    env = make_env(reward_model=lambda prompts, completions: [1000.0 * len(text) for text in completions])
    config = DPOConfig(episodes_per_iteration=8, samples_per_prompt=4, judge="bradley_terry")
    assert math.isfinite(DPO(make_policy(env), config).learn(env)["policy_loss"])


def test_a_judge_by_chance_stops_at_the_difference_of_the_scores(make_env: Make, make_policy: Make) -> None:
    """Many steps on one batch of two: the margin comes to rest at R - R', and goes on where the label is for sure."""
    env = make_env(kl_coef=1.0, prompts=["d"])

    def margin(judge: str) -> tuple[float, float]:
        policy = make_policy(env)
        settings: dict[str, Any] = {"episodes_per_iteration": 2, "judge": judge, "learning_rate": 3e-3}
        agent = DPO(policy, DPOConfig(learning_rate_decay="none", **settings))
        env.reset(seed=3)
        episodes = env.rollout(policy, 2, samples_per_prompt=2)
        found = [agent.update(episodes)["preference_margin"] for _ in range(70)]
        return found[-1], float(abs(episodes.scores[0] - episodes.scores[1]))

    last, difference = margin("bradley_terry")
    assert difference > 0
    assert last == pytest.approx(difference, abs=0.05)
    assert margin("best_worst")[0] > 2 * difference


def test_given_pairs_are_learned(tmp_path: Path, make_env: Make, make_policy: Make) -> None:
    """Under train, with a run folder; the responses are the texts, each with a stop token, and nobody drew them."""
    env = make_env(kl_coef=0.5)

    def made() -> DPO:
        config = DPOConfig(episodes_per_iteration=6, learning_rate=3e-3, learning_rate_decay="none")
        return DPO(make_policy(env), config, pairs=ROWS)

    agent = made()
    result = train(agent, env, iterations=15, run_dir=tmp_path / "run", progress=False)
    first, last = result.history[0], result.history[-1]
    assert set(first) == set(METRICS)
    assert first["policy_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert last["preference_accuracy"] == 1.0
    assert last["policy_loss"] < 0.5
    assert math.isnan(last["score"])
    episodes = agent.last_episodes
    assert episodes is not None
    assert sorted(episodes.responses) == sorted(text for row in ROWS for text in (row["chosen"], row["rejected"]))
    eos = agent.policy.tokenizer.eos_token_id
    for ids, text in zip(episodes.response_rows(), episodes.responses, strict=True):
        assert ids[-1] == eos
        assert agent.policy.tokenizer.decode(ids[:-1]).strip() == text
    agent.save(tmp_path / "agent")
    again = DPO.load(tmp_path / "agent", pairs=ROWS, device="cpu")
    assert again.settings() == agent.settings()
    again.learn(env)
    agent.learn(env)
    for ours, theirs in zip(agent.policy.weights(), again.policy.weights(), strict=True):
        assert torch.equal(ours, theirs)
    for pairs, words in ((ROWS[:2], "others"), (None, "missing")):
        with pytest.raises(ConfigError, match=rf"DPO.load: pairs must be those that .*, and are {words}; pass pairs"):
            DPO.load(tmp_path / "agent", pairs=pairs, device="cpu")


def test_an_encoder_decoder_learns_given_pairs(make_env: Make, make_policy: Make) -> None:
    env = make_env("t5", kl_coef=0.5)
    agent = DPO(make_policy(env), DPOConfig(episodes_per_iteration=6, learning_rate=1e-2), pairs=ROWS)
    first, *_, last = [agent.learn(env)["policy_loss"] for _ in range(6)]
    assert first == pytest.approx(math.log(2), abs=1e-5)
    assert last < 0.9 * first


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], r"DPO: pairs must be a list of rows with prompt, chosen and rejected, got \[\]"),
        ("a", r"DPO: pairs must be a list of rows"),
        (
            [*ROWS, {"prompt": "a", "chosen": "b"}],
            r"DPO: pairs, row 4: must have the texts prompt, chosen",
        ),
        ([{"prompt": "a", "chosen": " ", "rejected": "b"}], r"DPO: pairs, row 1: must have the texts"),
        (
            [*ROWS, {"prompt": "a " * 99, "chosen": "b", "rejected": "c"}],
            r"row 4: prompt and response must fit",
        ),
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], r"row 1: chosen and rejected must differ, got 'b' twice"),
    ],
)
def test_rows_that_are_no_pairs_are_refused(pairs: Any, words: str, make_env: Make, make_policy: Make) -> None:
    with pytest.raises(DataError, match=words):
        DPO(make_policy(make_env()), pairs=pairs)


def test_settings_that_make_no_pair_are_refused(make_env: Make, make_policy: Make) -> None:
    policy = make_policy(make_env())
    with pytest.raises(ConfigError, match=r"DPOConfig.samples_per_prompt: must be a whole number >= 2, got 1"):
        DPOConfig(samples_per_prompt=1)
    with pytest.raises(ConfigError, match=r"DPO: samples_per_prompt: must be 2 where pairs are given, got 4"):
        DPO(policy, DPOConfig(samples_per_prompt=4), pairs=ROWS)
    env = make_env(kl_coef=0.0)
    with pytest.raises(ConfigError, match=r"DPO: needs a kl_coef above 0"):
        DPO(make_policy(env)).learn(env)
