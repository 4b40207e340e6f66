"""Tables of boxes: image, label, x0, y0[, z0], x1, y1[, z1], or sizes, in voxels, a row for each box.

Balls in mm, as of LUNA16 (Setio et al., doi:10.1016/j.media.2017.06.015), are boxes too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from hilum import errors
from hilum.errors import UsageError
from hilum.files import modality_words
from hilum.layouts import layout
from hilum.layouts.cases import annotated_boxes, class_labels, table_join, table_reading, table_roles
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation
from hilum.layouts.cases.column_names import BOX_ROLES, READERS
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.table_reading import LOOKED_AT, TABLE_SUFFIXES, DataTable, TableRow
from hilum.layouts.cases.table_roles import RoleTable
from hilum.layouts.layout import BY_NAMES, AnnotationNames, DatasetOptions, Example, Layout, Problems, Reading
from hilum.layouts.named_cases import NamedCases
from hilum.values import CaseRow, Cell, Problem, bounding_boxes

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
    boxes = BoxTable.with_roles(table, columns_of_boxes(table, options, folder))
    column, own = boxes.column, boxes.annotations
    classes, called = class_labels.name_classes(annotated_boxes.annotated_names(list(own.values())), folder, options)
    images, missing, named = _images(table, own, Folder(table.path.parent) if folder.is_file else folder, options)
    hidden = named.reading.patients if named else ""  # people of DICOM are not called by their names
    kept = [(row, name) for row, name in images if name is not None or not folder.is_file]
    rows = [row if name is None else boxes.add_to(row, name, named) for row, name in kept]
    count = errors.count_phrase(sum(len(annotation.boxes) for annotation in own.values()), "box", "boxes")
    seen = errors.count_phrase(sum(name is not None for _, name in images), "image")
    absent = f"{errors.count_phrase(len(missing), 'image that is', 'images that are')} not there"
    what, remedy = f"{table.path.name} names {absent}", "Correct the names, or get the files"
    return Reading(
        tuple(rows),
        how=f"table {table.path.name}: {count} on {seen}",
        classes={"boxes": classes},
        annotation_names=AnnotationNames(called, settings=column),
        modality=options.modality or (named.reading.modality if named else None),
        patients=hidden or (f"column {column['patient']} of {table.path.name}" if "patient" in column else ""),
        patient_column=None if hidden else column.get("patient"),
        tables=(table.path,),
        problems=(
            *table_reading.header_notes(table),
            *boxes.reader_warning(),
            *layout.left_out_problem(missing, what, remedy),
        ),
    )


@dataclass(frozen=True)
class BoxTable(RoleTable):
    """A table of boxes, or of balls, whose columns have the roles of `BOX_ROLES`."""

    @classmethod
    def with_roles(cls, table: DataTable, column: Mapping[str, str]) -> BoxTable:
        """Labels that never have a box are left out: they say that nothing is there, as "No finding" does."""
        edges = [column[role] for role in (*bounding_boxes.table_columns(3), *SIZES.values()) if role in column]
        label = column.get("label")
        boxed = {row[label] for row in table.rows if any(row[name] is not None for name in edges)} if label else set()
        rows = ({**row, label: None} if label and boxed and row[label] not in boxed else row for row in table.rows)
        return cls(replace(table, rows=tuple(rows)), column)

    @cached_property
    def rows(self) -> Mapping[str, Rows]:
        """{image as the table names it: its rows}."""
        rows: dict[str, Rows] = {}
        for place, row in enumerate(self.table.rows, start=2):  # as a spreadsheet counts: the first has the names
            if row[self.column["image"]] is None:
                raise self.table.refusal(f"row {place} names no image", "Write the image's name in it")
            rows.setdefault(str(row[self.column["image"]]), []).append((place, row))
        return rows

    @cached_property
    def annotations(self) -> Mapping[str, Annotation]:
        """{image as the table names it: the boxes in its rows}."""
        return {name: self.annotation(rows) for name, rows in self.rows.items()}

    def annotation(self, rows: Rows) -> Annotation:
        """The boxes, or balls, in the rows of one image; a row with nothing but the image is none."""
        is_ball, boxes = "x0" not in self.column, list[AnnotatedBox]()
        letters = "xyz" if is_ball or "z0" in self.column else "xy"
        for place, row in rows:
            edges = [(self._ball if is_ball else self._edges)(row, letter) for letter in letters]
            centre = [self._stated(row, role) for role in BALL[:3]] if is_ball else []
            label = self.cell(row, "label") if "label" in self.column else NODULE
            is_bare = all(one is None for one in (centre or [edge for pair in edges for edge in pair]))
            if (is_ball or label is None) and is_bare:
                continue
            low, high = zip(*edges, strict=True)
            if label is None or None in (*low, *high):
                missing = "whole ball" if is_ball else "label" if label is None else "corner"
                remedy = "Write its centre and diameter in mm" if is_ball else "Write the whole box, or only the image"
                raise self.table.refusal(f"row {place} has no {missing}", remedy)
            boxes.append(AnnotatedBox(str(label), low, high, f"row {place}"))
        return Annotation(self.table.path, tuple(boxes), in_mm=is_ball)

    def _stated(self, row: TableRow, role: str) -> float | None:
        return table_reading.cell_number(row[self.column[role]])

    def _edges(self, row: TableRow, letter: str) -> tuple[float | None, float | None]:
        """The lower and the upper edge along an axis: as stated, or by the size."""
        low, upper = self._stated(row, f"{letter}0"), f"{letter}1"
        if upper in self.column:
            return low, self._stated(row, upper)
        size = self._stated(row, SIZES[upper])
        return low, None if low is None or size is None else low + size

    def _ball(self, row: TableRow, letter: str) -> tuple[float | None, float | None]:
        """The edges along an axis of the box around a ball."""
        centre, size = self._stated(row, f"centre_{letter}"), self._stated(row, "diameter")
        return (None, None) if centre is None or size is None else (centre - size / 2, centre + size / 2)

    def add_to(self, image: CaseRow, name: str, named: NamedCases | None) -> CaseRow:
        """An image with its boxes, and what else the rows of this name say."""
        patient, split = (self._common(name, role) for role in ("patient", "split"))
        is_stated = self.column.get("patient") != self.column["image"] and not table_reading.names_nobody(patient)
        of_dicom = named.person(image, patient) if named and image.patient and patient and is_stated else image.patient
        boxes = Cell((self.table.path,), "box_table", name, known=self.annotations[name])
        return replace(
            image,
            references={**image.references, "boxes": boxes},
            split=table_join.split_of(split) or image.split,
            patient=of_dicom or patient,
        )

    def _common(self, name: str, role: str) -> str | None:
        """The value of a role in the rows of one image. Raises DatasetError where they differ."""
        cells = [row[self.column[role]] for _, row in self.rows[name]] if role in self.column else []
        values = {str(cell) for cell in cells if cell is not None}
        if len(values) > 1:
            problem = f"{name} is of {role} {' and '.join(sorted(values))}"
            raise self.table.refusal(problem, "Write the same value in all its rows")
        return next(iter(values), None)

    def reader_warning(self) -> Problems:
        """The warning that several people annotated boxes on one image, as in VinDr-CXR."""
        if (reader := self.table.column(READERS)) is None:
            return ()
        seen = Counter(name for name, rows in self.rows.items() for _ in {str(row[reader]) for _, row in rows})
        several = [name for name, count in seen.items() if count > 1 and self.annotations[name].boxes]
        images = errors.count_phrase(len(several), "image has", "images have")
        what, why = f"{images} boxes of several readers (column {reader})", "what several of them saw counts as several"
        why += " objects, in training and in tests"
        problem = Problem("warning", what, (), why, "Keep the boxes of one reader, or merge those of all")
        return (problem,) if several else ()


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
        cells = [(one, Cell((one.path,), modality=modality)) for one in folder.images]
        cases = [CaseRow(one.name, {"image": cell}, split=one.split) for one, cell in cells]
        images = annotated_boxes.images_by_file_name(folder, bare=True)
        near = [table.path.parent, table.path.parent / "images"]
        by_path = {case.paths[0]: case for case in cases}
        each = {name: annotated_boxes.image_named(images, name, near, table.path) for name in names}
        found = {name: [by_path[image.path]] if image else [] for name, image in each.items()}
    called: dict[Path, str] = {}
    for name, own in found.items():
        if len(own) > 1:
            raise table.refusal(f"names {name}, and {len(own)} images are called so", "Write the name of the file")
        if own and (before := called.setdefault(own[0].paths[0], name)) != name:
            raise table.refusal(f"calls one image {before} and {name}", "Write the same name in all its rows")
    missing = [name for name, own in found.items() if not own]
    return [(case, called.get(case.paths[0])) for case in cases], missing, named


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
        raise table.refusal(problem, f"{remedy}are the centre, write columns x0, y0, x1 and y1 of edges")
    if lacking:
        problem = f"has no column for {', '.join(lacking)} (columns: {', '.join(table.columns)})"
        raise table.refusal(problem, f"Name it, as in --column {lacking[0]}=COLUMN")
    if ("z0" in columns) != ("z1" in columns or ("x1" not in columns and "depth" in columns)):
        raise table.refusal("has only one of z0 and z1", "Give both, or neither")
    return columns


def _lacking(columns: Collection[str]) -> list[str]:
    """The roles without which no box, and no ball, is known."""
    if {"image", *BALL} <= set(columns):
        return []
    return [role for role in NEEDED if role not in columns and SIZES.get(role) not in columns]


def _known_columns(table: DataTable, folder: Folder | None) -> dict[str, str]:
    """{role: column} by known names; where corners are counted from 1, x1 is the lower edge.

    Else the image is the first column of which every cell is the name of an image in the folder.
    """
    known = {role: table.column(names) for role, names in BOX_ROLES.items()}
    if known["x0"] is None and known["y0"] is None:
        for letter in "xyz":
            if (upper := table.column((f"{letter}2",))) is not None:
                known |= {f"{letter}0": known[f"{letter}1"], f"{letter}1": upper}
    if known["image"] is None and folder is not None and table.rows:
        names = {name for member in folder.images or folder.dicom for name in (member.path.name, member.stem)}
        looked_at = table.rows[:LOOKED_AT]
        known["image"] = next((one for one in table.columns if all(str(row[one]) in names for row in looked_at)), None)
    return {role: name for role, name in known.items() if name is not None}


def _open_corner(table: DataTable) -> tuple[str, str] | None:
    """The columns of a corner or centre, where the table states sizes too."""
    if table.column(BOX_ROLES["width"]) is None or table.column(BOX_ROLES["height"]) is None:
        return None
    found = ((table.column((x,)), table.column((y,))) for x, y in OPEN)
    return next(((x, y) for x, y in found if x is not None and y is not None), None)


def _tables(folder: Folder) -> list[Path]:
    """Tables that state boxes, by the names of their columns."""
    members = [member for member in folder.members if member.suffix in TABLE_SUFFIXES]
    return [member.path for member in (members if folder.is_file else folder.tables) if _states_boxes(member, folder)]


def _states_boxes(member: FolderMember, folder: Folder) -> bool:
    if (table := table_reading.try_table(member.path, most=LOOKED_AT)) is None:
        return False
    known = _known_columns(table, None if folder.is_file else folder)
    return not _lacking(known) or ({"image", "label"} <= known.keys() and _open_corner(table) is not None)


def _annotations(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    """settings: {role: column}"""
    return BoxTable.with_roles(table_reading.read_table(path), settings).annotations


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    "boxes.csv": "image,label,xmin,ymin,xmax,ymax\na0.png,cell,2,3,9,8\na1.png,cell,2,3,9,8\na0.png,blob,1,1,4,4\n"
}
WHAT = "a table with a row for each box"
LAYOUT = Layout("box_table", WHAT, fits, read, BY_NAMES | {"manifest", "dicom_folder"}, EXAMPLE, _annotations)
