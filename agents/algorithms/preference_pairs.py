"""Given pairs of responses, the better and the worse, as episodes that nobody drew.

Knows: texts, the tokenizer, the reference. Does not know: losses. The rows are plain: whatever has judgements writes
them (``prompt``, ``chosen``, ``rejected``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lm_gym.envs.rollout import PhaseTimer
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.errors import DataError, UnsupportedModelError
from lm_gym.models.decoder import decoder_for
from lm_gym.models.language_model import LanguageModel
from lm_gym.tools.digests import digest_json
from lm_gym.tools.json_values import require_unicode
from lm_gym.tools.settings import shown

__all__ = ["PreferencePairs"]


@dataclass(frozen=True)
class PreferencePairs:
    """Tokenised pairs."""

    rows: tuple[tuple[str, str, str], ...]
    """Prompt, better and worse response, as texts. At least one."""
    ids: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    """Their tokens; a response ends with the stop token. Shapes: (P,), (T,) and (T',), int64."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], model: LanguageModel) -> PreferencePairs:
        """Tokenise rows.

        Args:
            rows: with the texts ``prompt``, ``chosen`` and ``rejected``.
            model: whose tokenizer is taken, and whose positions they must fit.

        Raises:
            DataError: there is no row, or one lacks a text, is too long, or its responses are the same.
            UnsupportedModelError: the tokenizer has no EOS token.
        """
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Sequence) or not rows:
            raise DataError(f"DPO: pairs must be a list of rows with prompt, chosen and rejected, got {shown(rows)}")
        tokenizer = model.tokenizer
        if tokenizer.eos_token_id is None:
            raise UnsupportedModelError(
                f"tokenizer {type(tokenizer).__name__}: must have an EOS token, since a response's end is learned; "
                "set tokenizer.eos_token"
            )
        texts = tuple(_texts(row, f"DPO: pairs, row {number}") for number, row in enumerate(rows, start=1))
        ids = tuple(_ids(row, tokenizer) for row in texts)
        decoder = decoder_for(model)
        for number, (prompt, better, worse) in enumerate(ids, start=1):
            if not decoder.fits(len(prompt), longest := max(len(better), len(worse))):
                raise DataError(
                    f"DPO: pairs, row {number}: prompt and response must fit the {model.positions} of the model, got "
                    f"{len(prompt)} and {longest} tokens; shorten the pair, or leave it out"
                )
        return cls(texts, ids)

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        """Digest of the texts."""
        return digest_json([list(row) for row in self.rows])

    def episodes(self, chosen: np.ndarray, env: TextGenerationVectorEnv, timer: PhaseTimer) -> Episodes:
        """Pairs as episodes with the reference's log-probabilities: better and worse side by side, without rewards.

        Args: chosen: numbers of the pairs, shape (N,); env: gives reference, temperature and beta; timer: of phases.

        Returns: 2 N episodes; ``log_probs`` are 0, since nobody drew them.
        """
        assert env.reference is not None
        prompts = [self.ids[number][0] for number in chosen for _ in range(2)]
        responses = [self.ids[number][place] for number in chosen for place in (1, 2)]
        texts = [(self.rows[number][0], self.rows[number][place]) for number in chosen for place in (1, 2)]
        prompt_ids, prompt_mask = _padded(prompts, env.task.pad_id)
        response_ids, mask = _padded(responses, env.task.pad_id)
        count, nothing = len(prompts), np.zeros(mask.shape)
        episodes = Episodes(
            prompt_ids=prompt_ids,
            prompt_mask=prompt_mask,
            response_ids=response_ids,
            response_mask=mask,
            log_probs=nothing.astype(np.float32),
            ref_log_probs=None,
            kl=None,
            rewards=nothing,
            kl_coef=np.full(count, env.kl_coef),
            scores=np.zeros(count, dtype=np.float32),
            score_valid=np.zeros(count, dtype=bool),
            terminated=np.ones(count, dtype=bool),
            truncated=np.zeros(count, dtype=bool),
            stop_reasons=tuple("eos" for _ in range(count)),
            group=np.repeat(np.arange(len(chosen), dtype=np.int64), 2),
            prompts=tuple(prompt for prompt, _ in texts),
            responses=tuple(response for _, response in texts),
            temperature=env.sampling.temperature,
            max_new_tokens=max(env.sampling.max_new_tokens, mask.shape[1]),
        )
        with timer.phase("reference"):
            return replace(episodes, ref_log_probs=env.reference.log_probs(episodes))


def _texts(row: Any, name: str) -> tuple[str, str, str]:
    texts = [row.get(key) if isinstance(row, Mapping) else None for key in ("prompt", "chosen", "rejected")]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{name}: must have the texts prompt, chosen and rejected, got {shown(row)}")
    prompt, better, worse = (str(text) for text in texts)
    require_unicode(prompt + better + worse, name)
    if better == worse:
        raise DataError(f"{name}: chosen and rejected must differ, got {better!r} twice; leave the row out")
    return prompt, better, worse


def _ids(row: tuple[str, str, str], tokenizer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prompt, *responses = row
    head = tokenizer(prompt, verbose=False)["input_ids"]
    tails = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in responses]
    ended = [ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id] for ids in tails]
    better, worse = (np.array(ids, dtype=np.int64) for ids in ended)
    return np.array(head, dtype=np.int64), better, worse


def _padded(rows: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows side by side, right-padded, and the mask of what counts. Shapes: (B, width)."""
    mask = np.arange(max(len(row) for row in rows)) < np.array([len(row) for row in rows])[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(rows)
    return ids, mask
