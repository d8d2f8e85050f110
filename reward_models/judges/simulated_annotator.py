"""Simulated annotators: they see a true score through noise of a set size.

Knows: the Plackett-Luce model of noisy choice. Does not know: how the true score is computed.

Shapes: P = pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm_gym.errors import DataError, RewardModelError
from lm_gym.reward_models.judgements.annotator import Annotator, Question
from lm_gym.reward_models.judgements.record import Choice, Judgement, Ranks, require_judgements
from lm_gym.runs.generators import generator_of, require_state, state_of
from lm_gym.scoring.adapters import RewardModelLike
from lm_gym.scoring.protocol import checked_scores
from lm_gym.tools.settings import NotNegative, Text, Whole, checked, shown

from .oracle import OracleRewardModel

__all__ = ["BradleyTerryAnnotator", "agreement", "expected_agreement"]


class BradleyTerryAnnotator(Annotator):
    """An annotator who prefers what truly scores higher, up to noise of a set size.

    Rankings are drawn from the Plackett-Luce model with utilities ``true score / temperature``; for two
    responses that is Bradley-Terry, ``P(a beats b) = sigmoid((score_a - score_b) / temperature)``. Any reward model
    can be the truth: with temperature 0 it is that model as an annotator.
    """

    def __init__(
        self,
        true_score: RewardModelLike | None = None,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        name: str = "annotator",
    ) -> None:
        """Store the truth and the noise.

        Args:
            true_score: the scores that the annotator sees; None is the built-in truth of :class:`OracleRewardModel`.
            temperature: noise, in units of the true score; 0 never errs and breaks equal scores by a fair draw.
            seed: of the annotator's own generator.
            name: of the annotator, in judgements.

        Raises:
            ConfigError: the temperature is negative or not finite, the seed no whole number, or the name no text.
            RewardModelError: the truth is no reward model.
        """
        self.truth = OracleRewardModel(true_score)
        self.name: str = checked("BradleyTerryAnnotator: name", name, Text)
        self.temperature: float = checked(f"annotator {self.name}: temperature", temperature, NotNegative)
        self._rng = np.random.default_rng(checked(f"annotator {self.name}: seed", seed, Whole))

    def ask(self, items: Sequence[Question]) -> list[Judgement]:
        """Answer questions on K >= 2 responses, one judgement each: a choice between two, a ranking of more; no ties.

        The truth is asked once for all items.

        Raises:
            RewardModelError: the truth fails, or abstains on a response.
            DataError: an item has fewer than two different responses.
        """
        values = self._true_values(items)
        judgements, start = [], 0
        for item in items:
            end = start + len(item.texts)
            ranks = self._drawn_ranks(values[start:end])
            verdict = Choice("a" if ranks[0] < ranks[1] else "b") if len(ranks) == 2 else Ranks(ranks)
            judgements.append(
                Judgement(prompt=item.prompt, responses=item.responses, verdict=verdict, annotator=self.name)
            )
            start = end
        return judgements

    def state_dict(self) -> dict[str, Any]:
        """The state of the annotator's generator, ready for JSON."""
        return {"rng": state_of(self._rng)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on drawing from a state that :meth:`state_dict` gave. Raises: ConfigError: it is no such state."""
        state = require_state("BradleyTerryAnnotator", state, ("rng",))
        self._rng = generator_of(state["rng"], "BradleyTerryAnnotator state: rng")

    def _true_values(self, items: Sequence[Question]) -> np.ndarray:
        prompts = [item.prompt for item in items for _ in item.responses]
        texts = [text for item in items for text in item.texts]
        scores = checked_scores(self.truth, prompts, texts)
        if not scores.valid.all():
            text = texts[int(np.flatnonzero(~scores.valid)[0])]
            raise RewardModelError(
                f"true score: must score every response that an annotator judges, and it abstained on {text!r}"
            )
        return scores.value.astype(np.float64)

    def _drawn_ranks(self, values: np.ndarray) -> tuple[int, ...]:
        # Sorting utilities plus standard Gumbel noise samples Plackett-Luce exactly (Yellott 1977).
        noise = self._rng.gumbel(size=len(values))
        if self.temperature > 0:
            order = np.argsort(-(values / self.temperature + noise))
        else:
            order = np.lexsort((noise, -values))
        ranks = np.empty(len(values), dtype=int)
        ranks[order] = np.arange(1, len(values) + 1)
        return tuple(ranks.tolist())


def agreement(first: Sequence[Judgement], second: Sequence[Judgement]) -> float:
    """Share of the comparisons of ``first`` that ``second`` orders the same way; a tie in ``second`` counts half.

    Raises:
        DataError: the two do not compare the same responses, row by row, or ``first`` compares nothing.
    """
    first, second = require_judgements("agreement", first), require_judgements("agreement", second)
    if len(first) != len(second):
        raise DataError(f"agreement: needs two judgements of the same items, got {len(first)} and {len(second)}")
    points, pairs = 0.0, 0
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        if one.prompt != other.prompt or set(one.texts) != set(other.texts) or other.places is None:
            raise DataError(f"agreement: row {row} must compare the same responses on both sides, and differs")
        place = dict(zip(other.texts, other.places, strict=True))
        for better, worse in one.pairs():
            gap = place[one.texts[worse]] - place[one.texts[better]]
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

    Raises:
        ConfigError: the gaps are no list of finite numbers, or the temperature is below 0.
        DataError: there is no gap.
    """
    temperature = checked("expected_agreement: temperature", temperature, NotNegative)
    gaps = np.abs(np.array(checked("expected_agreement: score_gaps", score_gaps, tuple[float, ...])))
    if not gaps.size:
        raise DataError(f"expected_agreement: needs the gap of at least one pair, got {shown(score_gaps)}")
    if temperature == 0:
        return float(np.where(gaps > 0, 1.0, 0.5).mean())
    return float((1 / (1 + np.exp(-gaps / temperature))).mean())
