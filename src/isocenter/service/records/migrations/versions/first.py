"""The first tables.

Nothing was released yet: they are those of `tables.py`, however it changes. The migration after the first release has
to write them out here as they then were.
"""

from alembic import op

from isocenter.service.records import tables

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    tables.metadata.create_all(op.get_bind())
