"""Reward models that are rules: length, patterns, repetition, words, fluency, likeness to a target.

Each is a small part for :class:`~lm_gym.reward_models.WeightedSum`. Knows: text, and for two of them a
language model or a sentence encoder. Does not know: judgements.

Shapes: B = rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.models.language_model import DType, LanguageModel, load_language_model
from lm_gym.scoring.protocol import RewardModel, Scores, require_rows
from lm_gym.tools.settings import Count, Text, Whole, checked, shown

__all__ = ["FluencyReward", "LengthReward", "LexiconReward", "RegexReward", "RepetitionPenalty", "SimilarityReward"]

_WORD = re.compile(r"\w+(?:'\w+)?")


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return _WORD.findall(text.lower())


class LengthReward(RewardModel):
    """1 at the wanted number of words, falling linearly to 0 at ``tolerance`` words from it."""

    name = "length"

    def __init__(self, *, target: int, tolerance: int) -> None:
        """Args:
        target: words, >= 0.
        tolerance: words, >= 1.

        Raises:
            ConfigError: out of range.
        """
        self.target = checked("LengthReward: target", target, Whole)
        self.tolerance = checked("LengthReward: tolerance", tolerance, Count)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Returns: Scores of shape (B,), in [0, 1]."""
        require_rows(self.name, prompts, responses)
        distance = np.array([abs(len(words(text)) - self.target) for text in responses], dtype=float)
        return Scores.of(np.maximum(0.0, 1.0 - distance / self.tolerance))


class RegexReward(RewardModel):
    """The number of matches of a pattern, capped."""

    name = "regex"

    def __init__(self, pattern: str, *, most: int = 1, flags: int = 0) -> None:
        """Args:
        pattern: a regular expression of the module ``re``.
        most: matches that count.
        flags: of ``re``.

        Raises:
            ConfigError: no valid pattern, or ``most`` below 1.
        """
        pattern, flags = checked("RegexReward: pattern", pattern, str), checked("RegexReward: flags", flags, int)
        try:
            self.pattern = re.compile(pattern, flags)
        except (re.error, ValueError, OverflowError) as error:  # of the pattern, and of flags
            raise ConfigError(
                f"RegexReward: must be a regular expression, got {shown(pattern)} with flags {flags} ({error})"
            ) from error
        self.most = checked("RegexReward: most", most, Count)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Returns: Scores of shape (B,), 0 to ``most``."""
        require_rows(self.name, prompts, responses)
        return Scores.of([float(min(len(self.pattern.findall(text)), self.most)) for text in responses])


class RepetitionPenalty(RewardModel):
    """Minus the share of word n-grams that occurred before in the response: 0 for none, towards -1 for all."""

    name = "repetition"

    def __init__(self, *, ngram: int = 3) -> None:
        """Args: ngram: words of a unit, >= 1. Raises: ConfigError: below 1."""
        self.ngram = checked("RepetitionPenalty: ngram", ngram, Count)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Returns: Scores of shape (B,), in (-1, 0]; 0 for a response of less than one unit."""
        require_rows(self.name, prompts, responses)
        return Scores.of([-self._repeated(words(text)) for text in responses])

    def _repeated(self, found: list[str]) -> float:
        grams = Counter(tuple(found[i : i + self.ngram]) for i in range(len(found) - self.ngram + 1))
        total = sum(grams.values())
        return (total - len(grams)) / total if total else 0.0


