"""Items of the label store: a question, the kind of answer that it wants, and the versions that it was made from.

Knows: what an item holds, its row, and how an answer to it reads as a judgement. Does not know: who answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.annotator import Question
from lm_gym.reward_models.judgements.record import KINDS, Judgement, Verdict
from lm_gym.reward_models.judgements.rows import judgement_from_row, response_from_row, response_row, to_row
from lm_gym.tools.json_values import require_unicode
from lm_gym.tools.settings import shown

from .events import require_uuid

__all__ = ["Item", "ItemKind", "judgement_of", "said_row"]

ItemKind = Literal["choice", "ranks", "best_of", "thumb", "rating", "value", "critique"]
COUNTS: dict[str, tuple[int, int | None]] = {
    "choice": (2, 2),
    "ranks": (2, None),
    "best_of": (2, None),
    "thumb": (1, 1),
    "rating": (1, 1),
    "value": (1, 1),
    "critique": (1, None),
}
"""Fewest and most responses of each kind; None for no limit."""
COMPARISONS = ("choice", "ranks", "best_of")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that people are asked.

    Raises:
        DataError: the kind is unknown, the number of responses does not fit it, two responses that are to be compared
            are the same text, or the known answer does not fit.
    """

    id: str
    """UUID."""
    kind: ItemKind
    """Kind of the verdict that is wanted. To ``"ranks"``, ``"best_of"`` is an answer too: the first place alone."""
    question: Question
    """Prompt and responses."""
    batch: str = ""
    """What it belongs to, such as ``"round-2"``."""
    policy_version: int | None = None
    """Updates of the policy that wrote the responses."""
    reward_model_version: str | None = None
    """Version of the reward model at that time."""
    known: Verdict | None = None
    """The right answer, in the item's own places, of an item that checks attention. Its answers are no labels."""
    overlap: int | None = None
    """Annotators wanted; None for the store's rule."""
    priority: int = 0
    """Items of a higher one are shown first."""

    def __post_init__(self) -> None:
        require_uuid("item: id", self.id)
        if self.kind not in get_args(ItemKind):
            raise DataError(f"item: kind must be one of {', '.join(get_args(ItemKind))}, got {shown(self.kind)}")
        if not isinstance(self.question, Question):
            raise DataError(f"item: question must be a Question, got {shown(self.question)}")
        require_unicode(self.question.prompt, "item: prompt")
        least, most = COUNTS[self.kind]
        count = len(self.question.responses)
        if count < least or (most is not None and count > most):
            wanted = str(least) if least == most else f"at least {least}"
            raise DataError(f"item of kind {self.kind!r}: must hold {wanted} response{'s' * (least > 1)}, got {count}")
        if self.kind in COMPARISONS and len(set(self.question.texts)) < 2:
            raise DataError(
                f"item of kind {self.kind!r}: must hold at least 2 different responses, got {count} times "
                f"{self.question.texts[0][:60]!r}"
            )
        _require_versions(self)
        if self.known is not None:
            self.require_answer(self.known)

    def require_answer(self, verdict: Verdict) -> None:
        """Raises: DataError: the verdict is of another kind, or not about so many responses."""
        kinds = (self.kind, "best_of") if self.kind == "ranks" else (self.kind,)
        if verdict.kind not in kinds:
            raise DataError(f"answer to an item of kind {self.kind!r}: must be a {' or '.join(kinds)}, got {verdict}")
        verdict.check(len(self.question.responses))

    def to_row(self) -> dict[str, Any]:
        """The item as plain JSON values, without its id."""
        row: dict[str, Any] = {
            "kind": self.kind,
            "prompt": self.question.prompt,
            "responses": [response_row(one) for one in self.question.responses],
        }
        names = ("batch", "policy_version", "reward_model_version", "overlap", "priority")
        row |= {name: getattr(self, name) for name in names if getattr(self, name) not in (None, "", 0)}
        if self.known is not None:
            row["known"] = _verdict_row(self, self.known)
        return row

    @classmethod
    def from_row(cls, id: str, row: Mapping[str, Any]) -> Item:
        """Read :meth:`to_row`. Raises: DataError: it is none."""
        rest = dict(row)
        try:
            question = Question(
                prompt=rest.pop("prompt"), responses=tuple(response_from_row(one) for one in rest.pop("responses"))
            )
            known = rest.pop("known", None)
            item = cls(id=id, question=question, **rest)
        except (KeyError, TypeError) as error:
            raise DataError(f"item: must have kind, prompt and responses, got {shown(row)} ({error})") from error
        if known is None:
            return item
        return cls(id=id, question=question, known=judgement_of(item, known, None).verdict, **rest)


def _require_versions(item: Item) -> None:
    for name, kind in (("batch", str), ("policy_version", int), ("reward_model_version", str)):
        value = getattr(item, name)
        if isinstance(value, bool) or not (isinstance(value, kind) or (value is None and name != "batch")):
            raise DataError(f"item: {name} must be {'a text' if kind is str else 'a whole number'}, got {shown(value)}")
    for name, least in (("overlap", 1), ("priority", None)):
        value = getattr(item, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (value is None and name == "overlap")) or (whole and least is not None and value < least):
            raise DataError(f"item: {name} must be a whole number{' >= 1' if least else ''}, got {shown(value)}")


def _verdict_row(item: Item, verdict: Verdict) -> dict[str, Any]:
    comment = "known" if verdict.kind == "critique" else None
    return said_row(
        Judgement(prompt=item.question.prompt, responses=item.question.responses, verdict=verdict, comment=comment)
    )


def said_row(judgement: Judgement) -> dict[str, Any]:
    """What a judgement says, as plain JSON values: all but its prompt, its responses and who said it."""
    return {key: value for key, value in to_row(judgement).items() if key not in ("prompt", "responses", "annotator")}


def judgement_of(item: Item, said: Mapping[str, Any], annotator: str | None) -> Judgement:
    """The judgement that an answer to an item is.

    Args:
        item: that was asked.
        said: see :func:`said_row`, in the item's own places.
        annotator: pseudonym.

    Raises:
        DataError: it is no judgement, or of another kind than was asked.
    """
    if not isinstance(said, Mapping) or said.get("kind") not in KINDS:
        raise DataError(f"answer: must be an object with a kind, one of {', '.join(KINDS)}, got {shown(said)}")
    extra = {"prompt", "responses", "annotator"} & set(said)
    if extra:
        raise DataError(f"answer: must not repeat what was asked or by whom, got the key {sorted(extra)[0]!r}")
    row: dict[str, Any] = {**said, "prompt": item.question.prompt}
    row["responses"] = [response_row(one) for one in item.question.responses]
    found = judgement_from_row(row if annotator is None else {**row, "annotator": annotator})
    item.require_answer(found.verdict)
    return found
