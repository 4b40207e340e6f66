"""Blind reads are sampled: the name of the column says so."""

from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Rename when they were."""
    op.execute("ALTER TABLE blind RENAME COLUMN drawn_at TO sampled_at")
