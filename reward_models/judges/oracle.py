"""The oracle: a hidden true score as a reward model.

It stands for the theoretical reward that no real project can read: annotators see it through noise
(``simulated_annotator``), a reward model is trained on their judgements, an agent is trained on the reward model, and
the truth says afterwards how good the responses really became.

Does not know: how a truth is computed (the core's reviews world supplies the built-in one). A saved oracle names a
truth of this list, never code.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_gym.config import ScoreNormalizer
from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.handles import REWARD_MODEL_RECORD
from lm_gym.scoring.protocol import RewardModel, Scores, checked_scores, columns_of
from lm_gym.tools.files import read_json, replaced_folder, write_json
from lm_gym.tools.settings import Place, Text, checked, shown

__all__ = ["OracleRewardModel"]

BUILT_IN_TRUTHS = {"reviews": ("lm_gym.reviews", "true_score")}


class OracleRewardModel(RewardModel):
    """The hidden truth itself as a reward model; normaliser and columns are the truth's own."""

    name = "oracle"

    def __init__(self, true_score: RewardModelLike | None = None, *, truth: str = "reviews") -> None:
        """Store the truth.

        Args:
            true_score: reward function or reward model that is the truth; None takes the built-in ``truth``,
                which is imported on first use.
            truth: name of a built-in truth (``"reviews"``: the reviews world); not read if ``true_score`` is
                given.

        Raises:
            ConfigError: no built-in truth has that name.
        """
        if true_score is None and checked("OracleRewardModel: truth", truth, Text) not in BUILT_IN_TRUTHS:
            raise ConfigError(f"OracleRewardModel: truth must be one of {sorted(BUILT_IN_TRUTHS)}, got {shown(truth)}")
        self._truth_name = truth if true_score is None else None
        self._truth = None if true_score is None else as_reward_model(true_score)
        self.columns, self.all_columns = columns_of([] if self._truth is None else [self._truth])

    @property
    def normalizer(self) -> ScoreNormalizer | None:  # type: ignore[override]
        """Normaliser of the truth; the built-in one has none."""
        return None if self._truth is None else self._truth.normalizer

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """The true scores of B responses. Returns: Scores of shape (B,), without a std.

        Raises:
            RewardModelError: the truth raised or returned a bad score.
        """
        if self._truth is None:
            module, function = BUILT_IN_TRUTHS[str(self._truth_name)]
            self._truth = as_reward_model(getattr(importlib.import_module(module), function))
        return checked_scores(self._truth, prompts, responses, columns)

    def identity(self) -> str | None:
        """The built-in truth's name, else who the truth says it is."""
        if self._truth_name is not None or self._truth is None:
            return f"truth {self._truth_name}"
        return self._truth.identity()

    def save(self, directory: str | Path) -> Path:
        """Write the artefact, one JSON file. Returns: the folder.

        Raises:
            ArtifactError: the truth is your own function; a file must not name code, so only built-in ones
                are saved.
        """
        if self._truth_name is None:
            raise ArtifactError(
                f"oracle: only a built-in truth ({', '.join(sorted(BUILT_IN_TRUTHS))}) can be saved, since "
                f"an artefact "
                "never names code; got a function of your own. Build OracleRewardModel(function) where you "
                "need it."
            )
        with replaced_folder(directory) as folder:
            write_json(folder / REWARD_MODEL_RECORD, {"kind": "oracle", "format": 1, "truth": self._truth_name})
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path, **_: Any) -> OracleRewardModel:
        """Read an artefact that :meth:`save` wrote.

        Raises:
            ArtifactError: the file is missing or cut short, or names no built-in truth.
        """
        path = Path(checked("reward model folder", directory, Place)) / REWARD_MODEL_RECORD
        record = read_json(path, remedy="save the oracle again")
        truth = record.get("truth") if isinstance(record, dict) and record.get("kind") == "oracle" else None
        if not isinstance(truth, str) or truth not in BUILT_IN_TRUTHS:
            raise ArtifactError(
                f"oracle {path}: must be kind 'oracle' with a truth of {sorted(BUILT_IN_TRUTHS)}, got {record!r}"
            )
        return cls(truth=truth)
