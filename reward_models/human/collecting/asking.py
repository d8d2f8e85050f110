"""What the owner of a store puts into it: questions, rules, a guideline; and what they close.

Asking the same again adds nothing: the id of an item is made of what it asks.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from lm_gym.errors import ConfigError
from lm_gym.reward_models.judgements.annotator import Question
from lm_gym.reward_models.judgements.record import Verdict
from lm_gym.tools.digests import digest_json, digest_parts
from lm_gym.tools.settings import Probability, Text, Whole, checked, checked_arguments

from ..store.event_store import LabelStore
from ..store.events import Event
from ..store.items import Item, ItemKind
from ..store.rules import LabelRules

__all__ = ["ask_questions", "close_items", "item_id", "record_fit", "set_guideline", "set_rules"]

NAMESPACE = uuid.UUID("5f1d3a0e-6c2b-5a39-9d0f-3c1f0f6f7a11")
"""Namespace of ids that are made of contents (RFC 9562, section 5.5)."""


def item_id(question: Question, kind: ItemKind, batch: str) -> str:
    """Id of the item that asks a question in a batch: equal for equal texts in equal places. Returns: a UUID."""
    return str(uuid.uuid5(NAMESPACE, digest_json([batch, kind, question.prompt, list(question.texts)])))


def ask_questions(
    store: LabelStore,
    questions: Sequence[Question],
    *,
    kind: ItemKind,
    batch: str = "",
    policy_version: int | None = None,
    reward_model_version: str | None = None,
    known: Sequence[Verdict | None] | None = None,
    overlap: int | None = None,
    priority: int = 0,
) -> list[str]:
    """Put questions to the annotators of a store; those that were put before stay as they are.

    Args:
        store: that keeps them.
        questions: N of them.
        kind: of the verdict that is wanted.
        batch: what they belong to.
        policy_version, reward_model_version: see :class:`~lm_gym.reward_models.human.store.items.Item`.
        known: the right answer of each, or None for a question proper; such items check attention.
        overlap: annotators wanted; None for the store's rule.
        priority: items of a higher one are shown first.

    Returns: ids of the items, in the order of the questions. Shape: (N,).

    Raises:
        ConfigError: there are not as many known answers as questions.
        DataError: a question does not fit the kind.
    """
    answers = [None] * len(questions) if known is None else list(known)
    if len(answers) != len(questions):
        raise ConfigError(f"ask_questions: known must hold one per question, got {len(answers)} for {len(questions)}")
    items = [
        Item(
            id=item_id(question, kind, batch),
            kind=kind,
            question=question,
            batch=batch,
            policy_version=policy_version,
            reward_model_version=reward_model_version,
            known=answer,
            overlap=overlap,
            priority=priority,
        )
        for question, answer in zip(questions, answers, strict=True)
    ]
    with store.transaction() as transaction:
        for item in items:
            if item.id not in transaction.state.items:
                event = Event(id=str(uuid.uuid4()), kind="asked", at=store.clock(), item=item.id, body=item.to_row())
                transaction.append(event)
    return [item.id for item in items]


def close_items(store: LabelStore, items: Iterable[str], *, reason: str) -> None:
    """Let items consume nobody any more; answers that still come are kept."""
    with store.transaction() as transaction:
        for item in items:
            if item not in transaction.state.items or transaction.state.items[item].closed is None:
                body = {"reason": reason}
                event = Event(id=str(uuid.uuid4()), kind="closed", at=store.clock(), item=item, body=body)
                transaction.append(event)


def set_guideline(store: LabelStore, text: str) -> str:
    """Say what annotators look for, from now on. Returns: the version, which every showing names."""
    text = checked("guideline", text, Text)
    version = digest_parts([text])[:8]
    with store.transaction() as transaction:
        now = transaction.state.guideline
        if now is None or now.version != version:
            body = {"text": text, "version": version}
            transaction.append(Event(id=str(uuid.uuid4()), kind="guideline", at=store.clock(), body=body))
    return version


def set_rules(store: LabelStore, rules: LabelRules) -> None:
    """Change the rules, from now on, for every page and trainer on the store."""
    rules = checked("set_rules: rules", rules, LabelRules)
    with store.transaction() as transaction:
        if transaction.state.rules != rules:
            transaction.append(Event(id=str(uuid.uuid4()), kind="rules", at=store.clock(), body=vars(rules)))


def record_fit(store: LabelStore, *, version: str, labels: int, accuracy: float, pairs: int) -> None:
    """Say how well a reward model does that was fitted on the labels so far; a version is said once.

    Args:
        store: of the labels.
        version: of the reward model.
        labels: judgements that it was fitted on.
        accuracy: share of held-out comparisons that it orders as people did.
        pairs: number of these comparisons.
    """
    rules = {"version": Text, "labels": Whole, "accuracy": Probability, "pairs": Whole}
    body = checked_arguments("record_fit", rules, locals())
    with store.transaction() as transaction:
        if all(fit.version != version for fit in transaction.state.fits):
            transaction.append(Event(id=str(uuid.uuid4()), kind="fitted", at=store.clock(), body=body))
