"""Tables of boxes: image, label, x0, y0[, z0], x1, y1[, z1] in voxels, a row for each box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from isocenter.errors import DatasetError, UsageError, counted
from isocenter.files.layouts.cases import (
    PATIENT_COLUMNS,
    SPLIT_COLUMNS,
    TABLE_SUFFIXES,
    Annotation,
    Drawn,
    Folder,
    Member,
    Table,
    as_whole,
    by_file_name,
    image_named,
    load_boxes,
    load_image,
    name_classes,
    names_in,
    number,
    read_table,
    split_column,
    split_of,
)
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Layout, Reading, left_out
from isocenter.files.modality import modality_word
from isocenter.values import table_columns

# How the ends of an axis are called too: x0 is xmin.
ENDS = {"0": "min", "1": "max"}
# Column names that are understood without --column, in any case, blanks as underscores.
ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "filename", "file_name", "file", "path", "image_path", "image_file", "img", "img_path"),
    "label": ("label", "class", "category"),
    "patient": PATIENT_COLUMNS,
    "split": SPLIT_COLUMNS,
    **{name: (name, f"{name[0]}{ENDS[name[1]]}") for name in table_columns(3)},
}
Rows = list[tuple[int, Mapping[str, Any]]]  # (row as a spreadsheet counts, its cells)
NEEDED = ("image", "label", *table_columns(2))


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A table with these columns: itself, or the one in a folder of images."""
    del options
    tables = _tables(folder)
    if len(tables) != 1 or not (folder.is_file or folder.images):
        return False
    try:
        table = read_table(tables[0].path)
    except DatasetError:  # reported by the layout that is about the images
        return False
    return all(table.column(ROLES[role]) for role in NEEDED)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image that the table names; a row with nothing but the image means that nothing is there.

    Images of the folder that it does not name are not labelled. Images are matched by their path from the table, or by
    their name. Raises DatasetError for a row that lacks a part of its box, or states another patient or split than
    another row of the same image.
    """
    tables = _tables(folder)
    if len(tables) != 1:
        raise UsageError("does not hold exactly one table", str(folder.root), "Give a CSV, TSV or Parquet file")
    table = read_table(tables[0].path)
    column = columns_in(table, options)
    rows = _by_image(table, column)
    own = {name: Annotation(table.path, boxes_in(table.path, column, of_image)) for name, of_image in rows.items()}
    classes, called = name_classes(names_in(list(own.values())), folder, options)
    inside = Folder(table.path.parent) if folder.is_file else folder
    by_path, missing = _images(table, rows, inside)
    cases = []
    for member in inside.images:
        name = by_path.get(member.path)
        if name is None and folder.is_file:
            continue
        loader = partial(load_image, member.path, options.read, modality_word(options.modality))
        case = CaseFiles(member.name, {"image": loader}, files=(member.path,), split=member.split)
        if name is not None:
            patient, split = (_common(table.path, column, role, name, rows[name]) for role in ("patient", "split"))
            boxes = partial(load_boxes, own[name], called, loader)
            part = split_of(split) or member.split
            case = replace(case, references={"boxes": boxes}, key=own[name].digest, split=part, patient=patient)
        cases.append(case)
    count = sum(len(annotation.boxes) for annotation in own.values())
    return Reading(
        tuple(cases),
        how=f"table {table.path.name}: {counted(count, 'box', 'boxes')} on {counted(len(by_path), 'image')}",
        classes={"boxes": classes},
        modality=options.modality,
        patients=f"column {column['patient']} of {table.path.name}" if "patient" in column else "",
        patient_column=column.get("patient"),
        problems=left_out(
            missing,
            f"{table.path.name} names {counted(len(missing), 'image that is', 'images that are')} not there",
            "Correct the names, or get the files",
        ),
    )


def _by_image(table: Table, column: Mapping[str, str]) -> dict[str, Rows]:
    """{image as the table names it: its rows}."""
    rows: dict[str, Rows] = {}
    for place, row in enumerate(table.rows, start=2):  # as a spreadsheet counts: the first has the names
        if row[column["image"]] is None:
            raise DatasetError(f"row {place} names no image", str(table.path), "Write the image's name in it")
        rows.setdefault(str(row[column["image"]]), []).append((place, row))
    return rows


def _images(table: Table, names: Iterable[str], folder: Folder) -> tuple[dict[Path, str], list[str]]:
    """({image: its name in the table}, the names whose image is not there)."""
    named, near = by_file_name(folder), [table.path.parent, table.path.parent / "images"]
    by_path: dict[Path, str] = {}
    missing = []
    for name in names:
        image = image_named(named, name, near, table.path)
        if image is None:
            missing.append(name)
        elif by_path.setdefault(image.path, name) != name:
            problem = f"calls one image {by_path[image.path]} and {name}"
            raise DatasetError(problem, str(table.path), "Write the same name in all its rows")
    return by_path, missing


def boxes_in(path: Path, column: Mapping[str, str], rows: Rows) -> tuple[Drawn, ...]:
    """The boxes in the rows of one image; a row with nothing but the image is none."""
    volume = "z0" in column
    corners = [[column[f"{letter}{end}"] for letter in ("xyz" if volume else "xy")] for end in (0, 1)]
    boxes = []
    for place, row in rows:
        low, high = ([number(row[name]) for name in names] for names in corners)
        label = row[column["label"]]
        if label is None and not any(one is not None for one in (*low, *high)):
            continue
        if volume and low[2] is None and high[2] is None:  # a picture among volumes
            low, high = low[:2], high[:2]
        known = [one for one in (*low, *high) if one is not None]
        if label is None or len(known) < 2 * len(low):
            missing = "label" if label is None else "corner"
            raise DatasetError(f"row {place} has no {missing}", str(path), "Write the whole box, or only the image")
        half = len(known) // 2
        boxes.append(Drawn(str(as_whole(label)), tuple(known[:half]), tuple(known[half:]), f"row {place}"))
    return tuple(boxes)


def _common(path: Path, column: Mapping[str, str], role: str, name: str, rows: Rows) -> str | None:
    """The value of a role in the rows of one image. Raises DatasetError where they differ."""
    values = {str(row[column[role]]) for _, row in rows if row[column[role]] is not None} if role in column else set()
    if len(values) > 1:
        raise DatasetError(
            f"{name} is of {role} {' and '.join(sorted(values))}", str(path), "Write the same value in all its rows"
        )
    return next(iter(values), None)


def columns_in(table: Table, options: DatasetOptions) -> dict[str, str]:
    """{role: column}, as --column names them, else by known names."""
    for role, name in options.column.items():
        if role not in ROLES or name not in table.columns:
            problem = f"there is no role {role!r}" if role not in ROLES else f"{table.path.name} has no column {name}"
            choices = ROLES if role not in ROLES else table.columns
            raise UsageError(problem, f"--column {role}={name}", f"Choose one of {', '.join(choices)}")
    known = {role: table.column(names) for role, names in ROLES.items()}
    columns = {role: name for role, name in known.items() if name is not None} | dict(options.column)
    if options.patient in table.columns:
        columns["patient"] = str(options.patient)
    if split_column(table, options.column.get("split")) is None:
        columns.pop("split", None)
    if lacking := [role for role in NEEDED if role not in columns]:
        problem = f"has no column for {', '.join(lacking)} (columns: {', '.join(table.columns)})"
        raise DatasetError(problem, str(table.path), f"Name it, as in --column {lacking[0]}=COLUMN")
    if ("z0" in columns) != ("z1" in columns):
        raise DatasetError("has only one of z0 and z1", str(table.path), "Give both, or neither")
    return columns


def _tables(folder: Folder) -> tuple[Member, ...]:
    if folder.is_file:
        return tuple(member for member in folder.members if member.suffix in TABLE_SUFFIXES)
    return folder.tables


LAYOUT = Layout(
    "box_table",
    "a table with a row for each box",
    fits,
    read,
    over=frozenset({"manifest", "plain_images", "class_folders", "image_folders", "suffix_masks", "case_folders"}),
)
