"""A stock agent in the text environment: PPO of Stable-Baselines3, which knows nothing of KL or of language models."""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from lm_gym import PolicyHandle, PolicyLogProb, TextGenerationEnv, TextTask
from lm_gym.testing import policy_value

pytestmark = pytest.mark.slow
stable_baselines3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor  # noqa: E402

TOTAL_STEPS = 40_000


class OneHot(BaseFeaturesExtractor):  # type: ignore[misc]
    """One-hot tokens, zero where the mask does not count."""

    def __init__(self, observation_space: gymnasium.spaces.Dict) -> None:
        ids = observation_space["input_ids"]
        self.vocab_size = int(ids.high.max()) + 1  # type: ignore[attr-defined]
        super().__init__(observation_space, features_dim=ids.shape[0] * self.vocab_size)  # type: ignore[index]

    def forward(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        hot = nn.functional.one_hot(observation["input_ids"].long(), self.vocab_size)
        return (hot * observation["attention_mask"].long()[..., None]).flatten(1).float()


def train(task: Any, action_mode: str, ent_coef: float, seed: int) -> float:
    """Share of the gap that is closed, exactly."""
    handle = PolicyHandle()

    def make() -> gymnasium.Env[Any, Any]:
        rules = {"reward": task.reward_config, "sampling": task.sampling, "action_mode": action_mode}
        env = TextGenerationEnv(TextTask.of(task.reference, ["a b"], **rules), task.reward)
        return PolicyLogProb(env, handle) if action_mode == "token_and_log_prob" else env

    agent = stable_baselines3.PPO(
        "MultiInputPolicy",
        make_vec_env(make, n_envs=8, seed=seed),
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        learning_rate=lambda left: 3e-3 * left,
        gamma=1.0,
        ent_coef=ent_coef,
        seed=seed,
        device="cpu",
        policy_kwargs={"features_extractor_class": OneHot},
    )
    handle.bind(agent)
    agent.learn(TOTAL_STEPS)
    observations = {key: torch.as_tensor(value) for key, value in task.solution.mdp.observations().items()}
    with torch.no_grad():
        logits = agent.policy.get_distribution(observations).distribution.logits.double()
    value = policy_value(torch.log_softmax(logits, -1).numpy(), task.solution.mdp)
    return float(task.solution.share_closed(value.expected_return))


def test_the_log_prob_hand_over_gives_a_stock_agent_the_true_objective(
    make_task: Callable[[str, int], Any], report_share: Callable[..., None]
) -> None:
    task = make_task("order", 0)
    shares = {}
    for title, mode, ent_coef in (
        ("SB3 PPO, PolicyLogProb", "token_and_log_prob", 0.0),
        ('SB3 PPO, "token", ent_coef = beta', "token", task.reward_config.kl_coef),
    ):
        start = time.perf_counter()
        shares[mode] = train(task, mode, ent_coef, seed=0)
        report_share(title, task.name, 0, shares[mode], time.perf_counter() - start)
    assert shares["token_and_log_prob"] > 0.8
    assert shares["token_and_log_prob"] > shares["token"]
    assert np.isfinite(shares["token"])
