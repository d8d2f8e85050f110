"""An agent around the update: it collects episodes, learns from them, and can be saved; algorithms are subclasses.

Knows: environments, folders. Does not know: how a batch is learned from (``surrogate.py``).
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from lm_gym.envs.rollout import PhaseTimer, sampler_of
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.envs.wrappers import AnyEnv, vector_env_of
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.models.language_model import DType
from lm_gym.policy import Sampler
from lm_gym.processes import Processes, chosen_processes
from lm_gym.runs.folder import Stateful
from lm_gym.runs.generators import require_state
from lm_gym.tools.settings import Share, checked

from ..metrics import METRICS, phase_metrics
from ..policy import LanguageModelPolicy, checked_policy
from ..policy_checks import check_apart
from .advantages import AdvantageEstimator, checked_estimator
from .agent_folder import load_agent, save_agent
from .config import SurrogateConfig
from .objectives import Objective
from .surrogate import SurrogateUpdate

__all__ = ["SurrogateAgent"]


class SurrogateAgent:
    """Policy-gradient learning of a :class:`LanguageModelPolicy` by any advantage estimator and any objective.

    An algorithm is a subclass that names its config and makes these two parts of it.
    """

    config_type: ClassVar[type[SurrogateConfig]] = SurrogateConfig
    """Class of its settings."""

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: SurrogateConfig | None = None,
        *,
        estimator: AdvantageEstimator | None = None,
        objective: Objective | None = None,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args:
        policy: trained in place.
        config: settings; None takes the defaults.
        estimator: of the advantages; None is the algorithm's own.
        objective: loss of a token; None is the algorithm's own, and an algorithm takes no other.
        sampler: decodes the rollouts; None takes the policy's own.
        processes: those that share the run, each with episodes of its own; must be given under a launcher of several.

        Raises:
            ConfigError: policy, config, estimator or objective is none, or is missing where there is no algorithm;
                several processes were launched and none are given; or the estimator compares the responses of a group,
                and groups would be of one.
        """
        name, kind = type(self).__name__, type(self).config_type
        config = checked(f"{name}: config", config, kind | None) or kind()
        if objective is not None and type(self) is not SurrogateAgent:
            raise ConfigError(
                f"{name}.objective: is made of its {kind.__name__}, and must not be given; set the config, or use "
                "SurrogateAgent(policy, config, estimator=..., objective=...)"
            )
        estimator = self.estimator_of(config) if estimator is None else estimator
        self.policy = checked_policy(name, policy)
        self.estimator = checked_estimator(name, estimator, samples_per_prompt=config.samples_per_prompt)
        self.objective = checked(f"{name}: objective", objective, Objective | None) or self.objective_of(config)
        self.config = config
        self.sampler = policy.sampler if sampler is None else sampler_of(sampler)
        self.processes = chosen_processes(processes, type(self).__name__)
        self.last_episodes: Episodes | None = None
        self._update = SurrogateUpdate(name, policy, config, self.estimator, self.objective, self.processes)

    @staticmethod
    def estimator_of(config: Any) -> AdvantageEstimator:
        """The algorithm's own estimator, by its config.

        Raises:
            ConfigError: it is no algorithm, and has none.
        """
        raise ConfigError(
            "SurrogateAgent.estimator: must be given, got none; pass estimator=GAE(), or take an algorithm such as PPO"
        )

    @staticmethod
    def objective_of(config: Any) -> Objective:
        """The algorithm's own objective, by its config."""
        return Objective()

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
            ConfigError: the environment's reference holds weights that the policy learns, progress is no such share, or
                a wrapper may change the reward.
            DivergedError: see :meth:`update`.
        """
        progress = checked("learn: progress", progress, Share)
        env = vector_env_of(env, "learn")
        check_apart(type(self).__name__, self.policy.parameters(), env.reference)
        self._require_reference(env.reference is not None, "the environment has none")
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

    def update(self, episodes: Episodes, *, progress: float = 0.0) -> dict[str, float]:
        """Learn from one batch, and return the metrics of batch and update.

        Args: see :class:`~lm_gym.agents.update.surrogate.SurrogateUpdate`.

        Raises:
            DivergedError: a loss or gradient is not finite; the weights are those of the last good step.
            ConfigError: the estimator's targets do not fit the batch.
        """
        episodes = checked(f"{type(self).__name__}.update: episodes", episodes, Episodes)
        self._require_reference(episodes.ref_log_probs is not None, "the episodes were collected without one")
        return self._update(episodes, progress=progress)

    def _require_reference(self, found: bool, got: str) -> None:
        if self.objective.kl_in_loss and not found:
            raise ConfigError(
                f"{type(self).__name__}: needs a reference model, since its loss has the KL to it, and {got}; give the "
                "environment one, or set kl_place='none'"
            )

    def settings(self) -> dict[str, Any]:
        """Everything that decides how it learns, as plain values: config, estimator with its numbers, objective."""
        kind = type(self.estimator)
        name = f"{kind.__module__}.{kind.__qualname__}"
        estimator = {"name": name} | {key: one for key, one in vars(self.estimator).items() if key[0] != "_"}
        return {**asdict(self.config), "estimator": estimator, "objective": asdict(self.objective)}

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, generator of minibatches, and the estimator's state; the policy has a state of its own."""
        kept = {"estimator": self.estimator.state_dict()} if isinstance(self.estimator, Stateful) else {}
        return self._update.state_dict() | kept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an agent."""
        if isinstance(self.estimator, Stateful):
            state = require_state(type(self).__name__, state, ("estimator",))
            self.estimator.load_state_dict(state["estimator"])
        self._update.load_state_dict(state)

    def save(self, folder: str | Path) -> Path:
        """Save the whole agent: the policy with its value head, the optimiser, the generator, the settings.

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
        estimator: AdvantageEstimator | None = None,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
        device: str | torch.device = "auto",
        dtype: DType = "auto",
    ) -> Self:
        """Load an agent that :meth:`save` wrote; it goes on learning as if it had not been away.

        The environment has a state of its own (``env.state_dict()``), and :func:`lm_gym.agents.train` keeps both.

        Args:
            folder: the saved agent.
            estimator: of the advantages, if it was not the default; an artefact never names code.
            sampler: decodes the rollouts; None takes the policy's own.
            processes: those that share the run.
            device: "auto" or a torch device.
            dtype: see :meth:`LanguageModelPolicy.from_pretrained`.

        Raises:
            ArtifactError: it is no such folder, or a file is missing or has changed.
            ConfigError: the folder is no text or path, or it was saved with another estimator.
        """
        saved = load_agent(cls.__name__, folder, device=device, dtype=dtype)
        agent = cls(
            saved.policy,
            cls.config_type(**saved.config),
            estimator=estimator,
            objective=Objective(**saved.objective) if cls is SurrogateAgent else None,
            sampler=sampler,
            processes=processes,
        )
        saved.check_estimator(agent.settings()["estimator"])
        agent.load_state_dict(saved.state)
        return agent
