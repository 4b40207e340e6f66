"""Texts of a case, such as radiology reports: cells of a table, which `dataset.csv` names and never repeats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isocenter.errors import DatasetError
from isocenter.files import file_formats
from isocenter.files.dicom import header_reading
from isocenter.files.dicom.reading import series_survey
from isocenter.layouts.cases.table_reading import DataTable
from isocenter.layouts.layout import References
from isocenter.values import CaseRow, Cell
from isocenter.values.dataset_cases import CaseTexts

TEXT = "text"


def text_cell(table: Path, key: str, texts: Sequence[str], images: Sequence[Path]) -> Cell:
    """The cell of a case's texts; images: whose headers, where they are DICOM, name the patient."""
    own = CaseTexts(tuple(texts))
    headers = (path for path in images[:1] if path.is_file() and file_formats.format_of(path) == "dicom")
    names = any(
        series_survey.names_the_patient(header_reading.read_header(path).dataset, sentence)
        for path in headers
        for sentence in own.sentences
    )
    return Cell((table,), TEXT, key, known=CaseTexts(own.texts, names))


def join_texts(case: CaseRow, other: CaseRow) -> References:
    """The references of a case with the texts that another row states of its image, as a further report."""
    own, more = case.references.get(TEXT), other.references.get(TEXT)
    if own is None or more is None or own == more:
        return {**({TEXT: more} if more is not None else {}), **case.references}
    (rows, _, column), (row, _, _) = own.key.partition("/"), more.key.partition("/")
    known = CaseTexts((*own.known.texts, *more.known.texts), own.known.names_patient or more.known.names_patient)
    return {**case.references, TEXT: Cell(own.paths, TEXT, f"{rows}+{row}/{column}", known=known)}


def find_texts(table: DataTable, key: str, images: Sequence[Path]) -> Cell:
    """The cell of the texts of `row+row/column`, counted from 1; DatasetError where the table has none there."""
    rows, _, column = key.partition("/")
    try:
        cells = [table.rows[int(row) - 1][column] for row in rows.split("+")]
    except (KeyError, ValueError, IndexError) as error:
        remedy = "Restore the table as it was, or read the data set again"
        raise DatasetError(f"has no text at {key}", str(table.path), remedy) from error
    return text_cell(table.path, key, [str(one) for one in cells if one is not None], images)
