"""Ensembles of reward models: combined scores, with the disagreement of the members as uncertainty.

Knows: the protocol in ``lm_gym.scoring.protocol``. Does not know: what the members are.

Source of the three rules: Coste et al. 2023 (arXiv:2310.02743), section 3: mean, worst case, and mean minus a
multiple of the spread. Departure: the spread is the standard deviation with ddof 0, not the variance.

Shapes: B = rows, M = members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.reward_models.saving.record import read_record, write_record
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.handles import load_reward_model
from lm_gym.scoring.protocol import (
    RewardModel,
    SavableRewardModel,
    Scores,
    checked_scores,
    columns_of,
    normalized_scores,
)
from lm_gym.tools.files import replaced_folder
from lm_gym.tools.settings import NotNegative, Place, Text, checked

__all__ = ["EnsembleRewardModel"]

Rule = Literal["mean", "worst", "mean_minus_std"]
KIND, FORMAT = "ensemble", 2  # 2: weights, and a summary of their fit
RECORD_KEYS = ("name", "members", "rule", "penalty", "weights", "training")


class EnsembleRewardModel(RewardModel):
    """Combines members' scores; ``Scores.std`` is their disagreement. It abstains where any member does.

    With weights a member's score counts as M times its weight times the score, so that their mean is the weighted sum;
    rules and disagreement are over these.

    Each member's own normaliser is applied before they are combined, so members on different scales count alike. The
    ensemble has no normaliser of its own: its scores are on the members' normalised scale.
    """

    def __init__(
        self,
        members: Sequence[RewardModelLike],
        *,
        rule: Rule = "mean",
        penalty: float = 1.0,
        weights: Sequence[float] | None = None,
        name: str = "ensemble",
        training: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the members.

        Args:
            members: two or more, each with a normaliser, or all on one scale (several seeds of one training), or of
                any scale with fitted weights.
            rule: ``"mean"``, ``"worst"`` (the lowest score) or ``"mean_minus_std"``.
            penalty: k of mean - k * std, >= 0.
            weights: one for each member, >= 0 and one above; see
                :func:`~lm_gym.reward_models.composed.weight_fit.fit_weights`. None weighs all by 1 / M.
            name: of the model, in error messages.
            training: a summary of the fit of the weights, for the record.

        Raises:
            ConfigError: fewer than two members, an unknown rule, a bad penalty, or bad weights.
        """
        members = checked("EnsembleRewardModel: members", members, tuple[Any, ...])
        if len(members) < 2:
            raise ConfigError(f"EnsembleRewardModel: needs at least 2 members, got {len(members)}")
        self.members = tuple(as_reward_model(member) for member in members)
        self.rule: Rule = checked("EnsembleRewardModel: rule", rule, Rule)
        self.penalty: float = checked("EnsembleRewardModel: penalty", penalty, NotNegative)
        self.weights = None if weights is None else _checked_weights(weights, len(members))
        self.training: dict[str, Any] = dict(checked("EnsembleRewardModel: training", training, Mapping | None) or {})
        self.name: str = checked("EnsembleRewardModel: name", name, Text)
        self.columns, self.all_columns = columns_of(self.members)

    def member_scores(
        self, prompts: Sequence[str], responses: Sequence[str], /, **columns: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every member's own scores, as it learned them: under no normaliser and no weight.

        The difference of two of them is what a member that learned from preferences takes for the log-odds of one.

        Returns: values (M, B) float64, and valid (B,), True where none abstained.

        Raises:
            RewardModelError: a member raised or returned a bad score.
        """
        return _stacked([checked_scores(member, prompts, responses, columns) for member in self.members])

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Score B responses. Returns: Scores of shape (B,), ``std`` the standard deviation over members.

        Raises:
            RewardModelError: a member raised or returned a bad score.
        """
        values, valid = _stacked([normalized_scores(member, prompts, responses, columns) for member in self.members])
        if self.weights is not None:
            values *= len(values) * np.array(self.weights)[:, None]
        spread = values.std(axis=0)
        if self.rule == "worst":
            combined = values.min(axis=0)
        else:
            combined = values.mean(axis=0) - (self.penalty * spread if self.rule == "mean_minus_std" else 0.0)
        return Scores(
            value=np.where(valid, combined, 0.0).astype(np.float32),
            valid=valid,
            std=np.where(valid, spread, 0.0).astype(np.float32),
        )

    def identity(self) -> str | None:
        """The rule, and every member with its normaliser; None if a member does not say who it is."""
        members = [(one.identity(), one.normalizer) for one in self.members]
        if any(who is None for who, _ in members):
            return None
        return f"ensemble {self.rule} {self.penalty} {self.weights} {members}"

    def save(self, directory: str | Path) -> Path:
        """Write every member and the rule as one folder, whole or not at all.

        Raises:
            ConfigError: a member cannot be saved.
        """
        savable = [one for one in self.members if isinstance(one, SavableRewardModel)]
        if len(savable) < len(self.members):
            unsaved = next(one.name for one in self.members if not isinstance(one, SavableRewardModel))
            raise ConfigError(
                f"EnsembleRewardModel: every member must be a RewardModel with save(), and {unsaved!r} is none"
            )
        with replaced_folder(directory) as folder:
            names = [f"member-{number}" for number in range(len(self.members))]
            for member, name in zip(savable, names, strict=True):
                member.save(folder / name)
            record = {"kind": KIND, "format": FORMAT, "name": self.name, "members": names}
            settings = {"rule": self.rule, "penalty": self.penalty, "weights": self.weights, "training": self.training}
            write_record(folder, record | settings)
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path) -> EnsembleRewardModel:
        """Read a folder that :meth:`save` wrote.

        Raises:
            ArtifactError: a file is missing, cut short or of another kind; or see a member's ``load``.
        """
        folder = Path(checked("reward model folder", directory, Place))
        record = read_record(folder, kind=KIND, format_=FORMAT, keys=RECORD_KEYS)
        for name in record["members"]:
            if Path(name).name != name or not (folder / name).is_dir():
                raise ArtifactError(
                    f"ensemble {folder}: must hold the folder of its member {name!r}, and it is missing"
                )
        members = [load_reward_model(folder / name) for name in record["members"]]
        rest = {key: record[key] for key in ("rule", "penalty", "weights", "training", "name")}
        return cls(members, **rest)


def _stacked(scores: Sequence[Scores]) -> tuple[np.ndarray, np.ndarray]:
    """Values (M, B) float64, and valid (B,), True where none abstained."""
    values = np.stack([one.value for one in scores]).astype(np.float64)
    return values, np.logical_and.reduce([one.valid for one in scores])


def _checked_weights(weights: Sequence[float], members: int) -> tuple[float, ...]:
    found: tuple[float, ...] = checked("EnsembleRewardModel: weights", weights, tuple[NotNegative, ...])
    if len(found) != members or not any(found):
        raise ConfigError(
            f"EnsembleRewardModel: weights must be one finite number >= 0 for each of the {members} members, and one "
            f"above 0, got {found}"
        )
    return found
