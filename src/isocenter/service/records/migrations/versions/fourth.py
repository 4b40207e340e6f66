"""Indexes for what the keeper asks again and again: studies that the rules have not seen as they are, and events."""

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """One index of studies and one of events."""
    unrouted = sa.text("routed < revision")
    op.create_index("studies_to_route", "studies", ["complete_at"], sqlite_where=unrouted, postgresql_where=unrouted)
    op.create_index("events_by_study", "events", ["study", "kind"])
