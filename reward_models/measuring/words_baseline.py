"""A words-only baseline: a Bradley-Terry model that is linear in TF-IDF features, shown beside a reward model.

Knows: scikit-learn. Does not know: reward models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lm_gym.reward_models.judgements.record import Judgement
from lm_gym.reward_models.judgements.splits import prompt_itself
from lm_gym.tools.extras import require

__all__ = ["text_baseline_accuracy"]


def text_baseline_accuracy(
    judgements: Sequence[Judgement], *, group_of: Callable[[str], str] = prompt_itself
) -> float | None:
    """Accuracy of a Bradley-Terry model that is linear in TF-IDF words.

    It is fitted on one half of the groups (dealt in the order of their names) and measured on the other, both ways.

    Args:
        judgements: to fit and measure on.
        group_of: maps a prompt to its group.

    Returns: equal scores count half; None where a half has fewer than two pairs.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    text = require("sklearn.feature_extraction.text", extra="evaluation", purpose="the TF-IDF baseline")
    linear = require("sklearn.linear_model", extra="evaluation", purpose="the TF-IDF baseline")
    names = sorted({group_of(one.prompt) for one in judgements})
    halves = (set(names[::2]), set(names[1::2]))
    points: list[np.ndarray] = []
    for own, other in (halves, halves[::-1]):
        train = _pair_texts(judgements, other, group_of)
        test = _pair_texts(judgements, own, group_of)
        if len(train) < 2 or len(test) < 2:
            return None
        words = text.TfidfVectorizer(sublinear_tf=True, norm=None, token_pattern=r"\S+")
        words.fit([response for pair in train for response in pair])
        better, worse = (words.transform([pair[side] for pair in train]) for side in (0, 1))
        gap = better - worse
        flip = np.arange(gap.shape[0]) % 2 * 2 - 1
        model = linear.LogisticRegression(C=1e-3, fit_intercept=False, max_iter=500)
        model.fit(gap.multiply(flip[:, None]).tocsr(), flip)
        lead = (words.transform([p[0] for p in test]) - words.transform([p[1] for p in test])) @ model.coef_[0]
        points.append(0.5 * (1 + np.sign(lead)))
    return float(np.concatenate(points).mean())


def _pair_texts(
    judgements: Sequence[Judgement], groups: set[str], group_of: Callable[[str], str]
) -> list[tuple[str, str]]:
    return [
        (one.texts[better], one.texts[worse])
        for one in judgements
        if group_of(one.prompt) in groups
        for better, worse in one.pairs()
    ]
