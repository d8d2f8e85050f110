"""Error detection: the uncertainty of a model as a detector of the pairs that it gets the wrong way round.

Knows: members' scores and ``Scores.std``. Does not know: where the uncertainty comes from.

Shapes: M = members, P = pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lm_gym.reward_models.human.pair_choice import pair_utility
from lm_gym.reward_models.judgements.record import Judgement, require_judgements
from lm_gym.scoring.adapters import as_reward_model
from lm_gym.scoring.protocol import HasMemberScores, RewardModel, checked_scores
from lm_gym.tools.extras import require
from lm_gym.tools.settings import checked

__all__ = ["ErrorDetection", "error_detection"]

MemberScores = Callable[[Sequence[str], Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""(prompts, responses) -> values (M, B), valid (B,)."""


@dataclass(frozen=True, kw_only=True)
class ErrorDetection:
    """Area under the ROC curve: the chance that a wrong pair looks less sure than a right one; .5 knows nothing."""

    pairs: int
    """Pairs with an order, a score for both responses, and no equal scores."""
    errors: int
    """Pairs that the model has the wrong way round."""
    by_disagreement: float | None
    """Area of the standard deviation over members of the probability that the first wins; None without members."""
    by_spread: float
    """Area of the standard deviation of the difference of scores: over members, or from the model's own std."""
    by_margin: float
    """Area of a small difference of scores, which needs no ensemble."""


def error_detection(
    model: RewardModel, judgements: Sequence[Judgement], *, members: MemberScores | None = None
) -> ErrorDetection | None:
    """Measure the uncertainty of a reward model as a detector of its errors.

    Args:
        model: an ensemble, or any model with ``Scores.std`` (the two stds of a pair are taken as independent).
        judgements: not seen in training; those that compare nothing are left out.
        members: every member's scores, whose differences are compared pair by pair; None takes the model's own, if it
            is a :class:`lm_gym.scoring.HasMemberScores`.

    Returns: None for a model without a spread, and where it is always right or always wrong.

    Raises:
        RewardModelError: the model raised or returned a bad score.
        MissingExtraError: scikit-learn is not installed.
    """
    model = as_reward_model(model)
    members = checked("error_detection: members", members, Callable | None)
    judgements = [one for one in require_judgements("error_detection", judgements) if one.compares]
    rows = sorted({(one.prompt, text) for one in judgements for text in one.texts})
    place = {row: number for number, row in enumerate(rows)}
    pairs = [
        (place[one.prompt, one.texts[better]], place[one.prompt, one.texts[worse]])
        for one in judgements
        for better, worse in one.pairs()
    ]
    if not pairs:
        return None
    prompts, texts = [row[0] for row in rows], [row[1] for row in rows]
    scores = checked_scores(model, prompts, texts)
    better, worse = np.array(pairs).T
    if members is None and isinstance(model, HasMemberScores):
        members = model.member_scores
    disagreement = None
    if members is not None:
        values, _ = members(prompts, texts)
        margins = values[:, better] - values[:, worse]
        spread, disagreement = margins.std(axis=0), pair_utility(margins, "disagreement")
    elif scores.std is not None:
        spread = np.hypot(scores.std[better], scores.std[worse])
    else:
        return None
    margin = scores.value[better].astype(np.float64) - scores.value[worse]
    kept = scores.valid[better] & scores.valid[worse] & (margin != 0)
    wrong = margin[kept] < 0
    if wrong.all() or not wrong.any():
        return None
    area = require("sklearn.metrics", extra="evaluation", purpose="the ROC of an error detector").roc_auc_score
    return ErrorDetection(
        pairs=int(kept.sum()),
        errors=int(wrong.sum()),
        by_disagreement=None if disagreement is None else float(area(wrong, disagreement[kept])),
        by_spread=float(area(wrong, spread[kept])),
        by_margin=float(area(wrong, -np.abs(margin[kept]))),
    )
