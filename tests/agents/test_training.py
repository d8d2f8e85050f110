"""The training loop: run folders, checkpoints, resume to the bit, Ctrl-C, the KL controller."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lm_gym import AdaptiveKL, TextGenerationVectorEnv
from lm_gym.agents import METRICS, PPO, LanguageModelPolicy, PPOConfig, train
from lm_gym.errors import ArtifactError, ConfigError, OutputExistsError

MakeEnv = Callable[..., TextGenerationVectorEnv]
MakePolicy = Callable[..., LanguageModelPolicy]
CLOCKS = {name for name in METRICS if name.startswith("tokens_per_second")} | {"peak_memory_mb"}


@pytest.fixture
def start(make_env: MakeEnv, make_policy: MakePolicy) -> Callable[..., tuple[PPO, TextGenerationVectorEnv]]:
    """A fresh agent and environment, the same every time."""

    def make(**settings: Any) -> tuple[PPO, TextGenerationVectorEnv]:
        env = make_env(**settings)
        config = PPOConfig(episodes_per_iteration=8, minibatches=2, learning_rate=1e-3, learning_rate_decay="none")
        return PPO(make_policy(env), config), env

    return make


Start = Callable[..., tuple[PPO, TextGenerationVectorEnv]]


class Recorder:
    """Writes down the calls, and does something once."""

    def __init__(self, at: int = -1, action: Callable[[], None] = lambda: None) -> None:
        self.calls: list[Any] = []
        self._at, self._action = at, action

    def on_start(self, first_iteration: int, total_iterations: int) -> None:
        self.calls.append((first_iteration, total_iterations))

    def on_iteration(self, iteration: int, metrics: dict[str, float]) -> None:
        self.calls.append(iteration)
        if iteration == self._at:
            self._action()

    def on_end(self) -> None:
        self.calls.append("end")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in CLOCKS} for line in lines]


def assert_same_state(first: Any, second: Any) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same_state(first[key], second[key])
    else:
        assert first == second


def test_a_run_folder(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    recorder = Recorder()
    result = train(
        agent,
        env,
        iterations=4,
        run_dir=tmp_path / "run",
        eval_prompts=["a b", "c"],
        eval_every=2,
        checkpoint_every=3,
        callbacks=[recorder],
        tensorboard=False,
    )
    assert recorder.calls == [(0, 4), 0, 1, 2, 3, "end"]
    rows = logged(tmp_path / "run")
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert ["eval_return" in row for row in rows] == [False, True, False, True]
    assert set(METRICS) - CLOCKS <= set(rows[0])
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert len(result.history) == 4
    assert not result.interrupted
    assert result.best_evaluation is not None
    assert result.best_iteration in (1, 3)
    assert result.best_evaluation.episode_return == max(row["eval_return"] for row in rows if "eval_return" in row)


def test_checkpoints_load(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    train(agent, env, iterations=2, run_dir=tmp_path / "run", eval_prompts=["a b"], tensorboard=False)
    episodes = env.rollout(agent.policy, 4)
    expected = agent.policy.evaluate(episodes)
    for name in ("best", "last"):
        folder = tmp_path / "run" / "checkpoints" / name / "policy"
        AutoModelForCausalLM.from_pretrained(folder)
        loaded = LanguageModelPolicy.from_pretrained(folder, device="cpu").evaluate(episodes)
        assert torch.equal(loaded.log_probs, expected.log_probs)  # the only evaluation was after the last iteration
        assert torch.equal(loaded.values, expected.values)


def test_tensorboard_files(tmp_path: Path, start: Start) -> None:
    pytest.importorskip("tensorboard")
    agent, env = start()
    train(agent, env, iterations=1, run_dir=tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


@pytest.mark.parametrize("adaptive", [False, True])
def test_resume_equals_an_uninterrupted_run(adaptive: bool, tmp_path: Path, start: Start) -> None:
    """To the bit: weights, optimiser, random states, beta, and every logged number."""
    settings: dict[str, Any] = {
        "eval_prompts": ["a b"],
        "eval_every": 2,
        "checkpoint_every": 2,
        "tensorboard": False,
        "seed": 5,
        "adaptive_kl": AdaptiveKL(target=0.1, horizon=50) if adaptive else None,
    }
    whole, env = start()
    train(whole, env, iterations=5, run_dir=tmp_path / "whole", **settings)
    first, env_1 = start()
    train(first, env_1, iterations=2, run_dir=tmp_path / "parts", **settings)
    second, env_2 = start()
    result = train(second, env_2, iterations=5, run_dir=tmp_path / "parts", resume=True, **settings)
    assert len(result.history) == 3
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    assert_same_state(second.state_dict(), whole.state_dict())
    assert env_2.kl_coef == env.kl_coef
    assert env_2.np_random.bit_generator.state == env.np_random.bit_generator.state
    assert adaptive is (env.kl_coef != 0.1)


def test_resume_after_a_kill_forgets_the_lines_past_the_checkpoint(tmp_path: Path, start: Start) -> None:
    def fail() -> None:
        raise RuntimeError("power cut")

    whole, env = start()
    train(whole, env, iterations=4, run_dir=tmp_path / "whole", tensorboard=False)
    first, env_1 = start()
    with pytest.raises(RuntimeError, match="power cut"):
        train(
            first,
            env_1,
            iterations=4,
            run_dir=tmp_path / "cut",
            checkpoint_every=2,
            callbacks=[Recorder(at=2, action=fail)],
            tensorboard=False,
        )
    assert [row["iteration"] for row in logged(tmp_path / "cut")] == [0, 1, 2]
    second, env_2 = start()
    train(second, env_2, iterations=4, run_dir=tmp_path / "cut", resume=True, tensorboard=False)
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")


def test_ctrl_c_leaves_a_run_that_loads_and_resumes(tmp_path: Path, start: Start) -> None:
    """The signal comes from a callback, after the loop has looked for it: nothing was checkpointed before."""
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background of a shell
    agent, env = start()
    recorder = Recorder(at=1, action=interrupt)
    result = train(agent, env, iterations=6, run_dir=tmp_path / "run", callbacks=[recorder], tensorboard=False)
    assert result.interrupted
    assert recorder.calls == [(0, 6), 0, 1, "end"]
    folder = tmp_path / "run" / "checkpoints" / "last" / "policy"
    loaded = LanguageModelPolicy.from_pretrained(folder, device="cpu")
    for ours, theirs in zip(loaded.model.parameters(), agent.policy.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    again, env_2 = start()
    result = train(again, env_2, iterations=3, run_dir=tmp_path / "run", resume=True, tensorboard=False)
    assert len(result.history) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_within_an_iteration_finishes_it(tmp_path: Path, start: Start) -> None:
    agent, env = start(reward_model=lambda prompts, completions: interrupt_once() or [1.0] * len(prompts))
    pending = [True]

    def interrupt_once() -> None:
        if pending:
            pending.clear()
            interrupt()

    result = train(agent, env, iterations=6, run_dir=tmp_path / "run", tensorboard=False)
    assert result.interrupted
    assert len(result.history) == 1
    assert (tmp_path / "run" / "checkpoints" / "last" / "state.pt").is_file()


def test_a_second_ctrl_c_ends_at_once(start: Start) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    agent, env = start()
    recorder = Recorder(at=0, action=twice)
    with pytest.raises(KeyboardInterrupt):
        train(agent, env, iterations=6, callbacks=[recorder])
    assert recorder.calls[-1] == "end"


def test_a_folder_with_another_run_is_refused(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    folder = tmp_path / "run"
    train(agent, env, iterations=1, run_dir=folder, tensorboard=False)
    agent, env = start()
    with pytest.raises(OutputExistsError, match="must be new or empty, and it holds another run"):
        train(agent, env, iterations=1, run_dir=folder, tensorboard=False)
    (folder / "old").write_text("of the first run")
    train(agent, env, iterations=1, run_dir=folder, overwrite=True, tensorboard=False)
    assert not (folder / "old").exists()
    assert len(logged(folder)) == 1


def test_adaptive_kl_moves_the_coefficient(start: Start) -> None:
    agent, env = start()
    result = train(agent, env, iterations=3, adaptive_kl=AdaptiveKL(target=1e-6, horizon=16))
    used = [metrics["kl_coef"] for metrics in result.history]
    kls = [metrics["kl"] for metrics in result.history]
    beta = 0.1
    for coef, kl in zip(used, kls, strict=True):
        assert coef == pytest.approx(beta)
        beta *= 1 + np.clip(kl / 1e-6 - 1, -0.2, 0.2) * 8 / 16
    assert env.kl_coef == pytest.approx(beta)
    assert env.kl_coef != pytest.approx(0.1)


def test_wrong_calls(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    with pytest.raises(ConfigError, match="iterations must be >= 1, got 0"):
        train(agent, env, iterations=0)
    with pytest.raises(ConfigError, match="resume=True needs run_dir"):
        train(agent, env, iterations=1, resume=True)
    with pytest.raises(ArtifactError, match="and there is none; start the run without resume=True"):
        train(agent, env, iterations=1, run_dir=tmp_path, resume=True)
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    (tmp_path / "checkpoints" / "last" / "state.pt").write_bytes(b"half")
    with pytest.raises(ArtifactError, match="must be a whole checkpoint"):
        train(agent, env, iterations=1, run_dir=tmp_path, resume=True)


def test_a_resumed_run_that_gets_worse_keeps_its_best(tmp_path: Path, start: Start) -> None:
    settings: dict[str, Any] = {"run_dir": tmp_path / "run", "eval_prompts": ["a b"], "tensorboard": False}
    agent, env = start()
    train(agent, env, iterations=1, **settings)
    best = (tmp_path / "run" / "checkpoints" / "best" / "state.pt").read_bytes()
    agent, env = start(reward_model=lambda prompts, completions: [-100.0] * len(prompts))
    result = train(agent, env, iterations=2, resume=True, **settings)
    assert result.best_iteration == 0
    assert result.best_evaluation is None
    assert (tmp_path / "run" / "checkpoints" / "best" / "state.pt").read_bytes() == best
