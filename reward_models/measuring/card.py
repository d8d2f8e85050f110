"""The card of a reward model: every measurement of it on judgements that it has not seen, side by side.

Knows: the measurements of this folder, put side by side. Does not know: how the card is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lm_gym.errors import DataError
from lm_gym.reward_models.caching.score_cache import CachedRewardModel
from lm_gym.reward_models.judgements.record import Judgement, require_judgements
from lm_gym.reward_models.judgements.splits import named_group, prompt_itself
from lm_gym.reward_models.judgements.verdicts import POINTS_OF_A
from lm_gym.reward_models.scalar.text_encoding import cuts_untold
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.protocol import CountsCutTexts, CountsTokens, HasMemberScores, RewardModel, checked_scores
from lm_gym.tools.settings import checked

from .agreement import AnnotatorAgreement, annotator_agreement, votes_of
from .error_detection import ErrorDetection, error_detection
from .evaluation import NamedEvaluation, RewardEvaluation, evaluate_reward_model
from .graded import GradedMeasures, graded_measures, rank_correlation
from .learning_curve import CurvePoint
from .probes import ProbeResult, probe_reward_model
from .verdict import verdict_on
from .words_baseline import text_baseline_accuracy

__all__ = ["Disagreement", "RewardModelCard", "ShareAccuracy", "reward_card"]

SHARES = ((0.5, 0.7), (0.7, 0.9), (0.9, 1.0))
EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class ShareAccuracy:
    """Accuracy on pairs whose winner had a share of the votes in (low, high]."""

    low: float
    """Lower edge, not included."""
    high: float
    """Upper edge, included."""
    pairs: int
    """Pairs in it."""
    accuracy: float
    """Equal scores count half."""


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A pair on which the model is surest against most people."""

    prompt: str
    """The prompt."""
    preferred: str
    """The response that most people preferred."""
    rejected: str
    """The response that the model prefers."""
    margin: float
    """Score of ``rejected`` minus score of ``preferred``."""
    share: float
    """Share of the votes for ``preferred``, ties counted half."""
    votes: int
    """Votes on the pair; 1 is one person's word, and no share of anything."""
    comments: tuple[str, ...]
    """The annotators' reasons, in their own words."""


