"""The oracle: a hidden true score, and annotators who see it through noise.

It stands for the theoretical reward that no real project can read: a reward model is trained on what the
annotators say, an agent is trained on the reward model, and the truth says afterwards how good the responses
really became.

Knows: the Plackett-Luce model of noisy choice. Does not know: how a truth is computed (the core's reviews
world supplies the built-in one). A saved oracle names a truth of this list, never code.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_gym.errors import ArtifactError, ConfigError, DataError, RewardModelError
from lm_gym.files import replaced_folder, write_json
from lm_gym.scoring import RewardFunction, RewardModel, Scores, as_reward_model, checked_scores

from .comparisons import Ranking

__all__ = ["BradleyTerryAnnotator", "OracleRewardModel", "agreement", "expected_agreement", "rank_all"]

ARTIFACT_FILE = "lm_gym_reward_model.json"
BUILT_IN_TRUTHS = {"reviews": ("lm_gym.reviews", "true_score")}


class OracleRewardModel:
    """The hidden truth itself as a reward model."""

    def __init__(self, true_score: RewardModel | RewardFunction | None = None, *, truth: str = "reviews") -> None:
        """Store the truth.

        Args:
            true_score: reward function or reward model that is the truth; None takes the built-in ``truth``,
                which is imported on first use.
            truth: name of a built-in truth (``"reviews"``: the reviews world); not read if ``true_score`` is
                given.

        Raises:
            ConfigError: no built-in truth has that name.
        """
        if true_score is None and truth not in BUILT_IN_TRUTHS:
            raise ConfigError(f"OracleRewardModel: truth must be one of {sorted(BUILT_IN_TRUTHS)}, got {truth!r}")
        self._truth_name = truth if true_score is None else None
        self._truth = None if true_score is None else as_reward_model(true_score)

    @property
    def name(self) -> str:
        """What error messages call this reward model."""
        return "oracle"

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """The true scores of B responses. Returns: Scores of shape (B,), without a std.

        Raises:
            RewardModelError: the truth raised or returned a bad score.
        """
        if self._truth is None:
            module, function = BUILT_IN_TRUTHS[str(self._truth_name)]
            self._truth = as_reward_model(getattr(importlib.import_module(module), function))
        return checked_scores(self._truth, prompts, responses)

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
            write_json(folder / ARTIFACT_FILE, {"kind": "oracle", "format": 1, "truth": self._truth_name})
        return Path(directory)

    @classmethod
    def load(cls, directory: str | Path, **_: Any) -> OracleRewardModel:
        """Read an artefact that :meth:`save` wrote.

        Raises:
            ArtifactError: the file is missing or cut short, or names no built-in truth.
        """
        path = Path(directory) / ARTIFACT_FILE
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"oracle {directory}: must hold a whole {ARTIFACT_FILE}; reading failed: {error}"
            ) from error
        truth = record.get("truth") if isinstance(record, dict) and record.get("kind") == "oracle" else None
        if truth not in BUILT_IN_TRUTHS:
            raise ArtifactError(
                f"oracle {path}: must be kind 'oracle' with a truth of {sorted(BUILT_IN_TRUTHS)}, got {record!r}"
            )
        return cls(truth=truth)


class BradleyTerryAnnotator:
    """A judge who prefers what truly scores higher, up to noise of a set size.

    Rankings are drawn from the Plackett-Luce model with utilities ``true score / temperature``; for two
    responses that is Bradley-Terry, ``P(a beats b) = sigmoid((score_a - score_b) / temperature)``.
    """

    def __init__(
        self,
        true_score: RewardModel | RewardFunction | None = None,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        name: str = "annotator",
    ) -> None:
        """Store the truth and the noise.

        Args:
            true_score: what the judge sees; None is the built-in truth of :class:`OracleRewardModel`.
            temperature: noise, in units of the true score; 0 never errs and breaks equal scores by a fair
                draw.
            seed: seed of the judge's own generator.
            name: what records call this judge.

        Raises:
            ConfigError: the temperature is negative or not finite.
        """
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ConfigError(f"annotator {name}: temperature must be finite and >= 0, got {temperature}")
        self.truth = OracleRewardModel(true_score)
        self.temperature = float(temperature)
        self.name = name
        self._rng = np.random.default_rng(seed)

    def rank(self, prompt: str, responses: Sequence[str]) -> Ranking:
        """Judge K >= 2 responses; the ranking has no ties.

        Raises:
            RewardModelError: the truth fails, or abstains on one of them.
            DataError: fewer than two different responses.
        """
        return self._rank_scored(prompt, responses, _true_values(self.truth, [prompt] * len(responses), responses))

    def choose(self, prompt: str, first: str, second: str) -> int:
        """Judge two responses. Returns: 0 if ``first`` wins, 1 if ``second`` does."""
        return self.rank(prompt, (first, second)).ranks.index(1)

    def state_dict(self) -> dict[str, Any]:
        """The state of the judge's generator, ready for JSON."""
        return {"rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on drawing from a state that :meth:`state_dict` gave."""
        self._rng.bit_generator.state = state["rng"]

    def _rank_scored(self, prompt: str, responses: Sequence[str], values: np.ndarray) -> Ranking:
        # Sorting utilities plus standard Gumbel noise samples Plackett-Luce exactly (Yellott 1977).
        noise = self._rng.gumbel(size=len(values))
        if self.temperature > 0:
            order = np.argsort(-(values / self.temperature + noise))
        else:
            order = np.lexsort((noise, -values))
        ranks = np.empty(len(values), dtype=int)
        ranks[order] = np.arange(1, len(values) + 1)
        return Ranking(prompt, tuple(responses), tuple(ranks.tolist()))


def _true_values(truth: RewardModel, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    scores = checked_scores(truth, prompts, responses)
    if not scores.valid.all():
        row = int(np.flatnonzero(~scores.valid)[0])
        raise RewardModelError(
            f"true score: must score every response that an annotator judges, and it abstained on {responses[row]!r}"
        )
    return scores.value.astype(np.float64)


def rank_all(
    items: Sequence[tuple[str, Sequence[str]]], annotators: Sequence[BradleyTerryAnnotator], *, seed: int = 0
) -> list[Ranking]:
    """Have a pool judge many items, each by one annotator drawn at random.

    Args:
        items: (prompt, K >= 2 responses) each.
        annotators: the pool; all see one truth, which is asked once for all items.
        seed: seed of who judges what.

    Returns:
        One ranking per item, in order.

    Raises:
        ConfigError: the pool is empty.
        RewardModelError: the truth fails or abstains.
        DataError: an item is no comparison.
    """
    if not annotators:
        raise ConfigError("rank_all: needs at least one annotator, got none")
    prompts = [prompt for prompt, responses in items for _ in responses]
    texts = [text for _, responses in items for text in responses]
    values = _true_values(annotators[0].truth, prompts, texts)
    who = np.random.default_rng(seed).integers(len(annotators), size=len(items))
    rankings, start = [], 0
    for (prompt, responses), index in zip(items, who, strict=True):
        end = start + len(responses)
        rankings.append(annotators[index]._rank_scored(prompt, responses, values[start:end]))
        start = end
    return rankings


def agreement(first: Sequence[Ranking], second: Sequence[Ranking]) -> float:
    """Share of the comparisons of ``first`` that ``second`` orders the same way; a tie in ``second`` counts
    half.

    Raises:
        DataError: the two do not judge the same responses, row by row, or ``first`` compares nothing.
    """
    if len(first) != len(second):
        raise DataError(f"agreement: needs two judgements of the same items, got {len(first)} and {len(second)}")
    points, pairs = 0.0, 0
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        if one.prompt != other.prompt or set(one.responses) != set(other.responses):
            raise DataError(f"agreement: row {row} must hold the same prompt and responses on both sides, and differs")
        place = dict(zip(other.responses, other.ranks, strict=True))
        for better, worse in one.pairs():
            gap = place[one.responses[worse]] - place[one.responses[better]]
            points += 0.5 * (1 + np.sign(gap))
            pairs += 1
    if not pairs:
        raise DataError("agreement: the first judgements must compare something, and hold no comparison")
    return float(points / pairs)


def expected_agreement(score_gaps: Sequence[float] | np.ndarray, temperature: float) -> float:
    """Mean probability that a Bradley-Terry annotator picks the truly better response of each pair.

    Args:
        score_gaps: true score differences of the pairs, any sign; a gap of 0 counts one half. Shape: (P,).
        temperature: the annotator's noise, in units of the true score.

    Returns:
        The best pairwise accuracy that any reward model can expect on this annotator's judgements.
    """
    gaps = np.abs(np.asarray(score_gaps, dtype=np.float64))
    if temperature == 0:
        return float(np.where(gaps > 0, 1.0, 0.5).mean())
    return float((1 / (1 + np.exp(-gaps / temperature))).mean())
