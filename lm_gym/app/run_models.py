"""A run folder in the place of a model: what of it is taken, and what else it knows.

Knows: where the runs of ``train``, ``demo`` and ``run`` keep their models, prompts and settings. Does not know: how
anything is loaded. A folder that is itself a model (of ``sft``, of ``reward train``) is taken as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lm_gym.agents.run_folder import BEST, POLICY
from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.runs.folder import CHECKPOINTS, MARKER
from lm_gym.tools.console.terminal import plain_console
from lm_gym.tools.settings import Place, checked

__all__ = [
    "HELD_OUT_PROMPTS",
    "SETTINGS",
    "Compared",
    "RunModels",
    "compared",
    "language_model_of",
    "models_of_run",
    "reward_model_of",
    "settings_of_run",
]

SETTINGS = "settings.yaml"
"""File of a run folder of ``train`` with its settings, as --config takes them."""
HELD_OUT_PROMPTS = "held_out_prompts.jsonl"
"""File of a run folder of ``demo`` or ``run`` with the prompts that its models are measured on."""
STAGE_MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class RunModels:
    """What a run folder holds or names; None where it does not."""

    after: Path
    """The trained language model."""
    told: str
    """Which of the run's models that is."""
    before: str | None = None
    """Handle of the language model that training began with."""
    reward_model: str | None = None
    """Handle of the reward model that it was trained against."""
    data: Path | None = None
    """Prompts to compare the two on."""


class Compared(NamedTuple):
    """Two models, resolved, and what they are compared on."""

    a: str
    b: str
    data: Path
    reward_model: str | None


def language_model_of(handle: str) -> str:
    """The language model that a handle stands for: of a run folder, which it says, else the handle itself.

    Raises:
        ArtifactError: the folder is a run that holds no model yet.
    """
    found = models_of_run(Path(checked("model", handle, Place)))
    if found is None:
        return handle
    _tell(handle, found.told, found.after)
    return str(found.after)


def reward_model_of(handle: str) -> str:
    """The reward model that a handle stands for: the newest one of a run of the loop, else the handle itself."""
    folder = Path(checked("reward model", handle, Place))
    newest = _newest_round(folder, Path("reward") / STAGE_MODEL) if (folder / MARKER).is_file() else None
    if newest is None:
        return handle
    _tell(handle, f"the reward model of round {newest[0]}", newest[1])
    return str(newest[1])


def compared(a: str, b: str | None, data: Path | None, reward_model: str | None) -> Compared:
    """Two models and what they are compared on; a single run is compared with what it began with.

    Raises:
        ConfigError: one model that is no run, a run that does not know its beginning, or no prompts.
        ArtifactError: see :func:`models_of_run`.
    """
    if b is None:
        run = models_of_run(Path(checked("model", a, Place)))
        if run is None or run.before is None:
            raise ConfigError(
                f"compare {a}: needs two models, or one run that knows the model it began with; name the other one too"
            )
        _tell(a, run.told, run.after)
        a, b = run.before, str(run.after)
        data = data or run.data
        reward_model = reward_model or run.reward_model
    if data is None:
        raise ConfigError("compare: needs the prompts that both answer; give them by --data FILE")
    return Compared(
        a=language_model_of(a),
        b=language_model_of(b),
        data=data,
        reward_model=None if reward_model is None else reward_model_of(reward_model),
    )


def models_of_run(folder: Path) -> RunModels | None:
    """The models of a run folder; None for a folder that is no run, or that is a model itself.

    Raises:
        ArtifactError: the run holds no model yet.
    """
    if not (folder / MARKER).is_file() or any((folder / name).is_file() for name in ("config.json", "config.yaml")):
        return None
    if (found := _of_loop(folder)) or (found := _of_training(folder)):
        return found
    if any(folder.glob("*reward_model.json")):
        return None  # whoever loads it says that it is no language model
    raise ArtifactError(
        f"run {folder}: must hold a language model to stand for one, and holds none yet; let it go on with --resume, "
        "or give the folder of a model"
    )


def settings_of_run(folder: Path) -> dict[str, Any]:
    """The settings that ``train`` left in its run folder; none where it left none."""
    path = folder / SETTINGS
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: must be YAML, and reading it failed: {error}; delete it") from error
    return found if isinstance(found, dict) else {}


def _of_loop(folder: Path) -> RunModels | None:
    start = next((path for path in (folder / "sft", folder / "pretrain") if (path / STAGE_MODEL).is_dir()), None)
    newest = _newest_round(folder, Path("ppo") / POLICY)
    reward = _newest_round(folder, Path("reward") / STAGE_MODEL)
    prompts = folder / HELD_OUT_PROMPTS
    if newest is None and start is None:
        return None
    before = None if start is None else str(start / STAGE_MODEL)
    if newest is None:
        return RunModels(after=Path(str(before)), told="the model before RL, which has not ended a round yet")
    return RunModels(
        after=newest[1],
        told=f"the policy of round {newest[0]}",
        before=before,
        reward_model=None if reward is None else str(reward[1]),
        data=prompts if prompts.is_file() else None,
    )


def _of_training(folder: Path) -> RunModels | None:
    settings = settings_of_run(folder)
    data = settings.get("eval_data") or settings.get("data")
    known: dict[str, Any] = {
        "before": settings.get("model"),
        "reward_model": settings.get("reward_model"),
        "data": None if data is None else Path(data),
    }
    if (folder / POLICY).is_dir():
        best = f" (the best one on held-out prompts is {folder / BEST})" if (folder / BEST).is_dir() else ""
        return RunModels(after=folder / POLICY, told=f"the policy at its end{best}", **known)
    newest = _newest(folder / CHECKPOINTS, r"checkpoint-(\d+)", Path(POLICY))
    if newest is None:
        return None
    return RunModels(after=newest[1], told=f"the checkpoint after iteration {newest[0]}; the run goes on", **known)


def _newest_round(folder: Path, below: Path) -> tuple[int, Path] | None:
    return _newest(folder, r"round-(\d+)", below)


def _newest(folder: Path, pattern: str, below: Path) -> tuple[int, Path] | None:
    """Number and path of the highest-numbered folder that holds ``below``."""
    numbered = ((re.fullmatch(pattern, path.name), path / below) for path in folder.glob("*"))
    return max(((int(match[1]), path) for match, path in numbered if match and path.is_dir()), default=None)


def _tell(handle: str, told: str, path: Path) -> None:
    plain_console(stderr=True).print(f"{handle} is a run; taken: {told}, {path}", highlight=False, soft_wrap=True)
