"""Manifests: a table (CSV, TSV, Parquet, text) with one row a case that names its files and labels.

A folder may hold a table for each part. A table may also have a row for each finding of an image, named
ID_<image>_<finding>, as in RSNA's set of intracranial haemorrhage.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from hilum import errors, plugins
from hilum.errors import DatasetError, UsageError
from hilum.files import file_formats, modality_words
from hilum.files.storage import folder_files
from hilum.layouts import case_folders, class_folders, dicom_folder, image_folders, layout, suffix_masks
from hilum.layouts.cases import (
    cell_loading,
    class_labels,
    dataset_folder,
    dicom_cases,
    table_join,
    table_reading,
    table_roles,
    text_names,
)
from hilum.layouts.cases.class_labels import StatedClass
from hilum.layouts.cases.column_names import (
    CASE_COLUMNS,
    REFERENCE_COLUMNS,
    REFERENCES,
    ROLES,
    SEVERAL,
    SPLIT_COLUMNS,
    TARGET,
)
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.table_reading import MOST_CLASSES, TABLE_SUFFIXES, DataTable, TableRow
from hilum.layouts.cases.table_roles import COMMA, RoleTable
from hilum.layouts.layout import PSEUDONYMS, DatasetOptions, Example, Layout, Problems, Reading
from hilum.layouts.named_cases import EVERY_END, NamedCases, PathEnds
from hilum.values import CaseRow, Problem

# Rows of one person, on average: a number of more is of something else.
MOST_OF_ONE = 20
PIXEL = re.compile(r"(?i)pixel_?\d+")
PART = SPLIT_COLUMNS[0]  # the column that tables of parts get when they are joined
# Letters of a cell that an error shows.
SHOWN = 60


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A table itself; or a folder with one table, named by --column or with images or nothing else in it.

    Of several tables next to images, the one with labels, or those of the parts, where nothing else holds them.
    """
    if folder.is_file:
        return _is_table(folder)
    if not folder.tables and not (folder.images and options.references and folder.text_tables):
        return False
    if not (folder.images or folder.dicom):
        return options.references or not folder.clips or len(folder.tables) == 1  # clips are predicted without tables
    members = _labelled_tables(folder)
    if not members:
        return False
    if (read_from := table_reading.try_table(members[0].path)) is None:
        return False  # it is reported where it would have been joined to the images
    table = _with_findings(read_from, partial(_stems, folder))
    image = table.column(ROLES["image"]) or next(iter(table_reading.columns_of_files(table, folder.root)), None)
    # Where folders, names or DICOM hold the labels, a table is a manifest only if it has some itself.
    has_labels, kinds = table_reading.is_label_column(table) or bool(table.findings), table_reading.stated_kinds(table)
    others = (image_folders, suffix_masks, case_folders, class_folders, dicom_folder)
    is_asked = has_labels and (not options.kinds or not options.kinds.isdisjoint(kinds))
    is_sure = is_asked and sum(not _is_submission(one) for one in folder.tables) == 1
    if not is_sure and any(one.fits(folder, options) for one in others):
        return False
    # Upper and lower case count when the files are read, where the error names those that differ only so.
    known = {member.path.name.casefold() for member in folder.images}
    names = [str(row[image]) for row in table.rows if row[image] is not None] if image else []
    if sum(Path(name).name.casefold() in known for name in names) * 2 > len(names):
        return True
    if not has_labels or folder.description is not None:
        return False
    named, whole = NamedCases.of_table(table, folder, options), _joined_tables(members) if members[1:] else table
    return named is not None and named.column(whole, image, ()) is not None


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Cases with the rest of the columns as covariates."""
    given_tables = folder.members[:1] if folder.is_file and _is_table(folder) else folder.tables or folder.text_tables
    if not given_tables:
        raise UsageError("holds no table", str(folder.root), "Give a CSV, TSV or Parquet file with a row for each case")
    members = folder.members[:1] if folder.is_file else _labelled_tables(folder, options.column.values())
    if not members:
        names = ", ".join(member.path.name for member in given_tables)
        remedy = "Give one of the files; tables of parts are joined if their names say which, as train.csv and test.csv"
        raise DatasetError(f"holds {len(given_tables)} tables ({names})", str(folder.root), remedy)
    table = _joined_tables(members, codes=(options.patient, *map(options.column.get, ("patient", "id"))))
    if not table.rows:
        raise table.refusal("the table has no rows", "Write one row per case")
    table, notes = _with_classes(table, options, partial(_stems, folder))
    return read_table(replace(table, root=options.root), folder, options, [member.path for member in members], notes)


def read_frame(table: DataTable, folder: Folder, options: DatasetOptions) -> Reading:
    """The cases of a table in memory.

    folder: of no files
    Raises DatasetError where no column names images, and where none of them is there.
    """
    prepared, notes = _with_classes(table, options, set)
    roles = _columns(prepared, options)
    if not any(role.partition(":")[0] == "image" for role in roles) and "image" not in _with_files(prepared, roles):
        remedy = 'Call it image_path, or name it: column={"image": "COLUMN"}'
        raise DatasetError(f"has no column image (columns: {', '.join(table.columns)})", table.path.name, remedy)
    reading = read_table(prepared, folder, options, [table.path], notes)
    if table.rows and not reading.rows:
        remedy = "Give root=FOLDER, from which relative paths start, or whole paths"
        raise DatasetError(f"names no file that is there: its paths start from {table.start}", table.path.name, remedy)
    return reading


def read_table(
    table: DataTable, folder: Folder, options: DatasetOptions, paths: Sequence[Path], notes: Sequence[Problem]
) -> Reading:
    """The cases of a table, with the rest of its columns as covariates.

    paths: files of which the table was read; notes: on how its columns were understood
    """
    manifest = _with_images(table, _with_people(table, _columns(table, options)), folder, options)
    column, mask_columns = manifest.column, manifest.columns("mask")
    if options.references and not _kinds() & {role.partition(":")[0] for role in column}:
        problem = f"no column has labels (columns: {', '.join(table.columns)})"
        raise table.refusal(problem, table_reading.label_remedy(table, column.values()))
    labels, stated = class_labels.mask_labels(folder, options) if mask_columns else (), _classes_stated(manifest)
    unlabelled = class_labels.count_placeholders(stated, options) if options.references else {}
    known = {one.name for one in stated} - {*unlabelled}
    classes, called = class_labels.name_classes(known, folder, options, declare=not mask_columns)
    seen, hidden = manifest.named.reading if manifest.named else None, manifest.hidden
    rows, missing, taken = list[CaseRow](), list[str](), list[CaseRow]()
    values, of_values = table_reading.convert_values(table, set(column.values()))
    for index, line in enumerate(values.rows):
        for named_case in manifest.cases(line) or (None,):
            row = manifest.case_row(index, line, named_case, called)
            if all(path.exists() for path in row.paths):
                rows.append(row)
                taken += [named_case] if named_case else []
            else:
                missing.append(f"row_{index + 1}" if hidden else row.name)  # people of DICOM are not called by name
    rows, repeated = table_roles.drop_repeats(rows, table, stating=options.references)
    words = {str(word) for line in table.rows if (word := options.modality or manifest.cell(line, "modality"))}
    roles = ", ".join(f"{role}={name}" for role, name in column.items())
    tables = errors.list_phrase(path.name for path in paths)
    own = {"mask": labels, "class": classes, "findings": class_labels.numbered_names(manifest.findings)}
    return Reading(
        tuple(rows),
        how=f"{'tables' if paths[1:] else 'table'} {tables} with {roles or 'no known column'}",
        classes={**(seen.classes if seen else {}), **{kind: each for kind, each in own.items() if each}},
        modality=modality_words.common_modality(sorted(words)) or (seen.modality if seen else None),
        patients=hidden or (f"column {column['patient']} of {tables}" if "patient" in column else ""),
        patient_column=column.get("patient"),
        columns=_whole(manifest),
        tables=tuple(paths),
        readers=tuple(mask_columns) if len(mask_columns) > 1 else (),
        channels=seen.channels if seen else tuple(manifest.columns("image")),
        problems=(
            *table_reading.header_notes(table),
            *notes,
            *of_values,
            *(seen.problems if seen else ()),
            *table_roles.absent_files_problem(missing),
            *_image_problems(manifest, folder, taken),
            *table_join.fold_notes(folder, table),
            *_finding_notes(manifest),
            *class_labels.placeholder_notes(unlabelled, f"in column {column.get('label')}"),
            *repeated,
        ),
    )


@dataclass(frozen=True)
class Manifest(RoleTable):
    """A table whose rows are cases, and the images that it names.

    base:  the folder to which paths are relative
    named: images that cells name otherwise than by their paths; None where they are paths
    modality: of all images, where the caller says it
    """

    base: Path
    named: NamedCases | None = None
    modality: str | None = None

    def cases(self, row: TableRow) -> Sequence[CaseRow]:
        """The images that a row names otherwise than by a path; none where it names paths, or what is not there."""
        split = table_join.split_of(self.cell(row, "split"))
        return self.named.find(row[self.column["image"]], self._ends, split) if self.named else ()

    @cached_property
    def _ends(self) -> PathEnds:
        return self.named.ends_of(row[self.column["image"]] for row in self.table.rows) if self.named else EVERY_END

    @cached_property
    def _is_of_headers(self) -> bool:
        """Whether the paths lead to DICOM, and no column says whose images they are: the headers do."""
        paths = (path for row in self.table.rows for path in self.images(row).values() if path.exists())
        first = None if self.named or "patient" in self.column else next(paths, None)
        return first is not None and file_formats.format_of(first) == "dicom"

    @property
    def hidden(self) -> str:
        """The rule, in words, by which patients of DICOM are hidden; empty where the images are of no DICOM."""
        rule = self.named.reading.patients if self.named else PSEUDONYMS if self._is_of_headers else ""
        stated = f"column {self.column.get('patient')} of {self.table.path.name}, which goes before "
        return f"{stated if rule and self._states_people else ''}{rule}"

    def patient(self, row: TableRow, named_case: CaseRow | None) -> str | None:
        """Whose images a row names: as a column states, else the headers of DICOM, whose people have pseudonyms."""
        stated = self.cell(row, "patient")
        if not self.hidden:
            return None if stated is None else str(stated)
        if self.named is None or named_case is None:
            files = (path for path in self.images(row).values() if path.exists())
            return next((dicom_cases.person_in_files(path) for path in files), None)
        is_stated = self._states_people and not table_reading.names_nobody(stated)
        return self.named.person(named_case, str(stated)) if is_stated else named_case.patient

    @cached_property
    def _states_people(self) -> bool:
        """Whether a column of patients tells some apart; where all is one word, the identifiers were removed."""
        is_own = "patient" in self.column and self.column["patient"] != self.column.get("image")
        cells = {self.cell(row, "patient") for row in self.table.rows} if is_own else set()
        return sum(not table_reading.names_nobody(cell) for cell in cells) > 1

    def case_row(self, index: int, line: TableRow, named_case: CaseRow | None, called: Mapping[str, str]) -> CaseRow:
        """The case of a line; of DICOM's people only pseudonyms; called: {label: the class that it names}"""
        images, mask_columns = {} if named_case else self.images(line), self.columns("mask")
        masks = {
            reader: path for reader, column in mask_columns.items() if (path := self.path(line, column)) is not None
        }
        by_reader = {reader if len(mask_columns) > 1 else "": [path] for reader, path in masks.items()}
        modality = modality_words.modality_word(self.modality or self.cell(line, "modality"))
        target, label = self.path(line, self.column.get(TARGET)), self.cell(line, "label")
        own = self.name_of(next(iter(images.values()))) if images else named_case.name if named_case else None
        patient, stated = self.patient(line, named_case), self.cell(line, "id")
        name = text_names.dashed_name(stated or patient or f"row_{index + 1}") if stated or not own else own
        row = CaseRow(
            name,
            {channel: cell_loading.image_cell(path, modality) for channel, path in images.items()},
            {
                **({} if label is None or str(label) not in called else {"class": called[str(label)]}),
                **self.references(line),
                **self.texts(index, [*images.values(), *(named_case.paths if named_case else ())]),
                **cell_loading.mask_cells(by_reader),
                **({TARGET: cell_loading.image_cell(target, modality)} if target else {}),
            },
            split=table_join.split_of(self.cell(line, "split")),
            patient=patient,
            covariates=table_reading.covariates_of_row(line, set(self.column.values())),
        )
        if named_case is None:
            return row
        return replace(
            row,
            name=named_case.name.replace("/", "-") if named_case.patient else name,
            images=named_case.images,
            references={**named_case.references, **row.references},
            split=row.split or named_case.split,
            covariates={**named_case.covariates, **row.covariates},
        )

    def images(self, row: TableRow) -> dict[str, Path]:
        """{channel: file} that a row names by paths, whether it is there or not."""
        each = ((channel, self.path(row, column)) for channel, column in self.columns("image").items())
        return {channel: path for channel, path in each if path is not None}

    @cached_property
    def existing(self) -> list[tuple[Path, TableRow]]:
        """The file or folder that each row names as its image, with the row, where it is there."""
        each = [(self.path(row, self.column["image"]), row) for row in self.table.rows if "image" in self.column]
        return [(path, row) for path, row in each if path is not None and path.exists()]

    @cached_property
    def _root(self) -> Path:
        """The folder in which all images lie."""
        folders = {path.absolute().parent for row in self.table.rows for path in self.images(row).values()}
        return Path(os.path.commonpath(folders)) if folders else self.base

    def name_of(self, path: Path) -> str:
        """The name of a case by the path of its image: the folders say whose it is, where no column does."""
        return "/".join((*path.absolute().parent.relative_to(self._root).parts, dataset_folder.stem_of(path.name)))

    def path(self, row: TableRow, column: str | None) -> Path | None:
        """The file that a cell names: absolute, or relative to the table and inside its folder.

        Its name may be spelt otherwise: its letters composed or not, or the only one that differs in case alone.
        """
        if column is None or row[column] is None:
            return None
        text, path = str(row[column]), self.base / str(row[column])
        if not table_reading.can_be_named(text):
            shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
            problem = f"column {column} holds {shown} of {len(text)} letters, which names no file"
            raise self.table.refusal(problem, "Write the path of a file, or leave the cell blank")
        if not (Path(text).is_absolute() or folder_files.is_named_inside(path, self.table.start)):
            raise self.table.refusal(f"names {text}, which lies outside its folder", "Write the whole path")
        # Some systems write ü as u and a mark in names of files, and tables as one letter.
        apart = self.base / unicodedata.normalize("NFD", text)
        return next((one for one in (path, apart) if one.exists()), None) or self._in_other_case(path) or path

    def _in_other_case(self, path: Path) -> Path | None:
        """The only file whose name differs in upper and lower case alone; None where there is none, or several."""
        if path.parent not in self._names:
            there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
            self._names[path.parent] = text_names.sole_bearers((text_names.folded_path(one), one) for one in there)
        return self._names[path.parent].get(text_names.folded_path(path))

    @cached_property
    def _names(self) -> dict[Path, dict[tuple[str, str], Path]]:
        """{folder: {how a path is found: file}}, filled as rows name files that are not there."""
        return {}


