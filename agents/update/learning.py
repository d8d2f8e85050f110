"""What every agent is, whatever it learns by: it collects episodes, learns from them, and can be saved.

An agent is a subclass with an update of its own. Knows: environments, folders. Does not know: losses.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from lm_gym.envs.rollout import PhaseTimer, sampler_of
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.envs.wrappers import AnyEnv, vector_env_of
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.models.language_model import DType
from lm_gym.policy import Sampler
from lm_gym.processes import Processes, chosen_processes
from lm_gym.tools.settings import Share, checked

from ..metrics import METRICS, phase_metrics
from ..policy import LanguageModelPolicy, checked_policy
from ..policy_checks import check_apart
from .agent_folder import load_agent, save_agent

__all__ = ["LearningAgent"]


class LearningAgent(ABC):
    """Learning of a :class:`LanguageModelPolicy`, one iteration at a time: collect, then update."""

    config_type: ClassVar[type[Any]]
    """Class of its settings, with ``episodes_per_iteration``."""
    needs_log_ratio: ClassVar[bool] = False
    """True = it learns beta times the log-ratio of policy and reference, which must be there and untruncated."""
    needs_baselines: ClassVar[bool] = False
    """True = learns from episodes that have baselines alone, as its ``collect`` gives them."""

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: Any = None,
        *,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args:
        policy: trained in place.
        config: settings; None takes the defaults.
        sampler: decodes the rollouts; None takes the policy's own.
        processes: those that share the run, each with episodes of its own; must be given under a launcher of several.

        Raises:
            ConfigError: policy or config is none, or several processes were launched and none are given.
        """
        name, kind = type(self).__name__, type(self).config_type
        self.config = checked(f"{name}: config", config, kind | None) or kind()
        self.policy = checked_policy(name, policy)
        self.sampler = policy.sampler if sampler is None else sampler_of(sampler)
        self.processes = chosen_processes(processes, name)
        self.last_episodes: Episodes | None = None

    def collect(self, env: TextGenerationVectorEnv, timer: PhaseTimer) -> tuple[Episodes, dict[str, float]]:
        """The episodes of an iteration, and metrics of how they were found; some algorithms override it."""
        count, samples = self.config.episodes_per_iteration, self.config.samples_per_prompt
        return env.rollout(self.sampler, count, samples_per_prompt=samples, timer=timer), {}

    def learn(self, env: AnyEnv, *, progress: float = 0.0) -> dict[str, float]:
        """One iteration: collect, then update.

        Args:
            env: gives episodes; single or vector, bare or in wrappers that change no reward.
            progress: share of the run that is done, in [0, 1); the learning rate decays with it.

        Returns: every metric of ``lm_gym.agents.metrics.METRICS``; what is undefined is NaN (all of the update's, if
            the reward model abstained on every episode).

        Raises:
            ConfigError: the environment's reference holds weights that the policy learns, progress is no such share, a
                wrapper may change the reward, or the environment lacks what the algorithm needs.
            DivergedError: see :meth:`update`.
        """
        progress = checked("learn: progress", progress, Share)
        env = vector_env_of(env, "learn")
        check_apart(type(self).__name__, self.policy.parameters(), env.reference)
        self.check_env(env)
        timer = PhaseTimer()
        episodes, found = self.collect(env, timer)
        self.last_episodes = episodes
        with timer.phase("update"):
            metrics = self.update(episodes, progress=progress)
        self.sampler.refresh(self.policy)
        tokens = int(episodes.response_mask.sum())
        undefined = dict.fromkeys(METRICS, math.nan)
        measured = {"kl_coef": env.kl_coef, **phase_metrics(timer, tokens, self.policy.device)}
        return {**undefined, **metrics, **found, **measured}

    def check_env(self, env: TextGenerationVectorEnv) -> None:
        """Refuse an environment that lacks what the algorithm needs. Raises: ConfigError: it does."""
        if self.needs_log_ratio:
            _require_log_ratio(type(self).__name__, env.reference is not None, env.kl_coef, env.sampling.truncates)

    def update(self, episodes: Episodes, *, progress: float = 0.0) -> dict[str, float]:
        """Learn from one batch, and return the metrics of batch and update.

        Args:
            episodes: the batch, at least one.
            progress: share of the run that is done, in [0, 1).

        Raises:
            ConfigError: these are no episodes, or none; their tokens are not in the policy's vocabulary; rewards are
                not finite; or they lack what the algorithm needs. The agent is as it was.
            DivergedError: a loss or gradient is not finite; the weights are those of the last good step.
        """
        name = type(self).__name__
        episodes = checked(f"{name}.update: episodes", episodes, Episodes)
        progress = checked(f"{name}.update: progress", progress, Share)
        self._check_episodes(f"{name}.update: episodes", episodes)
        return self._updated(episodes, progress=progress)

    @abstractmethod
    def _updated(self, episodes: Episodes, *, progress: float) -> dict[str, float]:
        """:meth:`update` with episodes that were checked."""

    def _check_episodes(self, subject: str, episodes: Episodes) -> None:
        """Refuse a batch that the algorithm cannot learn from. Raises: ConfigError: it is one."""
        if not len(episodes):
            raise ConfigError(f"{subject} must hold at least one, got none; collect some")
        largest = max(
            int(np.where(mask, ids, 0).max(initial=0))
            for ids, mask in (
                (episodes.prompt_ids, episodes.prompt_mask),
                (episodes.response_ids, episodes.response_mask),
            )
        )
        if largest >= self.policy.vocab_size:
            raise ConfigError(
                f"{subject} must hold tokens of the policy, whose vocabulary is {self.policy.vocab_size}, got token "
                f"{largest}; collect them with this policy, or with another of its tokenizer"
            )
        paid = episodes.rewards[episodes.response_mask & ~episodes.abstained[:, None]]
        if not np.isfinite(paid).all():
            raise ConfigError(
                f"{subject} must have finite rewards, got {paid[~np.isfinite(paid)][0]}; mark those without a score by "
                "score_valid"
            )
        if self.needs_log_ratio:
            beta, truncated = float(episodes.kl_coef.min()), episodes.keep_sets is not None
            _require_log_ratio(subject, episodes.ref_log_probs is not None, beta, truncated)
        if self.needs_baselines and episodes.baselines is None:
            raise ConfigError(f"{subject} must have baselines, and have none; pass those of collect")

    def settings(self) -> dict[str, Any]:
        """Everything that decides how it learns, as plain values."""
        return asdict(self.config)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration depends on; the policy has a state of its own.

        As torch's, it holds tensors that learning goes on to change: ``copy.deepcopy`` keeps them as they are.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an agent."""

    def save(self, folder: str | Path) -> Path:
        """Save the whole agent: the policy with its value head, the settings, and the agent's state.

        Its ``policy/`` is a folder that :meth:`LanguageModelPolicy.from_pretrained` and ``AutoModelForCausalLM`` load.
        The folder is written whole under another name and moved into place; nothing in it is pickled.

        Raises:
            ConfigError: the policy's adapter is on a base without a name, the folder is no text or path, or the
                estimator has settings that are no plain values.
            WriteError: the disk is full, say.
        """
        return save_agent(self, folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
        device: str | torch.device = "auto",
        dtype: DType = "auto",
    ) -> Self:
        """Load an agent that :meth:`save` wrote; it goes on learning as if it had not been away.

        The environment has a state of its own (``env.state_dict()``), and :func:`lm_gym.agents.train` keeps both.

        Args:
            folder: the saved agent.
            sampler: decodes the rollouts; None takes the policy's own.
            processes: those that share the run.
            device: "auto" or a torch device.
            dtype: see :meth:`LanguageModelPolicy.from_pretrained`; "auto" takes the saved agent's own.

        Raises:
            ArtifactError: it is no such folder, or a file is missing or has changed.
            ConfigError: the folder is no text or path.
        """
        saved = load_agent(cls.__name__, folder, device=device, dtype=dtype)
        agent = cls(saved.policy, cls.config_type(**saved.config), sampler=sampler, processes=processes)
        agent.load_state_dict(saved.state)
        return agent


def _require_log_ratio(subject: str, reference: bool, beta: float, truncated: bool) -> None:
    """Raises: ConfigError: the log-ratio is not what an algorithm that solves for the optimum takes it for."""
    if not reference or beta <= 0 or truncated:
        raise ConfigError(
            f"{subject}: needs a kl_coef above 0 and untruncated sampling, since it learns beta times the log-ratio to "
            f"the reference, got kl_coef = {beta:g}{'' if reference else ', no reference'} and "
            f"{'truncated' if truncated else 'untruncated'} sampling; set kl_coef, and leave top_k, top_p, min_p and "
            "min_new_tokens out"
        )