class LexiconReward(RewardModel):
    """Share of the words that are on a list, or minus it."""

    name = "lexicon"

    def __init__(self, lexicon: Iterable[str], *, weight: float = 1.0) -> None:
        """Args:
        lexicon: words, in any case.
        weight: what a share of 1 is worth; negative for words that are not wanted.

        Raises:
            ConfigError: no words, an entry that is not one word, or a weight that is not finite.
        """
        given = checked("LexiconReward: lexicon", () if isinstance(lexicon, str) else lexicon, Iterable)
        entries = [checked("LexiconReward: a word", entry, str) for entry in given]
        wrong = [entry for entry in entries if len(words(entry)) != 1]
        if not entries or wrong:
            raise ConfigError(f"LexiconReward: must be a list of single words, got {shown(wrong[:1] or lexicon)}")
        self.weight = checked("LexiconReward: weight", weight, float)
        self.lexicon = frozenset(words(entry)[0] for entry in entries)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Returns: Scores of shape (B,), from 0 to ``weight``; 0 for a response without words."""
        require_rows(self.name, prompts, responses)
        shares = []
        for text in responses:
            found = words(text)
            shares.append(sum(word in self.lexicon for word in found) / len(found) if found else 0.0)
        return Scores.of(self.weight * np.array(shares, dtype=float))


class FluencyReward(RewardModel):
    """Mean log-likelihood of a response's tokens, given its prompt, under a language model; nats per token.

    It abstains on a response without a token.
    """

    name = "fluency"

    def __init__(self, language_model: LanguageModel, *, max_batch_tokens: int = 8192) -> None:
        """Args:
        language_model: a frozen model; see :meth:`from_pretrained`.
        max_batch_tokens: padded tokens per forward pass.

        Raises:
            ConfigError: a value is of another kind, or below 1.
        """
        self._model = checked("FluencyReward: language_model", language_model, LanguageModel)
        self._max_batch_tokens: int = checked("FluencyReward: max_batch_tokens", max_batch_tokens, Count)

    @classmethod
    def from_pretrained(
        cls, name_or_path: Any, *, device: str = "auto", dtype: DType = "auto", **settings: Any
    ) -> FluencyReward:
        """Load the language model. Raises: ModelLoadError, UnsupportedModelError."""
        return cls(load_language_model(name_or_path, device=device, dtype=dtype), **settings)

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Returns: Scores of shape (B,), <= 0."""
        from lm_gym.models.teacher_forcing import token_batches

        require_rows(self.name, prompts, responses)
        tokenizer, limit = self._model.tokenizer, self._model.max_length
        value, valid = np.zeros(len(responses), dtype=np.float32), np.zeros(len(responses), dtype=bool)
        heads = [self._ids(prompt) or [int(tokenizer.eos_token_id)] for prompt in prompts]
        tails = [self._ids(text) for text in responses]
        rows = [row for row, tail in enumerate(tails) if tail]
        joined = [(heads[row] + tails[row])[-limit:] if limit else heads[row] + tails[row] for row in rows]
        lengths = np.array([len(ids) for ids in joined])
        for batch in token_batches(lengths, self._max_batch_tokens, self._model.device) if rows else ():
            means = self._means([joined[i] for i in batch], [len(tails[rows[i]]) for i in batch])
            for index, mean in zip(batch, means, strict=True):
                value[rows[index]], valid[rows[index]] = mean, True
        return Scores(value=value, valid=valid)

    def _ids(self, text: str) -> list[int]:
        return list(self._model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _means(self, rows: Sequence[Sequence[int]], counted: Sequence[int]) -> list[float]:
        """Mean log-likelihood of the last tokens of each row. Args: rows of ids; how many of each count."""
        from lm_gym.models.decoder import decoder_for

        cut = [max(len(row) - count, 1) for row, count in zip(rows, counted, strict=True)]
        whole = [np.asarray(row, dtype=np.int64) for row in rows]
        prompts, tails = zip(*(np.split(row, [first]) for row, first in zip(whole, cut, strict=True)), strict=True)
        sizes = [len(tail) for tail in tails]
        before = decoder_for(self._model).teacher_forced(prompts, tails).before
        means = []
        for states, tail in zip(before.split(sizes), tails, strict=True):
            log_probs = torch.log_softmax(self._model.logits(states), dim=-1)
            taken = torch.from_numpy(tail).to(log_probs.device)
            means.append(float(log_probs.gather(-1, taken[:, None]).mean()))
        return means


class SimilarityReward(RewardModel):
    """Cosine similarity between the sentence embeddings of a response and of a target text, in [-1, 1]."""

    name = "similarity"

    def __init__(self, target: str, embed: Callable[[Sequence[str]], np.ndarray]) -> None:
        """Args:
        target: the text to be like.
        embed: B texts -> embeddings (B, H); ``SentenceTransformer.encode`` is one.

        Raises:
            ConfigError: the target is empty, or there is no such function.
            RewardModelError: it returns no row of finite numbers.
        """
        target = checked("SimilarityReward: target", target, Text)
        if not target.strip():
            raise ConfigError(f"SimilarityReward: target must be a text with a word in it, got {target!r}")
        self._embed = checked("SimilarityReward: embed", embed, Callable)
        self._target = self._embedded([target])[0]

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Returns: Scores of shape (B,)."""
        require_rows(self.name, prompts, responses)
        if not responses:
            return Scores.of([])
        return Scores.of(self._embedded(list(responses)) @ self._target)

    def _embedded(self, texts: list[str]) -> np.ndarray:
        """Embeddings of length 1. Shape: (B, H)."""
        found = self._embed(texts)
        try:
            rows = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            rows = np.zeros(0)
        if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
            raise RewardModelError(
                f"SimilarityReward: embed must return an array of finite numbers with a row for each of {len(texts)} "
                f"texts, got {shown(found)}"
            )
        return _unit(rows)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
