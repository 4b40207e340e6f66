"""The outcome of a further look at scored cases: tables, records, sections of a report, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isocenter.evaluation import Table
from isocenter.files import write_table
from isocenter.report import Figure, Section
from isocenter.runtime import write_json


@dataclass(frozen=True, eq=False)
class Audited:
    """The outcome of one audit of scored cases.

    tables:   {file name: table}, written as CSV
    records:  {file name: (schema, content)}, written as JSON
    sections: of the report
    notes:    what a reader must know before any figure
    figures:  {case: pictures} to stand beside those of the report's cases
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    records: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    notes: Sequence[str] = ()
    figures: Mapping[str, Sequence[Figure]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Its files, into an existing folder."""
        for name, table in self.tables.items():
            write_table(table, folder / name)
        for name, (schema, content) in self.records.items():
            write_json(folder / name, schema, dict(content))
