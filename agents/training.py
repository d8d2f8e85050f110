"""The training loop around any agent: iterate, evaluate, keep the best and the last, stop cleanly, resume.

Knows: run folders and when to do what. Does not know: how an agent learns.

A run folder holds ``metrics.jsonl``, ``tensorboard/``, and ``checkpoints/last`` and ``checkpoints/best``, each with the
policy (``policy/``, a folder that ``from_pretrained`` loads) and what a resumed run needs (``state.pt``).
"""

from __future__ import annotations

import importlib.util
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from lm_gym.episodes import Episodes
from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.evaluation import Evaluation, evaluate
from lm_gym.files import output_folder, replaced_folder
from lm_gym.kl_control import AdaptiveKL
from lm_gym.prompts import Prompt
from lm_gym.vector_env import TextGenerationVectorEnv

from .callbacks import Callback, JsonlTracker, TensorBoardTracker
from .policy import LanguageModelPolicy

__all__ = ["Agent", "TrainResult", "train"]

EpisodeMetrics = Callable[[Episodes], Mapping[str, float]]
logger = logging.getLogger(__name__)


class Agent(Protocol):
    """Something that learns in a text-generation environment, one iteration at a time."""

    policy: LanguageModelPolicy
    last_episodes: Episodes | None

    def learn(self, env: TextGenerationVectorEnv, *, progress: float = 0.0) -> dict[str, float]:
        """Collect and update once.

        Args:
            env: gives episodes.
            progress: share of the run that is done, in [0, 1).

        Returns: metrics; ``kl`` and ``score`` at least.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run went."""

    history: tuple[dict[str, float], ...]
    """Metrics of each iteration of this call."""
    best_evaluation: Evaluation | None
    """Of the best checkpoint; None without held-out prompts, or if an earlier part of a resumed run holds the best."""
    best_iteration: int | None
    """When it was reached."""
    interrupted: bool
    """Whether Ctrl-C ended it early."""
    run_dir: Path | None
    """Where it was written."""


class _Run:
    """One run folder and the state that travels with a checkpoint."""

    def __init__(
        self, agent: Agent, env: TextGenerationVectorEnv, run_dir: Path | None, controller: AdaptiveKL | None
    ) -> None:
        self.agent = agent
        self.env = env
        self.run_dir = run_dir
        self.controller = controller
        self.iterations_done = 0
        self.best_return = -float("inf")
        self.best: Evaluation | None = None
        self.best_iteration: int | None = None
        self.reference_episodes: Episodes | None = None

    def checkpoint(self, name: str) -> None:
        if self.run_dir is None:
            return
        with replaced_folder(self.run_dir / "checkpoints" / name) as folder:
            self.agent.policy.save_pretrained(folder / "policy")
            state = {
                "agent": self.agent.state_dict(),
                "iterations_done": self.iterations_done,
                "env": self.env.state_dict(),
                "best_return": self.best_return,
                "best_iteration": self.best_iteration,
            }
            torch.save(state, folder / "state.pt")

    def restore(self) -> None:
        path = Path(self.run_dir or "") / "checkpoints" / "last" / "state.pt"
        if not path.is_file():
            raise ArtifactError(f"resume: needs {path}, and there is none; start the run without resume=True")
        try:
            state = torch.load(path, map_location=self.agent.policy.device, weights_only=True)
        except Exception as error:
            raise ArtifactError(f"resume: {path} must be a whole checkpoint; reading it failed: {error}") from error
        self.agent.load_state_dict(state["agent"])
        self.iterations_done = int(state["iterations_done"])
        self.env.load_state_dict(state["env"])
        self.best_return, self.best_iteration = state["best_return"], state["best_iteration"]

    def iterate(self, total: int, episode_metrics: EpisodeMetrics | None) -> dict[str, float]:
        metrics = self.agent.learn(self.env, progress=self.iterations_done / total)
        self.iterations_done += 1
        episodes = self.agent.last_episodes
        if episodes is None:
            return metrics
        if self.controller is not None:
            self.env.kl_coef = self.controller.next_coef(self.env.kl_coef, metrics["kl"], len(episodes))
        return metrics if episode_metrics is None else {**metrics, **episode_metrics(episodes)}

    def judge(self, prompts: Sequence[Prompt | str]) -> dict[str, float]:
        """Evaluate on held-out prompts; a new best is checkpointed."""
        found = evaluate(self.agent.policy, self.env, prompts, reference_episodes=self.reference_episodes)
        self.reference_episodes = found.reference_episodes
        if found.episode_return > self.best_return:
            self.best_return, self.best_iteration = found.episode_return, self.iterations_done - 1
            self.checkpoint("best")
            self.best = found
        return {
            "eval_score": found.score,
            "eval_kl": found.kl,
            "eval_return": found.episode_return,
            "eval_win_rate": found.win_rate,
            "eval_response_length": found.response_length,
        }


