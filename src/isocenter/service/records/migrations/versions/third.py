"""A column that marks localizers; of series that are read already as their image type states it."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """A further column of series."""
    op.add_column("series", sa.Column("is_localizer", sa.Boolean(), nullable=True))
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in ("study", "series", "is_localizer")]
    series = sa.table("series", *columns, sa.column("attributes", sa.JSON))
    connection = op.get_bind()
    for row in connection.execute(sa.select(series)).all():
        kinds = (row.attributes or {}).get("ImageType") or []
        if "LOCALIZER" in (kinds if isinstance(kinds, list) else [kinds]):
            here = sa.and_(series.c.study == row.study, series.c.series == row.series)
            connection.execute(sa.update(series).where(here).values(is_localizer=True))
