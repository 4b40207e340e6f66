"""Names and colours of the values of a label map: classes.csv, ITK-SNAP, Slicer and FreeSurfer tables."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hilum.errors import FormatError, UsageError
from hilum.files.storage import atomic, csv_text, folder_files
from hilum.files.storage.csv_text import CsvWriter
from hilum.values import Image, Label

TABLE = ".labels.csv"
# May be a table of labels, or a list of images with theirs.
IMAGE_LIST, IMAGE_TEXT = "labels.csv", "labels.txt"
# Names of a folder's table, the most specific first.
FOLDER_TABLES = ("classes.csv", "labels.csv", "classes.txt", "labels.txt", "colours.ctbl", "colors.ctbl")
# What ITK-SNAP, Slicer and FreeSurfer call a table beside a label map, and BIDS that of a discrete segmentation.
OF_BIDS = ".tsv"
OTHER_TABLES = (".label", ".ctbl", "_ColorTable.ctbl", ".ctab", OF_BIDS)
LARGEST_TABLE = 1 << 24
LONGEST_NAME = 200
# What files of label maps hold at most, in 32 bits.
LARGEST_LABEL = 2**32 - 1
ONE_EACH = "Give each label one value and one name"


def read_labels(path: Path) -> tuple[Label, ...]:
    """The labels of a table, in the table's order; the kind is known from the lines and not from the name.

    CSV: value,name[,red,green,blue[,alpha]] with or without a header line, or a header that names these columns.
    Raises FormatError for a table that cannot be understood or that states a value or a name twice.
    """
    try:
        text = path.read_bytes()[:LARGEST_TABLE].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError("the label table is not UTF-8 text", str(path), "Save it as UTF-8") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    labels = _parser(path, lines)(lines)
    if not labels:
        raise FormatError("the label table has no labels", str(path), "Write lines of value,name")
    return check_labels(labels, str(path))


def labels_of_map(path: Path) -> tuple[Label, ...]:
    """The labels in a label map's own table in its folder; none where there is no such table."""
    return tuple(label for table in own_tables(path) for label in read_labels(table))


def with_own_table(image: Image, path: Path) -> Image:
    """An image of whole numbers in one channel, with the labels of the file's own table, where there is one."""
    is_map = len(image.channels) == 1 and np.issubdtype(image.dtype, np.integer)
    if not is_map or not (labels := labels_of_map(path)):
        return image
    source = image.source and replace(
        image.source, paths=folder_files.unique_paths(*map(Path, image.source.paths), *own_tables(path))
    )
    return replace(image, labels=labels, source=source)


def own_tables(path: Path) -> tuple[Path, ...]:
    """A label map's own table, where there is one: ours, or that which another program keeps under the map's name."""
    table = table_path(path)
    stem = table.name.removesuffix(TABLE)
    names = [table.name, *(f"{stem}{end}" for end in OTHER_TABLES if stem.endswith("dseg") or end != OF_BIDS)]
    tables = (path.with_name(name) for name in names)
    # `Path.is_file` raises for a name that is longer than the disk takes, as one made of a long name may be.
    return tuple(table for table in tables if os.path.isfile(table))[:1]  # noqa: PTH113


def find_labels(path: Path) -> tuple[Label, ...]:
    """The labels that belong to a file or folder: the file's own table, else classes.csv or its like in the folder.

    Raises FormatError where two tables of the folder disagree on what a value means.
    """
    if path.is_file() and (labels_of_file := labels_of_map(path)):
        return labels_of_file
    folder = path if path.is_dir() else path.parent
    tables = {table: labels for name in FOLDER_TABLES if (labels := _in_folder(table := folder / name))}
    for table, labels in tables.items():
        first = next(iter(tables))
        if label_names(labels) != label_names(tables[first]):
            raise FormatError(
                f"gives other names than {first.name} in the same folder", str(table), "Remove one of the two"
            )
    return next(iter(tables.values()), ())


def table_path(path: Path) -> Path:
    """The path of a label map's table: `mask.nii.gz` has `mask.labels.csv`."""
    name = re.sub(r"(\.seg|\.ome)?\.[A-Za-z0-9]+(\.gz)?$", "", path.name)
    return path.with_name(f"{name}{TABLE}")


