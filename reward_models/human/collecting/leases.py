"""Leases: which annotator has which item until when, so that two people do not answer one item unasked.

A lease is no part of the log: nothing that counts hangs on it, and it is worth nothing once it has run out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm_gym.tools.extras import require

from ..store.schema import leases_table

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Lease", "end_leases", "grant_lease", "leases_of", "others_leases"]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One item in one annotator's hands."""

    item: str
    """Id of the item."""
    annotator: str
    """Pseudonym."""
    showing: str
    """Id of what they were shown."""
    expires: float
    """Seconds since 1970 UTC."""


def grant_lease(connection: Connection, lease: Lease) -> None:
    """Give an item to an annotator, or give it for longer."""
    sql = require("sqlalchemy", extra="human", purpose="label store")
    table = leases_table()
    mine = sql.and_(table.c.item == lease.item, table.c.annotator == lease.annotator)
    connection.execute(sql.delete(table).where(mine))
    connection.execute(sql.insert(table), vars(lease))


def end_leases(connection: Connection, annotator: str, item: str | None = None) -> None:
    """Take an item, or all of them, out of an annotator's hands."""
    sql = require("sqlalchemy", extra="human", purpose="label store")
    table = leases_table()
    rule = table.c.annotator == annotator
    connection.execute(sql.delete(table).where(rule if item is None else sql.and_(rule, table.c.item == item)))


def leases_of(connection: Connection, annotator: str, now: float) -> list[Lease]:
    """An annotator's leases that have not run out."""
    sql = require("sqlalchemy", extra="human", purpose="label store")
    table = leases_table()
    rule = sql.and_(table.c.annotator == annotator, table.c.expires > now)
    rows = connection.execute(sql.select(table).where(rule).order_by(table.c.item))
    return [Lease(**row) for row in rows.mappings()]


def others_leases(connection: Connection, annotator: str, now: float) -> Counter[str]:
    """How many other annotators have each item in their hands."""
    sql = require("sqlalchemy", extra="human", purpose="label store")
    table = leases_table()
    rule = sql.and_(table.c.annotator != annotator, table.c.expires > now)
    return Counter(connection.execute(sql.select(table.c.item).where(rule)).scalars())