def _is_table(folder: Folder) -> bool:
    """Whether a file is a table."""
    return bool(folder.text_tables) or (folder.members[0].suffix in TABLE_SUFFIXES and not folder.images)


def _stems(folder: Folder) -> set[str]:
    """The names of images, without suffix, beside the tables of a folder."""
    place = Folder(folder.root.parent) if folder.is_file else folder
    return {member.stem for member in (*place.images, *place.dicom)}


def _kinds() -> set[str]:
    """The roles of columns that state something."""
    return {*REFERENCES, *_added_kinds()}


def _with_classes(
    table: DataTable, options: DatasetOptions, images: Callable[[], Collection[str]]
) -> tuple[DataTable, Problems]:
    """The table, with one column of classes where each has a column, or a column for each finding where each has a row,
    and none is named by hand; and the note on it.

    images: as `_with_findings` takes them
    """
    if any(role.partition(":")[0] in _kinds() for role in options.column):
        return table, ()
    if (made := _with_findings(table, images)).findings:
        what = f"the rows are those of the findings {errors.list_phrase(made.findings)} of each image"
        return made, (Problem("note", what, remedy="If they are not, name the column of the images with --column"),)
    if not (classes := table_reading.columns_of_classes(table)):
        return table, ()
    what = f"the columns {errors.list_phrase(classes)} are read as classes: "
    what += "each row has 1 in one of them, and 0 in the others"
    remedy = "If they are no classes, name the columns of the labels with --column"
    return table_reading.with_column_of_classes(table, classes), (Problem("note", what, remedy=remedy),)


