"""The data of a finished run: plain, written as ``report.json``, and rendered by the page beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lm_gym.tools.files import reading, write_json

__all__ = ["Curve", "ModelRow", "NextStep", "Report", "RewardModelRow", "Role", "Sample"]

REPORT_FILE = "report.json"
ROW_FILE = "row.json"
Role = Literal["base", "start", "rl", "rl_without_kl", "imitation"]
"""Part of a model in the story: pretrained, before RL, after RL, after RL without the penalty, trained without RL."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One response to a held-out prompt."""

    prompt: str
    """Prompt text."""
    response: str
    """Response text as it was scored."""
    score: float | None = None
    """The newest reward model's score; None if it abstained."""
    true_score: float | None = None
    """The hidden true score, where there is one."""


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One language model of the run, measured on the held-out prompts."""

    name: str
    """Short label: "before", "round 1", ..."""
    description: str
    """One sentence on how the model was made."""
    score: float | None
    """Mean score of the newest reward model, on its own scale; None if it abstained on all."""
    kl: float | None
    """Mean KL of a whole response to the reference, nats; None without a reference."""
    win_rate: float | None
    """Share of held-out prompts where it outscores the reference."""
    win_rate_low: float | None
    """95 % Wilson interval, lower end."""
    win_rate_high: float | None
    """Upper end."""
    response_length: float
    """Mean response tokens."""
    eos_share: float
    """Share of responses that a stop token or stop string ended."""
    entropy: float | None = None
    """Mean per-token entropy of its sampling distribution, nats."""
    true_score: float | None = None
    """Mean hidden true score, where there is one."""
    grammatical: float | None = None
    """Share of grammatical responses, where that can be told."""
    reward_accuracy: float | None = None
    """Pairwise accuracy, on this model's own responses, of the reward model that it was trained against (of the first
    one for models before RL, of the newest for fine-tuning on winners)."""
    matched_length_gain: float | None = None
    """Mean score difference to reference responses of about the same number of words (within 10 %)."""
    matched_length_share: float | None = None
    """Share of responses that found such a partner."""
    true_score_standard_error: float | None = None
    """Standard error of ``true_score``, its responses taken as independent."""
    role: Role | None = None
    """Part in the story, for the finding; None says nothing."""
    samples: tuple[Sample, ...] = ()
    """A few responses, the same prompts for every model."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ModelRow:
        """Read the JSON form."""
        return cls(**{**data, "samples": tuple(Sample(**sample) for sample in data["samples"])})

    def save(self, folder: Path) -> Path:
        """Write ``row.json`` into a folder."""
        return write_json(folder / ROW_FILE, _without_nan(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> ModelRow:
        """Read it back."""
        with reading(folder / ROW_FILE, remedy="delete the stage's folder, and go on with --resume"):
            return cls.of(json.loads((folder / ROW_FILE).read_text(encoding="utf-8")))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The training metrics of one RL run, iteration by iteration."""

    name: str
    """Label of the run; that of its model's row."""
    history: tuple[dict[str, float | None], ...]
    """``lm_gym.agents.METRICS`` and, on some iterations, ``eval_...`` and ``true_score``."""
    kl_target: float | None = None
    """Target of the adaptive controller, nats."""


@dataclass(frozen=True, kw_only=True)
class RewardModelRow:
    """One reward model, measured on rankings that it was not trained on."""

    name: str
    """Label."""
    trained_on: int
    """Rankings it was fitted to."""
    evaluation: dict[str, Any]
    """``RewardEvaluation.to_json()``: accuracy, nll, ece, bins, groups, length baseline, ..."""


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """Something worth doing with a finished run."""

    purpose: str
    """What it is for."""
    command: str
    """What to type, as it is."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page."""

    title: str
    """Heading."""
    summary: str
    """Description of the run, in a sentence or two."""
    command: str
    """The command that makes it again."""
    machine: str
    """Processor, cores, versions."""
    seconds: float
    """Wall time."""
    rows: tuple[ModelRow, ...]
    """One per model, in the order of the story."""
    curves: tuple[Curve, ...]
    """One per RL run."""
    reward_models: tuple[RewardModelRow, ...]
    """One per fit."""
    notes: tuple[str, ...] = ()
    """Remarks that the numbers need."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage."""
    next_steps: tuple[NextStep, ...] = ()
    """Commands that go on from here."""
    measured_on: str = "held-out prompts"
    """Prompts that the rows were measured on."""

    def save(self, folder: str | Path) -> Path:
        """Write ``report.json`` into a folder."""
        return write_json(Path(folder) / REPORT_FILE, _without_nan(asdict(self)))

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Read it back.

        Raises:
            ArtifactError: there is no whole report in the folder.
        """
        path = Path(folder) / REPORT_FILE
        with reading(path, "must be a whole report that a run wrote", remedy="run the pipeline to its end first"):
            data = json.loads(path.read_text(encoding="utf-8"))
            rows = tuple(ModelRow.of(row) for row in data["rows"])
            curves = tuple(Curve(**{**curve, "history": tuple(curve["history"])}) for curve in data["curves"])
            models = tuple(RewardModelRow(**row) for row in data["reward_models"])
            steps = tuple(NextStep(**step) for step in data.get("next_steps", ()))
            parts = {"rows": rows, "curves": curves, "reward_models": models, "notes": tuple(data["notes"])}
            parts["next_steps"] = steps
            return cls(**{**data, **parts})


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: what is not finite is left open."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
