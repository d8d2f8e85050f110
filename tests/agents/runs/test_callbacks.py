"""Callbacks get the run, may stop it, and are refused before it begins where they cannot follow it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_gym import TextGenerationVectorEnv
from lm_gym.agents import PPO, Callback, LanguageModelPolicy, TrainingRun, train
from lm_gym.errors import ConfigError

Start = Callable[[], tuple[PPO, TextGenerationVectorEnv]]


class Stops(Callback):
    """Stops after an iteration; the methods that it does not write do nothing."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_iteration(self, run: TrainingRun) -> None:
        if run.iteration == self.at:
            run.stop("the KL is high enough")


def test_a_callback_sees_the_whole_run(tmp_path: Path, start: Start) -> None:
    seen: list[Any] = []

    class Watch(Callback):
        def on_start(self, run: TrainingRun) -> None:
            assert (run.iteration, run.episodes, run.evaluation) == (None, None, None)

        def on_iteration(self, run: TrainingRun) -> None:
            assert run.episodes is not None
            evaluated = None if run.evaluation is None else run.evaluation.score
            seen.append((run.iteration, run.metrics["score"], float(run.episodes.scores.mean()), evaluated))

        def on_end(self, run: TrainingRun) -> None:
            seen.append((run.agent, run.env, run.folder, run.iterations))

    agent, env = start()
    prompts = ["a b"]
    result = train(
        agent, env, iterations=2, run_dir=tmp_path / "run", eval_prompts=prompts, callbacks=[Watch()], tensorboard=False
    )
    assert result.best_evaluation is not None
    for place, (number, score, mean, _) in enumerate(seen[:2]):
        assert number == place
        assert score == pytest.approx(mean)
    assert seen[0][3] is None
    assert seen[1][3] == result.best_evaluation.score
    assert seen[2] == (agent, env, tmp_path / "run", 2)


def test_a_run_that_a_callback_stopped_goes_on_as_if_undisturbed(tmp_path: Path, start: Start) -> None:
    options: dict[str, Any] = {"iterations": 4, "tensorboard": False}
    whole, env = start()
    train(whole, env, run_dir=tmp_path / "whole", **options)
    agent, env = start()
    result = train(agent, env, run_dir=tmp_path / "run", callbacks=[Stops(1)], **options)
    assert (len(result.history), result.stop_reason) == (2, "the KL is high enough")
    assert not result.interrupted
    again, env = start()
    result = train(again, env, run_dir=tmp_path / "run", resume=True, callbacks=[Stops(3)], **options)
    assert (len(result.history), result.stop_reason) == (2, None)  # it was over anyway
    for mine, theirs in zip(again.policy.parameters(), whole.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_run_is_not_stopped_without_a_reason_and_goes_not_on_in_silence(start: Start) -> None:
    class Silent(Callback):
        def on_iteration(self, run: TrainingRun) -> None:
            run.stop(None)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"run\.stop: reason: must be a text that UTF-8 can hold, got None"):
        train(*start(), iterations=2, callbacks=[Silent()])


