"""A saved agent: its policy, its optimiser, its settings, and all else that its next iteration depends on.

Knows: files. Does not know: which agent it is, and how it learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.models.language_model import DType
from lm_gym.runs.manifests import check_manifest, read_note, write_manifest
from lm_gym.runs.states import joined_state, split_state
from lm_gym.tools.files import reading, replaced_folder
from lm_gym.tools.settings import Place, checked, shown

from ..policy import LanguageModelPolicy
from ..policy_checks import check_can_be_saved

__all__ = ["SavedAgent", "load_agent", "load_optimizer_state", "save_agent"]

POLICY = "policy"
TENSORS = "optimizer.safetensors"


class _Saveable(Protocol):
    policy: LanguageModelPolicy

    def settings(self) -> dict[str, Any]: ...

    def state_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class SavedAgent:
    """The content of an agent's folder."""

    folder: Path
    """The folder."""
    agent: str
    """Name of the agent's class."""
    policy: LanguageModelPolicy
    """Its policy, with frozen weights frozen."""
    config: dict[str, Any]
    """Fields of its config."""
    objective: dict[str, Any]
    """Fields of its objective."""
    estimator: dict[str, Any]
    """Name and settings of its estimator."""
    state: dict[str, Any]
    """For ``load_state_dict``."""

    def check_estimator(self, found: Mapping[str, Any]) -> None:
        """Refuse an estimator that is not the one that the agent was saved with.

        Raises:
            ConfigError: it is another, or has other settings.
        """
        if found != self.estimator:
            raise ConfigError(
                f"{self.agent}.load: the estimator must be the one that {self.folder} was saved with, "
                f"{self.estimator}, got {dict(found)}; pass estimator=..."
            )


def save_agent(agent: _Saveable, folder: str | Path) -> Path:
    """Write an agent's folder; see :meth:`lm_gym.agents.SurrogateAgent.save`."""
    name = type(agent).__name__
    folder = checked(f"{name}.save: folder", folder, Place)
    check_can_be_saved(agent.policy.language_model, folder)
    state, tensors = split_state(agent.state_dict())
    settings, of_estimator = split_state(agent.settings())
    if of_estimator:
        raise ConfigError(
            f"{name}.save: the settings of the estimator must be plain values, got a tensor "
            f"({next(iter(of_estimator))}); keep its numbers, or save agent.policy alone"
        )
    frozen = [place for place, weight in enumerate(agent.policy.weights()) if not weight.requires_grad]
    with replaced_folder(folder) as temporary:
        agent.policy.save_pretrained(temporary / POLICY)
        save_file(tensors, str(temporary / TENSORS))
        note = {"agent": name, "settings": settings, "state": state, "frozen": frozen}
        write_manifest(temporary, note=note | {"loading": _loading(agent.policy)})
    return Path(folder)


def load_agent(name: str, folder: str | Path, *, device: str | torch.device, dtype: DType) -> SavedAgent:
    """Read an agent's folder; see :meth:`lm_gym.agents.SurrogateAgent.load`. Args: name: of the agent's class."""
    folder = Path(checked(f"{name}.load: folder", folder, Place))
    check_manifest(folder)
    note = read_note(folder)
    if note.get("agent") != name:
        raise ArtifactError(
            f"{folder}: must be a folder that {name}.save wrote, got one of {note.get('agent') or 'another kind'}; "
            "LanguageModelPolicy.from_pretrained loads a policy alone, train(resume=True) takes up a run"
        )
    with reading(folder, "must hold the whole note of an agent", remedy="save the agent again"):
        settings, state, frozen = joined_state(note["settings"], {}), note["state"], set(note["frozen"])
        loading = note["loading"] if dtype == "auto" else note["loading"] | {"dtype": dtype}
        parts = {part: settings.pop(part, {}) for part in ("estimator", "objective")}  # some agents have neither
    policy = LanguageModelPolicy.from_pretrained(folder / POLICY, device=device, **loading)
    for place, weight in enumerate(policy.weights()):
        weight.requires_grad_(place not in frozen)
    state = joined_state(state, load_file(str(folder / TENSORS)))
    return SavedAgent(folder=folder, agent=name, policy=policy, config=settings, state=state, **parts)


def _loading(policy: LanguageModelPolicy) -> dict[str, Any]:
    """Settings of ``from_pretrained`` that the policy's own folder does not tell."""
    exact: DType = "auto" if policy.language_model.dtype == "auto" else "float32"
    dtype = "bfloat16" if policy.model.dtype == torch.bfloat16 else exact
    return {"dtype": dtype, "gradient_checkpointing": policy.gradient_checkpointing}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Any, name: str) -> None:
    """Give an optimiser a copy of a state, or leave its own. Args: name: of the agent's class.

    Raises:
        ConfigError: it is that of no such optimiser, or of weights of other shapes.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    try:
        for place, moments in state["state"].items():
            if moments["exp_avg"].shape != weights[place].shape:
                raise ValueError("its moments are those of weights of other shapes")
        optimizer.load_state_dict(deepcopy(state))  # torch would keep the tensors themselves, and step on them
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        reason = f" ({error})" if isinstance(error, ValueError) else ""
        raise ConfigError(
            f"{name} state: optimizer must be that of an agent with the same weights, got {shown(state)}{reason}"
        ) from error
