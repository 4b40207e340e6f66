"""Results in a notebook: what they print, over their table."""

from __future__ import annotations

from html import escape
from typing import Protocol

from isocenter.lazy import pandas as pd

# Rows of a table that a notebook shows; pandas leaves out the middle of more.
MOST_ROWS = 60


class HasTable(Protocol):
    """A result with rows."""

    @property
    def table(self) -> pd.DataFrame:
        """The rows."""


class InNotebook:
    """A result that a notebook shows as its words over its `table`."""

    def _repr_html_(self: HasTable) -> str:
        return f"<pre>{escape(str(self))}</pre>{self.table.to_html(index=False, max_rows=MOST_ROWS)}"
