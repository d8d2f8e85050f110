"""Ranked replies in trees of messages, as OpenAssistant published them.

Two forms (LAION-AI/Open-Assistant, ``oasst-data/oasst_data/schemas.py``): a row per tree, ``{"message_tree_id",
"prompt": {"text", "role", "replies": [...]}}``, and a row per message (hf.co/datasets/OpenAssistant/oasst1 and oasst2),
``{"message_id", "parent_id", "message_tree_id", "text", "role"}``, the parents before or after their children in one
file. The first message of a tree has no parent: null, or no such key in a table. ``role`` is ``prompter`` or
``assistant``; ``rank`` is 0 for the best of the replies to one message.

Each message with two or more ranked replies gives one ranking; messages without a rank compare nothing and are left
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_gym.errors import DataError
from lm_gym.reward_models.judgements.record import Judgement, Ranks, Response
from lm_gym.sources.transcripts import transcript_of

from .published import places_of
from .sides import Row, as_list

__all__ = ["TREE_KEYS", "MessageRows", "judgements_of_tree"]

TREE_KEYS = ("message_tree_id", "prompt")
MESSAGE_KEYS = ("message_id", "text", "role")
PLACE_KEYS = ("parent_id", "message_tree_id")
"""A row of a single message has all of the former and one of the latter."""
_ROLES = {"prompter": "user", "assistant": "assistant"}


def judgements_of_tree(row: Row) -> list[Judgement]:
    """Every ranking in a tree. Raises: DataError: it is no tree, or ranks nothing."""
    found = list(_walk(row["prompt"], [], {"message_tree_id": row["message_tree_id"]}))
    if not found:
        raise DataError("a tree of messages must hold ranked replies, got none; remove the row")
    return found


def _walk(node: Any, before: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]) -> Iterator[Judgement]:
    so_far = [*before, _message(node)]
    replies = as_list(node.get("replies") or [], "replies")
    for reply in replies:
        _message(reply)
    if len(ranked := _ranked(replies)) > 1:
        yield _ranking(so_far, ranked, columns)
    for reply in replies:
        yield from _walk(reply, so_far, columns)


def _message(node: Any) -> dict[str, str]:
    role, text = (node.get("role"), node.get("text")) if isinstance(node, Mapping) else (None, None)
    if not isinstance(text, str) or not isinstance(role, str) or role not in _ROLES:
        raise DataError(f"a message must have text and a role of {' or '.join(_ROLES)}, got {str(node)[:80]}")
    return {"role": _ROLES[role], "content": text}


def _ranked(replies: Sequence[Row]) -> list[Row]:
    return [reply for reply in replies if reply.get("rank") is not None and reply["role"] == "assistant"]


def _ranking(conversation: Sequence[Mapping[str, Any]], ranked: Sequence[Row], columns: Mapping[str, Any]) -> Judgement:
    return Judgement(
        prompt=transcript_of(conversation),
        responses=tuple(Response(text=reply["text"], model=reply.get("model_name")) for reply in ranked),
        verdict=Ranks(places_of([reply["rank"] for reply in ranked])),
        columns=columns,
    )


class MessageRows:
    """Rows of single messages, gathered until their file ends."""

    def __init__(self) -> None:
        self._where: dict[str, str] = {}
        self._rows: dict[str, Row] = {}

    @staticmethod
    def take(row: Row) -> bool:
        """True for a row of a single message."""
        return set(MESSAGE_KEYS) <= set(row) and any(key in row for key in PLACE_KEYS)

    def add(self, where: str, row: Row) -> None:
        """Keep a row. Raises: DataError: it is no message, or one of the same id was there."""
        _message(row)
        name, parent = row["message_id"], row.get("parent_id")
        if not isinstance(name, str) or name in self._rows:
            raise DataError(f"message_id must be text that no other row has, got {name!r}")
        if not isinstance(parent, str | None):
            raise DataError(f"parent_id must be the message_id of another row, or null, got {parent!r}")
        self._where[name], self._rows[name] = where, row

    def judgements(self) -> Iterator[tuple[str, Judgement | DataError]]:
        """Every ranking, or what is wrong with it, with the row of the message that is replied to."""
        replies: dict[str, list[Row]] = {}
        for row in self._rows.values():
            if row.get("parent_id") is not None:
                replies.setdefault(row["parent_id"], []).append(row)
        for parent, rows in replies.items():
            if len(ranked := _ranked(rows)) < 2:
                continue
            where = self._where.get(parent, self._where[ranked[0]["message_id"]])
            try:
                yield where, _ranking(self._conversation(parent), ranked, self._columns(parent))
            except DataError as error:
                yield where, error

    def _conversation(self, name: str) -> list[dict[str, str]]:
        turns: list[dict[str, str]] = []
        at: Any = name
        while at is not None:
            if at not in self._rows or len(turns) > len(self._rows):
                raise DataError(f"parent_id must be the message_id of a row of the file, got {at!r}")
            turns.append(_message(self._rows[at]))
            at = self._rows[at].get("parent_id")
        return turns[::-1]

    def _columns(self, name: str) -> dict[str, Any]:
        row = self._rows.get(name, {})
        return {key: row[key] for key in ("message_tree_id", "lang") if key in row}
