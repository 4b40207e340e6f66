"""The tables of a database, brought to the newest."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from isocenter.service.records import record_database
from isocenter.service.records.record_database import Database

# Of nodes that do so at once, one does: one of PostgreSQL's advisory locks that others hardly take.
LOCK = 0x150CE97E


def migrate_database(url: str) -> Database:
    """The database of a URL with the newest tables. Raises ResourceError where it does not answer."""
    database = record_database.open_database(url)
    with database.write() as connection:
        if database.skips_locked:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        command.upgrade(config, "head")
    return database
