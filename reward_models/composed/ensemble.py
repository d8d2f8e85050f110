"""Ensembles of reward models: combined scores, with the disagreement of the members as uncertainty.

Knows: the protocol in ``lm_gym.scoring.protocol``. Does not know: what the members are.

Source of the three rules: Coste et al. 2023 (arXiv:2310.02743), section 3: mean, worst case, and mean minus a
multiple of the spread. Departure: the spread is the standard deviation with ddof 0, not the variance.

Shapes: B = rows, M = members.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.reward_models.saving.record import read_record, write_record
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.handles import load_reward_model
from lm_gym.scoring.protocol import RewardModel, SavableRewardModel, Scores, columns_of, normalized_scores
from lm_gym.tools.files import replaced_folder
from lm_gym.tools.settings import NotNegative, checked

__all__ = ["EnsembleRewardModel"]

Rule = Literal["mean", "worst", "mean_minus_std"]
KIND, FORMAT = "ensemble", 1


class EnsembleRewardModel(RewardModel):
    """Combines members' scores; ``Scores.std`` is their disagreement. It abstains where any member does.

    Each member's own normaliser is applied before they are combined, so members on different scales count alike. The
    ensemble has no normaliser of its own: its scores are on the members' normalised scale.
    """

    def __init__(
        self,
        members: Sequence[RewardModelLike],
        *,
        rule: Rule = "mean",
        penalty: float = 1.0,
        name: str = "ensemble",
    ) -> None:
        """Store the members.

        Args:
            members: two or more, each with a normaliser, or all on one scale (several seeds of one training).
            rule: ``"mean"``, ``"worst"`` (the lowest score) or ``"mean_minus_std"``.
            penalty: k of mean - k * std, >= 0.
            name: of the model, in error messages.

        Raises:
            ConfigError: fewer than two members, an unknown rule, or a bad penalty.
        """
        members = checked("EnsembleRewardModel: members", members, tuple[Any, ...])
        if len(members) < 2:
            raise ConfigError(f"EnsembleRewardModel: needs at least 2 members, got {len(members)}")
        self.members = tuple(as_reward_model(member) for member in members)
        self.rule: Rule = checked("EnsembleRewardModel: rule", rule, Rule)
        self.penalty: float = checked("EnsembleRewardModel: penalty", penalty, NotNegative)
        self.name = name
        self.columns, self.all_columns = columns_of(self.members)

    def member_scores(
        self, prompts: Sequence[str], responses: Sequence[str], /, **columns: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every member's normalised verdict.

        Returns: values (M, B) float64, and valid (B,), True where none abstained.

        Raises:
            RewardModelError: a member raised or returned a bad score.
        """
        scores = [normalized_scores(member, prompts, responses, columns) for member in self.members]
        values = np.stack([one.value for one in scores]).astype(np.float64)
        return values, np.logical_and.reduce([one.valid for one in scores])

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Score B responses. Returns: Scores of shape (B,), ``std`` the standard deviation over members.

        Raises:
            RewardModelError: see :meth:`member_scores`.
        """
        values, valid = self.member_scores(prompts, responses, **columns)
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
        return f"ensemble {self.rule} {self.penalty} {members}"

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
            write_record(folder, record | {"rule": self.rule, "penalty": self.penalty})
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path) -> EnsembleRewardModel:
        """Read a folder that :meth:`save` wrote.

        Raises:
            ArtifactError: a file is missing, cut short or of another kind; or see a member's ``load``.
        """
        folder = Path(directory)
        record = read_record(folder, kind=KIND, format_=FORMAT, keys=("name", "members", "rule", "penalty"))
        for name in record["members"]:
            if Path(name).name != name or not (folder / name).is_dir():
                raise ArtifactError(
                    f"ensemble {folder}: must hold the folder of its member {name!r}, and it is missing"
                )
        members = [load_reward_model(folder / name) for name in record["members"]]
        return cls(members, rule=record["rule"], penalty=record["penalty"], name=record["name"])