@dataclass(frozen=True, kw_only=True)
class RewardModelCard:
    """A reward model on held-out judgements."""

    name: str
    """Name of the model."""
    verdict: str
    """Does it know more than length, and is it easily fooled? In one to three sentences."""
    about: str
    """What it was trained on, and from what; empty where that is not known."""
    seen_groups: tuple[str, ...]
    """Groups that the model was trained on as well: numbers that include them flatter it."""
    evaluation: RewardEvaluation
    """Accuracy, likelihood, calibration, the length-only baseline."""
    text_baseline_accuracy: float | None
    """Accuracy of a Bradley-Terry model on TF-IDF words, fitted on the other half of the groups; None for one group."""
    length_correlation: float | None
    """Spearman correlation of score and number of words over all responses; None where one of them is constant."""
    rank_correlation: float | None
    """Mean Spearman correlation of scores and people's places within a ranking of at least 3; None without one."""
    by_share: tuple[ShareAccuracy, ...]
    """Accuracy by how many people agreed on the winner, over the pairs with two votes or more."""
    error_detection: ErrorDetection | None
    """The model's uncertainty as a detector of its errors; None for a model without one."""
    learning_curve: tuple[CurvePoint, ...]
    """Accuracy by number of judgements learned from, where it was measured."""
    texts: int
    """Different texts that were scored for the comparisons."""
    texts_cut: int | None
    """Texts that were too long and lost their beginning; None for a model that does not say."""
    agreement: AnnotatorAgreement | None
    """People among themselves, and the model in the place of one; None without two votes on one pair."""
    also: tuple[NamedEvaluation, ...]
    """Results on judgements of other origins."""
    graded: GradedMeasures | None
    """Thumbs, ratings and rewards of single responses; None without any."""
    probes: tuple[ProbeResult, ...]
    """Texts that should never win, and how many of the chosen answers they beat."""
    disagreements: tuple[Disagreement, ...]
    """Pairs on which the model is surest against most people."""

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists; the evaluation under its own names and under those that scripts rely on."""
        found = asdict(self) | {"evaluation": self.evaluation.to_json()}
        found["probes"] = [asdict(probe) | {"fools": probe.fools} for probe in self.probes]
        return {
            **found.pop("evaluation"),
            **found,
            "n": self.evaluation.pairs,
            "length_baseline_accuracy": self.evaluation.length_accuracy,
            "by_group": {group.group: group.accuracy for group in self.evaluation.groups},
        }


def reward_card(
    model: RewardModelLike,
    judgements: Sequence[Judgement],
    *,
    group_of: Callable[[str], str] = prompt_itself,
    trained_on: Sequence[str] = (),
    about: str = "",
    also: Sequence[NamedEvaluation] = (),
    learning_curve: Sequence[CurvePoint] = (),
    progress: bool = False,
) -> RewardModelCard:
    """Measure a reward model every way.

    Args:
        model: any reward model, or a plain reward function.
        judgements: of any kinds, not seen in training.
        group_of: maps a prompt to its group; groups are never divided between fitting and measuring.
        trained_on: groups of the training data, if known; those among the judgements are listed on the card.
        also: results on judgements of other origins, to be shown beside.
        about: what it was trained on and from what, to be shown.
        learning_curve: points of :func:`~lm_gym.reward_models.learning_curve`, to be shown.
        progress: True shows the scoring on standard error.

    Raises:
        DataError: no judgement compares two responses.
        RewardModelError: the model raised or returned a bad score.
        MissingExtraError: scikit-learn, scipy or krippendorff is missing.
    """
    judgements, group_of = require_judgements("reward_card", judgements), named_group("reward_card", group_of)
    also = checked("reward_card: also", also, tuple[NamedEvaluation, ...])
    learning_curve = checked("reward_card: learning_curve", learning_curve, tuple[CurvePoint, ...])
    trained_on = checked("reward_card: trained_on", trained_on, tuple[str, ...])
    about, progress = checked("reward_card: about", about, str), checked("reward_card: progress", progress, bool)
    seen = sorted({group_of(one.prompt) for one in judgements} & set(trained_on))
    plain = as_reward_model(model)
    model = CachedRewardModel(plain, progress=progress)
    comparing = [one for one in judgements if one.compares]
    texts = sorted({(one.prompt, text) for one in comparing for text in one.texts})
    count_tokens = plain.count_tokens if isinstance(plain, CountsTokens) else None
    evaluation = evaluate_reward_model(model, comparing, group_of=group_of, count_tokens=count_tokens)
    compared = [one for one in judgements if votes_of(one) and one.texts[0] != one.texts[1]]
    margins = _margins(model, compared)
    probes = tuple(_probes(model, comparing))
    return RewardModelCard(
        name=model.name,
        verdict=verdict_on(evaluation, probes),
        about=about,
        seen_groups=tuple(seen),
        evaluation=evaluation,
        text_baseline_accuracy=text_baseline_accuracy(comparing, group_of=group_of),
        length_correlation=_length_correlation(model, texts),
        rank_correlation=_rank_correlation(model, comparing),
        by_share=_by_share(compared, margins),
        error_detection=error_detection(
            model, comparing, members=plain.member_scores if isinstance(plain, HasMemberScores) else None
        ),
        learning_curve=tuple(learning_curve),
        texts=len(texts),
        texts_cut=plain.count_cut(*zip(*texts, strict=True)) if isinstance(plain, CountsCutTexts) and texts else None,
        agreement=_agreement(compared, margins),
        also=tuple(also),
        graded=graded_measures(model, judgements),
        probes=probes,
        disagreements=_disagreements(compared, margins),
    )


def _margins(model: RewardModel, judgements: Sequence[Judgement]) -> np.ndarray:
    """Score of "a" minus that of "b"; 0 where the model abstained on one. Shape: (P,)."""
    prompts = [one.prompt for one in judgements]
    first, second = (checked_scores(model, prompts, [one.texts[place] for one in judgements]) for place in (0, 1))
    margins = first.value.astype(np.float64) - second.value
    return np.where(first.valid & second.valid, margins, 0.0)


def _share_of_a(judgement: Judgement) -> float:
    return float(np.mean([POINTS_OF_A[vote.winner] for vote in votes_of(judgement)]))


def _by_share(judgements: Sequence[Judgement], margins: np.ndarray) -> tuple[ShareAccuracy, ...]:
    """Accuracy by share of the votes; of one voice there is no share."""
    voted = [row for row, one in enumerate(judgements) if len(votes_of(one)) > 1]
    judgements, margins = [judgements[row] for row in voted], margins[voted]
    shares = np.array([_share_of_a(one) for one in judgements])
    winner = np.sign(shares - 0.5)
    points = 0.5 * (1 + winner * np.sign(margins))
    top = np.maximum(shares, 1 - shares)
    found = []
    for low, high in SHARES:
        inside = (top > low) & (top <= high)
        if inside.any():
            accuracy = float(points[inside].mean())
            found.append(ShareAccuracy(low=low, high=high, pairs=int(inside.sum()), accuracy=accuracy))
    return tuple(found)


def _agreement(judgements: Sequence[Judgement], margins: np.ndarray) -> AnnotatorAgreement | None:
    try:
        return annotator_agreement(judgements, margins)
    except DataError:
        return None


def _disagreements(judgements: Sequence[Judgement], margins: np.ndarray) -> tuple[Disagreement, ...]:
    shares = np.array([_share_of_a(one) for one in judgements])
    against = -np.sign(shares - 0.5) * margins
    commented = np.array([any(vote.comment for vote in votes_of(one)) for one in judgements], dtype=bool)
    found: list[Disagreement] = []
    shown: set[tuple[str, ...]] = set()
    for row in np.lexsort((~commented, -against)):  # of equal margins (one pair, judged twice) the commented one
        key = (judgements[row].prompt, *sorted(judgements[row].texts))
        if against[row] <= 0 or len(found) == EXAMPLES:
            break
        if key in shown:
            continue
        shown.add(key)
        one, first_won = judgements[row], shares[row] > 0.5
        preferred, rejected = one.texts if first_won else one.texts[::-1]
        found.append(
            Disagreement(
                prompt=one.prompt,
                preferred=preferred,
                rejected=rejected,
                margin=float(against[row]),
                share=float(max(shares[row], 1 - shares[row])),
                votes=len(votes_of(one)),
                comments=tuple(vote.comment for vote in votes_of(one) if vote.comment),
            )
        )
    return tuple(found)


def _probes(model: RewardModel, judgements: Sequence[Judgement]) -> list[ProbeResult]:
    """Probes beside the chosen answers of each prompt: those that won more comparisons than they lost, the most often
    preferred first. A probe that beats a rejected answer says little; one that beats a chosen answer is what an agent
    will find."""
    wins: dict[str, dict[str, float]] = {}
    for one in judgements:
        of_prompt = wins.setdefault(one.prompt, {})
        for text in one.texts:
            of_prompt.setdefault(text, 0.0)
        for better, worse in one.pairs():
            of_prompt[one.texts[better]] += 1
            of_prompt[one.texts[worse]] -= 1
    chosen = {
        prompt: [text for text in sorted(of_prompt, key=lambda text: -of_prompt[text]) if of_prompt[text] > 0]
        for prompt, of_prompt in wins.items()
    }
    prompts = [prompt for prompt, texts in chosen.items() if texts]
    with cuts_untold():
        return probe_reward_model(model, prompts, [chosen[prompt] for prompt in prompts]) if prompts else []


def _length_correlation(model: RewardModel, rows: Sequence[tuple[str, str]]) -> float | None:
    scores = checked_scores(model, [prompt for prompt, _ in rows], [text for _, text in rows])
    words = np.array([len(text.split()) for _, text in rows])
    return rank_correlation(scores.value[scores.valid], words[scores.valid])


def _rank_correlation(model: RewardModel, judgements: Sequence[Judgement]) -> float | None:
    found = []
    for one in judgements:
        if len(one.texts) < 3:
            continue
        scores = checked_scores(model, [one.prompt] * len(one.texts), one.texts)
        value = rank_correlation(scores.value[scores.valid], -np.array(one.places)[scores.valid])
        if value is not None:
            found.append(value)
    return float(np.mean(found)) if found else None