def _with_images(table: DataTable, column: Mapping[str, str], folder: Folder, options: DatasetOptions) -> Manifest:
    """The table with the column that names images by their paths, else by what only one of them is called.

    A path to DICOM without the patient's column is also looked up: headers know whose images they are.
    """
    given_image = any(role.startswith("image:") for role in column)
    paths = column if given_image or "image" in column else _with_files(table, column)
    manifest = Manifest(table, paths, _base(RoleTable(table, paths)), modality=options.modality)
    if given_image:
        return manifest
    existing = manifest.existing
    if existing and ("patient" in paths or file_formats.format_of(existing[0][0]) != "dicom"):
        return manifest
    words = {str(row[column["modality"]]) for row in table.rows} if "modality" in column else set()
    if not options.modality and len(words) == 1:
        options = replace(options, modality=modality_words.modality_word(words.pop()))
    named = NamedCases.of_table(table, folder, options)
    holders = {name for role, name in column.items() if role not in ("image", "id", "patient")}  # of something else
    image_column = named.column(table, paths.get("image"), holders) if named else None
    if image_column is None or (existing and image_column != paths["image"]):
        return manifest
    made = replace(manifest, column={**column, "image": image_column}, named=named)
    # Paths may lead out of the folder of the table: each row has to name the very files that are there.
    places = ((path, [one for case in made.cases(row) for one in case.paths]) for path, row in existing)
    return made if all(any(path in (one, *one.parents) for one in own) for path, own in places) else manifest


