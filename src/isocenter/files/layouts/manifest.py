"""Manifests: a table (CSV, TSV, Parquet) with one row a case that names its files and labels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from isocenter.added import added
from isocenter.errors import DatasetError, UsageError, counted
from isocenter.files.layouts import case_folders, class_folders, image_folders, suffix_masks
from isocenter.files.layouts.cases import (
    PATIENT_COLUMNS,
    SPLIT_COLUMNS,
    SPLIT_WORDS,
    TABLE_SUFFIXES,
    Folder,
    Table,
    as_whole,
    can_be_named,
    columns_of_files,
    given,
    load_image,
    mask_labels,
    masks_by_reader,
    name_classes,
    number,
    numbered_names,
    read_table,
    stem_of,
)
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Layout, Reading, left_out
from isocenter.files.modality import common_modality, modality_word
from isocenter.files.storage import is_inside
from isocenter.values import ReferenceKind

# Column names that are understood without --column, in any case, blanks as underscores.
ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "filename", "file_name", "file", "path", "image_path", "image_file", "img", "img_path"),
    "mask": ("mask", "mask_path", "mask_file", "segmentation", "label_path", "segmentation_path"),
    "label": ("label", "class", "target", "diagnosis", "category"),
    "patient": PATIENT_COLUMNS,
    "split": SPLIT_COLUMNS,
    "modality": ("modality",),
    "id": ("case", "case_id", "id"),
    "finding": (),
    "findings": (),
    "value": (),
    "time": (),
    "event": (),
}
# Roles that several columns can have, each under a name of its own: finding:oedema=OEDEMA, value:age=AGE, and of masks
# under that of the reader who drew them, mask:anna=MASK_A.
SEVERAL = ("image", "mask", "finding", "value")
ONLY_NAMES = {"image": "image"}  # of a single column in a role of several; else the column's name
REFERENCES = frozenset({"mask", "label", "finding", "findings", "value", "time", "event"})
# In a column of several names: what parts them, and words that say there is none of them (NIH ChestX-ray14).
BETWEEN, NOTHING = "|", frozenset({"no finding", "no findings", "none", "normal"})
YES, NO = frozenset({"1", "1.0", "true", "yes", "y"}), frozenset({"0", "0.0", "false", "no", "n"})
# Letters of a cell that an error shows.
SHOWN = 60
# Further words of an event.
HAPPENED, CENSORED = frozenset({"dead", "deceased", "died", "event"}), frozenset({"alive", "living", "censored"})


@dataclass(frozen=True)
class Manifest:
    """A table and the roles of its columns."""

    table: Table
    column: Mapping[str, str]
    base: Path

    def cell(self, row: Mapping[str, Any], role: str) -> Any:
        """The value of a role in a row; a whole number in a column of floats stays whole."""
        return as_whole(row[self.column[role]]) if role in self.column else None

    def yes(
        self, row: Mapping[str, Any], column: str, yes: frozenset[str] = YES, no: frozenset[str] = NO
    ) -> bool | None:
        """Whether a cell is yes or no; None where it is blank."""
        word = None if row[column] is None else str(row[column]).strip().lower()
        if word is not None and word not in yes | no:
            remedy = f"Write {' or '.join(sorted(yes))}, {' or '.join(sorted(no))}, or leave it blank"
            raise DatasetError(
                f"column {column} holds {row[column]!r}, neither yes nor no", str(self.table.path), remedy
            )
        return None if word is None else word in yes

    def event(self, row: Mapping[str, Any]) -> tuple[float, bool] | None:
        """A time and whether the event happened then; None where either is blank."""
        if not {"time", "event"} <= set(self.column):
            return None
        happened = self.yes(row, self.column["event"], YES | HAPPENED, NO | CENSORED)
        time = self.measured(row, self.column["time"])
        return None if time is None or happened is None else (time, happened)

    def measured(self, row: Mapping[str, Any], column: str) -> float | None:
        """The number in a cell; None where it is blank."""
        if row[column] is None:
            return None
        value = number(row[column])
        if value is None or not math.isfinite(value):
            remedy = "Write a number with a decimal point and without its unit, or leave it blank"
            raise DatasetError(
                f"column {column} holds {row[column]!r}, which is no number", str(self.table.path), remedy
            )
        return value

    def stated(self, row: Mapping[str, Any], kind: str) -> Any:
        """The reference of a kind of another package that a cell states; None where it is blank."""
        cell, column = self.cell(row, kind), self.column[kind]
        if cell is None:
            return None
        reference: ReferenceKind = added("isocenter.references")[kind].load()
        try:
            return reference.facts.of_cell(cell)
        except ValueError as error:
            problem = f"column {column} holds {cell!r}, which is no {kind} ({error})"
            raise DatasetError(problem, str(self.table.path), "Correct the cell, or leave it blank") from error

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """All findings of the table: one a column in order, or by name those that its one column lists."""
        listed = {name for row in self.table.rows for name in self._listed(row) or ()}
        return tuple(dict.fromkeys([*_named(self.column, "finding"), *sorted(listed)]))

    def present(self, row: Mapping[str, Any]) -> dict[str, bool]:
        """{finding: whether the row has it}, of those that it states."""
        each = {name: self.yes(row, column) for name, column in _named(self.column, "finding").items()}
        stated = {name: is_present for name, is_present in each.items() if is_present is not None}
        names = self._listed(row)
        return stated if names is None else {name: name in names for name in self.findings if name not in each} | stated

    def _listed(self, row: Mapping[str, Any]) -> list[str] | None:
        """The findings that a cell lists; None where it is blank."""
        text = row[self.column["findings"]] if "findings" in self.column else None
        if text is None:
            return None
        names = [name.strip() for name in str(text).split(BETWEEN)]
        return [name for name in names if name and name.lower() not in NOTHING]

    def _name(self, row: Mapping[str, Any], column: str) -> str:
        """A cell that names a file, if a file can bear the name."""
        text = str(row[column])
        if not can_be_named(text):
            shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
            problem = f"column {column} holds {shown} of {len(text)} letters, which names no file"
            raise DatasetError(problem, str(self.table.path), "Write the path of a file, or leave the cell blank")
        return text

    def path(self, row: Mapping[str, Any], column: str) -> Path | None:
        """The file that a cell names: absolute, or relative to the table and inside its folder."""
        if row[column] is None:
            return None
        text = self._name(row, column)
        path = Path(text) if Path(text).is_absolute() else self.base / text
        if not Path(text).is_absolute() and not is_inside(path, self.table.path.parent):
            raise DatasetError(
                f"names {text}, which lies outside its folder", str(self.table.path), "Write the whole path"
            )
        return path


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A table itself; or a folder with one table, named by --column or with images or nothing else in it."""
    if folder.is_file:
        return folder.members[0].suffix in TABLE_SUFFIXES and not folder.images
    if len(folder.tables) == 0 or (len(folder.tables) > 1 and folder.images):
        return False
    if not (folder.images or folder.dicom):
        return True
    try:
        table = read_table(folder.tables[0].path)
    except DatasetError:  # a damaged table is reported where it would have been joined to the images
        return False
    image = table.column(ROLES["image"]) or next(iter(columns_of_files(table, folder.root)), None)
    if image is None or not (names := [str(row[image]) for row in table.rows if row[image] is not None]):
        return False
    # Where folders or names hold the labels, a table is a manifest only if it has some itself.
    known = {member.path.name for member in folder.images}
    is_labelled = any(table.column(ROLES[role]) for role in ("mask", "label"))
    others = (image_folders, suffix_masks, case_folders, class_folders)
    if not is_labelled and any(layout.fits(folder, options) for layout in others):
        return False
    return sum(Path(name).name in known for name in names) * 2 > len(names)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Cases with the rest of the columns as covariates."""
    if not (folder.tables or (folder.is_file and folder.members[0].suffix in TABLE_SUFFIXES)):
        raise UsageError("holds no table", str(folder.root), "Give a CSV, TSV or Parquet file with a row for each case")
    if not folder.is_file and len(folder.tables) != 1:
        names = ", ".join(member.path.name for member in folder.tables)
        raise DatasetError(f"holds {len(folder.tables)} tables ({names})", str(folder.root), "Give one of the files")
    table = read_table(folder.members[0].path if folder.is_file else folder.tables[0].path)
    if not table.rows:
        raise DatasetError("the table has no rows", str(table.path), "Write one row a case")
    column = _columns(table, options)
    if not any(role.partition(":")[0] == "image" for role in column):
        column = _with_files(table, column)
    manifest = Manifest(table, column, _base(table, column))
    if options.references and not {*REFERENCES, *added_kinds()} & {role.partition(":")[0] for role in column}:
        raise DatasetError(
            f"no column has labels (columns: {', '.join(table.columns)})",
            str(table.path),
            "Name it, as in --column label=COLUMN or --column mask=COLUMN",
        )
    drawn = _named(column, "mask")
    labels = mask_labels(folder, options) if drawn else ()
    stated = {str(value) for row in table.rows if (value := manifest.cell(row, "label")) is not None}
    classes, called = name_classes(stated, folder, options, declare=not drawn)
    cases, missing = [], []
    for index, row in enumerate(table.rows):
        case = _case(manifest, index, row, labels, called, options)
        if all(path.exists() for path in case.files):
            cases.append(case)
        else:
            missing.append(case.name)
    words = {str(word) for row in table.rows if (word := options.modality or manifest.cell(row, "modality"))}
    roles = ", ".join(f"{role}={name}" for role, name in column.items())
    return Reading(
        tuple(cases),
        how=f"table {table.path.name} with {roles or 'no known column'}",
        classes={"mask": labels, "class": classes, "findings": numbered_names(manifest.findings)},
        modality=common_modality(sorted(words)),
        patients=f"column {column['patient']} of {table.path.name}" if "patient" in column else "",
        patient_column=column.get("patient"),
        columns=_whole(column),
        readers=tuple(drawn) if len(drawn) > 1 else (),
        channels=tuple(_named(column, "image")),
        problems=left_out(
            missing,
            f"{counted(len(missing), 'row names', 'rows name')} files that are not there",
            "Correct the paths, or get the files",
        ),
    )


def _with_files(table: Table, column: Mapping[str, str]) -> dict[str, str]:
    """The roles, and the one other column whose cells are files that exist as the images.

    Raises DatasetError where there are several.
    """
    names = [name for name in columns_of_files(table, table.path.parent) if name not in column.values()]
    if len(names) > 1:
        raise DatasetError(
            f"the columns {', '.join(names)} name files, and none is called image",
            str(table.path),
            f"Say which are images and which are masks, as in --column image={names[0]},mask={names[1]}",
        )
    return {**({"image": names[0]} if names else {}), **column}


def _case(
    manifest: Manifest, index: int, row: dict[str, Any], labels: tuple, called: dict[str, str], options: DatasetOptions
) -> CaseFiles:
    images = {
        channel: path
        for channel, column in _named(manifest.column, "image").items()
        if (path := manifest.path(row, column)) is not None
    }
    drawn = _named(manifest.column, "mask")
    masks = {reader: path for reader, column in drawn.items() if (path := manifest.path(row, column)) is not None}
    modality = modality_word(options.modality or manifest.cell(row, "modality"))
    references = _references(manifest, row, called)
    by_reader = {reader if len(drawn) > 1 else "": [path] for reader, path in masks.items()}
    references |= masks_by_reader(by_reader, labels, options.read, options.kinds)
    named = manifest.cell(row, "id") or (stem_of(next(iter(images.values())).name) if images else None)
    used = set(manifest.column.values())
    split, patient = manifest.cell(row, "split"), manifest.cell(row, "patient")
    return CaseFiles(
        str(named or patient or f"row_{index + 1}").replace("/", "-").replace("\\", "-"),
        {channel: partial(load_image, path, options.read, modality) for channel, path in images.items()},
        references,
        files=tuple(file for path in (*images.values(), *masks.values()) for file in _files(path)),
        key=_digest(row),
        split=SPLIT_WORDS.get(str(split).lower()),
        patient=str(patient) if patient is not None else None,
        covariates={name: value for name, value in row.items() if name not in used},
    )


def _files(path: Path) -> list[Path]:
    """The file, or those of a folder of DICOM."""
    return sorted(inside for inside in path.rglob("*") if inside.is_file()) if path.is_dir() else [path]


def _digest(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row: it belongs to the case, the rest of the table does not."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()


def _references(manifest: Manifest, row: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, Callable[[], Any]]:
    references: dict[str, Callable[[], Any]] = {}
    label = manifest.cell(row, "label")
    if label is not None:
        references["class"] = partial(given, called[str(label)])
    values = {name: manifest.measured(row, column) for name, column in _named(manifest.column, "value").items()}
    if known := {name: value for name, value in values.items() if value is not None}:
        references["value"] = partial(given, known)
    if findings := manifest.present(row):
        references["findings"] = partial(given, findings)
    if (event := manifest.event(row)) is not None:
        references["event"] = partial(given, event)
    stated = {kind: manifest.stated(row, kind) for kind in added_kinds() if kind in manifest.column}
    return references | {kind: partial(given, value) for kind, value in stated.items() if value is not None}


def added_kinds() -> tuple[str, ...]:
    """Kinds of reference that other packages add: each is a role that one column can have."""
    return tuple(kind for kind in added("isocenter.references") if kind not in ROLES)


def _columns(table: Table, options: DatasetOptions) -> dict[str, str]:
    """{role: column}, as --column names them, else by known names.

    Of roles that several columns can have, each is <role>:<name>.
    """
    for role, name in options.column.items():
        kind, colon, _ = role.partition(":")
        if kind not in (SEVERAL if colon else (*ROLES, *added_kinds())):
            named = ", ".join((*ROLES, *added_kinds(), *(f"{one}:NAME" for one in SEVERAL)))
            raise UsageError(f"there is no role {role!r}", f"--column {role}={name}", f"Choose one of {named}")
        if name not in table.columns:
            raise UsageError(
                f"{table.path.name} has no column {name}", f"--column {role}={name}",
                f"Choose one of {', '.join(table.columns)}",
            )  # fmt: skip
    taken = set(options.column.values())
    known = {role: table.column(names) for role, names in ROLES.items()}
    columns = {role: name for role, name in known.items() if name is not None and name not in taken} | dict(
        options.column
    )
    if options.patient in table.columns:
        columns["patient"] = str(options.patient)
    for kind in ("image", "mask"):
        if any(role.startswith(f"{kind}:") for role in options.column):
            columns.pop(kind, None)
    return {role: columns[role] for role in (*ROLES, *columns) if role in columns}


def _named(column: Mapping[str, str], kind: str) -> dict[str, str]:
    """{name: column} of a role that several columns can have, in order; a single one has its column's name."""
    several = {role.partition(":")[2]: name for role, name in column.items() if role.startswith(f"{kind}:")}
    if several or kind not in column:
        return several
    return {ONLY_NAMES.get(kind, column[kind]): column[kind]}


def _whole(column: Mapping[str, str]) -> dict[str, str]:
    """{role: column} with <role>:<name> for roles of several columns, also of a single one but a single mask."""
    kinds = [kind for kind in SEVERAL if kind != "mask" or "mask" not in column]
    several = {f"{kind}:{name}": own for kind in kinds for name, own in _named(column, kind).items()}
    return {role: own for role, own in column.items() if role.partition(":")[0] not in kinds} | several


def _base(table: Table, column: Mapping[str, str]) -> Path:
    """The folder to which paths are relative: the table's folder, else its one sub-folder with the images."""
    folder, images = table.path.parent, list(_named(column, "image").values())
    cells = [str(row[images[0]]) for row in table.rows if images and row[images[0]] is not None]
    names = [name for name in cells if can_be_named(name)]
    if not names or any((folder / name).exists() for name in names):
        return folder
    holders = [p for p in sorted(folder.iterdir()) if p.is_dir() and any((p / name).exists() for name in names)]
    return holders[0] if len(holders) == 1 else folder


LAYOUT = Layout("manifest", "a table with a row for each case", fits, read, over=frozenset({"plain_images"}))
