"""AI feedback: a language model as judge, read off its next-token probabilities.

Knows: the question that is asked, and how an answer becomes a score. Does not know: judgements by people.

Sources: a judge asked in both orders and averaged (Zheng et al. 2023, arXiv:2306.05685, section 3.4); the answer's
probability as the label (Lee et al. 2023, arXiv:2309.00267, section 3.1).

Shapes: B = rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.models.language_model import DType, LanguageModel, load_language_model
from lm_gym.scoring.protocol import RewardModel, Scores, require_rows
from lm_gym.tools.settings import Count, NotNegative, Positive, Text, checked, shown
from lm_gym.tools.time_limit import calls_within

__all__ = ["GRADE_TEMPLATE", "PAIR_TEMPLATE", "JudgeRewardModel", "RemoteJudge"]

logger = logging.getLogger(__name__)
GRADE_TEMPLATE = "Question:\n{prompt}\n\nAnswer:\n{response}\n\nIs this a good answer? Reply yes or no.\nReply:"
PAIR_TEMPLATE = (
    "Question:\n{prompt}\n\nAnswer A:\n{a}\n\nAnswer B:\n{b}\n\nWhich answer is better? Reply A or B.\nReply:"
)


class JudgeRewardModel(RewardModel):
    """Scores a response by a language model's next token: the log-odds of "yes" against "no".

    :meth:`compare` puts two responses side by side, in both orders, and averages the log-odds of "A" against "B".
    With ``baseline`` that is the score: how surely a response is better than the baseline's answer to the prompt.
    Both words of an answer must begin with different tokens; the first token of each is read.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        *,
        template: str = GRADE_TEMPLATE,
        answers: tuple[str, str] = (" yes", " no"),
        pair_template: str = PAIR_TEMPLATE,
        pair_answers: tuple[str, str] = (" A", " B"),
        baseline: Mapping[str, str] | Callable[[Sequence[str]], Sequence[str]] | None = None,
        max_batch_tokens: int = 8192,
        name: str = "judge",
    ) -> None:
        """Store and check; see :meth:`from_pretrained`.

        Args:
            language_model: a frozen causal language model.
            template: with ``{prompt}`` and ``{response}``; the next token after it is read.
            answers: tokens for and against.
            pair_template: with ``{prompt}``, ``{a}`` and ``{b}``.
            pair_answers: tokens for the first and for the second.
            baseline: answers to compare with, by prompt, or what writes them for B prompts; None grades each response
                alone.
            max_batch_tokens: padded tokens per forward pass.
            name: of the model, in error messages.

        Raises:
            ConfigError: a template lacks a field, two answers begin with one token, or a value is of another kind.
        """
        self.name: str = checked("JudgeRewardModel: name", name, Text)
        subject = f"judge {self.name}"
        self.language_model = checked(f"{subject}: language_model", language_model, LanguageModel)
        self.template = _with_fields(f"{subject}: template", template, ("{prompt}", "{response}"))
        self.pair_template = _with_fields(f"{subject}: pair_template", pair_template, ("{prompt}", "{a}", "{b}"))
        self._answers = self._first_tokens(f"{subject}: answers", answers)
        self._pair_answers = self._first_tokens(f"{subject}: pair_answers", pair_answers)
        self._baseline = checked(f"{subject}: baseline", baseline, Mapping | Callable | None)
        self._max_batch_tokens: int = checked(f"{subject}: max_batch_tokens", max_batch_tokens, Count)

    @classmethod
    def from_pretrained(
        cls, name_or_path: Any, *, device: str = "auto", dtype: DType = "auto", **settings: Any
    ) -> JudgeRewardModel:
        """Load the judge. Raises: ModelLoadError, UnsupportedModelError, ConfigError."""
        return cls(load_language_model(name_or_path, device=device, dtype=dtype), **settings)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Log-odds of the good answer, or of beating the baseline's, nats.

        It abstains where the question is longer than the model's context, and where the baseline has no answer.

        Returns: Scores of shape (B,); with a baseline, ``std`` is that of :meth:`compare`.

        Raises:
            RewardModelError: two lists differ in length.
        """
        require_rows(self.name, prompts, responses)
        if self._baseline is not None:
            return self._against_baseline(prompts, responses)
        texts = [_filled(self.template, prompt=p, response=r) for p, r in zip(prompts, responses, strict=True)]
        value, valid = self._log_odds(texts, self._answers)
        return Scores(value=value, valid=valid)

    def compare(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Scores:
        """Log-odds that the first response is better, nats, averaged over both orders.

        ``std`` is half the difference between the two orders: how much the judge minds the place.

        Returns: Scores of shape (B,); swapping the two lists changes the sign.

        Raises:
            RewardModelError: the lists differ in length.
        """
        require_rows(self.name, prompts, first)
        require_rows(self.name, prompts, second)
        rows = list(zip(prompts, first, second, strict=True))
        straight, seen = self._log_odds(
            [_filled(self.pair_template, prompt=p, a=a, b=b) for p, a, b in rows], self._pair_answers
        )
        swapped, also = self._log_odds(
            [_filled(self.pair_template, prompt=p, a=b, b=a) for p, a, b in rows], self._pair_answers
        )
        valid = seen & also
        value = np.where(valid, (straight - swapped) / 2, 0.0).astype(np.float32)
        return Scores(
            value=value, valid=valid, std=np.where(valid, np.abs(straight + swapped) / 2, 0).astype(np.float32)
        )

    def _against_baseline(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        if callable(self._baseline):
            answers: list[str | None] = list(self._baseline(prompts))
            require_rows(f"{self.name}, baseline", prompts, [str(answer) for answer in answers])
        else:
            assert self._baseline is not None
            answers = [self._baseline.get(prompt) for prompt in prompts]
        found = self.compare(prompts, responses, [answer or "" for answer in answers])
        assert found.std is not None
        valid = found.valid & np.array([answer is not None for answer in answers], dtype=bool)
        return Scores(value=np.where(valid, found.value, 0), valid=valid, std=np.where(valid, found.std, 0))

    def _first_tokens(self, subject: str, answers: tuple[str, str]) -> tuple[int, int]:
        answers = checked(subject, answers, tuple[Text, ...])
        ids = [self.language_model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in answers]
        if len(ids) != 2 or not all(ids) or ids[0][0] == ids[1][0]:
            raise ConfigError(
                f"{subject}: must be two that begin with different tokens, got {shown(answers)}; choose other words"
            )
        return int(ids[0][0]), int(ids[1][0])

    @torch.inference_mode()
    def _log_odds(self, texts: Sequence[str], answers: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        from lm_gym.models.decoder import decoder_for
        from lm_gym.models.teacher_forcing import token_batches

        model = self.language_model
        rows = [np.array(model.tokenizer(text, verbose=False)["input_ids"], dtype=np.int64) for text in texts]
        fits = [number for number, ids in enumerate(rows) if len(ids) and decoder_for(model).fits(len(ids), 0)]
        value, valid = np.zeros(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=bool)
        lengths = np.array([len(rows[number]) for number in fits], dtype=int)
        for batch in token_batches(lengths, self._max_batch_tokens, model.device) if fits else ():
            chosen = [fits[place] for place in batch]
            decoder = decoder_for(model, len(chosen), int(lengths[batch].max()))
            logits = model.logits(decoder.prefill(range(len(chosen)), [rows[number] for number in chosen]))
            value[chosen] = (logits[:, answers[0]] - logits[:, answers[1]]).cpu().numpy()
            valid[chosen] = True
        return value, valid


class RemoteJudge(RewardModel):
    """Any function that judges one response, however slow or unreliable, as a reward model.

    Calls run in daemon threads. One that raises is tried again; a row that has no answer in the end abstains, and that
    is logged. If no row at all was answered in time, the judge hangs, and that is an error. A call that was given up
    may still be running; it does not keep the process from ending.
    """

    def __init__(
        self,
        judge: Callable[[str, str], float | None],
        *,
        timeout_s: float = 60.0,
        tries: int = 3,
        wait_s: float = 1.0,
        workers: int = 8,
        name: str = "remote judge",
    ) -> None:
        """Args:
        judge: (prompt, response) -> a number, or None to abstain.
        timeout_s: seconds that one scoring call may take, with all its rows and tries.
        tries: calls per row at most.
        wait_s: seconds before the second try; doubled before each later one.
        workers: rows judged at once.
        name: of the model, in error messages.

        Raises:
            ConfigError: a value is of another kind, or out of range.
        """
        self._judge = checked("RemoteJudge: judge", judge, Callable)
        self._timeout_s: float = checked("RemoteJudge: timeout_s", timeout_s, Positive)
        self._tries: int = checked("RemoteJudge: tries", tries, Count)
        self._wait_s: float = checked("RemoteJudge: wait_s", wait_s, NotNegative)
        self._workers: int = checked("RemoteJudge: workers", workers, Count)
        self.name: str = checked("RemoteJudge: name", name, Text)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Returns: Scores of shape (B,); a row without an answer in time is an abstention.

        Raises:
            RewardModelError: the two lists differ in length, the function returned something else than a number, or no
                row was answered in time.
        """
        require_rows(self.name, prompts, responses)
        value, valid = np.zeros(len(responses), dtype=np.float32), np.zeros(len(responses), dtype=bool)
        end = time.monotonic() + self._timeout_s
        calls = [partial(self._persist, p, r, end) for p, r in zip(prompts, responses, strict=True)]
        answers = calls_within(self._timeout_s, calls, workers=self._workers)
        late = [row for row in range(len(calls)) if row not in answers]
        if late and not answers:
            raise RewardModelError(
                f"reward model {self.name}: must answer within timeout_s = {self._timeout_s:g}, and no row of "
                f"{len(calls)} was answered, row 0 with the response {responses[0][:80]!r} the first; raise timeout_s "
                "if it is only slow (its calls may still be running)"
            )
        if late:
            logger.warning("%s: rows %s had no answer in %g s and are left out", self.name, late, self._timeout_s)
        for row, answer in answers.items():
            if answer is not None:
                value[row], valid[row] = answer, True
        return Scores(value=value, valid=valid)

    def _persist(self, prompt: str, response: str, end: float) -> float | None:
        for attempt in range(self._tries):
            try:
                answer = self._judge(prompt, response)
            except Exception as error:
                wait = self._wait_s * 2**attempt
                logger.warning("%s: try %d of %d failed: %s", self.name, attempt + 1, self._tries, error)
                if attempt + 1 == self._tries or time.monotonic() + wait > end:
                    return None
                time.sleep(wait)
                continue
            if answer is None:
                return None
            if isinstance(answer, bool) or not isinstance(answer, int | float) or not np.isfinite(answer):
                raise RewardModelError(f"{self.name}: must return a finite number or None, got {answer!r}")
            return float(answer)
        return None


def _with_fields(subject: str, template: str, fields: Sequence[str]) -> str:
    """The template itself. Raises: ConfigError: it is no text, or lacks a field."""
    template = checked(subject, template, Text)
    missing = [one for one in fields if one not in template]
    if missing:
        raise ConfigError(f"{subject}: must hold {missing[0]}, got {shown(template)}")
    return template


def _filled(template: str, **fields: str) -> str:
    """Fill the fields at once, so that text which looks like a field stays as it is."""
    parts = [template]
    for name, text in fields.items():
        mark = "{" + name + "}"
        parts = [piece for part in parts for piece in _interleaved(part, mark, text)]
    return "".join(str(part) for part in parts)


class _Given(str):
    """Text from outside: never searched for fields."""


def _interleaved(part: str, mark: str, text: str) -> list[str]:
    if isinstance(part, _Given):
        return [part]
    pieces: list[str] = []
    for piece in part.split(mark):
        pieces += [piece, _Given(text)]
    return pieces[:-1]
