"""The built-in sampler: a batch of prompts in, a batch of responses out.

One prefill, then one forward pass per token over the rows that are still open; finished rows leave the batch, so time
follows the tokens really generated. Every truncated token's keep set is stored (see ``lm_gym.keep_sets``).

Shapes: B = prompts, T = longest response, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lm_gym.config import SamplingConfig
from lm_gym.errors import ConfigError
from lm_gym.keep_sets import KeepSetRecorder
from lm_gym.models.decoder import decoder_for
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.sampling import StopRule, draw, truncated_logits, with_stop_ids
from lm_gym.policy import Generation

__all__ = ["LanguageModelSampler", "generate", "response_texts", "stream"]

MAX_KEEP_SET_BYTES = 1 << 30
"""Default memory limit of the keep sets of one rollout."""
MAX_ROWS = 256
"""Default number of rows that are decoded side by side; more are taken one batch after the other."""


class LanguageModelSampler:
    """Samples from a language model's weights as they are at the moment of the call."""

    stores_keep_sets = True

    def __init__(
        self, model: LanguageModel, *, max_rows: int = MAX_ROWS, max_keep_set_bytes: int = MAX_KEEP_SET_BYTES
    ) -> None:
        """Args:
        model: read, never changed.
        max_rows: most rows decoded side by side; bounds the key-value cache.
        max_keep_set_bytes: memory limit of the stored keep sets of one call.

        Raises:
            ConfigError: max_rows is below 1.
        """
        if max_rows < 1:
            raise ConfigError(f"LanguageModelSampler.max_rows: must be >= 1, got {max_rows}")
        self._model = model
        self._max_rows = max_rows
        self._max_keep_set_bytes = max_keep_set_bytes

    @property
    def vocab_size(self) -> int:
        """V."""
        return self._model.vocab_size

    def generate(self, prompts: Sequence[np.ndarray], sampling: SamplingConfig) -> Generation:
        """See :meth:`lm_gym.policy.Sampler.generate`."""
        return generate(
            self._model,
            prompts,
            sampling,
            generator=_generator(sampling.seed),
            max_rows=self._max_rows,
            max_keep_set_bytes=self._max_keep_set_bytes,
        )

    def refresh(self, policy: object) -> None:
        """Do nothing: the weights that are read are the policy's own."""


class _Log:
    """Records of a decode, on full (B, max_new_tokens) grids."""

    def __init__(self, num_rows: int, sampling: SamplingConfig, recorder: KeepSetRecorder | None) -> None:
        shape = (num_rows, sampling.max_new_tokens)
        self.ids = np.zeros(shape, dtype=np.int64)
        self.mask = np.zeros(shape, dtype=bool)
        self.log_probs = np.zeros(shape, dtype=np.float32)
        self.recorder = recorder

    def write(self, rows: np.ndarray, column: int, tokens: np.ndarray, log_probs: Tensor, logits: Tensor) -> None:
        self.ids[rows, column] = tokens
        self.mask[rows, column] = True
        self.log_probs[rows, column] = log_probs.cpu().numpy()
        if self.recorder is not None:
            self.recorder.record(rows, column, torch.isfinite(logits).cpu().numpy())

    def finish(self) -> Generation:
        width = int(self.mask.sum(axis=1).max(initial=1))
        return Generation(
            ids=self.ids[:, :width],
            mask=self.mask[:, :width],
            log_probs=self.log_probs[:, :width],
            keep_sets=None if self.recorder is None else self.recorder.finish().trimmed(width),
        )


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[np.ndarray],
    sampling: SamplingConfig,
    *,
    generator: torch.Generator,
    max_rows: int = MAX_ROWS,
    keep_sets: bool = True,
    max_keep_set_bytes: int = MAX_KEEP_SET_BYTES,
) -> Generation:
    """Sample one response per prompt.

    Args:
        model: the policy's language model.
        prompts: token ids, each of shape (P_i,).
        sampling: temperature, truncation, length, stops; the model's own end tokens where it names none. Its seed is
            the caller's business.
        generator: a CPU generator; one uniform number per row and step is drawn from it up front.
        max_rows: most rows decoded side by side.
        keep_sets: store the keep set of each token where the distribution is truncated; learning needs them.
        max_keep_set_bytes: memory limit of the stored keep sets.

    Raises:
        ConfigError: a prompt and ``max_new_tokens`` pass the model's context, or the keep sets their memory limit.
        DivergedError: the model's probabilities are not numbers.
    """
    sampling = with_stop_ids(sampling, model.eos_ids, model.vocab_size)
    uniform = torch.rand((len(prompts), sampling.max_new_tokens), generator=generator)
    recorder = None
    if keep_sets and sampling.truncates:
        recorder = KeepSetRecorder(
            len(prompts), sampling.max_new_tokens, model.vocab_size, max_bytes=max_keep_set_bytes
        )
    log = _Log(len(prompts), sampling, recorder)
    for start in range(0, len(prompts), max_rows):
        rows = np.arange(start, min(start + max_rows, len(prompts)))
        for _ in _decode(model, prompts, rows, sampling, uniform, log):
            pass
    return log.finish()


