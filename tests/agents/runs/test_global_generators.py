"""The process-wide generators of Python, NumPy and torch are neither read nor moved by anything that runs here.

So a user's own experiment draws the same numbers with this library in it and without, and what the library draws is
decided by its own seeds alone.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from lm_gym import (
    AdaptiveKL,
    PolicyLogProb,
    Reference,
    TextGenerationEnv,
    TextGenerationVectorEnv,
    TextTask,
    evaluate,
    load_language_model,
)
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, train
from lm_gym.agents.policy import own_copy
from lm_gym.testing import tiny_language_model

PROMPTS = ["a b", "c", "d e f", "g"]
SMALL = {"episodes_per_iteration": 8, "epochs": 2, "minibatches": 2, "learning_rate": 1e-2}


def score(prompts: list[str], completions: list[str]) -> list[float]:
    return [len(text.split()) / 4 for text in completions]


def tiny_parts() -> Any:
    model = tiny_language_model()
    return model.model, model.tokenizer


@dataclass
class Scene:
    """Everything that the acts below need, made before the generators are looked at."""

    folder: Path
    task: TextTask = field(init=False)
    env: TextGenerationVectorEnv = field(init=False)
    single: TextGenerationEnv = field(init=False)
    policy: LanguageModelPolicy = field(init=False)
    agent: PPO = field(init=False)

    def __post_init__(self) -> None:
        settings = {"action_mode": "token_and_log_prob", "max_new_tokens": 4, "top_k": 9, "seed": 5}
        self.task = TextTask.of(Reference(tiny_language_model()), PROMPTS, **settings)
        self.env = TextGenerationVectorEnv(self.task, score, num_envs=2)
        self.env.reset(seed=0)
        self.single = TextGenerationEnv(self.task, score, render_mode="ansi")
        self.single.reset(seed=0)
        self.policy = LanguageModelPolicy(tiny_language_model(seed=1))
        self.agent = PPO(self.policy, PPOConfig(**SMALL))

    def weights(self) -> list[np.ndarray]:
        return [weight.detach().numpy().copy() for weight in self.policy.parameters()]


def build_policy(scene: Scene) -> Any:
    policy = LanguageModelPolicy(own_copy(scene.policy.language_model), separate_critic=True)
    return [weight.detach().numpy() for weight in policy.parameters()]


def save_and_load_policy(scene: Scene) -> Any:
    folder = scene.policy.save_pretrained(scene.folder / "policy")
    loaded = LanguageModelPolicy.from_pretrained(folder)
    loaded.load_weights(folder)
    return [weight.detach().numpy() for weight in loaded.parameters()]


def load_model(scene: Scene) -> Any:
    scene.policy.model.save_pretrained(scene.folder / "model")
    scene.policy.tokenizer.save_pretrained(scene.folder / "model")
    return [weight.numpy() for weight in load_language_model(scene.folder / "model").model.parameters()]


def make_envs(scene: Scene) -> Any:
    parts = {"model": tiny_parts, "prompts": PROMPTS, "reward_model": score, "max_new_tokens": 4}
    single = gymnasium.make("lm_gym/TextGeneration-v0", **parts)
    several = gymnasium.make_vec("lm_gym/TextGeneration-v0", num_envs=2, **parts)
    return [env.reset(seed=3)[0]["input_ids"] for env in (single, several)]


def reset(scene: Scene) -> Any:
    found = [env.reset(seed=seed)[0]["input_ids"] for env in (scene.env, scene.single) for seed in (4, None)]
    TextGenerationVectorEnv(scene.task, score).reset()  # never seeded: its prompt is anyone's guess
    return found


def step(scene: Scene) -> Any:
    found = []
    for _ in range(9):
        found += list(scene.env.step({"token": np.array([1, 2]), "log_prob": np.array([-1.0, -2.0])})[:2])
    for token in (1, 2, 3, 0):
        found.append(scene.single.step({"token": token, "log_prob": -1.0})[1])
    assert scene.single.render()
    return found[1::2]


def act_token_by_token(scene: Scene) -> Any:
    observation, found = scene.env.reset(seed=1)[0], []
    for _ in range(9):
        tokens, log_probs = scene.policy.act(observation, scene.env.sampling)
        observation = scene.env.step({"token": tokens, "log_prob": log_probs})[0]
        found += [tokens, log_probs]
    scene.policy.act(observation, replace(scene.env.sampling, seed=None))  # whatever it draws
    return found


def hand_over(scene: Scene) -> Any:
    env = PolicyLogProb(scene.single, lambda observation, tokens: -1.0 - np.asarray(tokens) / 10)
    env.reset(seed=2)
    return [env.step(token)[1] for token in (1, 2, 3)]


def rollout(scene: Scene) -> Any:
    first = scene.env.rollout(scene.policy, 6)
    second = scene.env.rollout_on(scene.policy.sampler, PROMPTS, samples_per_prompt=2)
    return [array for episodes in (first, second) for array in (episodes.response_ids, episodes.rewards)]


def evaluation(scene: Scene) -> Any:
    found = evaluate(scene.policy, scene.env, PROMPTS, seed=3)
    return [found.episodes.response_ids, found.score, found.kl, found.win_rate]


def look_back(scene: Scene) -> Any:
    return [part.detach().numpy() for part in scene.policy.log_probs_and_values(scene.env.rollout(scene.policy, 4))]


def update(scene: Scene) -> Any:
    metrics = scene.agent.update(scene.env.rollout(scene.policy, 8))
    return [*metrics.values(), *scene.weights()]


def learn(scene: Scene) -> Any:
    agent = PPO(scene.policy, PPOConfig(**SMALL, entropy_coef=0.1))
    agent.learn(scene.env)
    return scene.weights()


def training(scene: Scene) -> Any:
    options: dict[str, Any] = {"eval_prompts": PROMPTS, "eval_every": 1, "adaptive_kl": AdaptiveKL(target=1.0)}
    train(scene.agent, scene.env, iterations=2, run_dir=scene.folder / "run", checkpoint_every=1, **options)
    return scene.weights()


def interrupted_training(scene: Scene) -> Any:
    """One iteration of two, then the second by another agent that takes the run up again."""

    class Fails:
        def on_start(self, run: Any) -> None: ...
        def on_iteration(self, run: Any) -> None:
            if run.iteration == 1:
                raise RuntimeError("stop here")

        def on_end(self, run: Any) -> None: ...

    options: dict[str, Any] = {"iterations": 2, "run_dir": scene.folder / "run", "checkpoint_every": 1}
    with pytest.raises(RuntimeError, match="stop here"):
        train(scene.agent, scene.env, callbacks=[Fails()], **options)
    agent = PPO(LanguageModelPolicy(tiny_language_model(seed=1)), PPOConfig(**SMALL))
    env = TextGenerationVectorEnv(scene.task, score, num_envs=2)
    train(agent, env, resume=True, **options)
    return [weight.detach().numpy() for weight in agent.policy.parameters()]


ACTS: dict[str, Callable[[Scene], Any]] = {
    act.__name__: act
    for act in (
        build_policy,
        save_and_load_policy,
        load_model,
        make_envs,
        reset,
        step,
        act_token_by_token,
        hand_over,
        rollout,
        evaluation,
        look_back,
        update,
        learn,
        training,
        interrupted_training,
    )
}


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Other tests find the generators as they were."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(pytorch)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global generator is what is tested)
    torch.manual_seed(seed)


def states() -> dict[str, Any]:
    return {
        "Python": random.getstate(),
        "NumPy": [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
    }


def moved_by(act: Callable[[Scene], Any], scene: Scene) -> set[str]:
    """Generators that are not where they were."""
    before = states()
    act(scene)
    after = states()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_no_global_generator_moves(act: Callable[[Scene], Any], tmp_path: Path) -> None:
    assert moved_by(act, Scene(tmp_path)) == set()


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_the_same_seeds_give_the_same_numbers_whatever_the_global_generators_hold(
    act: Callable[[Scene], Any], tmp_path: Path
) -> None:
    results = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        seed_everything(seed)
        results.append(act(Scene(tmp_path / str(seed))))
    assert len(results[0]) == len(results[1]) > 0
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("Python", lambda scene: random.random()),
        ("NumPy", lambda scene: np.random.rand()),  # noqa: NPY002
        ("torch", lambda scene: torch.rand(1)),
        ("torch", lambda scene: torch.nn.Linear(2, 2)),
    ],
)
def test_a_draw_from_a_global_generator_is_seen(name: str, draw: Callable[[Scene], Any], tmp_path: Path) -> None:
    assert moved_by(draw, Scene(tmp_path)) == {name}
