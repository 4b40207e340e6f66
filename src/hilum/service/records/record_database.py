"""The node's database: opened, asked for the time, kept by one keeper."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Executable, Float, Row, create_engine, event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError, StatementError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from hilum.errors import HilumError, ResourceError, UsageError
from hilum.service import node_folder

PASSWORD = "HILUM_DATABASE_PASSWORD"  # noqa: S105 - the name of a variable
# How long a writer waits for another one (ms), and how many milliseconds a lock of PostgreSQL may be waited for.
BUSY_MS = 30_000
# Of PostgreSQL's advisory locks one that others hardly take.
KEEPER_LOCK = 0x150CE97F
# What a driver raises for a value that is too long, too large, or no text; some of it SQLite's raises as Python's own.
PYTHONS = (OverflowError, UnicodeError)
OF_VALUES = (DataError, IntegrityError, ProgrammingError, *PYTHONS)
QUOTED = re.compile(r'"[^"]*"')


class RecordError(HilumError):
    """A row that the database does not take, because of a value in it."""


class DatabaseClock(GenericFunction[float]):
    """Seconds since 1970 by the database's clock, so that machines with different clocks agree on leases."""

    type, name = Float(), "hilum_clock"
    inherit_cache = True


@compiles(DatabaseClock, "sqlite")
def _sqlite_now(element: DatabaseClock, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseClock, "postgresql")
def _postgresql_now(element: DatabaseClock, compiler: Any, **_: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@dataclass(frozen=True, eq=False)
class Database:
    """An engine whose transactions write: SQLite's take the lock at once, so that none has to be tried twice."""

    engine: Engine
    reader: Engine

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that writes.

        Raises ResourceError where the database does not answer, RecordError for a value that it cannot hold.
        """
        return self._transaction(self.engine)

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction that only reads, and keeps no writer waiting; errors as `write`."""
        return self._transaction(self.reader)

    def rows(self, query: Executable) -> Sequence[Row[*tuple[Any, ...]]]:
        """All rows of a query, read in a transaction of its own."""
        with self.read() as connection:
            return connection.execute(query).all()

    def first(self, query: Executable) -> Row[*tuple[Any, ...]] | None:
        """Its first row; None where there is none."""
        with self.read() as connection:
            return connection.execute(query).first()

    def do(self, statement: Executable) -> None:
        """A statement in a transaction of its own."""
        with self.write() as connection:
            connection.execute(statement)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with self.errors(), engine.begin() as connection:
            yield connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors of the database as ours; what is quoted in their words may be a patient's, and is left out."""
        try:
            yield
        except (SQLAlchemyError, *PYTHONS) as error:
            cause = getattr(error, "orig", None) or error
            words = QUOTED.sub('"..."', next(iter(str(cause).splitlines()), type(cause).__name__))
            is_unsent = isinstance(error, StatementError) and not isinstance(error, DBAPIError)
            if is_unsent or isinstance(error, OF_VALUES):
                remedy = "Report it with the words of the error"
                raise RecordError(
                    f"the database cannot hold what it is given: {words}", self.public_url, remedy
                ) from error
            raise ResourceError(
                f"the database does not answer: {words}", self.public_url, "Check that it is running"
            ) from error

    @property
    def public_url(self) -> str:
        """The place of the database, without a password."""
        return self.engine.url.render_as_string(hide_password=True)

    @property
    def skips_locked(self) -> bool:
        """Whether several may claim at once, each skipping the rows of the others."""
        return self.engine.dialect.name == "postgresql"

    def now(self) -> float:
        """The time (s since 1970)."""
        with self.read() as connection:
            return float(connection.execute(DatabaseClock().select()).scalar_one())

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()
        self.reader.dispose()


def open_database(url: str) -> Database:
    """The database of a URL.

    The password of PostgreSQL comes from HILUM_DATABASE_PASSWORD. Raises ResourceError where it does not answer.
    """
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
        engine, reader = (create_engine(address, connect_args={"timeout": BUSY_MS / 1000}) for _ in range(2))
        for one_engine, beginning in ((engine, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
            event.listen(one_engine, "connect", _prepare)
            event.listen(one_engine, "begin", partial(_transaction_begun, beginning))
    else:
        address = address.set(drivername="postgresql+psycopg", password=os.environ.get(PASSWORD))
        engine = reader = create_engine(address, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    return Database(engine, reader)


def empty_log(database: Database) -> bool:
    """Write SQLite's log of changes into its file, so that what was deleted stands in neither; False while others read.

    Nothing for PostgreSQL.
    """
    if database.skips_locked:
        return True
    with closing(sqlite3.connect(str(database.engine.url.database), timeout=0.1)) as connection:
        is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy


def open_to_read(file: Path) -> Database:
    """The database in a file, which is not changed."""
    reader = create_engine(f"sqlite:///{file.absolute().as_uri()}?mode=ro&uri=true")
    return Database(reader, reader)


def node_database(folder: Path) -> Database:
    """The database of the node in a folder. Raises UsageError where there is none, ResourceError as `open_database`."""
    stored = node_folder.settings_file(folder, "keeper")
    if stored.is_file():
        return open_database(node_folder.stored_settings(stored).database_url)
    if not (folder / "node.sqlite").is_file():
        raise UsageError("holds no node", str(folder), "Give the folder of a node")
    return open_database(f"sqlite:///{folder / 'node.sqlite'}")


@contextmanager
def only_keeper(database: Database) -> Iterator[Callable[[], None]]:
    """Be the one keeper of a database of PostgreSQL; one of SQLite lies in the folder, which has a lock of its own.

    What is given makes sure that it still is so, for the server forgets it when it is restarted.
    Raises UsageError where another node keeps it, ResourceError where it does not answer.
    """
    if not database.skips_locked:
        yield lambda: None
        return
    keeper = _KeepersPlace(database)
    if not keeper.is_taken():
        raise UsageError(
            "another node keeps this database", database.public_url, "Give each node a database of its own"
        )
    try:
        yield keeper.hold
    finally:
        keeper.leave()


class _KeepersPlace:
    """An advisory lock of PostgreSQL, which is held for as long as a connection lives."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection: Connection | None = None

    def is_taken(self) -> bool:
        """Whether it is ours from now on."""
        with self.database.errors():
            connection = self.database.engine.connect()
            asked = text("SELECT pg_try_advisory_lock(:lock)")
            is_ours = bool(connection.execute(asked, {"lock": KEEPER_LOCK}).scalar_one())
            connection.commit()
        if is_ours:
            self._connection = connection
        else:
            connection.close()
        return is_ours

    def hold(self) -> None:
        """Take it again where the connection was lost. Raises ResourceError where somebody has it, or none answers."""
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
                self._connection.commit()
            except SQLAlchemyError:  # the server was restarted
                self.leave()
        if self._connection is None and not self.is_taken():
            problem = "another session keeps the database since the connection was lost"
            raise ResourceError(problem, self.database.public_url, "Stop the other node, if there is one")

    def leave(self) -> None:
        """Let another have it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(SQLAlchemyError):  # a server that is gone holds no lock
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": KEEPER_LOCK})
        connection.invalidate()  # else a lock that is left would go back into the pool with its session
        connection.close()


def _prepare(connection: Any, _: Any) -> None:
    """Write-ahead log: readers do not wait, and a commit survives a crash of the process."""
    connection.isolation_level = None  # transactions begin where we say
    settings = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}")
    for pragma in (*settings, "secure_delete=ON"):  # the identity that retention deletes is overwritten
        connection.execute(f"PRAGMA {pragma}")


def _transaction_begun(beginning: str, connection: Connection) -> None:
    connection.exec_driver_sql(beginning)
