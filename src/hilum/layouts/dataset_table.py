"""`dataset.csv` and `dataset.toml`: the rows of a data set as a person corrects them, and what they cannot hold.

A cell is a value, a path, paths with | between them, or a path with the part that is meant behind #, as in
`scan.nii.gz#frame=0/4` or `instances.json#coco=17.png`. In names %, |, # and = stand as %25, %7C, %23 and %3D.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import label_table
from hilum.files.format_options import ReadOptions
from hilum.files.storage import csv_text, structured_text
from hilum.files.storage.csv_text import CsvWriter
from hilum.layouts.cases import table_reading
from hilum.layouts.cases.dataset_folder import OWN_TABLE, Record
from hilum.layouts.cases.table_reading import UNNAMED, DataTable
from hilum.layouts.layout import PSEUDONYMS, AnnotationNames, DatasetOptions, Labels, Reading
from hilum.lazy import pandas
from hilum.values import CaseRow, Cell, Code, Dataset, Label
from hilum.values.dataset_cases import FINDING_KINDS, DataFrameLike, DatasetTable

SCHEMA = "hilum.dataset"
JOINED, PART = "|", "#"
SPECIAL, ESCAPED = re.compile(r"[%|#=]"), re.compile(r"%(?:25|7C|23|3D)")
# The column of findings that a person accepts, and what stands between several and before the version of the case.
ACCEPTED, BETWEEN, AT = "accepted", ";", "@"
# Columns of one thing each, and those that bear a name behind a colon; in the order in which they are written.
SINGLE = ("case", "patient", "split", "group", "label", "time", "event", "text", "accepted")
NAMED = ("image", "modality", "field", "target", "mask", "instances", "boxes", "finding", "value", "covariate")
ORDER = (
    "case",
    "patient",
    "split",
    "group",
    *NAMED[:7],
    "label",
    "finding",
    "value",
    "time",
    "event",
    "text",
    "accepted",
)
# Options of reading single files that hold for whoever reads the table.
READ = tuple(one.name for one in fields(ReadOptions) if one.name not in ("stored", "background"))


def spell_cell(cell: Cell, base: Path, shared: Collection[str] = ()) -> str:
    """A cell as it stands in a table in the folder `base`; shared: series that several cases have files of."""
    paths, part, key = list(cell.paths), cell.part, cell.key
    if part == "series" and len(paths) > 1 and key not in shared:
        paths = [Path(os.path.commonpath([path.parent for path in paths]))]
    elif part == "series":
        part, key = "series" if len(paths) > 1 else "", ""
    part = "" if part == "folder" else part
    texts = [_escape(os.path.relpath(path, base).replace(os.sep, "/")) for path in paths]
    if cell.names:
        texts = [f"{_escape(name)}={text}" for name, text in zip(cell.names, texts, strict=True)]
    return JOINED.join(texts) + (f"{PART}{part}" if part else "") + (f"={_escape(key)}" if part and key else "")


def parsed_cell(text: str) -> tuple[list[tuple[str, str]], str, str]:
    """([(name, path)], part, key) of a cell."""
    body, mark, end = text.rpartition(PART)
    part, _, key = end.partition("=") if mark else ("", "", "")
    pieces = [piece.rpartition("=") for piece in (body if mark else text).split(JOINED)]
    return [(_unescape(name), _unescape(path)) for name, _, path in pieces], part, _unescape(key)


def _escape(text: str) -> str:
    return SPECIAL.sub(lambda fit: f"%{ord(fit[0]):02X}", text)


def _unescape(text: str) -> str:
    return ESCAPED.sub(lambda fit: unquote(fit[0]), text)


def write_dataset_table(
    dataset: Dataset, folder: Path, final: Path | None = None, *, further: Sequence[str] = ()
) -> None:
    """Write `dataset.csv` and `dataset.toml`; nothing of a data set that was made in memory.

    final:   the folder to which both are moved afterwards, from which paths start
    further: columns to write into, also where no case fills them
    """
    if dataset.table is None:
        return
    base = (final or folder).absolute()
    columns, records = _records(dataset.table, base)
    columns += [name for name in further if name not in columns]
    with (folder / OWN_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file, columns)
        for record in records:
            writer.add(record.get(name) for name in columns)
    courses = [os.path.relpath(path, base) for path in dataset.table.declared.get("courses", ())]
    declared = {**dataset.table.declared, "courses": courses, "text": _texts(dataset.table.rows)}
    (folder / OWN_TABLE).with_suffix(".toml").write_text(structured_text.toml_text(declared), encoding="utf-8")


def accepted_kinds(cell: str | None) -> frozenset[str]:
    """The findings that a cell accepts; ValueError for a kind of finding that there is not, and for no version."""
    accepted = frozenset(word for part in (cell or "").split(BETWEEN) if (word := part.strip()))
    for word in sorted(accepted):
        kind, at, version = word.partition(AT)
        if kind not in FINDING_KINDS:
            raise ValueError(f"{kind!r} is no kind of finding: {', '.join(FINDING_KINDS)}")
        if not at or not version:
            raise ValueError(f"{word!r} names no version of the case, which check states: {kind}@1f0a77c2")
    return accepted


def head_lines(rows: Sequence[CaseRow], base: Path, most: int = 2) -> list[str]:
    """The header and the first lines of the table of these rows."""
    columns, records = _records(DatasetTable(tuple(rows[:most])), base.absolute())
    filled = [name for name in columns if any(record.get(name) is not None for record in records)]
    filled = [name for name in filled if not name.startswith("modality:")]
    return [",".join(filled), *(",".join(str(record.get(name) or "") for name in filled) for record in records)]


def table_in_memory(frame: DataFrameLike, place: Path, codes: Collection[str | None] = ()) -> DataTable:
    """A table in memory, with the values that it would have as a CSV file.

    place: the path that it has in errors, in the folder from which its paths start
    codes: further columns that name patients or cases
    Raises DatasetError for two columns of one name, and for a cell that holds an array or anything else that no file
    can: the table is written beside the result.
    """
    if twice := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        problem = f"has several columns {errors.list_phrase(twice)}"
        raise DatasetError(problem, place.name, "Give each a name of its own")
    for number, name in enumerate(frame.columns):
        if odd := [one for one in frame.iloc[:, number] if not _is_plain(one)]:
            kinds = errors.list_phrase(sorted({type(one).__name__ for one in odd}))
            what = "arrays" if all(map(np.ndim, odd)) else kinds
            problem = f"column {name} holds {what}, not paths, numbers or words"
            remedy = "Write each as a file, as numpy.save does in .npy, and give its path; or give a Dataset of cases"
            raise DatasetError(problem, place.name, remedy)
    written = {str(name): [_as_written(one) for one in frame.iloc[:, n]] for n, name in enumerate(frame.columns)}
    columns = table_reading.typed_columns(written, codes=codes)
    rows = tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return DataTable(place, tuple(columns), rows)


def _as_written(cell: Any) -> Any:
    """A cell as a table has it: a number, else its text."""
    if pandas.isna(cell):
        return None
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    return cell if is_number else str(cell).removesuffix(" 00:00:00")  # a day without its hour


def _is_plain(cell: Any) -> bool:
    """Whether a cell is a path, a number, a word or nothing."""
    return isinstance(cell, os.PathLike) or bool(pandas.api.types.is_scalar(cell))


def _records(table: DatasetTable, base: Path) -> tuple[list[str], list[dict[str, object]]]:
    """The columns, and {column: cell} of each row."""
    series = Counter(cell.key for row in table.rows for cell in row.images.values() if cell.part == "series")
    shared = {key for key, count in series.items() if count > 1}
    modalities = table.declared.get("modalities", {})
    records = [dict(_cells(row, base, shared, modalities)) for row in table.rows]
    # Where nothing is known to be true, there are columns to write it into.
    further = () if any(row.references for row in table.rows) else ("mask", "label")
    filled = (name for record in records for name, one in record.items() if one is not None)
    names = dict.fromkeys(("case", "patient", "split", *filled, *further))
    ranks = {name: ORDER.index(kind) if (kind := name.partition(":")[0]) in ORDER else len(ORDER) for name in names}
    return sorted(names, key=ranks.__getitem__), records


def _cells(
    row: CaseRow, base: Path, shared: Collection[str], modalities: Mapping[str, str]
) -> Iterator[tuple[str, object]]:
    """(column, cell) of all that a row states."""
    yield from (("case", row.name), ("patient", row.patient), ("split", row.split), ("group", row.group))
    yield ACCEPTED, row.accepted
    for channel, cell in row.images.items():
        yield "image" if channel == "image" else f"image:{channel}", spell_cell(cell, base, shared)
        if cell.modality not in (None, modalities.get(channel)):
            yield f"modality:{channel}", cell.modality
    for kind, known in row.references.items():
        yield from _reference(kind, known, base)
    for name, value in row.covariates.items():
        yield f"covariate:{name}" if name.partition(":")[0] in (*SINGLE, *NAMED) else name, value


def _reference(kind: str, known: Any, base: Path) -> Iterator[tuple[str, object]]:
    match kind, known:
        case _, Cell(part="field"):
            named = zip(known.names, known.paths, strict=True)
            yield from ((f"field:{name}", spell_cell(Cell((path,)), base)) for name, path in named)
        case _, Cell(part="stated"):
            yield kind, known.key
        case _, Cell():
            yield f"{kind.partition(':')[0]}:{known.reader}" if known.reader else kind, spell_cell(known, base)
        case "class", _:
            yield "label", known
        case "findings", _:
            yield from ((f"finding:{name}", int(present)) for name, present in known.items())
        case "value", _:
            yield from ((f"value:{name}", value) for name, value in known.items())
        case "event", _:
            yield from (("time", known[0]), ("event", int(known[1])))


def _texts(rows: Sequence[CaseRow]) -> list[str]:
    """The covariates that are text though all of their cells look like numbers."""
    names = dict.fromkeys(name for row in rows for name in row.covariates)
    values = {name: [row.covariates.get(name) for row in rows] for name in names}
    texts = {name: [None if value is None else str(value) for value in own] for name, own in values.items()}
    return [name for name, own in values.items() if own != table_reading.typed_column(texts[name])]


def declarations_of_reading(
    reading: Reading, options: DatasetOptions, name: str, patients: str, courses: Sequence[Path]
) -> Record:
    """What holds for all rows of a data set, as `dataset.toml` states it."""
    names = reading.annotation_names or AnnotationNames()
    modalities: dict[str, Counter[str]] = {}
    for channel, cell in ((channel, cell) for row in reading.rows for channel, cell in row.images.items()):
        modalities.setdefault(channel, Counter())[cell.modality or "unknown"] += 1
    own = {one: value for one in READ if (value := getattr(options.read, one))}
    return {
        "schema": SCHEMA,
        "name": name,
        "modality": options.modality or reading.modality,
        "channels": list(reading.channels),
        "readers": list(reading.readers),
        "patients": PSEUDONYMS if PSEUDONYMS in patients else "",
        "exif": reading.exif,
        "courses": list(courses),
        "reading": {**({"labels": options.labels} if options.labels else {}), **own},
        "modalities": {channel: times.most_common(1)[0][0] for channel, times in modalities.items()},
        "regions": {name: list(values) for name, values in reading.regions.items()},
        "columns": dict(reading.columns),
        "annotations": dict(names.settings),
        "names": dict(names.called),
        "values": {name: label.value for name, label in names.labels.items()},
        "classes": {kind: [_record(one) for one in labels] for kind, labels in reading.classes.items() if labels},
    }


def _record(label: Label) -> Record:
    colour = {} if label.colour is None else {"colour": list(label.colour)}
    code = {} if label.code is None else {"code": [label.code.scheme, label.code.value, label.code.meaning]}
    return {"value": label.value, "name": label.name, **colour, **code}


def declarations_beside(path: Path) -> Record | None:
    """What `dataset.toml` beside a table states, where this program wrote both; None without it.

    Raises DatasetError for a file that is no TOML.
    """
    if path.suffix.lower() != ".csv":  # "." has no name, of which another could be made
        return None
    declaring = path.with_suffix(".toml")
    if not declaring.is_file():
        return None
    try:
        stated = tomllib.loads(declaring.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"is no TOML ({error})", str(declaring), "Correct it, or have it written again") from error
    return stated if stated.get("schema") == SCHEMA else None


def complete_options(options: DatasetOptions, declared: Record) -> DatasetOptions:
    """The options of reading, with those that a table states where the caller chooses none."""
    stated, usual = declared.get("reading", {}), ReadOptions()
    free = [name for name in READ if getattr(options.read, name) == getattr(usual, name)]
    own = {name: stated[name] for name in free if name in stated}
    return replace(options, labels=options.labels or stated.get("labels"), read=replace(options.read, **own))


def stated_classes(declared: Record, where: Path) -> dict[str, Labels]:
    """{kind: labels} of `dataset.toml`. Raises DatasetError for what is no label, and for labels that contradict."""
    try:
        classes = {kind: tuple(map(_label, labels)) for kind, labels in declared.get("classes", {}).items()}
        for labels in classes.values():
            if fault := label_table.label_fault(labels):
                raise ValueError(fault)
        return classes
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        remedy = 'Write {value = 1, name = "liver"} for each'
        raise DatasetError(f"holds what is no label ({error})", str(where.with_suffix(".toml")), remedy) from error


def _label(record: Record) -> Label:
    colour, code = record.get("colour"), record.get("code")
    value = label_table.label_value(record["value"])
    if value is None:
        raise ValueError(f"{record['name']!r} is {record['value']!r}, not one whole number")
    return Label(
        value,
        str(record["name"]),
        (colour[0], colour[1], colour[2]) if colour else None,
        Code(*map(str, code)) if code else None,
    )


def table_as_written(path: Path, declared: Record) -> DataTable:
    """The table with every cell as it is written, but numbers where all of a covariate's are.

    A spreadsheet may have saved it with semicolons or tabs, decimal commas, and rows and columns of nothing.
    """
    heads = ((mark, csv_text.read_text_table(path, separator=mark, most=0).columns) for mark in ",;\t")
    separator = next((mark for mark, names in heads if _names_cases(names)), ",")
    frame = csv_text.read_text_table(path, separator=separator)
    columns: dict[str, list[Any]] = {}
    for name in frame.columns:
        cells: list[Any] = [cell or None for cell in frame[name]]
        if UNNAMED.fullmatch(str(name)) and not any(cells):
            continue
        is_number = is_covariate(str(name)) or (separator != "," and str(name).partition(":")[0] in ("value", "time"))
        is_number &= str(name).removeprefix("covariate:") not in declared.get("text", ())
        columns[str(name)] = table_reading.typed_column(cells, separator) if is_number else cells
    return table_reading.table_of_columns(path, columns, separator)


def is_covariate(name: str) -> bool:
    """Whether a column of such a table is one of covariates."""
    kind = name.partition(":")[0]
    return kind == "covariate" or kind not in (*SINGLE, *NAMED)


def _names_cases(columns: Iterable[object]) -> bool:
    return not {"case", "image"}.isdisjoint(str(name).partition(":")[0] for name in columns)
