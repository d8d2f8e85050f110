"""Links of annotators and owners: a secret token each, of which the store keeps a hash.

Knows: who a token belongs to, and that a revoked one is worth nothing. Does not know: cookies, addresses.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from lm_gym.errors import ConfigError, DataError
from lm_gym.tools.extras import require
from lm_gym.tools.settings import Text, checked

from .event_store import LabelStore
from .schema import links_table

__all__ = ["Link", "Role", "find_link", "links_of", "make_link", "revoke_links"]

Role = Literal["annotator", "owner"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """One person's way in."""

    name: str
    """Name that the owner gave them; it is in no export."""
    annotator: str
    """Their pseudonym in the log."""
    role: Role
    """``"owner"`` also sees the overview."""
    token_hash: str
    """SHA-256 of the token."""
    made: float
    """Seconds since 1970 UTC."""
    revoked: float | None
    """Since when it is worth nothing; None while it is good."""


def make_link(store: LabelStore, name: str, *, role: Role = "annotator") -> str:
    """Make a link for a person. Returns: its token, which nothing keeps. A person may have several."""
    name = checked("link: name", name, Text)
    role = checked("link: role", role, Role)
    sql = require("sqlalchemy", extra="human", purpose="label store")
    token = secrets.token_urlsafe(32)
    with store.transaction() as transaction:
        row = {"token_hash": _hash(token), "name": name, "annotator": store.pseudonym(name), "role": role}
        transaction.connection.execute(sql.insert(links_table()), {**row, "made": store.clock(), "revoked": None})
    return token


def find_link(store: LabelStore, token: str) -> Link | None:
    """The link of a token, revoked or not; None for a token that never was one. Every hash is compared in full."""
    wanted = _hash(token)
    found = None
    for link in links_of(store):
        if hmac.compare_digest(link.token_hash, wanted):
            found = link
    return found


def links_of(store: LabelStore) -> list[Link]:
    """Every link, oldest first."""
    sql = require("sqlalchemy", extra="human", purpose="label store")
    table = links_table()
    with store.tables() as connection:
        rows: Any = connection.execute(sql.select(table).order_by(table.c.made, table.c.token_hash)).mappings()
        return [Link(**row) for row in rows]


def revoke_links(store: LabelStore, name: str) -> int:
    """Make every link of a person worth nothing. Returns: how many were good until now.

    Raises:
        ConfigError: the person has no link.
    """
    sql = require("sqlalchemy", extra="human", purpose="label store")
    table = links_table()
    known = [link for link in links_of(store) if link.name == name]
    if not known:
        names = sorted({link.name for link in links_of(store)})
        raise ConfigError(f"revoke: nobody named {name!r} has a link; there are {', '.join(names) or 'none'}")
    with store.transaction() as transaction:
        good = sql.and_(table.c.name == name, table.c.revoked.is_(None))
        return int(transaction.connection.execute(sql.update(table).where(good).values(revoked=store.clock())).rowcount)


def _hash(token: str) -> str:
    try:
        return hashlib.sha256(token.encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise DataError("link: a token is ASCII text") from error