def _with_people(table: DataTable, column: Mapping[str, str]) -> Mapping[str, str]:
    """The roles, where a number that comes again names whose images the rows are, not one of them."""
    if "patient" in column or "id" not in column:
        return column
    numbers = table.cells(column["id"])
    is_again = len(numbers) / MOST_OF_ONE <= len(set(numbers)) < len(numbers)
    return {"patient" if is_again and role == "id" else role: name for role, name in column.items()}


def _with_files(table: DataTable, column: Mapping[str, str]) -> dict[str, str]:
    """The roles, and the one other column whose cells are files that exist as the images.

    Raises DatasetError where there are several.
    """
    names = [name for name in table_reading.columns_of_files(table, table.start) if name not in column.values()]
    if len(names) > 1:
        first, second = names[:2]
        remedy = f"Say what they are: --column image={first},mask={second} where one is a mask, or --column "
        remedy += f"image:{first}={first},image:{second}={second} where both are images of a case"
        raise table.refusal(f"the columns {', '.join(names)} name files, and none is called image", remedy)
    return {**({"image": names[0]} if names else {}), **column}


def _classes_stated(manifest: Manifest) -> list[StatedClass]:
    """The class of each row that states one, its part, and whether it states something else."""
    masks, stated = manifest.columns("mask").values(), list[StatedClass]()
    for row in manifest.table.rows:
        if (label := manifest.cell(row, "label")) is not None:
            is_further = any(row[name] is not None for name in masks) or bool(manifest.references(row))
            stated.append(StatedClass(str(label), table_join.split_of(manifest.cell(row, "split")), is_further))
    return stated


