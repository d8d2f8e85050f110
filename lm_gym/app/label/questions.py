"""Questions for people from files: prompts with responses, or judgements that are asked anew.

Knows: how a row becomes a question of some kind. Does not know: stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_gym.errors import DataError
from lm_gym.reward_models import Judgement, Question, load_judgements
from lm_gym.reward_models.judgements.record import KINDS, Verdict
from lm_gym.reward_models.judgements.rows import FIELDS, judgement_from_row, response_from_row
from lm_gym.sources.rows import source_rows
from lm_gym.sources.transcripts import transcript_of

__all__ = ["Asked", "read_checks", "read_questions"]

OWN_KEYS = ("prompt", "responses", "kind", "overlap", "priority")


class Asked(NamedTuple):
    """A question that a file holds."""

    question: Question
    """Prompt and responses."""
    kind: str
    """Kind of the verdict that is wanted."""
    overlap: int | None = None
    """Annotators wanted; None for the store's rule."""
    priority: int = 0
    """Higher ones are shown first."""
    known: Verdict | None = None
    """The right answer of one that checks attention."""


def read_questions(files: Sequence[Path], *, kind: str = "auto") -> list[Asked]:
    """Read questions.

    Args:
        files: of rows with ``prompt`` (a text or messages) and ``responses``, and perhaps ``kind``, ``overlap`` and
            ``priority``; or of judgements in any form, whose verdicts are left aside.
        kind: of rows that name none; ``"auto"`` goes by the number of responses.

    Raises:
        DataError: a row cannot be read; the message gives file and line.
    """
    found = []
    for file in files:
        for where, row, fault in source_rows(file, name="questions", plain=True):
            try:
                if fault is not None:
                    raise DataError(fault)
                found.append(_question(row, kind))
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
    return found


def read_checks(files: Sequence[Path]) -> list[Asked]:
    """Read judgements as questions whose answers are known. Raises: DataError: see :func:`load_judgements`."""
    judgements = load_judgements(list(files)).judgements if files else []
    return [
        Asked(Question(prompt=one.prompt, responses=one.responses), one.kind, known=one.verdict)
        for one in judgements
        if _can_check(one)
    ]


def by_settings(asked: Sequence[Asked]) -> Iterator[tuple[Asked, list[Asked]]]:
    """Questions that are asked alike, together, each group with its first."""
    groups: dict[tuple[str, int | None, int], list[Asked]] = {}
    for one in asked:
        groups.setdefault((one.kind, one.overlap, one.priority), []).append(one)
    for group in groups.values():
        yield group[0], group


def _can_check(judgement: Judgement) -> bool:
    if judgement.kind in ("votes", "critique"):
        raise DataError(
            f"checks: an answer that is known must be a choice, a ranking, a thumb, a rating or a number, got a "
            f"{judgement.kind} on {judgement.prompt[:60]!r}"
        )
    return True


def _question(row: Mapping[str, Any], kind: str) -> Asked:
    if not _is_own(row):
        judged = judgement_from_row(row)
        return Asked(Question(prompt=judged.prompt, responses=judged.responses), _plain_kind(judged.kind))
    extra = sorted(set(row) - set(OWN_KEYS))
    if extra:
        raise DataError(f"a question has no key {extra[0]!r}; it has {', '.join(OWN_KEYS)}")
    prompt, responses = row["prompt"], row["responses"]
    if not isinstance(responses, list | tuple) or not responses:
        raise DataError(f"responses must be a list of at least one, got {responses!r}")
    if isinstance(prompt, list | tuple):
        prompt = transcript_of(prompt)
    question = Question(prompt=prompt, responses=tuple(response_from_row(one) for one in responses))
    wanted = row.get("kind", "auto")
    wanted = kind if wanted == "auto" else wanted
    if wanted == "auto":
        wanted = {1: "rating", 2: "choice"}.get(len(responses), "ranks")
    return Asked(question, wanted, row.get("overlap"), row.get("priority", 0))


def _is_own(row: Mapping[str, Any]) -> bool:
    """True for a question; a judgement of the project's own form has the fields of its verdict."""
    if not {"prompt", "responses"} <= set(row):
        return False
    fields = FIELDS.get(row.get("kind", ""), ()) if isinstance(row.get("kind"), str) else ()
    return not (set(fields) | {"ranks", "comment"}) & set(row)


def _plain_kind(kind: str) -> str:
    assert kind in KINDS
    return "choice" if kind == "votes" else kind
