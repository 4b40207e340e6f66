"""Empty databases for tests: of SQLite a copy, because to make the tables anew for each test takes most of its time."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from hilum.service.records import migration, record_database, tables
from hilum.service.records.record_database import Database

SQLITE = "sqlite:///"


def with_tables(url: str) -> Database:
    """What `migrated` gives."""
    if not url.startswith(SQLITE):
        _make_tables(url)
        return record_database.open_database(url)
    path = Path(url.removeprefix(SQLITE))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_tables())
    return record_database.open_database(url)


def empty(database: Database) -> None:
    """Delete every row."""
    with database.write() as connection:
        for table in reversed(tables.metadata.sorted_tables):
            connection.execute(table.delete())


@cache
def _make_tables(url: str) -> None:
    migration.migrate_database(url).close()


@cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.sqlite"
        migration.migrate_database(f"{SQLITE}{path}").close()
        return path.read_bytes()