def _added_kinds() -> tuple[str, ...]:
    """Kinds of reference that other packages add: each is a role that one column can have."""
    return tuple(kind for kind in plugins.entry_points_of("hilum.references") if kind not in ROLES)


def _columns(table: DataTable, options: DatasetOptions) -> dict[str, str]:
    """{role: column}, as --column names them, else by known names.

    Of roles that several columns can have, each is <role>:<name>. Raises DatasetError for two columns of one name that
    differ, where nobody says which of them has the role.
    """
    taken = set(options.column.values())
    known = {**{role: table.column(names) for role, names in ROLES.items()}, **dict.fromkeys(_added_kinds())}
    if str(known["label"]).lower() == TARGET and known["label"] in table_reading.columns_of_files(table, table.start):
        known |= {"label": None, TARGET: known["label"]}
    columns = table_roles.columns_by_role(table, options, known, SEVERAL)
    columns |= {f"finding:{name}": name for name in table.findings}
    for kind in ("image", "mask"):
        if any(role.startswith(f"{kind}:") for role in options.column):
            columns.pop(kind, None)
    for role, name in columns.items():
        second = f"{name}.1"  # so pandas calls it
        if name not in taken and second in table.columns and any(row[name] != row[second] for row in table.rows):
            remedy = f"Rename one, or name the one that is meant: --column {role}={name} or --column {role}={second}"
            raise table.refusal(f"has two columns {name}, which differ", remedy)
    return {role: columns[role] for role in (*ROLES, *columns) if role in columns}


