"""SB3's own PPO and A2C with a language model as their policy: on exact tasks, and on the built-in one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from lm_gym import Evaluation, TextGenerationVectorEnv, TextTask, evaluate, reviews
from lm_gym.assets import REVIEWS_LM
from lm_gym.testing import share_closed

pytestmark = pytest.mark.slow
stable_baselines3 = pytest.importorskip("stable_baselines3")
from lm_gym.agents.sb3 import LanguageModelActorCriticPolicy, SB3VecEnv  # noqa: E402

PPO: dict[str, Any] = {"n_steps": 16, "batch_size": 512, "n_epochs": 4}
A2C: dict[str, Any] = {"n_steps": 8, "gae_lambda": 0.95, "use_rms_prop": False, "normalize_advantage": True}
STEPS = {"PPO": 20 * 1024, "A2C": 30 * 1024}


def learner(kind: str, native: Any, model: Path, **settings: Any) -> Any:
    env = SB3VecEnv(native)
    agent = getattr(stable_baselines3, kind)(
        LanguageModelActorCriticPolicy, env, gamma=1.0, device="cpu", policy_kwargs={"model": model}, **settings
    )
    assert env.log_prob is not None
    env.log_prob.bind(agent)
    return agent


@pytest.mark.parametrize(
    ("kind", "settings", "name", "seed"), [("PPO", PPO, "dense", 0), ("PPO", PPO, "order", 1), ("A2C", A2C, "dense", 0)]
)
def test_it_closes_the_gap(
    kind: str,
    settings: dict[str, Any],
    name: str,
    seed: int,
    make_task: Callable[[str, int], Any],
    report_share: Callable[..., None],
    tmp_path: Path,
) -> None:
    task = make_task(name, seed)
    task.reference.model.save_pretrained(tmp_path)
    task.reference.tokenizer.save_pretrained(tmp_path)
    rules = {"reward": task.reward_config, "sampling": task.sampling, "action_mode": "token_and_log_prob"}
    native = TextGenerationVectorEnv(TextTask.of(task.reference, ["a b"], **rules), task.reward, num_envs=64)
    agent = learner(kind, native, tmp_path, learning_rate=lambda left: 3e-3 * left, seed=seed, **settings)
    start = time.perf_counter()
    agent.learn(STEPS[kind])
    share = share_closed(agent.policy.language_model_policy, task.solution)
    report_share(f"SB3 {kind}, language model", name, seed, share, time.perf_counter() - start)
    assert share >= 0.9


def test_ppo_of_sb3_learns_reviews() -> None:
    """From the held-out prompts: the true score goes up, and the KL stays bounded."""
    native = gymnasium.make_vec(
        "lm_gym/Reviews-v0", num_envs=32, action_mode="token_and_log_prob", kl_coef=0.05, max_new_tokens=16
    )

    def measured(policy: Any) -> Evaluation:
        return evaluate(policy.language_model_policy, native, reviews.prompts("held_out")[:64])

    agent = learner("PPO", native, REVIEWS_LM, n_steps=32, batch_size=256, n_epochs=4, learning_rate=3e-4, seed=0)
    before = measured(agent.policy)
    agent.learn(15 * 32 * 32)
    after = measured(agent.policy)
    assert before.kl == pytest.approx(0.0, abs=1e-4)
    assert after.score > before.score + 0.1
    assert 0.1 < after.kl < 6.0
