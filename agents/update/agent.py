"""Policy-gradient agents: any advantage estimator and any objective around one update; algorithms are subclasses.

Knows: which parts make an agent. Does not know: how a batch is learned from (``surrogate.py``).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.models.language_model import DType
from lm_gym.policy import Sampler
from lm_gym.processes import Processes
from lm_gym.runs.folder import Stateful
from lm_gym.runs.generators import require_state
from lm_gym.tools.settings import checked

from ..policy import LanguageModelPolicy
from .advantages import AdvantageEstimator, checked_estimator
from .agent_folder import load_agent
from .config import SurrogateConfig
from .learning import LearningAgent
from .objectives import Objective
from .surrogate import SurrogateUpdate

__all__ = ["SurrogateAgent"]


class SurrogateAgent(LearningAgent):
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
        super().__init__(policy, config, sampler=sampler, processes=processes)
        name, kind = type(self).__name__, type(self).config_type
        if objective is not None and type(self) is not SurrogateAgent:
            raise ConfigError(
                f"{name}.objective: is made of its {kind.__name__}, and must not be given; set the config, or use "
                "SurrogateAgent(policy, config, estimator=..., objective=...)"
            )
        estimator = self.estimator_of(self.config) if estimator is None else estimator
        self.estimator = checked_estimator(name, estimator, samples_per_prompt=self.config.samples_per_prompt)
        self.objective = checked(f"{name}: objective", objective, Objective | None) or self.objective_of(self.config)
        if self.config.critic_warmup_iterations and not self.estimator.needs_values:
            raise ConfigError(
                f"{kind.__name__}.critic_warmup_iterations: must be 0 where no value head is trained, and "
                f"{type(self.estimator).__name__} needs none, got {self.config.critic_warmup_iterations}; leave it out"
            )
        self._update = SurrogateUpdate(name, policy, self.config, self.estimator, self.objective, self.processes)

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

    def check_env(self, env: TextGenerationVectorEnv) -> None:
        """Refuse an environment without a reference, where the loss has the KL to it. Raises: ConfigError: it is so."""
        self._require_reference(env.reference is not None, "the environment has none")

    def _updated(self, episodes: Episodes, *, progress: float) -> dict[str, float]:
        """See :class:`~lm_gym.agents.update.surrogate.SurrogateUpdate`."""
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
        if not isinstance(self.estimator, Stateful):
            self._update.load_state_dict(state)
            return
        state = require_state(type(self).__name__, state, ("estimator",))
        before = deepcopy(self.estimator.state_dict())
        self.estimator.load_state_dict(state["estimator"])
        try:
            self._update.load_state_dict(state)
        except ConfigError:
            self.estimator.load_state_dict(before)
            raise

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
        """See :meth:`LearningAgent.load`.

        Args:
            folder, sampler, processes, device, dtype: see there.
            estimator: of the advantages, if it was not the default; an artefact never names code.

        Raises:
            ArtifactError: see there.
            ConfigError: see there, or it was saved with another estimator.
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
