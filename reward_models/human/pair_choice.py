"""Active choice of the pairs that people are asked about next.

Knows: the pair of two scores and their spread. Does not know: how a pair is shown to a person.

Sources: disagreement of an ensemble on who wins (Christiano et al. 2017, arXiv:1706.03741, section 2.2.4); expected
information gain of the label under Bradley-Terry, that is the mutual information between label and member
(Houlsby et al. 2011, arXiv:1112.5745, eq. 2).

Shapes: M = members, P = candidate pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lm_gym.errors import ConfigError, DataError
from lm_gym.reward_models.composed.ensemble import EnsembleRewardModel
from lm_gym.tools.settings import Whole, checked, finite_array, shown

__all__ = ["Candidate", "choose_pairs", "pair_utility"]

Candidate = tuple[str, str, str]
"""Prompt, first response, second response."""
Rule = Literal["disagreement", "information", "random"]


def pair_utility(margins: np.ndarray, rule: Rule) -> np.ndarray:
    """Utility of a label for each candidate pair.

    Args:
        margins: score of the first response minus that of the second, by each member. Shape: (M, P).
        rule: ``"disagreement"``: standard deviation over members of the probability that the first wins;
            ``"information"``: entropy of the mean probability minus mean entropy, in nats.

    Returns: Shape: (P,), >= 0.

    Raises:
        ConfigError: another rule.
        DataError: the margins are no table of finite numbers.
    """
    rule = checked("pair_utility: rule", rule, Literal["disagreement", "information"])
    probability = 1 / (1 + np.exp(-finite_array("pair_utility: margins", margins, dimensions=2)))
    if rule == "disagreement":
        return probability.std(axis=0)
    return np.maximum(_entropy(probability.mean(axis=0)) - _entropy(probability).mean(axis=0), 0.0)


def _entropy(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def choose_pairs(
    candidates: Sequence[Candidate],
    count: int,
    *,
    rule: Rule,
    ensemble: EnsembleRewardModel | None = None,
    seed: int = 0,
) -> list[int]:
    """Pick the candidates that should be labelled next.

    Args:
        candidates: P pairs without a label.
        count: number of candidates to pick.
        rule: see :func:`pair_utility`; ``"random"`` needs no ensemble.
        ensemble: members that were trained on what is labelled so far.
        seed: of the random rule, and of ties between equal utilities.

    Returns: indices of the candidates, most useful first; pairs that a member abstains on come last.

    Raises:
        ConfigError: more picks than candidates, another rule, or no ensemble for a rule that needs one.
        DataError: a candidate is not three texts.
    """
    candidates = checked("choose_pairs: candidates", candidates, tuple[Any, ...])
    wrong = [one for one in candidates if not (isinstance(one, tuple | list) and [type(x) for x in one] == [str] * 3)]
    if wrong:
        raise DataError(
            f"choose_pairs: a candidate must be (prompt, first, second), three texts, got {shown(wrong[0])}"
        )
    count = checked("choose_pairs: count", count, Whole)
    rule = checked("choose_pairs: rule", rule, Rule)
    ensemble = checked("choose_pairs: ensemble", ensemble, EnsembleRewardModel | None)
    seed = checked("choose_pairs: seed", seed, Whole)
    if not 0 <= count <= len(candidates):
        raise ConfigError(f"choose_pairs: count must lie in 0..{len(candidates)}, got {count}")
    order = np.random.default_rng(seed).permutation(len(candidates))
    if rule != "random" and len(candidates):
        if ensemble is None:
            raise ConfigError(f"choose_pairs: rule {rule!r} needs ensemble=..., got none")
        prompts = [candidate[0] for candidate in candidates]
        first, seen = ensemble.member_scores(prompts, [candidate[1] for candidate in candidates])
        second, also = ensemble.member_scores(prompts, [candidate[2] for candidate in candidates])
        utility = np.where(seen & also, pair_utility(first - second, rule), -1.0)
        order = order[np.argsort(-utility[order], kind="stable")]
    return [int(index) for index in order[:count]]
