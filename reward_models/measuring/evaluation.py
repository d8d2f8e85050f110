"""Accuracy, likelihood and calibration of a reward model on held-out judgements, beside a length-only baseline.

Knows: pairs, accuracy, likelihood, calibration. Does not know: how the model was made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.record import Judgement, require_judgements
from lm_gym.reward_models.judgements.splits import named_group, prompt_itself
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.protocol import CountsTokens, checked_scores
from lm_gym.tools.settings import checked, finite_array

from .calibration import bin_edges, bin_of, cross_fitted, expected_calibration_error, fit_temperature
from .length_baseline import strongest_length_rule

__all__ = [
    "MarginAccuracy",
    "NamedEvaluation",
    "PromptAccuracy",
    "ReliabilityBin",
    "RewardEvaluation",
    "evaluate_reward_model",
]

MATCHED_LENGTH = 0.1


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Pairs whose predicted winner was given a probability in [low, high) (the last bin: [low, high])."""

    low: float
    """Lower edge."""
    high: float
    """Upper edge."""
    pairs: int
    """Pairs in the bin."""
    confidence: float | None
    """Mean probability given to the predicted winner; None in an empty bin."""
    accuracy: float | None
    """Share of them that it won; None in an empty bin."""


@dataclass(frozen=True, kw_only=True)
class MarginAccuracy:
    """A quarter of the pairs, by how far apart the model puts the two responses."""

    low: float
    """Smallest absolute difference of scores in it."""
    high: float
    """Largest one."""
    pairs: int
    """Pairs in it."""
    accuracy: float
    """Equal scores count half."""


@dataclass(frozen=True, kw_only=True)
class PromptAccuracy:
    """The result on one prompt, or on one group of prompts."""

    group: str
    """The prompt or group."""
    pairs: int
    """Pairs scored."""
    accuracy: float
    """Pairwise accuracy, equal scores counted as half."""
    length_accuracy: float
    """Accuracy of the length baseline."""


