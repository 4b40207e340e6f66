"""The rows of `dataset.csv`, or of a table in memory with its columns; nothing is guessed of names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hilum import errors, plugins
from hilum.errors import DatasetError
from hilum.files import modality_words
from hilum.files.dicom.reading import series_survey
from hilum.layouts import dataset_table, layout
from hilum.layouts.cases import (
    annotated_outlines,
    class_labels,
    mask_pairs,
    object_classes,
    table_join,
    table_reading,
    table_roles,
    text_names,
)
from hilum.layouts.cases.annotated_boxes import Annotation
from hilum.layouts.cases.annotated_outlines import AnnotationReferences
from hilum.layouts.cases.column_names import TARGET
from hilum.layouts.cases.dataset_folder import Folder, Record
from hilum.layouts.cases.object_classes import BY_MAP, BY_TABLE
from hilum.layouts.cases.opening import EMPTY
from hilum.layouts.cases.table_reading import DataTable, TableRow
from hilum.layouts.cases.table_roles import TEXT, RoleTable
from hilum.layouts.dataset_table import ACCEPTED, NAMED, SINGLE
from hilum.layouts.layout import AnnotationNames, DatasetOptions, Labels, Reading
from hilum.values import CaseRow, Cell

FIXED_AND_MOVING = {"fixed", "moving"}
# What a cell can mean of a file, besides the layouts of annotation files, and the columns of such cells.
PARTS = ("frame", "clip", "row", EMPTY, "series", "contoured", "report", BY_TABLE, BY_MAP)
PATHS = frozenset({"image", "mask", "instances", "boxes", TARGET})


def read_rows(table: DataTable, folder: Folder, declared: Record, options: DatasetOptions) -> Reading:
    """The rows of a table with the columns of `dataset.csv`.

    declared: what `dataset.toml` states
    Raises DatasetError for a cell that cannot be read, for a class that is not declared, and for two rows of one image
    that state different things.
    """
    if not {"case", "image"} & {name.partition(":")[0] for name in table.columns}:
        problem = f"has no column image (columns: {', '.join(table.columns)})"
        raise table.refusal(problem, "Give the columns case, image and mask or label, as dataset.csv has")
    kinds = {"time", "event", *plugins.entry_points_of("hilum.references")}
    roles = {name: name for name in table.columns if name in kinds or name.partition(":")[0] in ("finding", "value")}
    others = (name for name in table.columns if not dataset_table.is_covariate(name))
    table, of_values = table_reading.convert_values(table, (*others, *roles, *declared.get("text", ())))
    own_rows = OwnRows(table, roles, declared, options)
    every = [own_rows.case_row(line, n) for n, line in enumerate(table.rows, start=1)]
    missing = [row.name for row in every if not all(path.exists() for path in row.paths)]
    there = [row for row in every if row.name not in missing]
    rows, repeated = table_roles.drop_repeats(there, table, stating=options.references)
    is_ours = options.labels == declared.get("reading", {}).get("labels")
    classes = dataset_table.stated_classes(declared, table.path) if is_ours else {}
    rows, classes = _with_classes(rows, classes, folder, options, table.path)
    rows, classes, partly = _with_structures(rows, classes, folder, options)
    rows, classes, names = _with_annotations(rows, classes, folder, declared, options)
    if object_classes.OBJECT_MAPS not in classes:
        own, called = object_classes.declared_classes(rows, folder, options)
        classes = {**classes, object_classes.OBJECT_MAPS: own} if own else classes
        names = replace(names or AnnotationNames(), called=called) if called else names
    regions = {name: tuple(values) for name, values in declared.get("regions", {}).items()} if is_ours else {}
    channels = [name.partition(":")[2] or name for name in table.columns if name.partition(":")[0] == "image"]
    return Reading(
        tuple(rows),
        how=f"table {table.path.name}, {errors.count_phrase(len(rows), 'row')}",
        name=declared.get("name", ""),
        classes=classes,
        annotation_names=names,
        modality=declared.get("modality"),
        patients=declared.get("patients") or f"column patient of {table.path.name}",
        columns=declared.get("columns", {}),
        regions=regions or class_labels.mask_regions(folder, options),
        readers=tuple(declared.get("readers", ())),
        channels=tuple(declared.get("channels", channels if not declared and len(channels) > 1 else ())),
        tables=(table.path,),
        exif=declared.get("exif", ""),
        courses=tuple(table.path.parent / one for one in declared.get("courses", ())),
        is_own=True,
        problems=(*table_roles.absent_files_problem(missing), *partly, *repeated, *of_values),
    )


def spells_rows(table: DataTable) -> bool:
    """Whether a table that somebody else wrote has columns or cells that only `dataset.csv` has."""
    kinds = {name: name.partition(":")[0] for name in table.columns}
    if "image" not in kinds.values():  # it says more of images that lie elsewhere
        return False
    is_course = {"time", "event"} <= {*table.columns} and not table_reading.is_label_column(table)
    if is_course or any(kind in NAMED and (kind != name or kind == "instances") for name, kind in kinds.items()):
        return True
    cells = [str(row[name]) for row in table.rows for name, kind in kinds.items() if kind in PATHS and row[name]]
    return any(part in PARTS or len(pieces) > 1 for pieces, part, _ in map(dataset_table.parsed_cell, cells))


@dataclass(frozen=True, eq=False)
class OwnRows(RoleTable):
    """The rows of one table with the columns of `dataset.csv`; what several of its cells name is read once.

    declared: what `dataset.toml` states
    """

    declared: Record
    options: DatasetOptions
    _tables: dict[Path, DataTable] = field(default_factory=dict)
    _surveys: dict[Path, Mapping[str, Cell]] = field(default_factory=dict)
    _annotations: dict[tuple[str, Path], Mapping[str, Annotation]] = field(default_factory=dict)

    @cached_property
    def _split(self) -> str | None:
        return table_join.split_column(self.table, "split") if "split" in self.table.columns else None

    def case_row(self, line: TableRow, number: int) -> CaseRow:
        """The case of a row, whose number is counted from 1."""
        images = {name or "image": cell for name, cell in self._cells_of_kind("image", line)}
        usual = self.declared.get("modalities", {})
        stated = {name: line.get(f"modality:{name}") or line.get("modality") or usual.get(name) for name in images}
        words = {name: modality_words.modality_word(self.options.modality or one) for name, one in stated.items()}
        named = next(iter(images.values())).paths[0].name if images else f"row_{number}"
        others = (name for name in line if name.partition(":")[0] not in (*SINGLE, *NAMED) and name not in self.column)
        covariates = {name: line[name] for name in others}
        covariates |= {name.partition(":")[2]: one for name, one in line.items() if name.startswith("covariate:")}
        return CaseRow(
            text_names.dashed_name(line.get("case") or named),
            {name: replace(cell, modality=words[name]) for name, cell in images.items()},
            dict(self._references_of(line, number, {*images})),
            split=table_join.split_of(line[self._split]) if self._split else None,
            patient=None if line.get("patient") is None else str(line["patient"]),
            group=line.get("group"),
            covariates=covariates,
            accepted=self._accepted(line, number),
        )

    def _accepted(self, line: TableRow, number: int) -> str | None:
        """The cell of findings that a person accepts; DatasetError where it cannot be understood."""
        cell = None if line.get(ACCEPTED) is None else str(line[ACCEPTED])
        try:
            dataset_table.accepted_kinds(cell)
        except ValueError as error:
            raise self.table.refusal(
                f"column {ACCEPTED}, row {number}: {error}", "Correct the cell, or name the column otherwise"
            ) from error
        return cell

    def _references_of(self, line: TableRow, number: int, channels: set[str]) -> Iterator[tuple[str, Any]]:
        """(kind, cell or value) of all that a row states."""
        yield from ((TARGET, cell) for name, cell in self._cells_of_kind(TARGET, line) if not name)
        for base in ("mask", "instances", "boxes"):
            has_plain = base in self.table.columns
            for rank, (reader, cell) in enumerate(self._cells_of_kind(base, line)):
                is_first = rank == 0 and not has_plain
                of_reader = replace(cell, reader=reader) if reader and cell.part == "" else cell
                yield base if is_first or not reader else f"{base}:{reader}", of_reader
        if (label := line.get("label")) is not None:
            yield "class", str(label)
        if line.get(TEXT) is not None:
            yield TEXT, self._text_cell(line, number)
        yield from self.references(line).items()
        if channels == FIXED_AND_MOVING:
            known_of = dict(self._cells_of_kind("field", line))
            yield "field", Cell(tuple(cell.paths[0] for cell in known_of.values()), "field", names=tuple(known_of))

    def _cells_of_kind(self, kind: str, line: TableRow) -> list[tuple[str, Cell]]:
        """(name, cell) of the columns of a kind that are filled; the name is empty where the column has none."""
        named = ((name.partition(":"), text) for name, text in line.items() if text is not None)
        return [(name, self._cell_of(str(text), kind)) for (own, _, name), text in named if own == kind]

    def _cell_of(self, text: str, kind: str) -> Cell:
        whole = self._place(text)
        if whole.exists():  # whoever wrote it did not know of signs
            return Cell((whole,), "folder" if whole.is_dir() else "")
        pieces, part, key = dataset_table.parsed_cell(text)
        paths = tuple(self._place(path) for _, path in pieces)
        names = tuple(name for name, _ in pieces if name)
        if names and len(names) < len(paths):
            raise self.table.refusal(f"{text!r} names only some of its masks", "Write liver=a.png|spleen=b.png")
        if part == "series" and key:
            return self._series(paths[0], key)
        if layout.reads_annotations(part):
            return self._annotated_cell(paths[0], part, key)
        if part not in ("", *PARTS):
            of_annotations = filter(layout.reads_annotations, sorted(layout.LAYOUTS))
            choices = f"Choose among {errors.list_phrase((*PARTS, *of_annotations))}"
            raise self.table.refusal(f"{text!r} has the part {part}, which is none", choices)
        is_folder = part == "" and kind in ("image", TARGET) and paths[0].is_dir()
        return Cell(paths, "folder" if is_folder else part, key, names)

    def _text_cell(self, line: TableRow, number: int) -> Cell:
        """The cell of texts: of another table, as this program spells it, or what stands here itself."""
        text, images = str(line[TEXT]), [cell.paths[0] for _, cell in self._cells_of_kind("image", line)]
        pieces, part, key = dataset_table.parsed_cell(text)
        if part != TEXT or len(pieces) > 1:
            return table_roles.text_cell(self.table.path, f"{number}/{TEXT}", [text], images)
        path = self._place(pieces[0][1])
        if path not in self._tables:
            self._tables[path] = table_reading.read_table(path)
        return table_roles.find_texts(self._tables[path], key, images)

    def _place(self, text: str) -> Path:
        return Path(os.path.normpath(self.table.start / text))

    def _series(self, folder: Path, uid: str) -> Cell:
        """The cell of a series of DICOM in a folder."""
        if folder not in self._surveys:
            series = series_survey.survey_folder(folder).series if folder.is_dir() else ()
            cells = {one.uid: Cell(one.paths, "series", one.uid, known=one) for one in series if one.is_image}
            self._surveys[folder] = cells
        if uid not in self._surveys[folder]:
            raise self.table.refusal(f"names the series {uid}, which {folder} does not hold", "Correct the cell")
        return self._surveys[folder][uid]

    def _annotated_cell(self, path: Path, part: str, key: str) -> Cell:
        """The cell of what an annotation file states for one image."""
        if (part, path) not in self._annotations and path.is_file():
            read = layout.load_layout(part).annotations
            assert read is not None  # noqa: S101 - layouts of annotation files have it
            self._annotations[part, path] = read(path, self.declared.get("annotations", {}))
        annotations = self._annotations.get((part, path), {})
        if path.is_file() and key not in annotations:
            raise self.table.refusal(f"names {key} in {path.name}, which does not state it", "Correct the cell")
        return Cell((path,), part, key, known=annotations.get(key))


Classes = dict[str, Labels]


def _with_classes(
    rows: Sequence[CaseRow], classes: Classes, folder: Folder, options: DatasetOptions, path: Path
) -> tuple[list[CaseRow], Classes]:
    """The rows with the classes as they are declared, and the classes and findings."""
    stated = {row.references["class"] for row in rows if "class" in row.references}
    known = {label.name for label in classes.get("class", ())}
    if known and (strange := sorted(stated - known)):
        known_names = errors.list_phrase(sorted(known))
        remedy = f"Add it under classes in {path.with_suffix('.toml').name}, or write one of {known_names}"
        raise DatasetError(f"states the class {errors.list_phrase(strange)}, which is not declared", str(path), remedy)
    findings = dict.fromkeys(name for row in rows for name in row.references.get("findings", ()))
    if findings and not classes.get("findings"):
        classes = {**classes, "findings": class_labels.numbered_names(findings)}
    if not stated or known:
        return list(rows), classes
    has_masks = any("mask" in row.references for row in rows)
    labels, called = class_labels.name_classes(stated, folder, options, declare=not has_masks)
    own = ({"class": called[row.references["class"]]} if "class" in row.references else {} for row in rows)
    renamed = [replace(row, references={**row.references, **one}) for row, one in zip(rows, own, strict=True)]
    return renamed, {**classes, "class": labels}


def _with_structures(
    rows: Sequence[CaseRow], classes: Classes, folder: Folder, options: DatasetOptions
) -> tuple[list[CaseRow], Classes, tuple[Any, ...]]:
    """The rows of which masks name all structures that any does, the labels of masks, and the problem of the others."""
    masks = [(row, cell) for row in rows for kind, cell in row.references.items() if kind.startswith("mask")]
    named = [name for _, cell in masks for name in cell.names]
    labels = classes.get("mask", ())
    if masks and not labels:
        by_name = mask_pairs.structure_labels(named, folder, options)
        labels = tuple(by_name.values()) or class_labels.mask_labels(folder, options)
    wanted = {label.name for label in labels if label.name in named}
    partly = [row.name for row, cell in masks if cell.names and not wanted <= {*cell.names}]
    kept = [row for row in rows if row.name not in partly]
    classes = {**classes, "mask": labels} if labels else classes
    return kept, classes, mask_pairs.missing_structure_problem(partly, sorted(wanted))


def _with_annotations(
    rows: Sequence[CaseRow], classes: Classes, folder: Folder, declared: Record, options: DatasetOptions
) -> tuple[list[CaseRow], Classes, AnnotationNames | None]:
    """The rows whose annotation files are read as the kinds that are asked for, with their classes and names."""
    annotated = [(kind, cell) for row in rows for kind, cell in annotated_outlines.annotations_of(row).items()]
    called = dict(declared.get("names", {}))
    if not annotated:
        return list(rows), classes, AnnotationNames(called) if called else None
    kinds = {kind for kind, _ in annotated}
    made = AnnotationReferences.for_options(
        [cell.known for _, cell in annotated], min(kinds), folder, options, called or None, rows=rows
    )
    by_value = {label.value: label for label in classes.get("mask", ())}
    labels = {name: by_value[value] for name, value in declared.get("values", {}).items() if value in by_value}
    is_stated = bool(classes) and {*made.kinds} <= kinds
    names = AnnotationNames(called, labels) if is_stated else made.names
    others = {kind: own for kind, own in classes.items() if kind not in kinds}
    names = replace(names, settings=declared.get("annotations", {}))
    return list(made.with_kinds(rows)), classes if is_stated else {**others, **made.classes}, names
