"""Classes of single objects: in a table or a map of classes beside their map, or as the names of their masks.

`objects.csv` in the folder itself has the columns case, object and label, a row for each object; a folder `classes/`
beside that of the maps has a map of the same name, in which every voxel of an object has the value of its class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, GeometryError
from hilum.files.format_options import ReadOptions
from hilum.files.storage import csv_text
from hilum.layouts import layout
from hilum.layouts.cases import cell_loading, class_labels, dataset_folder
from hilum.layouts.cases.class_labels import NamedClasses
from hilum.layouts.cases.dataset_folder import CLASS_FOLDER, OBJECT_TABLE, Folder, FolderMember
from hilum.layouts.layout import AnnotationNames, DatasetOptions, Labels, Problems, Reading
from hilum.values import CaseRow, Cell, Image, Label, grouping

OBJECT_MAPS = "instances"
# What cells of a map and of what states its classes are called.
BY_TABLE, BY_MAP = "objects", "classes"
COLUMNS = ("case", "object", "label")
NAME_THEM = "Name them, as in --labels 1=lymphocyte,2=neutrophil"


def states_classes(cell: Cell) -> bool:
    """Whether a cell of a map of objects states their classes."""
    return cell.part in (BY_TABLE, BY_MAP) or bool(cell.names)


def read_with_classes(
    read: Callable[[Folder, DatasetOptions], Reading], folder: Folder, options: DatasetOptions
) -> Reading:
    """The reading of a layout with the classes that lie beside its maps of objects, and the classes of all.

    Raises DatasetError where there are a table and maps of classes, or where the classes have no names.
    """
    table = folder.root / OBJECT_TABLE
    is_table = not folder.is_file and table.is_file()
    if not options.references or (options.kinds and OBJECT_MAPS not in options.kinds):
        return read(folder, options)
    # --labels names the classes, and not the numbers of a map.
    reading = read(folder, replace(options, labels=None) if is_table or folder.class_maps else options)
    if folder.class_maps and is_table:
        problem = f"has both {OBJECT_TABLE} and maps in {CLASS_FOLDER}/"
        raise DatasetError(problem, str(folder.root), "Keep what is meant")
    rows, problems = reading.rows, Problems()
    if is_table:
        rows, problems = _by_table(rows, table)
    elif folder.class_maps:
        rows, problems = _by_maps(rows, folder.class_maps)
    reading = replace(reading, rows=rows, problems=(*reading.problems, *problems))
    classes, called = declared_classes(rows, folder, options)
    if not classes:
        return reading
    declared = {kind: labels for kind, labels in reading.classes.items() if kind != "mask"}
    names = reading.annotation_names or AnnotationNames()
    names = replace(names, called=called or names.called)
    return replace(reading, classes={**declared, OBJECT_MAPS: classes}, annotation_names=names)


def declared_classes(rows: Sequence[CaseRow], folder: Folder, options: DatasetOptions) -> NamedClasses:
    """The classes of the objects of these rows, and {name in the data: name of its class}; empty where none state any.

    Raises DatasetError where maps of classes hold numbers that nobody names.
    """
    cells = [row.references[OBJECT_MAPS] for row in rows if isinstance(row.references.get(OBJECT_MAPS), Cell)]
    if any(cell.part == BY_MAP for cell in cells):
        if not (labels := class_labels.mask_labels(folder, options)):
            raise DatasetError(f"the classes in {CLASS_FOLDER}/ have no names", str(folder.root), NAME_THEM)
        return labels, {}
    names = {name for cell in cells for name in cell.names}
    tables = {cell.paths[1] for cell in cells if cell.part == BY_TABLE}
    names |= {label for table in tables for rows_of in _rows_of(table).values() for _, label in rows_of}
    return class_labels.name_classes(names, folder, options) if names else ((), {})


def stated_rows(cell: Cell) -> list[tuple[str, str]]:
    """(object, label) of each row of the table that a cell names, of its case; empty of any other cell."""
    return list(_rows_of(cell.paths[1]).get(cell.key, ())) if cell.part == BY_TABLE else []


def load_classed_objects(cell: Cell, labels: Labels, called: Mapping[str, str], options: ReadOptions) -> Image:
    """A map of numbered objects whose labels state the class of each.

    labels: of the classes; called: {name in the data: name of its class}
    Raises DatasetError, by file and object, for an object without a class or with two, and for a class of no object.
    """
    if cell.names:
        image = cell_loading.load_instances(cell.paths, options)
        return with_kinds(image, {n: called.get(name, name) for n, name in enumerate(cell.names, start=1)})
    image = cell_loading.load_instances(cell.paths[:1], options)
    if cell.part == BY_TABLE:
        return with_kinds(image, _kinds_of_table(image, cell, called))
    return with_kinds(image, _kinds_of_map(image, cell, labels, options))


def with_kinds(image: Image, kinds: Mapping[int, str]) -> Image:
    """The map with a label of its class for each object; kinds: {number: class}"""
    return replace(image, labels=tuple(Label.of_object(number, kind) for number, kind in sorted(kinds.items())))


def _by_table(rows: Sequence[CaseRow], table: Path) -> tuple[tuple[CaseRow, ...], Problems]:
    """The rows with the cells of their objects' rows in the table; the problem of names that are no case's."""
    named, found = _rows_of(table), list[CaseRow]()
    for row in rows:
        if (cell := _map_of(row)) is None:
            found.append(row)
            continue
        key = next((name for name in _names_of(row, cell) if name in named), PurePosixPath(row.name).name)
        found.append(_with_map(row, Cell((*cell.paths, table), BY_TABLE, key)))
    known = {name for row in rows for name in _names_of(row, _map_of(row))}
    strange = [name for name in named if name not in known]
    what = f"{OBJECT_TABLE} names {errors.count_phrase(len(strange), 'case')} without a map of objects"
    return tuple(found), layout.left_out_problem(strange, what, "Correct the names, or add the maps", "warning")


def _by_maps(rows: Sequence[CaseRow], maps: Collection[FolderMember]) -> tuple[tuple[CaseRow, ...], Problems]:
    """The rows with the maps of classes of the same names; those without one are left out."""
    named = grouping.by_key((member.stem, member.path) for member in maps)
    found, lacking = list[CaseRow](), list[str]()
    for row in rows:
        if (cell := _map_of(row)) is None:
            found.append(row)
            continue
        own = [path for name in _names_of(row, cell) for path in named.get(name, ())]
        own = [path for path in own if _has_folders_of(path, cell.paths[0])] or own
        if own:
            found.append(_with_map(row, Cell((*cell.paths, own[0]), BY_MAP)))
        else:
            lacking.append(row.name)
    what = f"{errors.count_phrase(len(lacking), 'case has', 'cases have')} no map in {CLASS_FOLDER}/"
    return tuple(found), layout.left_out_problem(lacking, what, "Add the maps of their objects' classes")


def _has_folders_of(path: Path, other: Path) -> bool:
    """Whether two files lie in folders that differ in one name, as labels/a/x.png and classes/a/x.png."""
    ours, theirs = path.parent.parts, other.parent.parts
    return len(ours) == len(theirs) and sum(a != b for a, b in zip(ours, theirs, strict=True)) == 1


def _map_of(row: CaseRow) -> Cell | None:
    """The one map of objects of a row, which a layout may have taken for a label map."""
    cell = row.references.get(OBJECT_MAPS, row.references.get("mask"))
    return cell if isinstance(cell, Cell) and cell.part == "" and not cell.names and len(cell.paths) == 1 else None


def _with_map(row: CaseRow, cell: Cell) -> CaseRow:
    others = {kind: one for kind, one in row.references.items() if kind != "mask"}
    return replace(row, references={**others, OBJECT_MAPS: cell})


def _names_of(row: CaseRow, cell: Cell | None) -> Iterator[str]:
    """What a table or a map of classes may call a case."""
    yield from (row.name, PurePosixPath(row.name).name)
    for path in (*row.paths, *(cell.paths if cell else ())):
        yield from (path.name, dataset_folder.stem_of(path.name))


def _rows_of(path: Path) -> Mapping[str, Sequence[tuple[str, str]]]:
    """{case: (object, label) of each of its rows}; DatasetError for another table."""
    stated = path.stat()
    return _read_rows(path, stated.st_mtime_ns, stated.st_size)


@lru_cache(maxsize=8)
def _read_rows(path: Path, changed: int, size: int) -> Mapping[str, Sequence[tuple[str, str]]]:
    """changed, size: by which a file is known to be the one that was read"""
    table = csv_text.read_text_table(path)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        problem = f"has no column {errors.list_phrase(missing)}"
        raise DatasetError(problem, str(path), f"Give the columns {errors.list_phrase(COLUMNS)}")
    rows = defaultdict[str, list[tuple[str, str]]](list)
    for line, (case, number, label) in enumerate(zip(*(table[name] for name in COLUMNS), strict=True), start=2):
        if not (case.strip() and number.strip().isdecimal() and int(number) > 0 and label.strip()):
            problem = f"line {line} names no case, object and class ({case!r}, {number!r}, {label!r})"
            raise DatasetError(problem, str(path), "Give the case, a number above 0 and the class of each object")
        rows[case.strip()].append((number.strip(), label.strip()))
    return dict(rows)


def _kinds_of_table(image: Image, cell: Cell, called: Mapping[str, str]) -> dict[int, str]:
    """{number: class} of the objects of a map, by the rows of its case."""
    path, table = cell.paths[:2]
    kinds = dict[int, str]()
    for text, label in stated_rows(cell):
        number, kind = int(text), called.get(label, label)
        if kinds.setdefault(number, kind) != kind:
            problem = f"object {number} of {cell.key} has two classes, {kinds[number]} and {kind}"
            raise DatasetError(problem, str(table), "Keep the row that is true")
    numbers = {int(value) for value in np.unique(image.data)} - {0}
    if bare := sorted(numbers - kinds.keys()):
        problem = f"the objects {errors.list_phrase(bare)} of {path.name} have no class"
        raise DatasetError(problem, str(table), f"Add their rows, with {cell.key} as the case")
    if strange := sorted(kinds.keys() - numbers):
        problem = f"names the objects {errors.list_phrase(strange)} of {cell.key}, which are not in {path.name}"
        raise DatasetError(problem, str(table), "Correct the numbers, or take the rows away")
    return kinds


def _kinds_of_map(image: Image, cell: Cell, labels: Sequence[Label], options: ReadOptions) -> dict[int, str]:
    """{number: class} of the objects of a map, by the one value that a map of classes has in each."""
    path, map_of_classes = cell.paths[:2]
    classes = cell_loading.load_instances((map_of_classes,), options)
    if not classes.geometry.equals(image.geometry):
        raise GeometryError(f"does not lie on the grid of {path.name}", str(map_of_classes), "Contour both on one grid")
    numbers, values = image.data.ravel(), classes.data.ravel()
    named = {label.value: label.name for label in labels}
    pairs = np.unique(np.stack([numbers, values]).astype(np.int64), axis=1).T.tolist()
    kinds = dict[int, str]()
    for number, value in pairs:
        if (number == 0) != (value == 0):
            problem = f"object {number} has voxels without a class" if number else f"class {value} lies outside objects"
            problem += f" of {path.name}"
            raise DatasetError(problem, str(map_of_classes), "Give every voxel of an object its class")
        if value and value not in named:
            raise DatasetError(f"holds the class {value}, which has no name", str(map_of_classes), NAME_THEM)
        if number and kinds.setdefault(number, named[value]) != named[value]:
            problem = f"object {number} of {path.name} has two classes, {kinds[number]} and {named[value]}"
            raise DatasetError(problem, str(map_of_classes), "Give all of its voxels one class")
    return kinds