def write_labels(labels: Sequence[Label], path: Path, *, overwrite: bool = False) -> None:
    """Write a table to `path`: ITK-SNAP's kind for a .txt, else CSV with the columns value,name,red,green,blue."""
    labels = check_labels(labels, str(path))
    text = WRITERS.get(path.suffix.lower(), _csv)(labels)
    atomic.write_text(path, text, overwrite=overwrite)


def label_names(labels: Iterable[Label]) -> dict[int, str]:
    """{value: name}, as tables spell names."""
    return {label.value: clean_name(label.name) for label in labels}


def clean_name(name: str) -> str:
    """A name without control characters and outer space, of sensible length."""
    printable = "".join(character if character.isprintable() else " " for character in name)
    return " ".join(printable.split())[:LONGEST_NAME]


def check_labels(labels: Iterable[Label], where: str) -> tuple[Label, ...]:
    """The labels, if each value and each name occurs once and a map can hold them. Raises FormatError otherwise."""
    labels = tuple(labels)
    if fault := label_fault(labels):
        raise FormatError(fault, where, ONE_EACH)
    return labels


def label_fault(labels: Sequence[Label]) -> str:
    """What is wrong with the values and names of labels, wherever they are stated; empty where nothing is.

    That is a value with two names, a name with two values, a label without a name, and a value that no map holds.
    """
    names, values = dict[int, str](), dict[str, int]()
    for label in labels:
        if not label.name:
            return f"the value {label.value} has no name"
        if not 0 <= label.value <= LARGEST_LABEL:
            return f"{label.name!r} has the value {label.value}, and a label map holds 0 to {LARGEST_LABEL}"
        if label.value in names:
            return f"the value {label.value} is both {names[label.value]!r} and {label.name!r}"
        if label.name in values:
            return f"{label.name!r} is both the value {values[label.name]} and {label.value}"
        names[label.value] = label.name
        values[label.name] = label.value
    return ""


def label_value(stated: object) -> int | None:
    """The value of a label as a file states it, a number or text; None for what is no whole number."""
    if isinstance(stated, bool):
        return None
    if isinstance(stated, str):
        return int(stated) if re.fullmatch(r"-?\d+", stated.strip()) else None
    if isinstance(stated, float):
        return int(stated) if stated.is_integer() else None
    return stated if isinstance(stated, int) else None


def _in_folder(table: Path) -> tuple[Label, ...]:
    """The labels of a table that may be there; labels.csv and labels.txt may also list images, which are none."""
    try:
        return read_labels(table) if table.is_file() else ()
    except FormatError:
        if table.name == IMAGE_LIST or (table.name == IMAGE_TEXT and not _begins_with_number(table)):
            return ()
        raise


def _begins_with_number(table: Path) -> bool:
    """Whether any line does, as each of a table of labels."""
    return any(line.lstrip()[:1].isdecimal() for line in table.read_text("utf-8-sig", errors="replace").splitlines())


def _parser(path: Path, lines: list[str]) -> Callable[[list[str]], list[Label]]:
    """The function that reads tables of the kind that the lines are."""
    first = lines[0] if lines else ""
    if re.match(r'\s*\d+(\s+\d+){3}\s+[\d.]+\s+\d+\s+\d+\s+".*"\s*$', first):
        kind: Callable[[list[str], str], list[Label]] = _from_itk_snap
    elif re.match(r"\s*\d+\s+\S.*?(\s+\d+){4}\s*$", first):
        kind = _from_colour_table
    else:
        kind = _from_csv
    return lambda given: kind(given, str(path))


def _from_itk_snap(lines: list[str], where: str) -> list[Label]:
    """index red green blue opacity visible mesh "name"; index 0 is what is no label."""
    pattern = r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+[\d.]+\s+\d+\s+\d+\s+"(.*)"\s*$'
    rows = [_match_line(pattern, line, where).groups() for line in lines]
    return [_label(v, name, (r, g, b), where) for v, r, g, b, name in rows if int(v) != 0]


