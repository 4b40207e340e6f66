"""Empty databases for tests: of SQLite a copy, because to make the tables anew for each test takes most of its time."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from isocenter.service.records.database import Database, opened
from isocenter.service.records.migration import migrated
from isocenter.service.records.tables import metadata

SQLITE = "sqlite:///"


def with_tables(url: str) -> Database:
    """What `migrated` gives."""
    if not url.startswith(SQLITE):
        _make_tables(url)
        return opened(url)
    path = Path(url.removeprefix(SQLITE))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_tables())
    return opened(url)


def empty(database: Database) -> None:
    """Delete every row."""
    with database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


@cache
def _make_tables(url: str) -> None:
    migrated(url).close()


@cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.sqlite"
        migrated(f"{SQLITE}{path}").close()
        return path.read_bytes()