class Counts(Stops):
    """Counts iterations, over a resume too."""

    def __init__(self, at: int, fault: Exception | None = None) -> None:
        super().__init__(at)
        self.count = 0
        self._fault = fault

    def on_iteration(self, run: TrainingRun) -> None:
        self.count += 1
        super().on_iteration(run)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._fault is not None:
            raise self._fault
        self.count = state["count"]


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_the_state_of_a_callback_is_found_whatever_trackers_there_are(
    before: bool, after: bool, tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    train(*start(), iterations=3, run_dir=tmp_path / "run", callbacks=[Counts(0)], tensorboard=before)
    counts = Counts(9)
    train(*start(), iterations=3, run_dir=tmp_path / "run", resume=True, callbacks=[counts], tensorboard=after)
    assert counts.count == 3
    assert "the state of" not in caplog.text


def test_a_state_without_a_callback_and_a_callback_without_a_state_are_told(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"iterations": 3, "run_dir": tmp_path / "run", "tensorboard": False}
    train(*start(), callbacks=[Counts(0)], **options)
    train(*start(), callbacks=[Stops(1), Counts(9)], resume=True, **options)
    assert "the state of the callback 0 (Counts) is in no part of this run, and is left" in caplog.text
    assert "the state of the callback 1 (Counts) is not in it; it is new" in caplog.text


def test_a_callback_that_cannot_take_its_state_is_no_damaged_checkpoint(tmp_path: Path, start: Start) -> None:
    options: dict[str, Any] = {"iterations": 3, "run_dir": tmp_path / "run", "tensorboard": False}
    train(*start(), callbacks=[Counts(0)], **options)
    with pytest.raises(KeyError, match="a slip of its author"):
        train(*start(), callbacks=[Counts(9, KeyError("a slip of its author"))], resume=True, **options)


class Opens(Callback):
    """Has something open between its start and its end, as a tracker has."""

    is_open = False

    def on_start(self, run: TrainingRun) -> None:
        self.is_open = True

    def on_end(self, run: TrainingRun) -> None:
        assert self.is_open
        self.is_open = False


class FailsAtStart(Opens):
    def on_start(self, run: TrainingRun) -> None:
        raise OSError("the tracker is away")


def test_a_callback_that_fails_at_the_start_leaves_none_before_it_open(start: Start) -> None:
    first, last = Opens(), Opens()
    with pytest.raises(OSError, match="the tracker is away") as found:
        train(*start(), iterations=1, callbacks=[first, FailsAtStart(), last])
    assert not first.is_open
    assert not hasattr(found.value, "__notes__")  # on_end of the others was not called


class Old:
    """The signature of version 0.1."""

    def on_start(self, first_iteration: int, total_iterations: int) -> None: ...
    def on_iteration(self, iteration: int, metrics: dict[str, float]) -> None: ...
    def on_end(self) -> None: ...


class Half:
    """Lacks what it does not use, without being a Callback."""

    def on_iteration(self, run: TrainingRun) -> None: ...


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Old(), r"Old\.on_start must take one argument, the run .*, and takes \(first_iteration: int, total"),
        (Half(), r"has no on_start to call; subclass lm_gym\.agents\.Callback"),
        (Stops, "pass an object of it"),
        (print, "has no on_start"),
    ],
)
def test_what_cannot_follow_a_run_is_refused_before_it(
    callback: Any, message: str, tmp_path: Path, start: Start
) -> None:
    agent, env = start()
    with pytest.raises(ConfigError, match=message):
        train(agent, env, iterations=1, run_dir=tmp_path / "run", callbacks=[callback], tensorboard=False)
    assert not (tmp_path / "run").exists()


class Bare:
    """An agent of one's own that learns, and tells nothing of its state."""

    def __init__(self, policy: LanguageModelPolicy) -> None:
        self.policy = policy
        self.last_episodes: Any = None

    def learn(self, env: TextGenerationVectorEnv, *, progress: float) -> dict[str, float]:
        self.last_episodes = env.rollout(self.policy, 2)
        return {"score": float(self.last_episodes.scores.mean()), "kl": 0.0}

    def settings(self) -> dict[str, Any]:
        return {}


def test_an_agent_without_a_state_has_no_run_folder(tmp_path: Path, start: Start) -> None:
    """It would go on without its optimiser after a resume, in silence."""
    agent, env = start()
    bare: Any = Bare(agent.policy)
    with pytest.raises(
        ConfigError, match=r"must have state_dict and load_state_dict, .* Bare lacks state_dict, load_st"
    ):
        train(bare, env, iterations=1, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert len(train(bare, env, iterations=1).history) == 1


def test_what_is_no_agent_is_refused(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    wrong: Any
    for wrong, message in (
        (agent.policy, r"lacks \['policy', 'last_episodes', 'learn', 'settings'\]"),
        (PPO, "is a cl"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(wrong, env, iterations=1)


def test_an_agent_whose_policy_cannot_be_saved_has_no_run_folder(tmp_path: Path, start: Start) -> None:
    agent, env = start()
    agent.policy = agent.policy.language_model  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"must be a LanguageModelPolicy, and that of PPO is LanguageModel;"):
        train(agent, env, iterations=1, run_dir=tmp_path / "run")
