"""The label store: an append-only log in a database, and the state replayed from it.

Knows: that an event is stored once, that it fits the state before it, and that one writer writes at a time, over all
threads and processes. Does not know: what is asked of whom next (``assignment``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_gym.errors import ArtifactError, DataError
from lm_gym.tools.extras import require

from .database import Database
from .events import Event
from .replay import LabelState
from .schema import events_table, prepare, secrets_table

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["LabelStore", "Transaction"]

PSEUDONYM = "person-"
KEY = "key"
COLUMNS = ("id", "kind", "at", "item", "annotator", "target")


class Transaction:
    """Exclusive work on a store: the state, and the one way to add to it."""

    def __init__(self, state: LabelState, connection: Connection) -> None:
        self.state = state
        """The state, with what was appended here."""
        self.connection = connection
        """For tables beside the log."""

    def append(self, event: Event) -> bool:
        """Add an event. Returns: False if it is stored already, as it is after a submission that was sent again.

        Raises:
            AnsweredAlreadyError: it answers what has an answer.
            DataError: it does not fit the state, or another event has its id.
        """
        sql = require("sqlalchemy", extra="human", purpose="label store")
        table = events_table()
        before = self.connection.execute(sql.select(table).where(table.c.id == event.id)).mappings().first()
        if before is not None:
            if _event(before).content != event.content:
                raise DataError(f"event {event.kind!r}: its id {event.id} is that of another event; make a new one")
            return False
        self.state.take(event)
        row = {name: getattr(event, name) for name in COLUMNS}
        row |= {"sequence": self.state.sequence, "body": event.body_json}
        self.connection.execute(sql.insert(table), row)
        return True


class LabelStore:
    """A label store; close it, or use ``with``. Threads may share one, and processes one database."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """Args: database: that :meth:`open` opened. clock: gives the time of events, in seconds since 1970 UTC."""
        self._database = database
        self._state = LabelState()
        self._lock = threading.RLock()
        self.clock = clock
        with self._lock, database.writing() as connection:
            prepare(connection, database.place)
            self._key = _key(connection)

    @classmethod
    def open(cls, place: str | Path, *, clock: Callable[[], float] = time.time) -> LabelStore:
        """Open a label store, and make it where there is none.

        Args:
            place: path of a SQLite file; ``":memory:"``; or a URL, ``postgresql://user@host/name``.
            clock: gives the time of events.

        Raises:
            ArtifactError: there is something else, or a store of a newer version.
            ConfigError: the URL is of another kind of database.
            MissingExtraError: SQLAlchemy is not installed.
            WriteError: it cannot be written.
        """
        database = Database(place)
        try:
            return cls(database, clock=clock)
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def place(self) -> str:
        """Path or URL, without a password."""
        return self._database.place

    def close(self) -> None:
        """Let go of the database. What was stored stays."""
        with self._lock:
            self._database.close()

    @contextmanager
    def reading(self) -> Iterator[LabelState]:
        """The state of now, which nobody in this process changes while the block runs.

        Raises:
            ArtifactError: the log is damaged: an event is missing, or does not fit those before it.
        """
        with self._lock:
            with self._database.reading() as connection:
                self._catch_up(connection)
            yield self._state

    @contextmanager
    def tables(self) -> Iterator[Connection]:
        """A connection that reads the tables beside the log."""
        with self._database.reading() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Read and append as one step: nobody else writes meanwhile, and an error in the block stores nothing of it.

        Raises:
            ArtifactError: the log is damaged.
            WriteError: the database cannot be written.
        """
        with self._lock:
            stored: int | None = None
            try:
                with self._database.writing() as connection:
                    self._catch_up(connection)
                    stored = self._state.sequence
                    yield Transaction(self._state, connection)
            except BaseException:
                if stored != self._state.sequence:
                    self._state = LabelState()  # it holds what the database does not: read it anew
                raise

    def append(self, *events: Event) -> list[bool]:
        """Add events, all or none. Returns: for each, False if it was stored already. Raises: as the above."""
        with self.transaction() as transaction:
            return [transaction.append(event) for event in events]

    def events(self) -> list[Event]:
        """The whole log, oldest first."""
        with self._database.reading() as connection:
            return [event for _, event in _stored(connection, 0)]

    def pseudonym(self, name: str) -> str:
        """The id of an annotator in the log: a keyed hash of their name, which nobody without the store can guess.

        One that is a pseudonym already stays what it is, so that exported labels can be read back.
        """
        return name if name.startswith(PSEUDONYM) else PSEUDONYM + self.sign("annotator", name)[:12]

    def sign(self, purpose: str, text: str) -> str:
        """A keyed hash of a text for one purpose. Returns: 64 hexadecimal digits."""
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()

    def _catch_up(self, connection: Connection) -> None:
        for sequence, event in _stored(connection, self._state.sequence):
            if sequence != self._state.sequence + 1:
                raise ArtifactError(
                    f"{self.place}: must hold every event, and number {self._state.sequence + 1} is missing; put a "
                    "whole copy back"
                )
            try:
                self._state.take(event)
            except DataError as error:
                raise ArtifactError(
                    f"{self.place}: event number {sequence} does not fit those before it: {error}"
                ) from error


def _stored(connection: Connection, after: int) -> Iterator[tuple[int, Event]]:
    sql = require("sqlalchemy", extra="human", purpose="label store")
    table = events_table()
    rows = connection.execute(sql.select(table).where(table.c.sequence > after).order_by(table.c.sequence))
    for row in rows.mappings():
        yield row["sequence"], _event(row)


def _event(row: Any) -> Event:
    return Event.read(row["body"], **{name: row[name] for name in COLUMNS})


def _key(connection: Connection) -> bytes:
    sql = require("sqlalchemy", extra="human", purpose="label store")
    table = secrets_table()
    found = connection.execute(sql.select(table.c.value).where(table.c.name == KEY)).scalar()
    if found is None:
        found = secrets.token_hex(32)
        connection.execute(sql.insert(table).values(name=KEY, value=found))
    return bytes.fromhex(found)