def response_texts(model: LanguageModel, prompts: Sequence[np.ndarray], sampling: SamplingConfig) -> list[str]:
    """Texts of one response per prompt, each ending before its stop token or stop string.

    Args:
        model: that answers.
        prompts: token ids, each of shape (P_i,).
        sampling: see :func:`generate`; its seed fixes the draws.

    Raises:
        ConfigError, DivergedError: see :func:`generate`.
    """
    if not prompts:
        return []
    sampling = with_stop_ids(sampling, model.eos_ids, model.vocab_size)
    rule = StopRule(model.response_text, sampling)
    generation = generate(model, prompts, sampling, generator=_generator(sampling.seed), keep_sets=False)
    responses = [ids[mask] for ids, mask in zip(generation.ids, generation.mask, strict=True)]
    return [rule.text(prompt, ids, rule.reason(prompt, ids)) for prompt, ids in zip(prompts, responses, strict=True)]


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    generator.manual_seed(seed) if seed is not None else generator.seed()
    return generator


@torch.inference_mode()
def stream(
    model: LanguageModel, prompt: np.ndarray, sampling: SamplingConfig, *, generator: torch.Generator
) -> Iterator[Generation]:
    """Sample one response, that of :func:`generate`, and yield what there is of it after every token.

    Args:
        model: the policy's language model.
        prompt: token ids. Shape: (P,).
        sampling, generator: as in :func:`generate`.

    Yields: one row that grows by a column; its keep sets are not stored.

    Raises:
        ConfigError, DivergedError: as in :func:`generate`.
    """
    sampling = with_stop_ids(sampling, model.eos_ids, model.vocab_size)
    uniform = torch.rand((1, sampling.max_new_tokens), generator=generator)
    log = _Log(1, sampling, recorder=None)
    for _ in _decode(model, [prompt], np.arange(1), sampling, uniform, log):
        yield log.finish()


def _decode(
    model: LanguageModel,
    prompts: Sequence[np.ndarray],
    rows: np.ndarray,
    sampling: SamplingConfig,
    uniform: Tensor,
    log: _Log,
) -> Iterator[None]:
    """Decode some rows to their ends and write them down. Yields: after every token, when it is written."""
    stop = StopRule(model.response_text, sampling)
    longest = max(len(prompts[row]) for row in rows)
    decoder = decoder_for(model, len(rows), longest + sampling.max_new_tokens)
    if not decoder.fits(longest, sampling.max_new_tokens):
        raise ConfigError(
            f"sampling: prompt and response must fit the {model.positions} of the sampled model, "
            f"got a prompt of {longest} tokens and max_new_tokens = {sampling.max_new_tokens}; lower one of them"
        )
    hidden = decoder.prefill(range(len(rows)), [prompts[row] for row in rows])
    for column in range(sampling.max_new_tokens):
        logits = truncated_logits(model.logits(hidden), column, sampling)
        drawn, log_probs = draw(logits, uniform[rows, column].to(logits.device))
        tokens = drawn.cpu().numpy()
        log.write(rows, column, tokens, log_probs, logits)
        yield
        going = np.array([stop.reason(prompts[row], log.ids[row, : column + 1]) is None for row in rows])
        if not going.any():
            return
        if not going.all():
            decoder.keep(np.flatnonzero(going))
            tokens, rows = tokens[going], rows[going]
        hidden = decoder.advance(tokens, np.ones(len(rows), dtype=bool))