@dataclass(frozen=True, kw_only=True)
class RewardEvaluation:
    """Results over every comparison in some judgements; tied responses form none."""

    pairs: int
    """Comparisons scored."""
    abstained: int
    """Comparisons left out because the model abstained on one of the two."""
    accuracy: float
    """Share of pairs in which the better response scored higher; equal scores count half."""
    accuracy_standard_error: float | None
    """Standard error of ``accuracy`` with pairs of one group taken as dependent; None for a single group."""
    nll: float
    """Mean of ``-log sigmoid(score_better - score_worse)``, in nats; log 2 = .693 knows nothing."""
    ece: float
    """Expected calibration error (Guo et al. 2017, eq. 3) over 10 equal bins of [.5, 1]."""
    temperature: float
    """Divisor of the scores under which ``sigmoid(score_better - score_worse)`` fits these pairs best."""
    ece_at_temperature: float
    """``ece`` of scores divided by a temperature that was fitted on other groups; ``ece`` where there is one group."""
    length_rule: str
    """The strongest of the rules that more, or fewer, words, characters or tokens win: "more characters", say."""
    length_accuracy: float
    """Accuracy of that rule; equal lengths count half."""
    longer_wins: dict[str, float]
    """Accuracy of the rule that the longer response wins, by unit of length (tokens only of a model that has some)."""
    gain: float
    """``accuracy`` minus ``length_accuracy``."""
    gain_standard_error: float | None
    """Standard error of ``gain``, taken pair by pair, with pairs of one group as dependent; None for one group."""
    pairs_at_matched_length: int
    """Pairs whose word counts differ by less than 10% of the longer one."""
    accuracy_at_matched_length: float | None
    """Accuracy on those pairs; None if there are none."""
    by_margin: tuple[MarginAccuracy, ...]
    """Accuracy by quarters of the difference of scores, the closest calls first; fewer where there are few pairs."""
    bins: tuple[ReliabilityBin, ...]
    """Reliability of the probabilities."""
    groups: tuple[PromptAccuracy, ...]
    """Results by group of prompts."""

    def worst_groups(self, most: int = 20) -> list[PromptAccuracy]:
        """The groups with the lowest accuracy, each first drawn towards the whole by ten pairs of average luck."""
        known = [(one.accuracy * one.pairs + 10 * self.accuracy) / (one.pairs + 10) for one in self.groups]
        order = sorted(range(len(known)), key=lambda row: (known[row], self.groups[row].group))
        return [self.groups[row] for row in order[:most]]

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain dicts and lists."""
        return asdict(self) | {"bins": [asdict(b) for b in self.bins], "groups": [asdict(g) for g in self.groups]}


@dataclass(frozen=True)
class NamedEvaluation:
    """Results on judgements of another origin, to be shown beside the main ones."""

    name: str
    """Name of the judgements, that of their file say."""
    evaluation: RewardEvaluation
    """Results."""


def evaluate_reward_model(
    model: RewardModelLike,
    judgements: Sequence[Judgement],
    *,
    group_of: Callable[[str], str] = prompt_itself,
    count_tokens: Callable[[Sequence[str]], list[int]] | None = None,
) -> RewardEvaluation:
    """Score every response once and compare all pairs.

    Args:
        model: any reward model, or a plain reward function.
        judgements: of any kinds, not seen in training; those that compare nothing are left out.
        group_of: maps a prompt to the group that results are listed by and that the standard error clusters
            on.
        count_tokens: tokens of each text, for the length rule; None asks the model, if it counts any.

    Raises:
        DataError: there is no comparison, or the model abstained on all.
        RewardModelError: the model raised or returned a bad score.
    """
    judgements = [one for one in require_judgements("reward model evaluation", judgements) if one.compares]
    group_of = named_group("reward model evaluation", group_of)
    count_tokens = checked("reward model evaluation: count_tokens", count_tokens, Callable | None)
    texts = [text for one in judgements for text in one.texts]
    scores = checked_scores(as_reward_model(model), [one.prompt for one in judgements for _ in one.texts], texts)
    counter: object = model
    if count_tokens is None and isinstance(counter, CountsTokens):
        count_tokens = counter.count_tokens
    lengths = _lengths(texts, count_tokens)
    better, worse, groups = _pairs(judgements, group_of)
    kept = scores.valid[better] & scores.valid[worse] if len(better) else np.zeros(0, dtype=bool)
    if not kept.any():
        raise DataError(
            f"reward model evaluation: needs at least one comparison with two scores, got {len(kept)} "
            f"comparisons, "
            f"all of them abstained on"
        )
    better, worse, groups = better[kept], worse[kept], groups[kept]
    margin = scores.value[better].astype(np.float64) - scores.value[worse]
    points = _points(margin)
    rule = strongest_length_rule(lengths, better, worse)
    words = lengths["words"]
    matched = np.abs(words[better] - words[worse]) < MATCHED_LENGTH * np.maximum(words[better], words[worse])
    return RewardEvaluation(
        pairs=len(points),
        abstained=int((~kept).sum()),
        accuracy=float(points.mean()),
        accuracy_standard_error=_clustered_error(points, groups),
        nll=float(np.logaddexp(0, -margin).mean()),
        ece=expected_calibration_error(margin),
        temperature=fit_temperature(margin),
        ece_at_temperature=expected_calibration_error(cross_fitted(margin, groups)),
        length_rule=rule.name,
        length_accuracy=float(rule.points.mean()),
        longer_wins=rule.longer_wins,
        gain=float((points - rule.points).mean()),
        gain_standard_error=_clustered_error(points - rule.points, groups),
        pairs_at_matched_length=int(matched.sum()),
        accuracy_at_matched_length=float(points[matched].mean()) if matched.any() else None,
        by_margin=_by_margin(margin, points),
        bins=_reliability(margin, points),
        groups=tuple(
            PromptAccuracy(
                group=str(group),
                pairs=int((groups == group).sum()),
                accuracy=float(points[groups == group].mean()),
                length_accuracy=float(rule.points[groups == group].mean()),
            )
            for group in np.unique(groups)
        ),
    )


def _lengths(texts: Sequence[str], count_tokens: Callable[[Sequence[str]], list[int]] | None) -> dict[str, np.ndarray]:
    lengths = {"words": [len(text.split()) for text in texts], "characters": [len(text) for text in texts]}
    if count_tokens is not None:
        lengths["tokens"] = count_tokens(texts)
    found = {unit: finite_array(f"the number of {unit} of texts", each, dimensions=1) for unit, each in lengths.items()}
    if len(found.get("tokens", texts)) != len(texts):
        raise DataError(f"count_tokens: must give a number for each of {len(texts)} texts, got {len(found['tokens'])}")
    return found


def _pairs(
    judgements: Sequence[Judgement], group_of: Callable[[str], str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    better, worse, groups, start = [], [], [], 0
    for one in judgements:
        for first, second in one.pairs():
            better.append(start + first)
            worse.append(start + second)
            groups.append(group_of(one.prompt))
        start += len(one.texts)
    return np.array(better, dtype=int), np.array(worse, dtype=int), np.array(groups, dtype=object)


def _points(margin: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.sign(margin))


def _by_margin(margin: np.ndarray, points: np.ndarray) -> tuple[MarginAccuracy, ...]:
    order = np.argsort(np.abs(margin), kind="stable")
    quarters = [rows for rows in np.array_split(order, 4) if len(rows)]
    return tuple(
        MarginAccuracy(
            low=float(np.abs(margin[rows]).min()),
            high=float(np.abs(margin[rows]).max()),
            pairs=len(rows),
            accuracy=float(points[rows].mean()),
        )
        for rows in quarters
    )


def _reliability(margin: np.ndarray, points: np.ndarray) -> tuple[ReliabilityBin, ...]:
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    place = bin_of(confidence)
    bins = []
    for number, (low, high) in enumerate(bin_edges()):
        inside = place == number
        count = int(inside.sum())
        sure = float(confidence[inside].mean()) if count else None
        right = float(points[inside].mean()) if count else None
        bins.append(ReliabilityBin(low=low, high=high, pairs=count, confidence=sure, accuracy=right))
    return tuple(bins)


def _clustered_error(points: np.ndarray, groups: np.ndarray) -> float | None:
    names = np.unique(groups)
    if len(names) < 2:
        return None
    residual = points - points.mean()
    sums = np.array([residual[groups == name].sum() for name in names])
    return math.sqrt(len(names) / (len(names) - 1) * float((sums**2).sum())) / len(points)
