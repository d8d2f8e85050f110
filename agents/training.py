"""The training loop around any agent: iterate, evaluate, keep the best and the last, stop cleanly, resume.

Knows: when to do what. Does not know: how an agent learns, or what a run folder looks like inside (see
:mod:`lm_gym.agents.run_folder`).
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm_gym.envs.evaluation import Evaluation, evaluate
from lm_gym.envs.wrappers import AnyEnv, sharing_beta, vector_env_of
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.kl_control import AdaptiveKL
from lm_gym.processes import launched_processes
from lm_gym.prompts import Prompt
from lm_gym.runs.folder import Run, open_run
from lm_gym.runs.metrics_file import METRICS_FILE
from lm_gym.runs.signals import StopRequest, stopping_at_signals
from lm_gym.tools.settings import Count, Place, Whole, checked, checked_arguments

from .callbacks import Agent, Callback, ProgressDisplay, TrainingRun, check_agent, check_callbacks
from .metrics import HELD_OUT, checked_metrics
from .policy_checks import check_can_be_saved
from .run_folder import TrainingState, training_identity
from .trackers import JsonlTracker, TensorBoardTracker

__all__ = ["Agent", "TrainResult", "train"]

EpisodeMetrics = Callable[[Episodes], Mapping[str, float]]
ARGUMENTS = {
    "iterations": Count,
    "run_dir": Place | None,
    "eval_every": Count,
    "checkpoint_every": Count,
    "adaptive_kl": AdaptiveKL | None,
    "callbacks": tuple[Any, ...],
    "episode_metrics": Callable | None,
    "tensorboard": bool | None,
    "progress": bool,
    "seed": Whole | None,
    "resume": bool,
    "overwrite": bool,
}
"""What each argument of :func:`train` must be, apart from agent, environment and prompts, which tell by themselves."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Result of a training run."""

    history: tuple[dict[str, float], ...]
    """Metrics of each iteration of this call."""
    best_evaluation: Evaluation | None
    """That of the best policy; None without held-out prompts, or if an earlier part of a resumed run holds the best."""
    best_iteration: int | None
    """Iteration after which it was measured."""
    stopped_by: int | None
    """Number of the signal that asked it to stop; None if there was none."""
    stop_reason: str | None
    """Reason that a callback gave for stopping it; None if none did, or only in its last iteration."""
    run_dir: Path | None
    """The run folder."""

    @property
    def interrupted(self) -> bool:
        """True if a signal asked it to stop; it may have been in its last iteration."""
        return self.stopped_by is not None


