"""Copies of a database as of one moment: SQLite's by its own call, PostgreSQL's by `pg_dump`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from hilum.errors import ResourceError, UsageError
from hilum.files.storage import atomic
from hilum.service.records import database_programs, record_database
from hilum.service.records.record_database import PASSWORD, Database

# What a copy is called, by kind of database; copies that are kept of those before a migration.
NAMES, KEPT = {"sqlite": "node.sqlite", "postgresql": "database.dump"}, 3


@contextmanager
def copy_database(database: Database, path: Path) -> Iterator[Connection]:
    """Write a copy to a path; the connection sees just what is in it. Raises ResourceError where that cannot be."""
    if not database.skips_locked:
        _copy_sqlite(Path(str(database.engine.url.database)), path)
        with closing(record_database.open_to_read(path)) as copy, copy.read() as connection:
            yield connection
        return
    with database.errors(), database.engine.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            moment = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
            _run_program("pg_dump", database, "--format=custom", f"--snapshot={moment}", f"--file={path}")
            yield connection


def _copy_sqlite(source: Path, path: Path) -> None:
    try:
        with closing(sqlite3.connect(source)) as own, closing(sqlite3.connect(path)) as copy:
            own.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, which is read without being written to
    except sqlite3.Error as error:
        remedy = "Free some space, and check that it is whole"
        raise ResourceError(f"the database cannot be copied: {error}", str(source), remedy) from error


def restore_dump(database: Database, dump: Path) -> None:
    """Fill an empty database of PostgreSQL from a copy, whole or not at all. Raises ResourceError."""
    _run_program("pg_restore", database, "--single-transaction", "--exit-on-error", "--no-owner", str(dump))


def refuse_database_with_tables(database: Database) -> None:
    """Raise UsageError for a database that holds tables, ResourceError where it does not answer."""
    with database.read() as connection:
        filled = inspect(connection).get_table_names()
    if filled:
        problem = f"the database holds tables already, such as {filled[0]}"
        raise UsageError(problem, database.public_url, "Give an empty one: createdb NAME")


def keep_copy(database: Database, folder: Path, revision: str) -> Path:
    """Copy a database of a revision into a folder, of whose copies the newest are kept. Raises ResourceError."""
    kind = NAMES[database.engine.dialect.name]
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    target = folder / f"{moment}-revision-{revision}-{kind}"
    with atomic.write_whole(target) as partial, copy_database(database, partial):
        pass
    for old in sorted(folder.glob("*-revision-*"))[:-KEPT]:
        old.unlink()
    return target


def _run_program(name: str, database: Database, *arguments: str) -> None:
    """Run a program of PostgreSQL on a database; the password stands in its environment alone."""
    program = database_programs.program_path(name)
    if program is None:
        raise ResourceError(f"{name} is not installed", database.public_url, "Install the client of PostgreSQL")
    address = database.engine.url.set(drivername="postgresql", password=None).render_as_string()
    environment = {**os.environ, "PGPASSWORD": os.environ.get(PASSWORD, "")}
    command = [program, f"--dbname={address}", *arguments]
    done = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        words = next(iter(done.stderr.decode(errors="replace").splitlines()), f"it ended with {done.returncode}")
        raise ResourceError(f"{name}: {words}", database.public_url, "Check server, user and free space")
