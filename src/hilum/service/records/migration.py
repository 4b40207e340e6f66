"""The tables of a database, brought to the newest, after a copy of it; those of a newer version are refused."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from hilum.errors import UsageError
from hilum.service.records import database_copies, record_database
from hilum.service.records.record_database import Database
from hilum.work_state import log

# Of nodes that do so at once, one does: one of PostgreSQL's advisory locks that others hardly take.
LOCK = 0x150CE97E


def migrate_database(url: str, copies: Path | None = None) -> Database:
    """The database of a URL with the newest tables. copies: where its copy goes before older ones are changed

    Raises UsageError for tables of a newer version, ResourceError where it does not answer or cannot be copied.
    """
    database = record_database.open_database(url)
    with database.read() as connection:
        revision = stored_revision(connection)
    refuse_newer(revision, database.public_url)
    if copies is not None and revision not in (None, newest_revision()):
        copy = database_copies.keep_copy(database, copies, str(revision))
        log.warning("the database is brought from revision %s to %s; its copy is %s", revision, newest_revision(), copy)
    with database.write() as connection:
        if database.skips_locked:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return database


def stored_revision(connection: Connection) -> str | None:
    """The revision of the tables of a database; None where it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str:
    """The revision that this version makes."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def refuse_newer(revision: str | None, where: str) -> None:
    """Raise UsageError for a revision that this version does not know."""
    known = {one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        problem = f"was written by a newer Hilum: its tables are of revision {revision}"
        raise UsageError(f"{problem}, and this one knows {newest_revision()}", where, "Install that version again")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config
