"""The database under a label store: SQLite by default, PostgreSQL by URL.

Knows: how each is opened, that one transaction writes at a time, and what their errors mean. Does not know: events.

SQLite: https://www.sqlite.org/wal.html and https://www.sqlite.org/pragma.html#pragma_synchronous. With a write-ahead
log and synchronous=FULL, a transaction that was committed survives the loss of power.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_gym.errors import ArtifactError, ConfigError, MissingExtraError, WriteError
from lm_gym.tools.extras import require

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["Database"]

MEMORY = ":memory:"
BUSY_SECONDS = 30
"""Time that a writer waits for another one of the same SQLite file."""
WRITERS = 0x6C6D67796D
"""Number of PostgreSQL's advisory lock that a writer holds ("lmgym" in ASCII)."""
BROKEN = ("not a database", "malformed", "disk image")


class Database:
    """One database; transactions that write exclude each other, over all processes."""

    def __init__(self, place: str | Path) -> None:
        """Args: place: path of a SQLite file, ``":memory:"``, or a URL of SQLAlchemy's (``postgresql://...``).

        Raises:
            ConfigError: the URL is of another database.
            MissingExtraError: SQLAlchemy, or the driver of PostgreSQL, is not installed.
            WriteError: the file cannot be made.
        """
        self.place = _without_password(place)
        self._engine = _engine(place)
        self._is_sqlite = self._engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database. Raises: see :meth:`writing`."""
        with self._telling(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction beside which nobody writes; an error in it leaves everything as it was.

        Raises:
            WriteError: the database cannot be written: a full disk, no permission, a lock held for too long, no server.
            ArtifactError: the file is damaged, or is no database.
        """
        with self._telling(), self._engine.connect() as plain:
            connection = plain.execution_options(lm_gym_writes=True)
            with connection.begin():
                if not self._is_sqlite:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")
                yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        errors = require("sqlalchemy.exc", extra="human", purpose="label store")
        try:
            yield
        except errors.DBAPIError as error:
            reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
            if any(word in reason for word in BROKEN):
                raise ArtifactError(
                    f"{self.place}: must be a label store, and it cannot be read ({reason}); name another file, or put "
                    "a copy of it back"
                ) from error
            raise WriteError(
                f"{self.place}: nothing was stored, and what was stored before is whole ({reason}); make room or mend "
                "its permissions, and send it again"
            ) from error


def _engine(place: str | Path) -> Engine:
    sql = require("sqlalchemy", extra="human", purpose="label store")
    text = str(place)
    if "://" not in text:
        return _sqlite(sql, None if text == MEMORY else Path(text))
    try:
        url = sql.make_url(text)
    except sql.exc.ArgumentError as error:
        raise ConfigError(
            f"label store: must be a path or a URL such as postgresql://host/name, got {text!r}"
        ) from error
    kind = url.get_backend_name()
    if kind == "sqlite":
        return _sqlite(sql, Path(url.database) if url.database and url.database != MEMORY else None)
    if kind != "postgresql":
        raise ConfigError(f"label store: must be SQLite (a path) or PostgreSQL (postgresql://...), got {kind!r}")
    try:
        return sql.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except ImportError as error:
        raise MissingExtraError(
            "label store in PostgreSQL: needs the package 'psycopg', which is not installed; "
            "install it with: pip install 'lm-gym[postgres]'"
        ) from error


def _sqlite(sql: Any, path: Path | None) -> Engine:
    if path is None:
        engine: Engine = sql.create_engine(
            "sqlite://", poolclass=sql.pool.StaticPool, connect_args={"check_same_thread": False}
        )
    else:
        if path.is_dir():
            raise WriteError(f"{path}: must be the file of a label store, and is a folder; name a file in it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"{path}: the folder of the label store cannot be made ({error}); name another") from error
        url = sql.URL.create("sqlite", database=str(path.absolute()))
        engine = sql.create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @sql.event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late for reads: ours are explicit
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sql.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("lm_gym_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _without_password(place: str | Path) -> str:
    text = str(place)
    if "://" not in text:
        return text
    head, _, rest = text.partition("://")
    return f"{head}://{rest.rpartition('@')[2]}"
