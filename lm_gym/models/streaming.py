"""The text of a response while it is sampled: what stands fast so far, after every token.

The sampling is :func:`lm_gym.models.generate.stream`; here it becomes text that a person can read along. What a later
token may still change is held back: a character whose bytes are not all there, and the beginning of a stop string.

Shapes: P = prompt tokens, t = response tokens so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from lm_gym.config import SamplingConfig
from lm_gym.episodes import StopReason
from lm_gym.models.generate import stream
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.response_text import REPLACEMENT
from lm_gym.models.sampling import StopRule, with_stop_ids
from lm_gym.policy import Generation

__all__ = ["Streamed", "stream_text"]


class Streamed(NamedTuple):
    """A response as far as it goes."""

    text: str
    """What stands fast; all of it, as it is scored, once there is a reason."""
    generation: Generation
    """Its tokens and their log-probabilities. Shapes: (1, t)."""
    reason: StopReason | None
    """Of the end; None while it goes on."""
    whole: bool
    """False if something that was sampled is held back from the text."""


def stream_text(
    model: LanguageModel, prompt: np.ndarray, sampling: SamplingConfig, *, generator: torch.Generator
) -> Iterator[Streamed]:
    """Sample one response and yield it after every token.

    Args:
        model: the language model.
        prompt: token ids. Shape: (P,), int64.
        sampling: see :func:`lm_gym.models.generate.generate`.
        generator: a CPU generator.

    Raises:
        ConfigError, DivergedError: see :func:`lm_gym.models.generate.stream`.
    """
    sampling = with_stop_ids(sampling, model.eos_ids, model.vocab_size)
    rule = StopRule(model.response_text, sampling)
    for generation in stream(model, prompt, sampling, generator=generator):
        ids = generation.ids[0]
        reason = rule.reason(prompt, ids)
        text = rule.text(prompt, ids, reason)
        shown = text if reason else _fast(text, sampling.stop_strings)
        yield Streamed(shown, generation, reason, whole=shown == text)


def _fast(text: str, stop_strings: tuple[str, ...]) -> str:
    """The part of an unfinished text that no later token takes back."""
    text = text.rstrip(REPLACEMENT + "\r")  # CR may turn out to be half of a line's end
    begun = [size for stop in stop_strings for size in range(1, len(stop)) if text.endswith(stop[:size])]
    return text[: len(text) - max(begun, default=0)]
