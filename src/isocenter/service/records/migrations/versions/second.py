"""The outcome of a study, the object of another content that somebody has to look at, and the frames of a series."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Further columns of studies and series."""
    op.add_column("studies", sa.Column("outcome", sa.String(length=16), nullable=True))
    op.add_column("studies", sa.Column("contested", sa.Text(), nullable=True))
    op.add_column("series", sa.Column("frames", sa.Integer(), nullable=True))
