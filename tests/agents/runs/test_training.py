"""The training loop: run folders, checkpoints, resume to the bit, signals, errors, the KL controller."""

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

from lm_gym import AdaptiveKL, TextGenerationVectorEnv, TextTask
from lm_gym.agents import METRICS, PPO, LanguageModelPolicy, TrainingRun, train
from lm_gym.errors import ConfigError, PromptError

CLOCKS = {name for name in METRICS if name.startswith("tokens_per_second")} | {"peak_memory_mb"}


Start = Callable[..., tuple[PPO, TextGenerationVectorEnv]]


class Recorder:
    """Writes down the calls, and does something once."""

    def __init__(self, at: int = -1, action: Callable[[], None] = lambda: None) -> None:
        self.calls: list[Any] = []
        self._at, self._action = at, action

    def on_start(self, run: TrainingRun) -> None:
        self.calls.append((run.first_iteration, run.iterations))

    def on_iteration(self, run: TrainingRun) -> None:
        self.calls.append(run.iteration)
        if run.iteration == self._at:
            self._action()

    def on_end(self, run: TrainingRun) -> None:
        self.calls.append("end")


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


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


def test_saved_policies_load(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    train(agent, env, iterations=2, run_dir=tmp_path / "run", eval_prompts=["a b"], tensorboard=False)
    episodes = env.rollout(agent.policy, 4)
    expected = agent.policy.log_probs_and_values(episodes)
    for name in ("best", "policy"):
        folder = tmp_path / "run" / name
        AutoModelForCausalLM.from_pretrained(folder)
        loaded = LanguageModelPolicy.from_pretrained(folder, device="cpu").log_probs_and_values(episodes)
        assert torch.equal(loaded.log_probs, expected.log_probs)  # the only evaluation was after the last iteration
        assert torch.equal(loaded.values, expected.values)


def test_tensorboard_files(tmp_path: Path, start: Start) -> None:
    pytest.importorskip("tensorboard")
    agent, env = start()
    train(agent, env, iterations=1, run_dir=tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_and_resumed_run_equals_an_undisturbed_one(
    number: signal.Signals, adaptive: bool, tmp_path: Path, start: Start
) -> None:
    """To the bit: weights, optimiser, random states, beta, and every logged number."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    settings: dict[str, Any] = {
        "iterations": 5,
        "eval_prompts": ["a b"],
        "eval_every": 2,
        "checkpoint_every": 4,
        "tensorboard": False,
        "seed": 5,
        "adaptive_kl": AdaptiveKL(target=0.1, horizon=50) if adaptive else None,
    }
    whole, env = start()
    train(whole, env, run_dir=tmp_path / "whole", **settings)
    first, env_1 = start()
    recorder = Recorder(at=2, action=lambda: interrupt(number))
    stopped = train(first, env_1, run_dir=tmp_path / "parts", callbacks=[recorder], **settings)
    assert (stopped.interrupted, stopped.stopped_by) == (True, number)
    assert recorder.calls == [(0, 5), 0, 1, 2, "end"]
    loaded = LanguageModelPolicy.from_pretrained(tmp_path / "parts/checkpoints/checkpoint-3/policy", device="cpu")
    assert_same_state(loaded.state_dict(), first.policy.state_dict())
    second, env_2 = start()
    result = train(second, env_2, run_dir=tmp_path / "parts", resume=True, **settings)
    assert len(result.history) == 2
    assert not result.interrupted
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    assert_same_state(second.policy.state_dict(), whole.policy.state_dict())
    assert_same_state(second.state_dict(), whole.state_dict())
    assert_same_state(env_2.state_dict(), env.state_dict())
    assert adaptive is (env.kl_coef != 0.1)
    assert {one: signal.getsignal(one) for one in before} == before


def test_a_signal_within_an_iteration_lets_it_finish(tmp_path: Path, start: Start) -> None:
    agent, env = start(reward_model=lambda prompts, completions: interrupt_once() or [1.0] * len(prompts))
    pending = [True]

    def interrupt_once() -> None:
        if pending:
            pending.clear()
            interrupt(signal.SIGTERM)

    result = train(agent, env, iterations=6, run_dir=tmp_path / "run", tensorboard=False)
    assert result.stopped_by == signal.SIGTERM
    assert len(result.history) == 1
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-1"]


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_second_signal_ends_at_once(number: int, error: type[BaseException], start: Start) -> None:
    def twice() -> None:
        interrupt(number)
        interrupt(number)

    agent, env = start()
    recorder = Recorder(at=0, action=twice)
    with pytest.raises(error) as found:
        train(agent, env, iterations=6, callbacks=[recorder])
    assert recorder.calls[-1] == "end"
    if error is SystemExit:
        assert found.value.args == (128 + number,)


def test_a_hang_up_that_the_process_ignores_stays_ignored(start: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        agent, env = start()
        recorder = Recorder(at=0, action=lambda: interrupt(signal.SIGHUP))
        assert not train(agent, env, iterations=2, callbacks=[recorder]).interrupted
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_in_the_last_iteration_is_told_of_a_finished_run(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    recorder = Recorder(at=1, action=interrupt)
    result = train(agent, env, iterations=2, run_dir=tmp_path, callbacks=[recorder], tensorboard=False)
    assert result.interrupted
    assert (tmp_path / "policy").is_dir()


def test_a_second_call_trains_again(start: Start) -> None:
    agent, env = start()
    first = train(agent, env, iterations=2)
    second = train(agent, env, iterations=2)
    assert [row["learning_rate"] for row in first.history] == [row["learning_rate"] for row in second.history]
    assert len(second.history) == 2
    assert first.history[0]["score"] != second.history[0]["score"]


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


def test_adaptive_kl_waits_while_every_episode_abstains(start: Start) -> None:
    calls: list[int] = []

    def abstains_at_first(prompts: list[str], completions: list[str]) -> list[float | None]:
        calls.append(len(prompts))
        return [None if len(calls) == 1 else 1.0] * len(prompts)

    agent, env = start(reward_model=abstains_at_first)
    result = train(agent, env, iterations=3, adaptive_kl=AdaptiveKL(target=1e-6, horizon=16))
    used = [metrics["kl_coef"] for metrics in result.history]
    assert np.isnan(result.history[0]["kl"])
    assert used[0] == used[1] == 0.1 != used[2]


@pytest.mark.parametrize("without", ["reference", "coefficient"])
def test_adaptive_kl_without_anything_to_control_is_found_before_anything_is_done(
    without: str, tmp_path: Path, start: Start
) -> None:
    agent, env = start(kl_coef=0.0)
    if without == "reference":
        assert env.reference is not None
        task = TextTask.of(None, ["a"], tokenizer=env.reference.tokenizer, kl_coef=0.0, max_new_tokens=6)
        env = TextGenerationVectorEnv(task, num_envs=4)
    with pytest.raises(ConfigError, match=r"adaptive_kl: needs a reference and a kl_coef above 0 .*got kl_coef = 0"):
        train(agent, env, iterations=2, adaptive_kl=AdaptiveKL(target=1.0), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_calls(start: Start) -> None:
    agent, env = start()
    for name in ("iterations", "eval_every", "checkpoint_every"):
        with pytest.raises(ConfigError, match=f"{name}: must be a whole number >= 1, got 0"):
            train(agent, env, **({"iterations": 1} | {name: 0}))
    for count in (1.5, "3", None):
        with pytest.raises(ConfigError, match=f"iterations: must be a whole number >= 1, got {count!r}"):
            train(agent, env, iterations=count)  # type: ignore[arg-type]
    for flag in ("resume", "overwrite"):
        with pytest.raises(ConfigError, match="resume and overwrite need run_dir, got none"):
            train(agent, env, iterations=1, **{flag: True})


def test_a_run_folder_for_several_processes_is_refused(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, env = start()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="holds the state of one process, got 2 launched"):
        train(agent, env, iterations=1, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_held_out_prompt_that_is_too_long_is_found_before_anything_is_done(tmp_path: Path, start: Start) -> None:
    agent, env = start(reward_model=lambda prompts, completions: pytest.fail("an iteration was begun"))
    with pytest.raises(PromptError, match="got 31"):
        train(agent, env, iterations=20, run_dir=tmp_path / "run", eval_prompts=["a", "b " * 31])
    assert not (tmp_path / "run").exists()


def test_counts_of_numpy_are_those_of_python(tmp_path: Path, start: Start) -> None:
    """Also in the identity of the run, which is the same for both."""
    options: dict[str, Any] = {"run_dir": tmp_path / "run", "eval_prompts": ["a b"], "tensorboard": False}
    counts: dict[str, Any] = {"iterations": 1, "eval_every": 1, "checkpoint_every": 1, "seed": 3}
    agent, env = start()
    train(agent, env, **options, **{name: np.int64(count) for name, count in counts.items()})
    agent, env = start()
    assert train(agent, env, **options, **counts, resume=True).history == ()
