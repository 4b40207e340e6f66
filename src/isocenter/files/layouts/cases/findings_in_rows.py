"""Tables with a row for each finding of an image, as ID_<image>_<finding> in RSNA's set of intracranial haemorrhage."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from isocenter.files.layouts.cases.table import CASE_COLUMNS, MOST_CLASSES, REFERENCE_COLUMNS, Table


def with_findings(table: Table, images: Callable[[], Collection[str]]) -> Table:
    """The table with a row for each image, and a column for each finding; any other table as it is.

    images: the function that knows the names of their files without suffix
    Every image has each finding, as 0 or 1, and no image bears the name of a row.
    """
    column, label = table.column(CASE_COLUMNS), table.column(REFERENCE_COLUMNS["label"])
    if column is None or label is None or len(table.columns) > 2:
        return table
    stated: dict[tuple[str, str], object] = {}
    for row in table.rows:
        image, _, finding = str(row[column]).rpartition("_")
        if row[label] not in (0, 1) or stated.setdefault((image, finding), row[label]) != row[label]:
            return table
    named, findings = (tuple(dict.fromkeys(key[place] for key in stated)) for place in (0, 1))
    if min(len(named), len(findings)) < 2 or len(findings) > MOST_CLASSES or len(stated) < len(named) * len(findings):
        return table
    known = images()
    if 2 * sum(image in known for image in named) <= len(named) or any(str(row[column]) in known for row in table.rows):
        return table
    rows = tuple({column: image, **{finding: stated[image, finding] for finding in findings}} for image in named)
    return replace(table, columns=(column, *findings), rows=rows, findings=findings)
