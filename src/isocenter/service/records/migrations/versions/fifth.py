"""Objects that notes reject."""

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """One table."""
    op.create_table(
        "rejections",
        sa.Column("study", sa.String(32), primary_key=True),
        sa.Column("note", sa.String(64), primary_key=True),
        sa.Column("uid", sa.String(64), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["study"], ["studies.study"]),
    )
