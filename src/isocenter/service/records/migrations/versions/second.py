"""What a study came to, and the object of another content that somebody has to look at."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Two further columns of studies."""
    op.add_column("studies", sa.Column("outcome", sa.String(length=16), nullable=True))
    op.add_column("studies", sa.Column("contested", sa.Text(), nullable=True))
