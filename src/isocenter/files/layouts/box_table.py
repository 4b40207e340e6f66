"""A table of boxes: image, label, x0, y0[, z0], x1, y1[, z1] in voxels, a row for each box."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from isocenter.errors import DatasetError, UsageError, counted
from isocenter.files.layouts.cases import (
    SPLIT_COLUMNS,
    SPLIT_WORDS,
    TABLE_SUFFIXES,
    Annotation,
    Drawn,
    Folder,
    Member,
    Table,
    by_file_name,
    image_named,
    load_boxes,
    load_image,
    name_classes,
    names_in,
    number,
    read_table,
)
from isocenter.files.layouts.cases.join import PATIENT_COLUMNS
from isocenter.files.layouts.layout import DatasetOptions, Found, Layout, Reading
from isocenter.files.modality import modality_word
from isocenter.values import Problem, table_columns

# Column names that are understood without --column, in any case, blanks as underscores.
ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "filename", "file_name", "file", "path", "image_path", "image_file", "img", "img_path"),
    "label": ("label", "class", "category"),
    "patient": PATIENT_COLUMNS,
    "split": SPLIT_COLUMNS,
    **{name: (name, f"{name[0]}{'min' if name[1] == '0' else 'max'}") for name in table_columns(3)},
}
NEEDED = ("image", "label", *table_columns(2))


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A table with these columns: itself, or the one in a folder of images."""
    del options
    tables = _tables(folder)
    if len(tables) != 1 or not (folder.is_file or folder.images):
        return False
    try:
        table = read_table(tables[0].path)
    except DatasetError:  # said by the layout that is about the images
        return False
    return all(table.column(ROLES[role]) for role in NEEDED)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image that the table names; a row with nothing but the image says that nothing is there.

    Images of the folder that it does not name are not labelled. Images are found by their path from the table, or by
    their name. Raises DatasetError for a row that lacks a part of its box, or says otherwise of patient or split than
    another of the same image.
    """
    tables = _tables(folder)
    if len(tables) != 1:
        raise UsageError("holds not one table", str(folder.root), "Give a CSV, TSV or Parquet file")
    table = read_table(tables[0].path)
    column = columns_in(table, options)
    rows: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for place, row in enumerate(table.rows, start=2):  # as a spreadsheet counts: the first has the names
        if row[column["image"]] is None:
            raise DatasetError(f"row {place} names no image", str(table.path), "Write it")
        rows.setdefault(str(row[column["image"]]), []).append((place, row))
    own = {name: Annotation(table.path, boxes_in(table.path, column, of_image)) for name, of_image in rows.items()}
    classes, called = name_classes(names_in(list(own.values())), folder, options)
    inside = Folder(table.path.parent) if folder.is_file else folder
    named, near = by_file_name(inside), [table.path.parent, table.path.parent / "images"]
    images = {name: image_named(named, name, near, table.path) for name in rows}
    missing = [name for name, image in images.items() if image is None]
    by_path: dict[Path, str] = {}
    for name, image in images.items():
        if image is not None and by_path.setdefault(image.path, name) != name:
            problem = f"calls one image {by_path[image.path]} and {name}"
            raise DatasetError(problem, str(table.path), "Write its name alike in all rows")
    found = []
    for member in inside.images:
        called_so = by_path.get(member.path)
        if called_so is None and folder.is_file:
            continue
        loader = partial(load_image, member.path, options.read, modality_word(options.modality))
        references: dict[str, Callable[[], Any]] = {}
        said: dict[str, str | None] = {}
        if called_so is not None:
            references["boxes"] = partial(load_boxes, own[called_so], called, loader)
            said = {role: _one(table.path, column, role, called_so, rows[called_so]) for role in ("patient", "split")}
        found.append(
            Found(
                member.name,
                {"image": loader},
                references,
                files=(member.path,),
                key=own[called_so].digest if called_so is not None else "",
                split=SPLIT_WORDS.get(str(said.get("split")).lower(), member.split),
                patient=said.get("patient"),
            )
        )
    absent = Problem(
        "error",
        f"{table.path.name} names {counted(len(missing), 'image that is', 'images that are')} not there",
        tuple(missing),
        "they are left out",
        "Correct the names, or get the files",
    )
    boxes = sum(len(annotation.boxes) for annotation in own.values())
    return Reading(
        tuple(found),
        how=f"table {table.path.name}: {counted(boxes, 'box', 'boxes')} on {counted(len(by_path), 'image')}",
        classes={"boxes": classes},
        modality=options.modality,
        patients=f"column {column['patient']} of {table.path.name}" if "patient" in column else "",
        patient_column=column.get("patient"),
        problems=(absent,) if missing else (),
    )


def boxes_in(path: Path, column: Mapping[str, str], rows: list[tuple[int, Mapping[str, Any]]]) -> tuple[Drawn, ...]:
    """Of the rows of one image; a row with nothing but the image is none."""
    volume = "z0" in column
    corners = [[column[f"{letter}{end}"] for letter in ("xyz" if volume else "xy")] for end in (0, 1)]
    boxes = []
    for place, row in rows:
        low, high = ([number(row[name]) for name in names] for names in corners)
        label = row[column["label"]]
        if label is None and not any(one is not None for one in (*low, *high)):
            continue
        if volume and low[2] is None and high[2] is None:  # a picture beside volumes
            low, high = low[:2], high[:2]
        known = [one for one in (*low, *high) if one is not None]
        if label is None or len(known) < 2 * len(low):
            missing = "label" if label is None else "corner"
            raise DatasetError(f"row {place} has no {missing}", str(path), "Write the whole box, or the image alone")
        half = len(known) // 2
        name = str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
        boxes.append(Drawn(name, tuple(known[:half]), tuple(known[half:]), f"row {place}"))
    return tuple(boxes)


def _one(
    path: Path, column: Mapping[str, str], role: str, name: str, rows: list[tuple[int, Mapping[str, Any]]]
) -> str | None:
    """What the rows of one image say in a role, which must be the same."""
    said = {str(row[column[role]]) for _, row in rows if row[column[role]] is not None} if role in column else set()
    if len(said) > 1:
        raise DatasetError(f"{name} is of {role} {' and '.join(sorted(said))}", str(path), "Write one in all its rows")
    return next(iter(said), None)


def columns_in(table: Table, options: DatasetOptions) -> dict[str, str]:
    """{role: column}, as --column says, else by known names."""
    for role, name in options.column.items():
        if role not in ROLES or name not in table.columns:
            problem = f"{role} is no role" if role not in ROLES else f"{table.path.name} has no column {name}"
            choices = ROLES if role not in ROLES else table.columns
            raise UsageError(problem, f"--column {role}={name}", f"Choose one of {', '.join(choices)}")
    known = {role: table.column(names) for role, names in ROLES.items()}
    columns = {role: name for role, name in known.items() if name is not None} | dict(options.column)
    if options.patient in table.columns:
        columns["patient"] = str(options.patient)
    if lacking := [role for role in NEEDED if role not in columns]:
        problem = f"has no column for {', '.join(lacking)} (columns: {', '.join(table.columns)})"
        raise DatasetError(problem, str(table.path), f"Name it, as in --column {lacking[0]}=COLUMN")
    if ("z0" in columns) != ("z1" in columns):
        raise DatasetError("has one of z0 and z1", str(table.path), "Give both, or neither")
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
    over=frozenset({"manifest", "plain_images", "class_folders", "image_folders", "suffix_masks"}),
)