def _whole(table: RoleTable) -> dict[str, str]:
    """{role: column} with <role>:<name> for roles of several columns, also of a single one but a single mask."""
    kinds = [kind for kind in SEVERAL if kind != "mask" or "mask" not in table.column]
    several = {f"{kind}:{name}": own for kind in kinds for name, own in table.columns(kind).items()}
    return {role: own for role, own in table.column.items() if role.partition(":")[0] not in kinds} | several


def _base(table: RoleTable) -> Path:
    """The folder to which paths are relative: where they start, else its one sub-folder with the images."""
    folder = table.table.start
    cells = map(str, table.table.cells(next(iter(table.columns("image").values()), None)))
    names = [name for name in cells if table_reading.can_be_named(name)]
    if not names or any((folder / name).exists() for name in names):
        return folder
    holders = [p for p in sorted(folder.iterdir()) if p.is_dir() and any((p / name).exists() for name in names)]
    return holders[0] if len(holders) == 1 else folder


def _image_problems(manifest: Manifest, folder: Folder, taken: Sequence[CaseRow]) -> Iterator[Problem]:
    """Problems of images without a row or a column that names them, and the note on rows of slices.

    taken: cases of the folder that have a row, whole or a slice of them
    """
    series, name = manifest.named.reading.rows if manifest.named else (), manifest.table.path.name
    stated = {path for row in taken for path in row.paths}
    rowless = [case.name for case in series if stated.isdisjoint(case.paths)]
    what = f"{errors.count_phrase(len(rowless), 'image has', 'images have')} no row in {name}"
    yield from layout.left_out_problem(rowless, what, "Add their rows, or remove the images", "warning")
    whole = {case.name for case in series}
    if slices := [case.name for case in taken if case.name not in whole]:
        rows = errors.count_phrase(len(slices), "row names", "rows name")
        what = f"{rows} a single slice of a series each, which is then a case"
        why = f"column {manifest.column.get('image')} of {name} names files of series"
        remedy = "For cases of whole series name the column that has them: --column image=COLUMN"
        yield Problem("note", what, (), why, remedy)
    is_named = folder.is_file or bool(manifest.columns("image"))
    if not is_named and (count := len(folder.images) + len(folder.dicom)):
        what = f"no column of {name} names the images next to it ({errors.count_phrase(count, 'file')})"
        remedy = "Name the column, --column image=COLUMN"
        yield Problem("warning", what, why="its cases have no image", remedy=remedy)