def _from_colour_table(lines: list[str], where: str) -> list[Label]:
    """index name red green blue alpha, as Slicer (.ctbl) and FreeSurfer (LUT) have it."""
    pattern = r"\s*(\d+)\s+(\S.*?)\s+(\d+)\s+(\d+)\s+(\d+)\s+\d+\s*$"
    rows = [_match_line(pattern, line, where).groups() for line in lines]
    # Slicer spells spaces in names as underscores only where asked to; names are kept as they stand.
    return [_label(v, name, (r, g, b), where) for v, name, r, g, b in rows if int(v) != 0]


def _from_csv(lines: list[str], where: str) -> list[Label]:
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
    columns = {"value": 0, "name": 1, "red": 2, "green": 3, "blue": 4}
    if rows and not re.fullmatch(r"\d+", rows[0][0].strip()):
        columns = _columns([cell.strip().lower() for cell in rows.pop(0)], where)
    labels = []
    for row in (row for row in rows if any(cell.strip() for cell in row)):
        if len(row) <= max(columns["value"], columns["name"]):
            raise FormatError(f"the line {','.join(row)!r} is not a label", where, "Write lines of value,name")
        parts = [row[columns[c]].strip() for c in ("red", "green", "blue") if columns.get(c, len(row)) < len(row)]
        colour = (parts[0], parts[1], parts[2]) if len(parts) == 3 and all(parts) else None
        labels.append(_label(row[columns["value"]], csv_text.unmark_cell(row[columns["name"]]), colour, where))
    return labels


def _columns(header: list[str], where: str) -> dict[str, int]:
    """{what it holds: number of the column}, by the words that tables use."""
    words = {
        "value": ("value", "label", "id", "index", "class"),
        "name": ("name", "class_name", "structure", "description"),
        "red": ("red", "r"),
        "green": ("green", "g"),
        "blue": ("blue", "b"),
    }
    columns = {what: next((header.index(w) for w in names if w in header), None) for what, names in words.items()}
    if columns["value"] is None or columns["name"] is None:
        raise FormatError(
            f"the label table has the columns {', '.join(header)}",
            where,
            "Name the columns value,name[,red,green,blue]",
        )
    return {what: at for what, at in columns.items() if at is not None}


def _match_line(pattern: str, line: str, where: str) -> re.Match[str]:
    match = re.match(pattern, line)
    if match is None:
        raise FormatError(
            f"the line {line.strip()[:60]!r} is not a label", where, "Compare it with the lines before it"
        )
    return match


def _label(value: str, name: str, colour: tuple[str, str, str] | None, where: str) -> Label:
    try:
        parts = tuple(int(part) for part in colour or ())
        number = int(value.strip())
    except ValueError as error:
        raise FormatError(f"{value!r} or its colour is not a whole number", where, "Write whole numbers") from error
    if any(not 0 <= part <= 255 for part in parts):
        raise FormatError(f"the colour of {clean_name(name)!r} is not in 0 to 255", where, "Write colours as 0 to 255")
    return Label(number, clean_name(name), (parts[0], parts[1], parts[2]) if parts else None)


def _csv(labels: Sequence[Label]) -> str:
    text = io.StringIO()
    rows = CsvWriter(text, ["value", "name", "red", "green", "blue"])
    for label in labels:
        rows.add([label.value, clean_name(label.name), *(label.colour or ("", "", ""))])
    return text.getvalue()


def _itk_snap(labels: Sequence[Label]) -> str:
    """ITK-SNAP needs a colour for each label; it has no notation for none."""
    missing = [label.name for label in labels if label.colour is None]
    if missing:
        raise UsageError(f"{missing[0]!r} has no colour", "label table", "Write a .csv, or give each label a colour")
    head = "# ITK-SnAP Label Description File\n# index red green blue opacity visible mesh name\n"
    clear = '    0     0    0    0        0  0  0    "Clear Label"\n'
    lines = [
        f"{label.value:5d} {r:5d} {g:4d} {b:4d}        1  1  1    "
        f'"{clean_name(label.name).replace(chr(34), chr(39))}"\n'
        for label in labels
        if label.value != 0 and label.colour is not None
        for r, g, b in [label.colour]
    ]
    return head + clear + "".join(lines)


WRITERS = {".txt": _itk_snap}
