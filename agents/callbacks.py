"""A training run as others see it: the agent that learns, the run in progress, and the callbacks that follow it.

A callback gets the run itself, not a bag of local variables; it may read everything, stop the run, and change nothing
but its own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from lm_gym.envs.evaluation import Evaluation
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.tools.console.progress import StepProgress
from lm_gym.tools.settings import checked

from .policy import LanguageModelPolicy

__all__ = ["Agent", "Callback", "ProgressDisplay", "TrainingRun", "check_agent", "check_callbacks"]


class Agent(Protocol):
    """Something that learns in a text-generation environment, one iteration at a time."""

    policy: LanguageModelPolicy
    last_episodes: Episodes | None

    def learn(self, env: TextGenerationVectorEnv, *, progress: float) -> dict[str, float]:
        """Collect and update once.

        Args:
            env: gives episodes.
            progress: share of the run that is done, in [0, 1).

        Returns: metrics; ``kl`` and ``score`` at least.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that decides how it learns, as plain JSON values."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration depends on, but for the weights of the policy."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        ...


@dataclass(kw_only=True)
class TrainingRun:
    """A run of :func:`lm_gym.agents.train` in progress."""

    agent: Agent
    """The agent that learns; ``agent.policy`` is its policy."""
    env: TextGenerationVectorEnv
    """The environment that it learns in."""
    iterations: int
    """Length of the whole run."""
    folder: Path | None = None
    """The run folder; None without one."""
    first_iteration: int = 0
    """Number of the first iteration of this call, counted from 0; above 0 in a resumed run."""
    iteration: int | None = None
    """Number of the last iteration, counted from 0; None before the first of this call."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Its metrics, those of an evaluation after it included (``eval_...``)."""
    episodes: Episodes | None = None
    """The episodes that it learned from."""
    evaluation: Evaluation | None = None
    """The last evaluation of this call on the held-out prompts; None before it."""
    stop_reason: str | None = None
    """Reason that a callback gave for stopping; None while none did."""

    def stop(self, reason: str) -> None:
        """Ask the run to end after this iteration, with a checkpoint from which it can be resumed.

        Args: reason: for the log and for ``TrainResult.stop_reason``.

        Raises:
            ConfigError: it is no text.
        """
        self.stop_reason = checked("run.stop: reason", reason, str)


class Callback(Protocol):
    """Called around every iteration of :func:`lm_gym.agents.train`.

    Subclass it and write the methods that you need; an object with all three will do too. With ``state_dict`` and
    ``load_state_dict`` its state is part of a checkpoint.
    """

    def on_start(self, run: TrainingRun) -> None:
        """Before the first iteration of the call."""
        return

    def on_iteration(self, run: TrainingRun) -> None:
        """After every iteration."""
        return

    def on_end(self, run: TrainingRun) -> None:
        """After the last iteration, also of an interrupted or failed run, whose error stays the one that is raised.

        It is called of every callback whose ``on_start`` came to its end.
        """
        return


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuse an object that cannot follow a run before the run begins.

    Raises:
        ConfigError: a method is missing, or takes something else than the run.
    """
    for callback in callbacks:
        for name in ("on_start", "on_iteration", "on_end"):
            method = getattr(callback, name, None)
            if isinstance(callback, type) or not callable(method):
                raise ConfigError(
                    f"train: callbacks must be objects with on_start, on_iteration and on_end, and {callback!r} has no "
                    f"{name} to call; subclass lm_gym.agents.Callback, which has all three, and pass an object of it"
                )
            try:
                inspect.signature(method).bind(None)
            except TypeError as error:
                raise ConfigError(
                    f"train: {type(callback).__name__}.{name} must take one argument, the run (run.iteration, "
                    "run.metrics, run.episodes, run.agent, run.env, run.stop(reason)), and takes "
                    f"{inspect.signature(method)}"
                ) from error


def check_agent(agent: Any, *, has_folder: bool) -> None:
    """Refuse an agent that cannot be trained, or whose run could not be taken up again.

    Raises:
        ConfigError: it lacks a part of :class:`Agent`; the state is needed for a run folder only.
    """
    name = type(agent).__name__
    needed = ("policy", "last_episodes", "learn", "settings")
    missing = [part for part in needed if not hasattr(agent, part)]
    if missing or isinstance(agent, type):
        raise ConfigError(
            f"train: an agent must have {', '.join(needed)} (see lm_gym.agents.Agent), and "
            f"{agent!r} {'is a class' if isinstance(agent, type) else f'lacks {missing}'}"
        )
    stateless = [part for part in ("state_dict", "load_state_dict") if not hasattr(agent, part)]
    if has_folder and stateless:
        raise ConfigError(
            f"train: an agent with run_dir=... must have state_dict and load_state_dict, or a resumed run would go on "
            f"without its optimiser, generators and counters, and {name} lacks {', '.join(stateless)}; return all that "
            "the next iteration depends on but the policy's weights ({} if there is nothing), or train without run_dir"
        )
    if has_folder and not isinstance(agent.policy, LanguageModelPolicy):
        raise ConfigError(
            f"train: run_dir=... saves the policy of the agent, which must be a LanguageModelPolicy, and that of "
            f"{name} is {type(agent.policy).__name__}; train without run_dir, and save it yourself"
        )


class ProgressDisplay:
    """Score, KL, entropy, speed and time left of every iteration on standard error.

    On a terminal it is a bar; elsewhere a line per iteration, at most one every two seconds.
    """

    def __init__(self, title: str = "PPO", *, console: Console | None = None) -> None:
        """Args:
        title: stands before the iterations.
        console: where it is shown; None takes standard error.
        """
        title = checked("ProgressDisplay: title", title, str)
        console = checked("ProgressDisplay: console", console, Console | None)
        self._progress = StepProgress(title, unit="iteration", each_step=True, console=console)

    def on_start(self, run: TrainingRun) -> None:
        """Begin."""
        self._progress.start(run.iterations, run.first_iteration)

    def on_iteration(self, run: TrainingRun) -> None:
        """Tell of the iteration."""
        self._progress.advance_to(self._progress.done + 1, told_of(run.metrics), more_of(run.metrics))

    def on_end(self, run: TrainingRun) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


def told_of(metrics: Mapping[str, float]) -> str:
    """Score, KL and entropy of an iteration."""
    names = {"score": "score", "kl": "KL", "entropy": "entropy"}
    told = ", ".join(f"{shown} {metrics[name]:.3f}" for name, shown in names.items() if name in metrics)
    return told.replace("-0.000", "0.000")


def more_of(metrics: Mapping[str, float]) -> str:
    """Response tokens per second of a whole iteration, and its held-out results if there are."""
    parts = []
    speeds = [metrics.get(f"tokens_per_second_{part}", math.inf) for part in ("rollout", "score", "update")]
    seconds_per_token = sum(1 / speed for speed in speeds if speed > 0)
    if seconds_per_token > 0:
        parts.append(f"{1 / seconds_per_token:,.0f} tokens/s")
    if "eval_score" in metrics:
        parts.append(f"held-out score {metrics['eval_score']:.3f} at KL {metrics['eval_kl']:.3f}")
    return ", ".join(parts)