def train(
    agent: Agent,
    env: AnyEnv,
    *,
    iterations: int,
    run_dir: str | Path | None = None,
    eval_prompts: Sequence[Prompt | str | Mapping[str, Any]] = (),
    eval_every: int = 10,
    checkpoint_every: int = 10,
    adaptive_kl: AdaptiveKL | None = None,
    callbacks: Sequence[Callback] = (),
    episode_metrics: EpisodeMetrics | None = None,
    tensorboard: bool | None = None,
    progress: bool = True,
    seed: int | None = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainResult:
    """Train an agent, and leave a run folder that can be taken up again whatever happens.

    Args:
        agent: learns one iteration at a time.
        env: gives episodes; its ``kl_coef`` is set by ``adaptive_kl``. It may be single, or in wrappers that change no
            reward: whole responses are rolled out of its task (:func:`lm_gym.envs.wrappers.vector_env_of`).
        iterations: of the whole run, those before a resume included. A longer run is another run: its learning rate
            decays otherwise from the first iteration on.
        run_dir: the run folder; None writes nothing.
        eval_prompts: held out; the best policy is the one with the highest mean return on them, at the KL
            coefficient of that moment.
        eval_every: iterations between evaluations; there is one more after the last iteration.
        checkpoint_every: iterations between checkpoints.
        adaptive_kl: controller of beta.
        callbacks: get the run (:class:`lm_gym.agents.TrainingRun`) after every iteration, beside the trackers of the
            run folder, and may stop it. The state of those that are ``Stateful`` is part of a checkpoint. In several
            processes all of them stop together, or the others wait for the one that did.
        episode_metrics: further metrics, computed from the episodes of each iteration.
        tensorboard: write event files too; None does where TensorBoard is installed.
        progress: show every iteration on standard error, unless a ProgressDisplay is among the callbacks: a bar on a
            terminal, a line elsewhere; of several processes the main one shows it.
        seed: resets the env before the first iteration; None leaves its random state.
        resume: go on with the run in ``run_dir`` from its newest whole checkpoint, to the bit; start it where there is
            none. Agent and env must be made as they were at its start. A finished run gives the agent its policy.
        overwrite: delete the run in ``run_dir`` first.

    The first SIGINT (Ctrl-C), SIGTERM or SIGHUP ends the run with a checkpoint after the iteration at work, a second
    one at once. An error in an iteration is raised again once the iterations before it are saved; agent and env are
    back where they were after the last one.

    Raises:
        ConfigError: a count below 1, a controller without a KL to control, resume without a folder, a folder for
            several processes or for an agent without a state, a callback that does not take the run, a wrapper that
            may change the reward, or the run in the folder has other settings or inputs.
        PromptError: a held-out prompt does not fit.
        ConfigError: a held-out prompt lacks a column that the reward model needs.
        ConfigError: there is a folder, and the policy's adapter is on a base without a name, or one that lies in it.
        OutputExistsError: the folder holds another run, or something else, or another process works in it.
        DivergedError, RewardModelError: of an iteration.
    """
    plain = checked_arguments("train", ARGUMENTS, locals())
    iterations, eval_every, seed = plain["iterations"], plain["eval_every"], plain["seed"]  # of NumPy, they may be
    check_agent(agent, has_folder=run_dir is not None)
    check_callbacks(callbacks)
    given, env = env, vector_env_of(env, "train")
    if run_dir is None and (resume or overwrite):
        raise ConfigError("train: resume and overwrite need run_dir, got none")
    if run_dir is not None and (size := launched_processes().size) > 1:
        raise ConfigError(
            f"train: a run folder holds the state of one process, got {size} launched; pass run_dir=None in all of "
            "them and save the policy of the main one (agent.policy.save_pretrained)"
        )
    if adaptive_kl is not None and (env.reference is None or env.kl_coef == 0):
        raise ConfigError(
            "train: adaptive_kl: needs a reference and a kl_coef above 0 to multiply, got kl_coef = "
            f"{env.kl_coef:g}{'' if env.reference else ' and no reference'}; set kl_coef, or leave adaptive_kl out"
        )
    held_out = env.as_prompts(eval_prompts)
    opened: nullcontext[None] | Run = nullcontext()
    if run_dir is not None:
        check_can_be_saved(agent.policy.language_model, run_dir)
        identity = training_identity(
            agent,
            env,
            iterations=iterations,
            eval_prompts=held_out,
            eval_every=eval_every,
            adaptive_kl=adaptive_kl,
            seed=seed,
        )
        opened = open_run(run_dir, identity, resume=resume, overwrite=overwrite)
    with opened as run, sharing_beta(given, env):
        listeners = [*_trackers(run, tensorboard), *callbacks, *_display(agent, callbacks, progress)]
        if seed is not None:
            env.reset(seed=seed)
        state = TrainingState(agent, env, adaptive_kl, callbacks, run)
        state.restore()
        loop = _Loop(
            run=TrainingRun(
                agent=agent,
                env=env,
                iterations=iterations,
                folder=None if run is None else run.folder,
                first_iteration=state.iterations_done,
            ),
            controller=adaptive_kl,
            state=state,
            held_out=held_out,
            episode_metrics=episode_metrics,
        )
        if run is not None and run.result is not None:
            logger.info("run %s: is finished; the agent has its policy", run.folder)
            return loop.result(None)
        stop = loop.go(listeners, eval_every=eval_every, checkpoint_every=checkpoint_every)
        return loop.result(stop.signal)


@dataclass(kw_only=True)
class _Loop:
    """The iterations of one call."""

    run: TrainingRun
    controller: AdaptiveKL | None
    state: TrainingState
    held_out: Sequence[Prompt]
    episode_metrics: EpisodeMetrics | None
    history: list[dict[str, float]] = field(default_factory=list)
    best: Evaluation | None = None
    reference_episodes: Episodes | None = None

    def go(self, listeners: Sequence[Callback], *, eval_every: int, checkpoint_every: int) -> StopRequest:
        run, last = self.run, self.run.iterations
        self.state.keep()
        with stopping_at_signals() as stop, _listening(listeners, run):
            try:
                for number in range(run.first_iteration + 1, last + 1):
                    metrics = self._iterate()
                    if self.held_out and (number == last or number % eval_every == 0):
                        metrics |= self._evaluate()
                    run.iteration, run.metrics, run.episodes = number - 1, metrics, run.agent.last_episodes
                    for listener in listeners:
                        listener.on_iteration(run)
                    self.history.append(metrics)
                    self.state.keep()
                    if number < last and (stop or run.stop_reason is not None):
                        break
                    if number < last and number % checkpoint_every == 0:
                        self.state.checkpoint()
            except Exception as error:
                self._save_what_is_done(error)
                raise
            self._end()
        return stop

    def _end(self) -> None:
        """Finish the run, or leave it to be taken up again."""
        done, last = self.state.iterations_done, self.run.iterations
        if done == last:
            self.state.finish()
            return
        self.state.checkpoint()
        reason = self.run.stop_reason
        logger.warning("stopped after %d of %d iterations%s", done, last, "" if reason is None else f": {reason}")

    def result(self, stopped_by: int | None) -> TrainResult:
        return TrainResult(
            history=tuple(self.history),
            best_evaluation=self.best,
            best_iteration=self.state.best_iteration,
            stopped_by=stopped_by,
            stop_reason=self.run.stop_reason if self.state.iterations_done < self.run.iterations else None,
            run_dir=self.run.folder,
        )

    def _iterate(self) -> dict[str, float]:
        env, agent = self.run.env, self.run.agent
        subject = f"train: {type(agent).__name__}.learn"
        metrics = checked_metrics(subject, agent.learn(env, progress=self.state.iterations_done / self.run.iterations))
        episodes = checked(f"train: {type(agent).__name__}.last_episodes", agent.last_episodes, Episodes | None)
        if self.controller is not None:
            self._control(self.controller, subject, metrics, episodes)
        self.state.iterations_done += 1
        if self.episode_metrics is None or episodes is None:
            return metrics
        return metrics | checked_metrics("train: episode_metrics", self.episode_metrics(episodes))

    def _control(
        self, controller: AdaptiveKL, subject: str, metrics: Mapping[str, float], episodes: Episodes | None
    ) -> None:
        """Set beta for the next iteration; where every episode abstained, the KL is NaN and beta stays."""
        if "kl" not in metrics or episodes is None:
            got = f"{sorted(metrics)}{'' if episodes else ' and last_episodes = None'}"
            raise ConfigError(
                f"{subject}: must return the metric 'kl' and keep last_episodes where adaptive_kl sets kl_coef, got "
                f"{got}; return the mean KL (lm_gym.agents.metrics.episode_metrics has it), or leave adaptive_kl out"
            )
        if not math.isnan(metrics["kl"]):
            env = self.run.env
            env.kl_coef = controller.next_coef(env.kl_coef, metrics["kl"], len(episodes))

    def _evaluate(self) -> dict[str, float]:
        """Evaluate on held-out prompts; a new best is saved."""
        env = self.run.env
        found = evaluate(self.run.agent.policy, env, self.held_out, reference_episodes=self.reference_episodes)
        self.run.evaluation, self.reference_episodes = found, found.reference_episodes
        if self.state.is_best(found, env.kl_coef):
            self.state.save_best(found, env.kl_coef)
            self.best = found
        return {name: getattr(found, field) for name, field in HELD_OUT.items()}

    def _save_what_is_done(self, error: Exception) -> None:
        """Save the iterations before the error; a failure to do so is a note of it, since the error came first."""
        try:
            self.state.go_back()
            self.state.checkpoint()
        except Exception as second:
            error.add_note(f"the iterations before it could not be saved: {type(second).__name__}: {second}")
            return
        done = self.state.iterations_done
        if self.state.is_kept:
            logger.error("iteration %d of %d failed; the %d before it are saved", done + 1, self.run.iterations, done)


def _display(agent: Agent, callbacks: Sequence[Callback], progress: bool) -> list[Callback]:
    shown = any(isinstance(one, ProgressDisplay) for one in callbacks)
    return [ProgressDisplay(type(agent).__name__)] if progress and not shown and launched_processes().is_main else []


def _trackers(run: Run | None, tensorboard: bool | None) -> list[Callback]:
    if run is None:
        return []
    trackers: list[Callback] = [JsonlTracker(run.folder / METRICS_FILE)]
    if tensorboard or (tensorboard is None and importlib.util.find_spec("tensorboard") is not None):
        trackers.append(TensorBoardTracker(run.folder / "tensorboard"))
    return trackers


@contextmanager
def _listening(listeners: Sequence[Callback], run: TrainingRun) -> Iterator[None]:
    started: list[Callback] = []
    try:
        for listener in listeners:
            listener.on_start(run)
            started.append(listener)
        yield
    except BaseException as error:
        _end(started, run, error)
        raise
    if (failed := _end(started, run, None)) is not None:
        raise failed


def _end(listeners: Sequence[Callback], run: TrainingRun, first: BaseException | None) -> BaseException | None:
    """Call ``on_end`` of every callback, whatever the others do.

    Args: run, first: the run, and the error that ended the run, if any; those of the callbacks become notes of it.

    Returns: the first error of all.
    """
    for listener in listeners:
        try:
            listener.on_end(run)
        except Exception as error:
            if first is None:
                first = error
            else:
                first.add_note(f"on_end of {type(listener).__name__} failed after it: {type(error).__name__}: {error}")
    return first
