"""Tables of the label store, and the migrations that lead to them.

Knows: the tables, their version, and how a store of an older version is brought up to this one. Does not know: what an
event means.

A checked version table and a tuple of migrations, without alembic: the log is one table whose bodies are JSON and are
never rewritten, so that a migration is a new column or a new table at most, and a second description of the tables,
with a folder of scripts that an installed package would have to ship, buys nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lm_gym.errors import ArtifactError
from lm_gym.tools.extras import require

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData, Table

__all__ = ["VERSION", "events_table", "leases_table", "links_table", "prepare", "secrets_table"]


def _metadata() -> MetaData:
    sql = require("sqlalchemy", extra="human", purpose="label store")
    metadata: MetaData = sql.MetaData()
    text, number, column = sql.Text(), sql.Double(), sql.Column
    sql.Table("lm_gym_labels", metadata, column("version", sql.Integer, nullable=False))
    sql.Table(
        "events",
        metadata,
        column(
            "sequence", sql.BigInteger().with_variant(sql.Integer(), "sqlite"), primary_key=True, autoincrement=False
        ),
        column("id", sql.String(36), nullable=False, unique=True),
        column("kind", sql.String(16), nullable=False),
        column("at", number, nullable=False),
        column("item", sql.String(36)),
        column("annotator", text),
        column("target", sql.String(36)),
        column("body", text, nullable=False),
    )
    sql.Table(
        "leases",
        metadata,
        column("item", sql.String(36), primary_key=True),
        column("annotator", sql.String(64), primary_key=True),
        column("showing", sql.String(36), nullable=False),
        column("expires", number, nullable=False),
    )
    sql.Table(
        "links",
        metadata,
        column("token_hash", sql.String(64), primary_key=True),
        column("name", text, nullable=False),
        column("annotator", sql.String(64), nullable=False),
        column("role", sql.String(16), nullable=False),
        column("made", number, nullable=False),
        column("revoked", number),
    )
    sql.Table(
        "secrets", metadata, column("name", sql.String(32), primary_key=True), column("value", text, nullable=False)
    )
    return metadata


_METADATA: list[MetaData] = []


def _table(name: str) -> Table:
    if not _METADATA:
        _METADATA.append(_metadata())
    return _METADATA[0].tables[name]


def events_table() -> Table:
    """The log: one row per event, numbered from 1 without a gap."""
    return _table("events")


def leases_table() -> Table:
    """Who has which item until when. No part of the log: it is worth nothing once it has run out."""
    return _table("leases")


def links_table() -> Table:
    """Links of annotators and owners: a hash of each token, never the token. Names stand here and nowhere else."""
    return _table("links")


def secrets_table() -> Table:
    """The store's own key, which pseudonyms and signatures are made with."""
    return _table("secrets")


def _first(connection: Connection) -> None:
    _table("events").metadata.create_all(connection)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first,)
"""Step number n leads from version n - 1 to version n."""
VERSION = len(MIGRATIONS)


def prepare(connection: Connection, place: str) -> None:
    """Bring the tables of a database up to this version, in the transaction that the connection is in.

    Args:
        connection: in a transaction that nobody else writes beside.
        place: of the store, for errors.

    Raises:
        ArtifactError: the store was written by a newer version of the library, or the database holds something else.
    """
    sql = require("sqlalchemy", extra="human", purpose="label store")
    version = _table("lm_gym_labels")
    names = set(sql.inspect(connection).get_table_names())
    if version.name not in names:
        foreign = names & set(version.metadata.tables)
        if foreign:
            raise ArtifactError(
                f"{place}: must be a label store or an empty database, and it holds a table {sorted(foreign)[0]!r} of "
                "something else; name another file or database"
            )
        found = 0
    else:
        found = connection.execute(sql.select(version.c.version)).scalar_one()
    if found > VERSION:
        raise ArtifactError(
            f"{place}: must be a label store of version {VERSION} or older, got version {found}; "
            "install the newer lm-gym that wrote it"
        )
    for number in range(found, VERSION):
        MIGRATIONS[number](connection)
    if found < VERSION:
        connection.execute(sql.delete(version))
        connection.execute(sql.insert(version).values(version=VERSION))
