"""The first tables, written out in the words of each kind of database beside this folder; they never change."""

from pathlib import Path

from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    connection = op.get_bind()
    words = Path(__file__).parents[1] / f"first_{connection.dialect.name}.sql"
    for statement in words.read_text(encoding="utf-8").split(";"):
        if statement.strip():
            connection.exec_driver_sql(statement)
