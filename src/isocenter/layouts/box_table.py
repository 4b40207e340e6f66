"""Tables of boxes: image, label, x0, y0[, z0], x1, y1[, z1], or sizes, in voxels, a row for each box.

Balls in mm, as of LUNA16 (Setio et al., doi:10.1016/j.media.2017.06.015), are boxes too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from isocenter import errors
from isocenter.errors import DatasetError, UsageError
from isocenter.files import modality_words
from isocenter.layouts import layout
from isocenter.layouts.cases import class_labels, drawn_boxes, table_join, table_reading, table_roles
from isocenter.layouts.cases.column_names import BOX_ROLES, READERS
from isocenter.layouts.cases.dataset_folder import Folder, FolderMember
from isocenter.layouts.cases.drawn_boxes import Annotation, DrawnBox
from isocenter.layouts.cases.table_reading import LOOKED_AT, TABLE_SUFFIXES, DataTable, TableRow
from isocenter.layouts.layout import BY_NAMES, DatasetOptions, DrawnNameMeanings, Example, Layout, Reading
from isocenter.layouts.named_cases import NamedCases
from isocenter.values import CaseRow, Cell, Problem, bounding_boxes

# LUNA16 states nodules as balls, in mm along DICOM's axes, without naming a class.
BALL, NODULE = ("centre_x", "centre_y", "centre_z", "diameter"), "nodule"
# What may be a corner or the centre.
OPEN = (("x", "y"), ("bbox_x", "bbox_y"))
SIZES = {"x1": "width", "y1": "height", "z1": "depth"}
Rows = list[tuple[int, TableRow]]  # (row as a spreadsheet counts, its cells)
NEEDED = ("image", "label", *bounding_boxes.table_columns(2))


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A table with these columns: itself, or one in a folder of images, where somebody wants its boxes."""
    return options.references and (folder.is_file or bool(folder.images or folder.dicom)) and bool(_tables(folder))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image that the table names; a row with nothing but the image means that nothing is there.

    Images of the folder that it does not name are not labelled. Images are matched by their path from the table, or by
    their name. Raises DatasetError for a row that lacks a part of its box, or states another patient or split than
    another row of the same image.
    """
    tables = _tables(folder) or [member.path for member in folder.members if member.suffix in TABLE_SUFFIXES]
    if len(tables) != 1:
        names = f" ({errors.list_phrase(sorted(path.name for path in tables))})" if tables else ""
        problem = f"holds {errors.count_phrase(len(tables), 'table')} of boxes{names}, where one is expected"
        raise UsageError(problem, str(folder.root), "Join them into one, with a column split if they are parts")
    table = table_reading.read_table(tables[0])
    column = columns_of_boxes(table, options, folder)
    table = _without_nothing(table, column)
    rows = _by_image(table, column)
    own = {name: annotation_from_rows(table.path, column, of_image) for name, of_image in rows.items()}
    classes, called = class_labels.name_classes(drawn_boxes.drawn_names(list(own.values())), folder, options)
    inside = Folder(table.path.parent) if folder.is_file else folder
    images, missing, named = _images(table, rows, inside, options)
    hidden = named.reading.patients if named else ""  # people of DICOM are not called by their names
    made = [
        row if name is None else _add_boxes(row, table, column, name, rows[name], own[name], named)
        for row, name in images
        if name is not None or not folder.is_file
    ]
    count = sum(len(annotation.boxes) for annotation in own.values())
    missing_images = errors.count_phrase(len(missing), "image that is", "images that are")
    return Reading(
        tuple(made),
        how=f"table {table.path.name}: {errors.count_phrase(count, 'box', 'boxes')} on "
        + errors.count_phrase(sum(name is not None for _, name in images), "image"),
        classes={"boxes": classes},
        drawn=DrawnNameMeanings(called, settings=column),
        modality=options.modality or (named.reading.modality if named else None),
        patients=hidden or (f"column {column['patient']} of {table.path.name}" if "patient" in column else ""),
        patient_column=None if hidden else column.get("patient"),
        tables=(table.path,),
        problems=(
            *table_reading.header_notes(table),
            *_of_several_readers(table, column, own),
            *layout.left_out_problem(
                missing,
                f"{table.path.name} names {missing_images} not there",
                "Correct the names, or get the files",
            ),
        ),
    )


def _annotations(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    """settings: {role: column}"""
    table = _without_nothing(table_reading.read_table(path), settings)
    return {name: annotation_from_rows(path, settings, rows) for name, rows in _by_image(table, settings).items()}


def _add_boxes(
    image: CaseRow,
    table: DataTable,
    column: Mapping[str, str],
    name: str,
    rows: Rows,
    own: Annotation,
    named: NamedCases | None,
) -> CaseRow:
    """An image with its boxes, and what else its rows say."""
    patient, split = (_common(table.path, column, role, name, rows) for role in ("patient", "split"))
    is_stated = column.get("patient") != column["image"] and not table_reading.names_nobody(patient)
    stated = patient if is_stated else None
    return replace(
        image,
        references={**image.references, "boxes": Cell((table.path,), "box_table", name, known=own)},
        split=table_join.split_of(split) or image.split,
        patient=named.person(image, stated) if named and image.patient and stated else image.patient or patient,
    )


def _by_image(table: DataTable, column: Mapping[str, str]) -> dict[str, Rows]:
    """{image as the table names it: its rows}."""
    rows: dict[str, Rows] = {}
    for place, row in enumerate(table.rows, start=2):  # as a spreadsheet counts: the first has the names
        if row[column["image"]] is None:
            raise DatasetError(f"row {place} names no image", str(table.path), "Write the image's name in it")
        rows.setdefault(str(row[column["image"]]), []).append((place, row))
    return rows


def _images(
    table: DataTable, names: Iterable[str], folder: Folder, options: DatasetOptions
) -> tuple[list[tuple[CaseRow, str | None]], list[str], NamedCases | None]:
    """(each image with its name in the table, the names whose image is not there, DICOM by its names).

    A file's name may lack its suffix; of DICOM it may be the patient's who has a single image.
    Raises DatasetError for a name of several images, and for two names of one.
    """
    named = NamedCases.of_table(table, folder, options) if not folder.images else None
    if named is not None:
        cases, ends = list(named.reading.rows), named.ends_of(names)
        found = {name: named.find(name, ends) for name in names}
    else:
        modality = modality_words.modality_word(options.modality)
        cases = [
            CaseRow(one.name, {"image": Cell((one.path,), modality=modality)}, split=one.split) for one in folder.images
        ]
        images = drawn_boxes.images_by_file_name(folder, bare=True)
        near = [table.path.parent, table.path.parent / "images"]
        by_path = {case.paths[0]: case for case in cases}
        each = {name: drawn_boxes.image_named(images, name, near, table.path) for name in names}
        found = {name: [by_path[image.path]] if image else [] for name, image in each.items()}
    called: dict[Path, str] = {}
    for name, own in found.items():
        if len(own) > 1:
            problem = f"names {name}, and {len(own)} images are called so"
            raise DatasetError(problem, str(table.path), "Write the name of the file")
        if own and (before := called.setdefault(own[0].paths[0], name)) != name:
            problem = f"calls one image {before} and {name}"
            raise DatasetError(problem, str(table.path), "Write the same name in all its rows")
    missing = [name for name, own in found.items() if not own]
    return [(case, called.get(case.paths[0])) for case in cases], missing, named


def annotation_from_rows(path: Path, column: Mapping[str, str], rows: Rows) -> Annotation:
    """The boxes, or balls, in the rows of one image; a row with nothing but the image is none."""
    is_ball = "x0" not in column
    letters = "xyz" if is_ball or "z0" in column else "xy"
    drawn = []
    for place, row in rows:
        edges = [(_ball if is_ball else _edges)(row, column, letter) for letter in letters]
        stated = (
            [table_reading.cell_number(row[column[role]]) for role in BALL[:3]]
            if is_ball
            else [one for pair in edges for one in pair]
        )
        label = row[column["label"]] if "label" in column else NODULE
        if (is_ball or label is None) and not any(one is not None for one in stated):
            continue
        low, high = zip(*edges, strict=True)
        if label is None or None in (*low, *high):
            missing = "whole ball" if is_ball else "label" if label is None else "corner"
            remedy = "Write its centre and diameter in mm" if is_ball else "Write the whole box, or only the image"
            raise DatasetError(f"row {place} has no {missing}", str(path), remedy)
        drawn.append(DrawnBox(str(table_reading.as_whole_number(label)), low, high, f"row {place}"))
    return Annotation(path, tuple(drawn), in_mm=is_ball)


def _edges(row: TableRow, column: Mapping[str, str], letter: str) -> tuple[float | None, float | None]:
    """The lower and the upper edge along an axis: as stated, or by the size."""
    low, upper = table_reading.cell_number(row[column[f"{letter}0"]]), f"{letter}1"
    if upper in column:
        return low, table_reading.cell_number(row[column[upper]])
    size = table_reading.cell_number(row[column[SIZES[upper]]])
    return low, None if low is None or size is None else low + size


def _ball(row: TableRow, column: Mapping[str, str], letter: str) -> tuple[float | None, float | None]:
    """The edges along an axis of the box around a ball."""
    centre = table_reading.cell_number(row[column[f"centre_{letter}"]])
    size = table_reading.cell_number(row[column["diameter"]])
    return (None, None) if centre is None or size is None else (centre - size / 2, centre + size / 2)


def _common(path: Path, column: Mapping[str, str], role: str, name: str, rows: Rows) -> str | None:
    """The value of a role in the rows of one image. Raises DatasetError where they differ."""
    values = {str(row[column[role]]) for _, row in rows if row[column[role]] is not None} if role in column else set()
    if len(values) > 1:
        raise DatasetError(
            f"{name} is of {role} {' and '.join(sorted(values))}", str(path), "Write the same value in all its rows"
        )
    return next(iter(values), None)


def columns_of_boxes(table: DataTable, options: DatasetOptions, folder: Folder | None = None) -> dict[str, str]:
    """{role: column}, as --column names them, else by known names.

    folder: whose images a column without a known name may list
    Raises UsageError for a role or column that is none, DatasetError where a part of the boxes is not stated, or only
    by x and y, which may be a corner or the centre.
    """
    known = {**dict.fromkeys(BOX_ROLES), **_known_columns(table, folder)}
    columns = table_roles.columns_by_role(table, options, known)
    lacking = _lacking(columns)
    if lacking and "x0" not in columns and (corner := _open_corner(table)):
        x, y = corner
        problem = f"states boxes by {x}, {y} and their size, and these may be a corner or the centre"
        remedy = f"If they are the corner nearest to (0, 0), give --layout box_table --column x0={x},y0={y}; if they "
        remedy += "are the centre, write columns x0, y0, x1 and y1 of edges"
        raise DatasetError(problem, str(table.path), remedy)
    if lacking:
        problem = f"has no column for {', '.join(lacking)} (columns: {', '.join(table.columns)})"
        raise DatasetError(problem, str(table.path), f"Name it, as in --column {lacking[0]}=COLUMN")
    if ("z0" in columns) != ("z1" in columns or ("x1" not in columns and "depth" in columns)):
        raise DatasetError("has only one of z0 and z1", str(table.path), "Give both, or neither")
    return columns


def _lacking(columns: Collection[str]) -> list[str]:
    """The roles without which no box, and no ball, is known."""
    if {"image", *BALL} <= set(columns):
        return []
    return [role for role in NEEDED if role not in columns and SIZES.get(role) not in columns]


def _known_columns(table: DataTable, folder: Folder | None) -> dict[str, str]:
    """{role: column} by known names; where corners are counted from 1, x1 is the lower edge."""
    known = {role: table.column(names) for role, names in BOX_ROLES.items()}
    if known["x0"] is None and known["y0"] is None:
        for letter in "xyz":
            if (upper := table.column((f"{letter}2",))) is not None:
                known |= {f"{letter}0": known[f"{letter}1"], f"{letter}1": upper}
    if known["image"] is None and folder is not None:
        known["image"] = _column_of_images(table, folder)
    return {role: name for role, name in known.items() if name is not None}


def _column_of_images(table: DataTable, folder: Folder) -> str | None:
    """The first column of which every cell is the name of an image in the folder, with or without its suffix."""
    names = {name for member in folder.images or folder.dicom for name in (member.path.name, member.stem)}
    columns = (name for name in table.columns if all(str(row[name]) in names for row in table.rows[:LOOKED_AT]))
    return next(columns, None) if names and table.rows else None


def _open_corner(table: DataTable) -> tuple[str, str] | None:
    """The columns of a corner or centre, where the table states sizes too."""
    if table.column(BOX_ROLES["width"]) is None or table.column(BOX_ROLES["height"]) is None:
        return None
    found = ((table.column((x,)), table.column((y,))) for x, y in OPEN)
    return next(((x, y) for x, y in found if x is not None and y is not None), None)


def _without_nothing(table: DataTable, column: Mapping[str, str]) -> DataTable:
    """The table without the labels that never have a box: they say that nothing is there, as "No finding" does."""
    edges = [column[role] for role in (*bounding_boxes.table_columns(3), *SIZES.values()) if role in column]
    label = column.get("label")
    if label is None:
        return table

    def is_empty(row: TableRow) -> bool:
        return all(row[name] is None for name in edges)

    boxed = {row[label] for row in table.rows if not is_empty(row)}
    rows = tuple(
        {**row, label: None} if is_empty(row) and boxed and row[label] not in boxed else row for row in table.rows
    )
    return replace(table, rows=rows)


def _of_several_readers(
    table: DataTable, column: Mapping[str, str], own: Mapping[str, Annotation]
) -> tuple[Problem, ...]:
    """The warning that several people drew boxes on one image, as in VinDr-CXR."""
    reader = table.column(READERS)
    seen = {(str(row[column["image"]]), str(row[reader])) for row in table.rows} if reader else set()
    several = [name for name, count in Counter(name for name, _ in seen).items() if count > 1 and own[name].boxes]
    what = f"{errors.count_phrase(len(several), 'image has', 'images have')} boxes of several readers (column {reader})"
    why = "what several of them saw counts as several objects, in training and in tests"
    return (
        (Problem("warning", what, (), why, "Keep the boxes of one reader, or merge those of all"),) if several else ()
    )


def _tables(folder: Folder) -> list[Path]:
    """Tables that state boxes, by the names of their columns."""
    members = [member for member in folder.members if member.suffix in TABLE_SUFFIXES]
    return [member.path for member in (members if folder.is_file else folder.tables) if _states_boxes(member, folder)]


def _states_boxes(member: FolderMember, folder: Folder) -> bool:
    try:
        table = table_reading.read_table(member.path, most=LOOKED_AT)
    except DatasetError:  # reported by the layout that is about the images
        return False
    known = _known_columns(table, None if folder.is_file else folder)
    return not _lacking(known) or ({"image", "label"} <= known.keys() and _open_corner(table) is not None)


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    "boxes.csv": "image,label,xmin,ymin,xmax,ymax\na0.png,cell,2,3,9,8\na1.png,cell,2,3,9,8\na0.png,blob,1,1,4,4\n"
}
WHAT = "a table with a row for each box"
LAYOUT = Layout("box_table", WHAT, fits, read, BY_NAMES | {"manifest", "dicom_folder"}, EXAMPLE, _annotations)
