"""Tables with several rows of one patient, each with its time, as monitors and charts write them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from isocenter.layouts.cases import table_reading
from isocenter.layouts.cases.column_names import CASE_COLUMNS, OUTCOMES, PATIENT_COLUMNS
from isocenter.layouts.cases.table_reading import DataTable, TableRow
from isocenter.values import Problem, covariate_values


@dataclass(frozen=True)
class LongTable:
    """A table of readings over time.

    owner: the column that names cases or patients
    time:  the column of times
    problems: what was understood of the other columns, and what was not
    """

    table: DataTable
    owner: str
    time: str
    problems: tuple[Problem, ...] = ()

    @property
    def is_of_cases(self) -> bool:
        """Whether the owner may be a case; else it is a patient."""
        return self.owner == self.table.column(CASE_COLUMNS)

    @classmethod
    def from_table(cls, table: DataTable) -> LongTable | None:
        """The table as a long one; None where it has no times, or a row of each, or names files or outcomes."""
        owner = table.column(CASE_COLUMNS) or table.column(PATIENT_COLUMNS)
        time, named = covariate_values.time_column(table.columns), table.cells(owner)
        if owner is None or time is None or table.column(OUTCOMES) is not None:
            return None
        if len(set(named)) == len(named) or _names_files(table, owner):
            return None
        table, problems = table_reading.convert_values(table, (owner, time))
        return cls(table, owner, time, tuple(problems))

    @classmethod
    def from_file(cls, path: Path) -> LongTable | None:
        """The table of a file, if it is long and not damaged."""
        # Most tables have no times, and are read by whoever has use for them: of these the first line is enough.
        head = table_reading.try_table(path, most=0)
        has_times = head is not None and covariate_values.time_column(head.columns)
        return cls.from_table(table) if has_times and (table := table_reading.try_table(path)) is not None else None

    def courses(self) -> dict[str, TableRow]:
        """{case or patient: {column: its readings}}. Raises DatasetError for a time that is none."""
        rows = defaultdict[str, list[TableRow]](list)
        for row in self.table.rows:
            if row[self.owner] is not None:
                rows[str(row[self.owner])].append(table_reading.covariates_of_row(row, (self.owner,)))
        try:
            return {name: covariate_values.courses_by_column(own, self.time) for name, own in rows.items()}
        except ValueError as error:
            problem, remedy = f"{error}, in column {self.time}", "Write numbers, or dates as 2024-05-17T08:30"
            raise self.table.refusal(problem, remedy) from error


def _names_files(table: DataTable, owner: str) -> bool:
    """Whether another column than that of the owner names files."""
    first = table.rows[0].items() if table.rows else ()
    return any(name != owner and isinstance(cell, str) and table_reading.is_image_name(cell) for name, cell in first)
