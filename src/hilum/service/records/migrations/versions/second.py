"""When retention has deleted a study's objects, and its results and identity."""

import sqlalchemy
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Nothing is gone yet."""
    for name in ("objects_gone_at", "results_gone_at"):
        op.add_column("studies", sqlalchemy.Column(name, sqlalchemy.Float))
