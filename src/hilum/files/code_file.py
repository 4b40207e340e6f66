"""A file of codes, `codes.csv`: name,scheme,value,meaning[,unit], a line for each code of a name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hilum.errors import FormatError
from hilum.files.storage import csv_text
from hilum.values import Code
from hilum.values.finding import CodedName

COLUMNS, UNIT = ("name", "scheme", "value", "meaning"), "unit"
LONGEST_SCHEME = 16  # SH, PS3.5 6.2


def read_codes(path: Path) -> dict[str, CodedName]:
    """The codes of each name, in the order of the lines: several of one name are equivalents.

    Raises FormatError for an unknown or missing column, a line without a name, scheme, value or meaning, and a name
    with two units.
    """
    table = csv_text.read_text_table(path)
    columns = [str(column).strip() for column in table.columns]
    if unknown := [column for column in columns if column not in (*COLUMNS, UNIT)]:
        raise FormatError(f"has an unknown column {unknown[0]!r}", str(path), f"Use {','.join(COLUMNS)}[,{UNIT}]")
    if lacking := [column for column in COLUMNS if column not in columns]:
        raise FormatError(f"has no column {lacking[0]!r}", str(path), f"Use {','.join(COLUMNS)}[,{UNIT}]")
    names = dict[str, CodedName]()
    for number, cells in enumerate(table.to_numpy().tolist(), start=2):
        row = {column: str(cell).strip() for column, cell in zip(columns, cells, strict=True)}
        names[row["name"]] = _with_line(names.get(row["name"]), row, f"{path}, line {number}", path.name)
    return names


def _with_line(before: CodedName | None, row: Mapping[str, str], where: str, source: str) -> CodedName:
    """The codes of a name with those of one more line."""
    if empty := [column for column in COLUMNS if not row[column]]:
        raise FormatError(f"has no {empty[0]}", where, f"State the {empty[0]}, or delete the line")
    if len(row["scheme"]) > LONGEST_SCHEME:
        problem = f"the scheme {row['scheme']!r} is longer than {LONGEST_SCHEME} letters"
        raise FormatError(problem, where, "Give its designator, such as SCT, DCM, LN or RADLEX")
    units = {unit for unit in (before.unit if before else "", row.get(UNIT, "")) if unit}
    if len(units) > 1:
        problem = f"{row['name']!r} has two units: {' and '.join(sorted(units))}"
        raise FormatError(problem, where, "State one unit for each name")
    code = Code(row["scheme"], row["value"], row["meaning"])
    return CodedName((*(before.codes if before else ()), code), source, next(iter(units), ""))