def train(
    agent: Agent,
    env: TextGenerationVectorEnv,
    *,
    iterations: int,
    run_dir: str | Path | None = None,
    eval_prompts: Sequence[Prompt | str] = (),
    eval_every: int = 10,
    checkpoint_every: int = 10,
    adaptive_kl: AdaptiveKL | None = None,
    callbacks: Sequence[Callback] = (),
    episode_metrics: EpisodeMetrics | None = None,
    tensorboard: bool | None = None,
    seed: int | None = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainResult:
    """Train an agent, and leave a run folder that loads whatever happens.

    Args:
        agent: learns one iteration at a time.
        env: gives episodes; its ``kl_coef`` is set by ``adaptive_kl``.
        iterations: of the whole run, those before a resume included.
        run_dir: where to write; None writes nothing.
        eval_prompts: held out; the best checkpoint is the one with the highest mean return on them.
        eval_every, checkpoint_every: in iterations; both also happen at the end.
        adaptive_kl: controller of beta.
        callbacks: called after every iteration, beside the trackers of the run folder.
        episode_metrics: further metrics, computed from the episodes of each iteration.
        tensorboard: write event files too; None does where TensorBoard is installed.
        seed: resets the env before the first iteration; None leaves its random state.
        resume: go on from ``checkpoints/last``.
        overwrite: replace a run that the folder holds.

    Ctrl-C ends the run after the iteration at work; a second one at once, with the last checkpoint kept.

    Raises:
        ConfigError: fewer than one iteration, or resume without a folder.
        OutputExistsError: the folder holds another run.
        ArtifactError: nothing to resume from.
    """
    if iterations < 1:
        raise ConfigError(f"train: iterations must be >= 1, got {iterations}")
    if resume and run_dir is None:
        raise ConfigError("train: resume=True needs run_dir, got none")
    folder = None if run_dir is None else Path(run_dir) if resume else output_folder(run_dir, overwrite=overwrite)
    run = _Run(agent, env, folder, adaptive_kl)
    if seed is not None:
        env.reset(seed=seed)
    if resume:
        run.restore()
    listeners = [*_trackers(folder, tensorboard), *callbacks]
    history: list[dict[str, float]] = []
    first = run.iterations_done
    with _interruptible() as stop, _listening(listeners, first, iterations):
        for iteration in range(first, iterations):
            metrics = run.iterate(iterations, episode_metrics)
            last = iteration == iterations - 1 or stop.is_set()
            if eval_prompts and (last or (iteration + 1) % eval_every == 0):
                metrics |= run.judge(eval_prompts)
            history.append(metrics)
            for listener in listeners:
                listener.on_iteration(iteration, metrics)
            interrupted = stop.is_set()  # asked once more: the signal may have come while a listener was called
            if last or interrupted or (iteration + 1) % checkpoint_every == 0:
                run.checkpoint("last")
            if interrupted:
                logger.warning("interrupted after iteration %d; resume with resume=True", iteration)
                break
    return TrainResult(
        history=tuple(history),
        best_evaluation=run.best,
        best_iteration=run.best_iteration,
        interrupted=stop.is_set(),
        run_dir=folder,
    )


def _trackers(folder: Path | None, tensorboard: bool | None) -> list[Callback]:
    if folder is None:
        return []
    trackers: list[Callback] = [JsonlTracker(folder / "metrics.jsonl")]
    if tensorboard or (tensorboard is None and importlib.util.find_spec("tensorboard") is not None):
        trackers.append(TensorBoardTracker(folder / "tensorboard"))
    return trackers


@contextmanager
def _listening(listeners: Sequence[Callback], first: int, total: int) -> Iterator[None]:
    for listener in listeners:
        listener.on_start(first, total)
    try:
        yield
    finally:
        for listener in listeners:
            listener.on_end()


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event; the second one is an ordinary KeyboardInterrupt."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handler(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
