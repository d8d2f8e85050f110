"""Run folders of training: the same run or a refusal, whole checkpoints, and errors that lose one iteration."""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lm_gym import AdaptiveKL, TextGenerationVectorEnv
from lm_gym.agents import PPO, PPOConfig, TrainingRun, train
from lm_gym.agents.run_folder import TrainingState
from lm_gym.errors import ConfigError, DivergedError, OutputExistsError, RewardModelError
from lm_gym.runs.folder import read_result
from lm_gym.scoring.protocol import Scores

CONFIG = PPOConfig(episodes_per_iteration=8, minibatches=2, learning_rate=1e-3)


Start = Callable[..., tuple[PPO, TextGenerationVectorEnv]]


def weights(agent: PPO) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in agent.policy.parameters()]


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def lines(folder: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Stop(Exception):
    """Ends a run from a callback."""


class Counter:
    """A callback with a state: it counts iterations, and raises at one of them."""

    def __init__(self, at: int = -1) -> None:
        self.seen, self.at = 0, at

    def on_start(self, run: TrainingRun) -> None:
        pass

    def on_iteration(self, run: TrainingRun) -> None:
        if run.iteration == self.at:
            raise Stop
        self.seen += 1

    def on_end(self, run: TrainingRun) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def cut(start: Start, folder: Path, *, at: int = 3, **settings: Any) -> None:
    """A run of 6 iterations that ends with an error."""
    agent, env = start()
    with pytest.raises(Stop):
        train(agent, env, iterations=6, run_dir=folder, callbacks=[Counter(at)], tensorboard=False, **settings)


def other_score(prompts: list[str], completions: list[str]) -> list[float]:
    return [1.0] * len(prompts)


class KnownModel:
    """A reward model that tells its identity."""

    def __init__(self, content: str) -> None:
        self.content = content

    def identity(self) -> str:
        return self.content

    def score(self, prompts: list[str], responses: list[str]) -> Scores:
        return Scores.of([float(len(text)) for text in responses])


class UnknownModel(KnownModel):
    """One that tells its name only."""

    def identity(self) -> None:  # type: ignore[override]
        return None


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "agent": ({"config": replace(CONFIG, learning_rate=1e-2)}, {}, r"learning_rate \(was 0.001, is 0.01\)"),
    "length": ({}, {"iterations": 9}, r"iterations \(was 6, is 9\)"),
    "beta": ({"kl_coef": 0.3}, {}, r"env.reward.kl_coef \(was 0.1, is 0.3\)"),
    "sampling": ({"temperature": 0.5}, {}, r"env.sampling.temperature \(was 1.0, is 0.5\)"),
    "payment": ({"missing_eos_penalty": 1.0}, {}, r"env.reward.missing_eos_penalty \(was 0.0, is 1.0\)"),
    "prompts": ({"prompts": ["a b c", "d"]}, {}, r"input prompts \(was \w{12}\.\.\., is \w{12}\.\.\.\)"),
    "reference": ({"architecture": "llama"}, {}, r"input reference \(was"),
    "reward model": ({"reward_model": other_score}, {}, r"input reward model \(was .*letter_score, is .*other_score\)"),
    "controller": ({}, {"adaptive_kl": AdaptiveKL(target=1)}, r"adaptive_kl.target \(was not set, is 1.0\)"),
    "seed": ({}, {"seed": 1}, r"seed_of_env \(was 0, is 1\)"),
    "held out": ({}, {"eval_prompts": ["c"]}, r"input eval_prompts \(was"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_with_another_setting_or_input_is_no_resume(name: str, tmp_path: Path, start: Start) -> None:
    cut(start, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    parts, settings, words = CHANGES[name]
    agent, env = start(**parts)
    with pytest.raises(ConfigError, match=words):
        train(agent, env, run_dir=tmp_path, resume=True, tensorboard=False, **({"iterations": 6} | settings))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    agent, env = start()
    with torch.no_grad():
        agent.policy.value_head.bias += 0.5
    with pytest.raises(ConfigError, match=r"these differ: input policy \(was"):
        train(agent, env, iterations=6, run_dir=tmp_path, resume=True, tensorboard=False)


def test_reward_models_are_told_apart_by_what_they_tell(tmp_path: Path, start: Start) -> None:
    found = {}
    models = {"a": KnownModel("a" * 64), "b": KnownModel("b" * 64), "u": UnknownModel("c"), "v": UnknownModel("d")}
    for name, model in models.items():
        agent, env = start(reward_model=model)
        train(agent, env, iterations=1, run_dir=tmp_path / name, tensorboard=False)
        marker = json.loads((tmp_path / name / "lm_gym_run.json").read_text())
        found[name] = marker["inputs"]["reward model"]
    assert (found["a"], found["b"]) == ("a" * 64, "b" * 64)
    assert found["u"] == found["v"]
    assert found["u"] == "UnknownModel, content unknown"


def test_an_answer_is_part_of_the_prompts_and_a_time_limit_is_no_setting(tmp_path: Path, start: Start) -> None:
    found = []
    for name, answer, limit in (("a", "d", None), ("b", "d", 9.0), ("c", "e", None)):
        agent, env = start(prompts=[{"prompt": "a b c", "answer": answer}], score_timeout_s=limit)
        train(agent, env, iterations=1, run_dir=tmp_path / name, tensorboard=False)
        found.append(json.loads((tmp_path / name / "lm_gym_run.json").read_text()))
    assert found[0] == found[1]
    assert found[0]["inputs"] != found[2]["inputs"]


def test_a_folder_with_another_run_is_refused_and_overwritten_on_request(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    folder = tmp_path / "run"
    train(agent, env, iterations=1, run_dir=folder, tensorboard=False)
    assert names(folder) == ["lm_gym_run.json", "metrics.jsonl", "policy"]
    agent, env = start()
    with pytest.raises(OutputExistsError, match="it holds a run; go on with that one: --resume"):
        train(agent, env, iterations=2, run_dir=folder, tensorboard=False)
    train(agent, env, iterations=2, run_dir=folder, overwrite=True, tensorboard=False)
    assert lines(folder) == [0, 1]


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_what_no_run_wrote_is_left_alone(flag: str, tmp_path: Path, start: Start) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    agent, env = start()
    with pytest.raises(OutputExistsError, match=r"holds thesis\.tex, which no run wrote"):
        train(agent, env, iterations=1, run_dir=tmp_path, tensorboard=False, **{flag: True})
    assert names(tmp_path) == ["thesis.tex"]


def test_a_finished_run_gives_the_agent_its_policy(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    first = train(agent, env, iterations=2, run_dir=tmp_path, eval_prompts=["a"], tensorboard=False)
    assert read_result(tmp_path) == {"iterations": 2, "best_iteration": 1}
    again, env = start(reward_model=letter_score_that_must_not_be_asked)
    env.reward_model = start()[1].reward_model
    result = train(again, env, iterations=2, run_dir=tmp_path, eval_prompts=["a"], tensorboard=False, resume=True)
    assert result.history == ()
    assert result.best_iteration == first.best_iteration
    assert same(weights(again), weights(agent))
    assert lines(tmp_path) == [0, 1]


def letter_score_that_must_not_be_asked(prompts: list[str], completions: list[str]) -> list[float]:
    raise AssertionError("a finished run asked its reward model")


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["reward model", "second step", "callback", "first iteration"])
def test_an_error_loses_only_the_iteration_at_work(
    where: str, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that comes when the update has changed the weights already."""
    whole, env = start()
    train(whole, env, iterations=6, run_dir=tmp_path / "whole", tensorboard=False)
    agent, env = start()
    done = 0 if where == "first iteration" else 4
    error = fail_at(agent, env, where, done, monkeypatch)
    counter = Counter(done if where == "callback" else -1)
    with pytest.raises(error):
        train(agent, env, iterations=6, run_dir=tmp_path / "cut", callbacks=[counter], tensorboard=False)
    assert f"iteration {done + 1} of 6 failed; the {done} before it are saved" in caplog.text
    found = names(tmp_path / "cut" / "checkpoints") if done else []
    assert found == [f"checkpoint-{done}"][: 1 if done else 0]
    monkeypatch.undo()
    resumed, env = start()
    counter = Counter()
    result = train(
        resumed, env, iterations=6, run_dir=tmp_path / "cut", callbacks=[counter], tensorboard=False, resume=True
    )
    assert len(result.history) == 6 - done
    assert counter.seen == 6
    assert lines(tmp_path / "cut") == list(range(6))
    assert same(weights(resumed), weights(whole))


def fail_at(
    agent: PPO, env: TextGenerationVectorEnv, where: str, done: int, monkeypatch: pytest.MonkeyPatch
) -> type[Exception]:
    """Make iteration ``done`` (from 0) fail at some point. Returns: the error."""
    calls = [0]
    if where == "callback":
        return Stop
    if where == "second step":
        real_step = agent._update._step

        def step(*args: Any) -> dict[str, float]:
            calls[0] += 1
            if calls[0] == done * CONFIG.epochs * CONFIG.minibatches + 2:
                raise DivergedError("the loss is nan")
            return real_step(*args)

        monkeypatch.setattr(agent._update, "_step", step)
        return DivergedError
    model = env.reward_model
    assert model is not None
    real_score = model.score

    def score(prompts: Any, responses: Any) -> Scores:
        calls[0] += 1
        if calls[0] == done + 1:
            raise ValueError("the server is away")
        return real_score(prompts, responses)

    monkeypatch.setattr(model, "score", score)
    return RewardModelError


def test_after_an_error_agent_and_env_are_where_they_were(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, whole_env = start()
    train(whole, whole_env, iterations=6, run_dir=tmp_path / "whole", callbacks=[], tensorboard=False)
    agent, env = start()
    with pytest.raises(Stop):
        train(agent, env, iterations=6, run_dir=tmp_path / "cut", callbacks=[Counter(5)], tensorboard=False)
    agent.learn(env, progress=5 / 6)
    assert same(weights(agent), weights(whole))


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state.pt", "policy/model.safetensors", "policy/critic.safetensors"])
def test_a_flipped_byte_in_a_checkpoint_is_found_and_the_one_before_is_used(
    name: str, tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    whole, env = start()
    train(whole, env, iterations=6, run_dir=tmp_path / "whole", tensorboard=False)
    cut(start, tmp_path / "cut", at=5, checkpoint_every=2)
    newest = tmp_path / "cut" / "checkpoints" / "checkpoint-5"
    raw = bytearray((newest / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (newest / name).write_bytes(raw)
    agent, env = start()
    with caplog.at_level(logging.WARNING):
        result = train(agent, env, iterations=6, run_dir=tmp_path / "cut", tensorboard=False, resume=True)
    assert f"checkpoint {newest} is not whole" in caplog.text
    assert len(result.history) == 2  # from checkpoint-4
    assert same(weights(agent), weights(whole))
    assert lines(tmp_path / "cut") == list(range(6))


def test_a_checkpoint_holds_the_policy_once(tmp_path: Path, start: Start) -> None:
    cut(start, tmp_path)
    folder = tmp_path / "checkpoints" / "checkpoint-3"
    state = torch.load(folder / "state.pt", weights_only=True)
    agent, _ = start()
    shapes = sorted(tuple(parameter.shape) for parameter in agent.policy.parameters())
    optimizer = state["parts"]["agent"]["optimizer"]["state"]
    assert sorted(tuple(one["exp_avg"].shape) for one in optimizer.values()) == shapes
    assert set(state["parts"]["agent"]) == {"optimizer", "rng", "updates"}
    assert names(folder / "policy")


def test_a_resumed_run_that_gets_worse_keeps_its_best(tmp_path: Path, start: Start, monkeypatch: Any) -> None:
    from lm_gym.agents import training

    settings: dict[str, Any] = {"eval_prompts": ["a b"], "eval_every": 1}
    cut(start, tmp_path, at=2, **settings)
    best = (tmp_path / "best" / "model.safetensors").read_bytes()
    real = training.evaluate

    def worse(*args: Any, **kwargs: Any) -> Any:
        return replace(real(*args, **kwargs), episode_return=-100.0)

    monkeypatch.setattr(training, "evaluate", worse)
    agent, env = start()
    result = train(agent, env, iterations=6, run_dir=tmp_path, tensorboard=False, resume=True, **settings)
    assert result.best_iteration in (0, 1)
    assert result.best_evaluation is None
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == best


def test_the_best_policy_is_chosen_at_one_coefficient(start: Start) -> None:
    """A controller that moved beta in between must not decide which policy is kept."""
    agent, env = start()
    state = TrainingState(agent, env, None, (), None)
    far = SimpleNamespace(episode_return=1.0, kl=5.0)  # paid 1.5 at beta .1
    near = SimpleNamespace(episode_return=0.0, kl=3.0)  # paid 1.5 at beta .5, where the first would have -1.0
    state.save_best(far, 0.1)
    assert state.is_best(near, 0.5)
    state.save_best(near, 0.5)
    assert not state.is_best(SimpleNamespace(episode_return=-1.0, kl=5.0), 0.5)  # the first, paid at .5
    assert not state.is_best(SimpleNamespace(episode_return=math.nan, kl=math.nan), 0.5)
    unreferenced = SimpleNamespace(episode_return=2.0, kl=math.nan)
    assert state.is_best(unreferenced, 0.0)
    state.save_best(unreferenced, 0.0)
    assert not state.is_best(unreferenced, 0.0)


class Failing(Counter):
    """A callback whose ``on_end`` fails, too."""

    def on_end(self, run: TrainingRun) -> None:
        raise OSError("the tracker is away")


def test_the_first_error_is_raised_and_a_later_one_of_on_end_is_its_note(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    callbacks = [Failing(1), Failing(), last := Ended()]
    with pytest.raises(Stop) as found:
        train(agent, env, iterations=2, run_dir=tmp_path, callbacks=callbacks, tensorboard=False)
    assert found.value.__notes__ == ["on_end of Failing failed after it: OSError: the tracker is away"] * 2
    assert last.is_ended
    with pytest.raises(OSError, match="tracker is away") as alone:
        train(agent, env, iterations=1, callbacks=callbacks[1:], tensorboard=False)
    assert not hasattr(alone.value, "__notes__")


class Ended(Counter):
    """A callback that remembers that it was told of the end."""

    is_ended = False

    def on_end(self, run: TrainingRun) -> None:
        self.is_ended = True


@pytest.mark.parametrize("place", ["folder", "no folder"])
def test_an_error_is_not_hidden_by_a_checkpoint_that_cannot_be_written(
    place: str, tmp_path: Path, start: Start, full_disk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    agent, env = start()
    run_dir = tmp_path if place == "folder" else None
    with full_disk(4000), pytest.raises(Stop) as found:
        train(agent, env, iterations=2, run_dir=run_dir, callbacks=[Counter(1)], tensorboard=False)
    notes = getattr(found.value, "__notes__", [])
    assert len(notes) == (place == "folder")
    if notes:
        assert f"could not be saved: WriteError: {tmp_path}/checkpoints/checkpoint-1: must be written" in notes[0]
    assert "are saved" not in caplog.text