def _finding_notes(manifest: Manifest) -> Iterator[Problem]:
    """The notes on findings of which readers were not sure, and on signs that separate those of a cell."""
    if manifest.unsure:
        stated = errors.list_phrase(f"{name}: {count}" for name, count in manifest.unsure.items())
        what = f"-1 in columns of 0 and 1 is read as not known ({stated})"
        yield Problem("note", what, (), "such a finding of a case trains and tests nothing", "Write 1 or 0 to count it")
    cells = list(map(str, manifest.table.cells(column := manifest.column.get("findings"))))
    known = ("|", ";", COMMA) if manifest.has_commas else ("|", ";")
    if signs := [sign for sign in known if any(sign in cell for cell in cells)]:
        several = sum(len(manifest.named_in(row) or ()) > 1 for row in manifest.table.rows)
        what = f"findings in column {column} are separated by {' and '.join(signs)}"
        what += f": {several} of {len(cells)} cells list several"
        yield Problem("note", what, remedy="Write another sign where one of these belongs to a name")


def _labelled_tables(folder: Folder, columns: Collection[str] = ()) -> tuple[FolderMember, ...]:
    """The one table of a folder; of several the only one with labels next to images, or those of different parts.

    Text files count where there is no other table. A sample of what to submit to a challenge has columns of labels, and
    none in them.
    columns: that a person named: the only table that has them all is meant, or those of parts that have
    """
    tables = folder.tables or folder.text_tables
    if len(tables) == 1:
        return tables
    heads = {one: head for one in tables if columns and (head := table_reading.try_table(one.path, most=1))}
    having = tuple(member for member, head in heads.items() if {*columns} <= {*head.columns})
    if len(having) == 1:
        return having
    stating = [member for member in tables if not _is_submission(member)]
    labelled = tuple(member for member in stating if table_reading.states_references(member.path)) or having
    labelled = tuple(member for member in labelled if not _holds_pixels(member)) or labelled
    parts = [table_join.part_in_name(member.path) for member in labelled]
    is_parted = len(labelled) > 1 and None not in parts and len(set(parts)) == len(parts)
    return labelled if is_parted or (len(labelled) == 1 and (folder.images or folder.dicom)) else ()


def _is_submission(member: FolderMember) -> bool:
    """Whether a table is a sample of what to submit to a challenge."""
    return "submission" in member.stem.lower()


def _holds_pixels(member: FolderMember) -> bool:
    """Whether a table holds the pixels of images beside their labels, and so names none, as hmnist_28_28_L.csv."""
    return any(PIXEL.fullmatch(name) for name in table_reading.read_table(member.path, most=0).columns)


def _joined_tables(members: Sequence[FolderMember], *, codes: Collection[str | None] = ()) -> DataTable:
    """A table; several are joined, each the part that its name states.

    codes: further columns that name patients or cases
    Raises DatasetError for one that is damaged, for unlike columns, and for parts that a column states too.
    """
    first, *others = tables = [table_reading.read_table(member.path, codes=codes) for member in members]
    if not others:
        return first
    for other in others:
        if unlike := set(first.columns) ^ set(other.columns):
            problem = f"has other columns than {first.path.name} ({errors.list_phrase(sorted(unlike))})"
            raise other.refusal(problem, "Give all tables of parts the same columns, or give one of the files")
    if column := first.column(SPLIT_COLUMNS[:1]):
        problem = f"column {column} and the name {first.path.name} both state a part"
        raise first.refusal(problem, "Join the tables to one with this column, or remove the column")
    rows = ({**row, PART: table_join.part_in_name(table.path)} for table in tables for row in table.rows)
    places = (f"{place} of {table.path.name}" for table in tables for place in table.places)
    return replace(first, columns=(*first.columns, PART), rows=tuple(rows), places=tuple(places))


def _with_findings(table: DataTable, images: Callable[[], Collection[str]]) -> DataTable:
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
    return replace(table, columns=(column, *findings), rows=rows, findings=findings, places=())


EXAMPLE: Example = {f"pictures/x{n}.png": n for n in range(4)} | {
    "list.csv": "image,patient,oedema,effusion,volume,time,event,split,known words\n"
    "pictures/x0.png,P0,0,1,0.0,1,0,train,0\npictures/x1.png,P0,1,0,1.5,2,1,train,1\n"
    "pictures/x2.png,P1,0,1,3.0,3,0,test,2\npictures/x3.png,P1,1,0,4.5,4,1,test,3\n"
}
LAYOUT = Layout(
    "manifest", "a table with a row for each case", fits, read, frozenset({"plain_images", "dicom_folder"}), EXAMPLE
)
