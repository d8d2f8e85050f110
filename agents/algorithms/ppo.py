"""Proximal policy optimisation: the clipped surrogate on generalised advantages from a value head.

The update itself is ``surrogate.py``, the estimate ``advantages.py``; here they are put together. Another estimator
makes another algorithm: with ``estimator=RewardToGo()`` and ``whiten_advantages=False`` the loss is the plain published
form ``-min(ratio * R, clip(ratio, 1 - c, 1 + c) * R)`` with R the reward to go: no baseline, no value loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.models.language_model import DType
from lm_gym.policy import Sampler
from lm_gym.processes import Processes
from lm_gym.runs.manifests import check_manifest, read_note, write_manifest
from lm_gym.runs.states import joined_state, split_state
from lm_gym.tools.files import reading, replaced_folder
from lm_gym.tools.settings import Place, Probability, checked, settings

from ..policy import LanguageModelPolicy
from ..update.advantages import GAE, AdvantageEstimator
from ..update.surrogate import SurrogateAgent, SurrogateConfig

__all__ = ["PPO", "PPOConfig"]

POLICY = "policy"
OPTIMIZER = "optimizer.safetensors"


@settings
class PPOConfig(SurrogateConfig):
    """Settings of :class:`PPO`."""

    gamma: Probability = 1.0
    """Discount per token."""
    gae_lambda: Probability = 0.95
    """Lambda of the advantage estimate."""


class PPO(SurrogateAgent):
    """Token-level PPO on finished episodes (Schulman et al. 2017; Ziegler et al. 2019)."""

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: PPOConfig | None = None,
        *,
        estimator: AdvantageEstimator | None = None,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args:
        policy: trained in place.
        config: settings; None takes the defaults.
        estimator: of the advantages; None is GAE with the config's gamma and lambda.
        sampler: decodes the rollouts; None takes the policy's own.
        processes: those that share the run; must be given under a launcher of several.

        Raises:
            ConfigError: see :class:`~lm_gym.agents.update.surrogate.SurrogateAgent`.
        """
        config = checked("PPO: config", config, PPOConfig | None) or PPOConfig()
        estimator = estimator or GAE(gamma=config.gamma, lam=config.gae_lambda)
        super().__init__(policy, estimator, config, sampler=sampler, processes=processes)

    def save(self, folder: str | Path) -> Path:
        """Save the whole agent: the policy with its value head, the optimiser, the generator, the settings.

        Its ``policy/`` is a folder that :meth:`LanguageModelPolicy.from_pretrained` and ``AutoModelForCausalLM`` load.
        The folder is written whole under another name and moved into place; nothing in it is pickled.

        Raises:
            UnsupportedModelError: the policy cannot be saved (an adapter is on it).
            ConfigError: the folder is no text or path, or the estimator has settings that are no plain values.
            WriteError: the disk is full, say.
        """
        folder = checked(f"{type(self).__name__}.save: folder", folder, Place)
        self.policy.check_can_be_saved()
        state, tensors = split_state(self.state_dict())
        own, of_estimator = split_state(self.settings())
        if of_estimator:
            raise ConfigError(
                f"{type(self).__name__}.save: the settings of the estimator {type(self.estimator).__name__} must be "
                f"plain values, got a tensor ({next(iter(of_estimator))}); keep its numbers, or save agent.policy alone"
            )
        frozen = [place for place, weight in enumerate(self.policy.weights()) if not weight.requires_grad]
        with replaced_folder(folder) as temporary:
            self.policy.save_pretrained(temporary / POLICY)
            save_file(tensors, str(temporary / OPTIMIZER))
            note = {"agent": type(self).__name__, "settings": own, "state": state, "frozen": frozen}
            write_manifest(temporary, note=note)
        return Path(folder)

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
            processes: those that share the run; must be given under a launcher of several.
            device: "auto" or a torch device.
            dtype: see :meth:`LanguageModelPolicy.from_pretrained`.

        Raises:
            ArtifactError: it is no such folder, or a file is missing or has changed.
            ConfigError: the folder is no text or path, or it was saved with another estimator.
        """
        folder = Path(checked(f"{cls.__name__}.load: folder", folder, Place))
        check_manifest(folder)
        note = read_note(folder)
        if note.get("agent") != cls.__name__:
            raise ArtifactError(
                f"{folder}: must be a folder that {cls.__name__}.save wrote, got one of "
                f"{note.get('agent') or 'another kind'}; LanguageModelPolicy.from_pretrained loads a policy alone, "
                "train(resume=True) takes up a run"
            )
        with reading(folder, "must hold the whole note of an agent", remedy="save the agent again"):
            saved, state, frozen = joined_state(note["settings"], {}), note["state"], set(note["frozen"])
            of_config = {name: value for name, value in saved.items() if name != "estimator"}
            of_estimator = saved["estimator"]
        policy = LanguageModelPolicy.from_pretrained(folder / POLICY, device=device, dtype=dtype)
        for place, weight in enumerate(policy.weights()):
            weight.requires_grad_(place not in frozen)
        agent = cls(policy, PPOConfig(**of_config), estimator=estimator, sampler=sampler, processes=processes)
        if (found := agent.settings()["estimator"]) != of_estimator:
            raise ConfigError(
                f"{cls.__name__}.load: the estimator must be the one that {folder} was saved with, "
                f"{of_estimator}, got {found}; pass estimator=..."
            )
        agent.load_state_dict(joined_state(state, load_file(str(folder / OPTIMIZER))))
        return agent
