"""One reward model out of several: a weighted sum whose terms can be read one by one.

Knows: the protocol in ``lm_gym.scoring``. Does not know: what any term is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lm_gym.errors import ConfigError
from lm_gym.scoring import RewardFunction, RewardModel, Scores, as_reward_model, checked_scores

__all__ = ["WeightedSum"]


class WeightedSum:
    """``sum_i weight_i * score_i``; it abstains on a row where any term abstains.

    Example: ``WeightedSum({"helpful": (1.0, model), "short": (-0.01, count_words)})``.
    """

    def __init__(self, terms: Mapping[str, tuple[float, RewardModel | RewardFunction]]) -> None:
        """Store the terms.

        Args:
            terms: name -> (weight, reward model or plain reward function).

        Raises:
            ConfigError: there is no term, a term is not such a pair, or a weight is not finite.
            RewardModelError: a term is neither a reward model nor a function.
        """
        if not terms:
            raise ConfigError("WeightedSum: must have at least one term, got none")
        self._terms: dict[str, tuple[float, RewardModel]] = {}
        for name, term in terms.items():
            if not isinstance(term, tuple | list) or len(term) != 2:
                raise ConfigError(f"WeightedSum: term {name!r} must be (weight, reward model), got {term!r}")
            weight, model = term
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise ConfigError(f"WeightedSum: the weight of {name!r} must be a finite number, got {weight!r}")
            self._terms[name] = (float(weight), as_reward_model(model))

    @property
    def name(self) -> str:
        """What error messages call this reward model: its formula."""
        return " + ".join(f"{weight:g}*{name}" for name, (weight, _) in self._terms.items())

    @property
    def weights(self) -> dict[str, float]:
        """Name -> weight."""
        return {name: weight for name, (weight, _) in self._terms.items()}

    def terms(self, prompts: Sequence[str], responses: Sequence[str]) -> dict[str, Scores]:
        """Each term's own scores, not yet weighted. Returns: name -> Scores of shape (B,).

        Raises:
            RewardModelError: a term raised or returned a bad score.
        """
        return {name: checked_scores(model, prompts, responses) for name, (_, model) in self._terms.items()}

    def table(self, prompts: Sequence[str], responses: Sequence[str]) -> list[dict[str, Any]]:
        """One dict per row: ``response``, ``terms`` (name -> weighted part) and ``total``.

        A part, and with it the total, is None where the term abstained.
        """
        scores = self.terms(prompts, responses)
        total = self._combined(scores)
        rows = []
        for row, response in enumerate(responses):
            parts = {
                name: self._terms[name][0] * float(term.value[row]) if term.valid[row] else None
                for name, term in scores.items()
            }
            whole = float(total.value[row]) if total.valid[row] else None
            rows.append({"response": response, "terms": parts, "total": whole})
        return rows

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Score B responses.

        The std is that of independent terms, ``sqrt(sum_i (weight_i * std_i)^2)``, and None unless all have
        one.

        Returns: Scores of shape (B,).

        Raises:
            RewardModelError: a term raised or returned a bad score.
        """
        return self._combined(self.terms(prompts, responses))

    def _combined(self, scores: Mapping[str, Scores]) -> Scores:
        weights = np.array([self._terms[name][0] for name in scores])[:, None]
        value = (weights * np.stack([term.value for term in scores.values()]).astype(np.float64)).sum(axis=0)
        valid = np.logical_and.reduce([term.valid for term in scores.values()])
        spreads = [term.std for term in scores.values() if term.std is not None]
        std = None
        if len(spreads) == len(scores):
            std = np.sqrt(((weights * np.stack(spreads)) ** 2).sum(axis=0)).astype(np.float32)
        return Scores(value=np.where(valid, value, 0.0).astype(np.float32), valid=valid, std=std)
