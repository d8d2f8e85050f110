"""Acting token by token with a cache: each observation is one token longer than the last, or a new episode.

Nothing has to tell it about resets: a row whose observation continues the one it saw is advanced, any other row is
prefilled again, and new weights empty the cache.

Shapes: B = rows, L = columns of an observation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from lm_gym.config import SamplingConfig
from lm_gym.incremental import IncrementalDecoder
from lm_gym.language_model import LanguageModel
from lm_gym.sampling import draw, truncated_logits

__all__ = ["Stepper"]

_optimizer_steps = 0


def _count_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


# A fused optimiser writes weights without raising their version counter, so every step in the process is counted too.
register_optimizer_step_post_hook(_count_step)


class Stepper:
    """Draws actions for B rows of a running environment."""

    def __init__(self, model: LanguageModel, sampling: SamplingConfig) -> None:
        """Args:
        model: the policy's language model.
        sampling: temperature, truncation and seed of the draws.
        """
        self._model = model
        self._sampling = sampling
        self._generator = torch.Generator()
        self._generator.manual_seed(sampling.seed) if sampling.seed is not None else self._generator.seed()
        self._decoder: IncrementalDecoder | None = None
        self._seen = np.zeros((0, 0), dtype=np.int64)
        self._seen_lengths = np.zeros(0, dtype=np.int64)
        self._counts = np.zeros(0, dtype=np.int64)
        self._version = (-1, -1)

    def act(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (B,) int64 and log-probabilities (B,) float32, nats; 0-d arrays for an observation without B."""
        ids, mask = observation["input_ids"], observation["attention_mask"]
        if ids.ndim == 1:
            tokens, log_probs = self.act({"input_ids": ids[None], "attention_mask": mask[None]})
            return tokens[0], log_probs[0]
        lengths = mask.astype(np.int64).sum(axis=1)
        states = self._states(ids, lengths)
        with torch.inference_mode():
            logits = truncated_logits(self._model.logits(states), self._counts, self._sampling, self._model.eos_ids)
            uniform = torch.rand(len(ids), generator=self._generator).to(logits.device)
            drawn, drawn_log_probs = draw(logits, uniform)
        return drawn.cpu().numpy(), drawn_log_probs.cpu().numpy()

    def _states(self, ids: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        """The state after each row's last token. Shape: (B, H)."""
        grown = self._grown(ids, lengths)
        self._counts = np.where(grown, self._counts + 1, 0) if grown.any() else np.zeros(len(ids), dtype=np.int64)
        continued = grown & self._has_current_cache(ids)
        if self._decoder is None:
            self._decoder = IncrementalDecoder(self._model, len(ids), ids.shape[1])
        states = torch.zeros((len(ids), self._model.hidden_size), device=self._model.device)
        rows = np.arange(len(ids))
        if continued.any():
            last = ids[rows, lengths - 1]
            places = torch.from_numpy(rows[continued]).to(states.device)
            states[places] = self._decoder.advance(last, continued)[places].to(states.dtype)
        fresh = rows[~continued]
        if fresh.size:
            prompts = [ids[row, : lengths[row]] for row in fresh]
            states[torch.from_numpy(fresh).to(states.device)] = self._decoder.start(fresh.tolist(), prompts).to(
                states.dtype
            )
        self._seen, self._seen_lengths = ids.copy(), lengths
        return states

    def _grown(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """True where a row is the one seen last plus one token. Shape: (B,), bool."""
        if ids.shape != self._seen.shape:
            return np.zeros(len(ids), dtype=bool)
        prefix = np.arange(ids.shape[1]) < self._seen_lengths[:, None]
        same = np.where(prefix, ids == self._seen, True).all(axis=1)
        return same & (lengths == self._seen_lengths + 1)

    def _has_current_cache(self, ids: np.ndarray) -> bool:
        """Whether the cache was made by these weights for rows of this shape; it is dropped if not."""
        version = (sum(parameter._version for parameter in self._model.model.parameters()), _optimizer_steps)
        if ids.shape != self._seen.shape or version != self._version:
            self._decoder, self._version = None, version
        return self._decoder is not None
