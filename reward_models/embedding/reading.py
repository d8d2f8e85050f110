"""What the head of an embedding reward model reads of a prompt and a response.

Knows: embeddings, surface features, and how they stand side by side. Does not know: judgements, heads.

Shapes: B = texts, W = width of the encoder, S = surface features, H = features in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lm_gym.tools.settings import settings

from .sentence_features import EmbeddingCache
from .surface import SURFACE_NAMES, surface_features

__all__ = ["Reading", "Reads"]

Reads = Literal["response", "prompt_and_response", "interaction"]
SURFACE_WEIGHT = 3.0
"""Standardised surface features are multiplied by this, so that the penalty on their weights is a ninth: they are a few
dozen beside a thousand. Of 1, 3 and 6, 3 was best over four folds of human judgements (docs/log.md)."""


@settings
class Reading:
    """The features of a response that a head reads."""

    reads: Reads = "response"
    """``response``: the response is embedded; under a linear head the prompt then changes no comparison of two answers
    to it. ``prompt_and_response``: both as one text. ``interaction``: the response, and beside it the product, the
    absolute difference and the cosine of the two mean-pooled embeddings."""
    surface: bool = False
    """True adds :func:`~lm_gym.reward_models.embedding.surface.surface_features`."""

    def __call__(
        self, embed: EmbeddingCache, prompts: Sequence[str], responses: Sequence[str], *, show_progress: bool = False
    ) -> np.ndarray:
        """Features of B responses.

        Args:
            embed: the encoder, with what it knows already.
            prompts: B prompts.
            responses: one to each.
            show_progress: True draws a bar over long calls, on a terminal.

        Returns: Shape: (B, H), float32; the surface features are the last.
        """
        first, *others = (embed(texts, show_progress=show_progress) for texts in self.texts(prompts, responses))
        parts = [first, *(_interaction(first, other) for other in others)]
        if self.surface:
            parts.append(surface_features(prompts, responses))
        return np.concatenate(parts, axis=1)

    def texts(self, prompts: Sequence[str], responses: Sequence[str]) -> tuple[list[str], ...]:
        """The texts of B responses that are embedded, of which the end is kept where one is too long.

        Returns: B texts; for ``interaction`` B prompts too.
        """
        if self.reads == "prompt_and_response":
            return ([f"{prompt.strip()} {text.strip()}" for prompt, text in zip(prompts, responses, strict=True)],)
        return (list(responses), list(prompts)) if self.reads == "interaction" else (list(responses),)

    def weights(self, features: int) -> np.ndarray:
        """Weights of the standardised features. Shape: (H,), float32."""
        weights = np.ones(features, dtype=np.float32)
        if self.surface:
            weights[-len(SURFACE_NAMES) :] = SURFACE_WEIGHT
        return weights

    def identity(self) -> str:
        """Everything that decides the features but the encoder."""
        return self.reads + (f" surface {SURFACE_NAMES}" if self.surface else "")


def _interaction(response: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Args: features (B, 3 W), mean-pooled first. Returns: Shape: (B, 2 W + 1), float32."""
    width = response.shape[1] // 3
    first, second = (_unit(features[:, :width]) for features in (response, prompt))
    product = first * second
    return np.concatenate([product, np.abs(first - second), product.sum(axis=1, keepdims=True)], axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
