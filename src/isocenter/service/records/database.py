"""The node's database: opened, asked for the time, kept by one keeper."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Float, create_engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from isocenter.errors import ResourceError, UsageError

PASSWORD = "ISOCENTER_DATABASE_PASSWORD"  # noqa: S105 - the name of a variable
# How long a writer waits for another one (ms), and how many milliseconds a lock of PostgreSQL may be waited for.
BUSY_MS = 30_000
# Of PostgreSQL's advisory locks one that others hardly take.
KEEPER_LOCK = 0x150CE97F


class Clock(GenericFunction[float]):
    """Seconds since 1970 by the database's clock, so that machines with different clocks agree on leases."""

    type, name = Float(), "isocenter_clock"
    inherit_cache = True


@compiles(Clock, "sqlite")
def _sqlite_now(element: Clock, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Clock, "postgresql")
def _postgresql_now(element: Clock, compiler: Any, **_: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@dataclass(frozen=True, eq=False)
class Database:
    """An engine whose transactions write: SQLite's take the lock at once, so that none has to be tried twice."""

    engine: Engine
    reader: Engine

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that writes. Raises ResourceError where the database does not answer."""
        return self._transaction(self.engine)

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction that only reads, and keeps no writer waiting; ResourceError as `write`."""
        return self._transaction(self.reader)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise ResourceError(f"the database does not answer: {cause}", self.shown, "Is it running?") from error

    @property
    def shown(self) -> str:
        """Where the database is, without a password."""
        return self.engine.url.render_as_string(hide_password=True)

    @property
    def skips_locked(self) -> bool:
        """Whether several may claim at once, each skipping the rows of the others."""
        return self.engine.dialect.name == "postgresql"

    def now(self) -> float:
        """The time (s since 1970)."""
        with self.read() as connection:
            return float(connection.execute(Clock().select()).scalar_one())

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()
        self.reader.dispose()


def opened(url: str) -> Database:
    """The database of a URL.

    The password of PostgreSQL comes from ISOCENTER_DATABASE_PASSWORD. Raises ResourceError where it does not answer.
    """
    place = make_url(url)
    if place.get_backend_name() == "sqlite":
        Path(str(place.database)).parent.mkdir(parents=True, exist_ok=True)
        engine, reader = (create_engine(place, connect_args={"timeout": BUSY_MS / 1000}) for _ in range(2))
        for own, beginning in ((engine, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
            event.listen(own, "connect", _prepare)
            event.listen(own, "begin", partial(_transaction_begun, beginning))
    else:
        place = place.set(drivername="postgresql+psycopg", password=os.environ.get(PASSWORD))
        engine = reader = create_engine(place, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    return Database(engine, reader)


@contextmanager
def only_keeper(database: Database) -> Iterator[None]:
    """Be the one keeper of a database of PostgreSQL; one of SQLite lies in the folder, which has a lock of its own.

    Raises UsageError where another node keeps it.
    """
    if not database.skips_locked:
        yield
        return
    with database.engine.connect() as connection:
        lock = {"lock": KEEPER_LOCK}
        if not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), lock).scalar_one():
            remedy = "Give each node a database of its own"
            raise UsageError("another node keeps this database", database.shown, remedy)
        connection.commit()
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # a server that is gone holds no lock
                connection.execute(text("SELECT pg_advisory_unlock(:lock)"), lock)
            connection.invalidate()  # else a lock that is left would go back into the pool with its session


def _prepare(connection: Any, _: Any) -> None:
    """Write-ahead log: readers do not wait, and a commit survives a crash of the process."""
    connection.isolation_level = None  # transactions begin where we say
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _transaction_begun(beginning: str, connection: Connection) -> None:
    connection.exec_driver_sql(beginning)
