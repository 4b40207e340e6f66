"""The tables of a folder that hold labels, and those of parts as one."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from isocenter.errors import DatasetError, listed
from isocenter.files.layouts.cases import (
    SPLIT_COLUMNS,
    Folder,
    Member,
    Table,
    part_named,
    read_table,
    states_references,
)

PIXEL = re.compile(r"(?i)pixel_?\d+")
PART = SPLIT_COLUMNS[0]  # the column that tables of parts get when they are joined


def labelled_tables(folder: Folder, columns: Collection[str] = ()) -> tuple[Member, ...]:
    """The one table of a folder; of several the only one with labels next to images, or those of different parts.

    Text files count where there is no other table. A sample of what to submit to a challenge has columns of labels, and
    none in them.
    columns: that a person named: the only table that has them all is meant, or those of parts that have
    """
    tables = folder.tables or folder.text_tables
    if len(tables) == 1:
        return tables
    having = tuple(member for member in tables if columns and _has(member, columns))
    if len(having) == 1:
        return having
    stating = [member for member in tables if not is_submission(member)]
    labelled = tuple(member for member in stating if states_references(member.path)) or having
    labelled = tuple(member for member in labelled if not _holds_pixels(member)) or labelled
    parts = [part_named(member.path) for member in labelled]
    is_parted = len(labelled) > 1 and None not in parts and len(set(parts)) == len(parts)
    return labelled if is_parted or (len(labelled) == 1 and (folder.images or folder.dicom)) else ()


def is_submission(member: Member) -> bool:
    """Whether a table is a sample of what to submit to a challenge."""
    return "submission" in member.stem.lower()


def _holds_pixels(member: Member) -> bool:
    """Whether a table holds the pixels of images beside their labels, and so names none, as hmnist_28_28_L.csv."""
    return any(PIXEL.fullmatch(name) for name in read_table(member.path, most=0).columns)


def _has(member: Member, columns: Collection[str]) -> bool:
    try:
        return set(columns) <= set(read_table(member.path, most=1).columns)
    except DatasetError:  # reported where it is read
        return False


def joined_tables(members: Sequence[Member], *, codes: Collection[str | None] = ()) -> Table:
    """A table; several are joined, each the part that its name states.

    codes: further columns that name patients or cases
    Raises DatasetError for one that is damaged, for unlike columns, and for parts that a column states too.
    """
    first, *others = tables = [read_table(member.path, codes=codes) for member in members]
    if not others:
        return first
    for other in others:
        if unlike := set(first.columns) ^ set(other.columns):
            raise DatasetError(
                f"has other columns than {first.path.name} ({listed(sorted(unlike))})",
                str(other.path),
                "Give all tables of parts the same columns, or give one of the files",
            )
    if column := first.column(SPLIT_COLUMNS[:1]):
        problem = f"column {column} and the name {first.path.name} both state a part"
        raise DatasetError(problem, str(first.path), "Join the tables to one with this column, or remove the column")
    rows = ({**row, PART: part_named(table.path)} for table in tables for row in table.rows)
    return replace(first, columns=(*first.columns, PART), rows=tuple(rows))
