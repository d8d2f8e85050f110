"""One reward model out of several: a weighted sum whose terms can be read one by one.

Knows: the protocol in ``lm_gym.scoring.protocol``. Does not know: what any term is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lm_gym.errors import ConfigError
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.protocol import RewardModel, Scores, columns_of, normalized_scores
from lm_gym.tools.settings import checked

__all__ = ["WeightedSum"]


class WeightedSum(RewardModel):
    """``sum_i weight_i * score_i``; it abstains on a row where any term abstains.

    A term with a normaliser counts with its normalised score, as it would be paid alone, so weights mean the same
    whatever a model's own scale is. The sum has no normaliser of its own.

    Example: ``WeightedSum({"helpful": (1.0, model), "short": (-0.01, count_words)})``.
    """

    def __init__(self, terms: Mapping[str, tuple[float, RewardModelLike]]) -> None:
        """Store the terms.

        Args:
            terms: name -> (weight, reward model or plain reward function).

        Raises:
            ConfigError: there is no term, a term is not such a pair, or a weight is not finite.
            RewardModelError: a term is neither a reward model nor a function.
        """
        terms = checked("WeightedSum: terms", terms, Mapping)
        if not terms:
            raise ConfigError("WeightedSum: must have at least one term, got none")
        self._terms: dict[str, tuple[float, RewardModel]] = {}
        for name, term in terms.items():
            if not isinstance(term, tuple | list) or len(term) != 2:
                raise ConfigError(f"WeightedSum: term {name!r} must be (weight, reward model), got {term!r}")
            weight, model = term
            weight = checked(f"WeightedSum: the weight of {name!r}", weight, float)
            self._terms[name] = (weight, as_reward_model(model))
        self.name = " + ".join(f"{weight:g}*{name}" for name, (weight, _) in self._terms.items())
        self.columns, self.all_columns = columns_of([model for _, model in self._terms.values()])

    @property
    def weights(self) -> dict[str, float]:
        """Name -> weight."""
        return {name: weight for name, (weight, _) in self._terms.items()}

    def terms(self, prompts: Sequence[str], responses: Sequence[str], /, **columns: Any) -> dict[str, Scores]:
        """Each term's own scores, normalised, not yet weighted. Returns: name -> Scores of shape (B,).

        Raises:
            RewardModelError: a term raised or returned a bad score.
        """
        return {name: normalized_scores(model, prompts, responses, columns) for name, (_, model) in self._terms.items()}

    def table(self, prompts: Sequence[str], responses: Sequence[str], /, **columns: Any) -> list[dict[str, Any]]:
        """One dict per row: ``response``, ``terms`` (name -> weighted part) and ``total``.

        A part, and with it the total, is None where the term abstained.
        """
        scores = self.terms(prompts, responses, **columns)
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

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Score B responses.

        The std is that of independent terms, ``sqrt(sum_i (weight_i * std_i)^2)``, and None unless all have
        one.

        Returns: Scores of shape (B,).

        Raises:
            RewardModelError: a term raised or returned a bad score.
        """
        return self._combined(self.terms(prompts, responses, **columns))

    def identity(self) -> str | None:
        """Every weight, and every term with its normaliser; None if a term does not say who it is."""
        terms = [(weight, one.identity(), one.normalizer) for weight, one in self._terms.values()]
        return None if any(who is None for _, who, _ in terms) else f"sum {terms}"

    def _combined(self, scores: Mapping[str, Scores]) -> Scores:
        weights = np.array([self._terms[name][0] for name in scores])[:, None]
        value = (weights * np.stack([term.value for term in scores.values()]).astype(np.float64)).sum(axis=0)
        valid = np.logical_and.reduce([term.valid for term in scores.values()])
        spreads = [term.std for term in scores.values() if term.std is not None]
        std = None
        if len(spreads) == len(scores):
            std = np.sqrt(((weights * np.stack(spreads)) ** 2).sum(axis=0)).astype(np.float32)
        return Scores(value=np.where(valid, value, 0.0).astype(np.float32), valid=valid, std=std)
