"""Assembly of a data set from a layout's cases: ids, patients, covariates, classes and problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress, count
from pathlib import PurePosixPath
from typing import Any, Literal

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import file_formats, modality_words, patient_names
from hilum.files.patient_names import UNKNOWN, NamedPatients
from hilum.layouts import dataset_table, layout
from hilum.layouts.cases import (
    class_labels,
    dataset_folder,
    known_structures,
    opening,
    table_join,
    table_reading,
    unnamed_masks,
)
from hilum.layouts.cases.column_names import OF_ONE_PERSON
from hilum.layouts.cases.dataset_folder import PACKED, Folder, FolderMember
from hilum.layouts.cases.known_structures import BETWEEN, COLUMN
from hilum.layouts.cases.table_join import Join
from hilum.layouts.cases.table_reading import SPREADSHEETS, TABLE_SUFFIXES, LongTable
from hilum.layouts.layout import DatasetOptions, Problems, Reading
from hilum.values import Case, CaseRow, Dataset, LazyMapping, Problem, dataset_cases, grouping
from hilum.values.dataset_cases import DatasetTable

# Before the name of a case whose patient nobody knows, though those of others are.
NOBODY = "unknown-"
# Larger groups, on average, are no one person's.
MOST_TOGETHER = 20


def assemble_dataset(folder: Folder, reading: Reading, options: DatasetOptions) -> Dataset:
    """The data set.

    Raises DatasetError where no case is left, or none is labelled though labels are wanted.
    """
    found, stated = reading.rows, list[str]()
    rows, empty_files = _without_empty_files(found)
    if options.references:
        stated.append(_own_kinds(rows))
        if rows and (rule := options.class_rule) is not None:
            rows, classes = class_labels.with_classes_by_rule(rows, rule, folder, options)
            reading = replace(reading, classes={**reading.classes, "class": classes})
            stated.append(f"classes by --class-rule {rule}")
    rows, without_label = _keep_labelled(rows, folder, options)
    if not rows:
        raise _no_case(folder, [*reading.problems, *empty_files])
    ids = case_ids(rows)
    join, join_notes = _join_patients(folder, rows, ids, reading, options)
    rows = join.cases if join else rows
    rows, parted, list_notes = table_join.assign_parts(rows, folder) if options.references else (rows, "", [])
    patients = _patients(rows, ids, reading, options, join)
    if patients.known or not options.references:  # else what is said of patients parts the data
        milder: Literal["warning", "note"] = "warning" if options.references else "note"
        join_notes = [replace(one, severity=milder) if one.severity == "error" else one for one in join_notes]
    tables = filter(None, map(LongTable.from_file, reading.courses)) if reading.is_own else folder.long_tables.values()
    firsts, owners = [row.paths[0] for row in rows if row.paths], list(zip(ids, patients.names, strict=True))
    courses, used, course_notes = table_join.join_courses(tables, owners, firsts)
    stated += [join.how if join else "", parted]
    stated.append(f"courses from {errors.list_phrase(path.name for path in used)}" if used else "")
    problems = [*reading.problems, *empty_files, *without_label, *_absent(rows, reading.channels)]
    problems += [*join_notes, *course_notes, *list_notes, *_unopened_notes(folder, options)]
    name = reading.name or (dataset_folder.stem_of(folder.root.name) if folder.is_file else folder.root.resolve().name)
    regions = reading.regions or (class_labels.mask_regions(folder, options) if reading.classes.get("mask") else {})
    classes_of = {kind: labels for kind, labels in reading.classes.items() if labels}
    reading = replace(reading, rows=tuple(rows), classes=classes_of, regions=regions)
    each = zip(rows, owners, courses, strict=True)
    cases = tuple(_case(row, *owner, course, reading, options) for row, owner, course in each)
    dataset = Dataset(
        cases=cases,
        splits={case.id: one.split for case, one in zip(cases, rows, strict=True) if one.split is not None},
        name=name,
        root=folder.root,
        classes=classes_of,
        columns=dict(reading.columns),
        regions=regions,
        readers=reading.readers,
        modality=modality_words.modality_word(options.modality or reading.modality),
        patients=patients.words,
        patients_known=patients.known,
        layout="; ".join(filter(None, (reading.how, *stated))),
        problems=tuple(problems),
    )
    dataset = known_structures.with_known_structures(dataset, folder, found) if options.references else dataset
    declared = dataset_table.declarations_of_reading(reading, options, name, patients.words, used)
    return replace(dataset, table=DatasetTable(tuple(_table_rows(dataset, rows, found)), declared))


def _join_patients(
    folder: Folder, rows: Sequence[CaseRow], ids: Sequence[str], reading: Reading, options: DatasetOptions
) -> tuple[Join | None, list[Problem]]:
    """The rows as a table of patients completes them, and notes on what was not joined.

    A manifest's own columns are preferred to any other table.
    """
    join, notes = None, list[Problem]()
    if not (reading.patients or reading.is_own):
        is_table = bool(reading.columns)
        join, notes = table_join.join_table(
            folder, rows, ids, options.patient, read=reading.tables, of_patients=is_table
        )
        notes = [one for one in notes if not is_table or one.severity != "note"]
    return join, [*notes, *_unread_tables(folder, reading, join)]


def _table_rows(dataset: Dataset, rows: Sequence[CaseRow], found: Sequence[CaseRow]) -> Iterator[CaseRow]:
    """The rows as they are written: of the cases by their ids, with patient and part, then those that were left out."""
    for case, row in zip(dataset, rows, strict=True):
        is_known = dataset.patients_known and case.patient != f"{NOBODY}{case.id}"
        known = {} if case.known is None else {COLUMN: BETWEEN.join(sorted(case.known))}
        covariates = {**{name: one for name, one in row.covariates.items() if name != COLUMN}, **known}
        patient, split = case.patient if is_known else None, dataset.splits.get(case.id)
        yield replace(row, name=case.id, patient=patient, split=split, covariates=covariates)
    kept, taken = {row.name for row in rows}, {case.id for case in dataset}
    for row in found:
        if row.name not in kept:
            name = row.name.replace("/", "-")
            yield replace(row, name=name if name not in taken else f"{name}_left_out")


def _unopened_notes(folder: Folder, options: DatasetOptions) -> Iterator[Problem]:
    """The note on packed files and spreadsheets, which may hold more images, labels or patients."""
    suffixes = (*PACKED, *SPREADSHEETS)
    here = () if folder.is_file or not options.references else folder.members
    names = [one.path.relative_to(folder.root).as_posix() for one in here if one.path.name.lower().endswith(suffixes)]
    if names:
        why = "neither packed files nor spreadsheets are read"
        remedy = "Unpack archives, and save tables as CSV in UTF-8, if the data set lacks what they hold"
        yield Problem("note", errors.list_phrase(names), why=why, remedy=remedy)


def _unread_tables(folder: Folder, reading: Reading, join: Join | None) -> list[Problem]:
    """The note on tables that lie next to the one that was read; none where the layout is no table."""
    if folder.is_file or not reading.columns:
        return []
    used = (*reading.tables, *([join.path] if join else []))
    others = [one.path.name for one in folder.tables or folder.text_tables if one.path not in used]
    what, remedy = f"{errors.list_phrase(others)} next to", "Put what is missing into the table with the labels"
    note = Problem("note", f"{what} {reading.tables[0].name}", why="not read", remedy=remedy)
    return [note] if others else []


def case_ids(cases: Sequence[CaseRow]) -> list[str]:
    """Ids that differ and can be file names.

    The last part of the name where that is different for all, else the whole path, else with the split, else numbered.
    """
    lasts = [PurePosixPath(case.name).name for case in cases]
    paths = [case.name.replace("/", "-") for case in cases]
    joined = [f"{case.split}-{path}" if case.split else path for case, path in zip(cases, paths, strict=True)]
    for names in (lasts, paths, joined):
        if len(set(names)) == len(names):
            return names
    called = Counter(joined)
    free = {name: _numbered_names(name, called) for name in called}
    return [next(free[name]) if called[name] > 1 else name for name in joined]


def _numbered_names(name: str, called: Collection[str]) -> Iterator[str]:
    """The name with each number with which no other is called: of x.png, x.jpg and x_1.png the last is x_1."""
    return (f"{name}_{n}" for n in count(1) if f"{name}_{n}" not in called)


def _case(
    row: CaseRow, name: str, patient: str, courses: Mapping[str, Any], reading: Reading, options: DatasetOptions
) -> Case:
    loaders = opening.case_loaders(row, reading, options)
    return Case(
        id=name,
        patient=patient,
        images=LazyMapping(loaders.images),
        references=LazyMapping(loaders.references),
        covariates={**row.covariates, **courses},
        group=row.group,
        files=opening.files_of_case(row),
        key=opening.case_key(row, reading, options),
        accepted=dataset_table.accepted_kinds(row.accepted),
    )


def _without_empty_files(cases: Sequence[CaseRow]) -> tuple[list[CaseRow], list[Problem]]:
    """The cases without those that have an empty file, known from its size without opening it."""
    files = [(case.name, path) for case in cases for path in opening.files_of_case(case)]
    sizes = {path: path.stat().st_size if path.is_file() else 1 for path in {path for _, path in files}}
    empty = grouping.by_key((name, path) for name, path in files if sizes[path] == 0)
    why, remedy, firsts = "nothing can be read from it", "Get the file again", {n: own[0] for n, own in empty.items()}
    problems = [Problem("error", f"{path.name} is empty", (name,), why, remedy) for name, path in firsts.items()]
    return [case for case in cases if case.name not in empty], problems


def _own_kinds(rows: Sequence[CaseRow]) -> str:
    """The kinds of reference that images' own files hold, in words."""
    kinds = (kind for row in rows for path in row.paths for kind in file_formats.references_in(path))
    named = errors.list_phrase(dict.fromkeys(kinds))
    return f"{named} in the images' own files" if named else ""


def _keep_labelled(cases: list[CaseRow], folder: Folder, options: DatasetOptions) -> tuple[list[CaseRow], Problems]:
    """The cases with a reference, where references are wanted."""
    if not options.references or not cases:
        return cases, ()
    known = [bool(row.references) or any(map(file_formats.references_in, row.paths)) for row in cases]
    if not any(known) and options.bare:
        return cases, ()
    if not any(known):
        raise _no_labels(cases, folder, options)
    bare = [row.name for row, is_labelled in zip(cases, known, strict=True) if not is_labelled]
    what = f"{len(bare)} of {errors.count_phrase(len(cases), 'image')} without a label"
    problems = layout.left_out_problem(bare, what, "Add their labels, or remove the images", "warning")
    return [*compress(cases, known)], problems


def _no_labels(cases: Sequence[CaseRow], folder: Folder, options: DatasetOptions) -> DatasetError:
    """The error of images without a reference: what lies next to them, and why it holds none."""
    firsts = {case.name.partition("/")[0] for case in cases if "/" in case.name}
    single = f" (one folder, {min(firsts)}, cannot define two classes)" if len(firsts) == 1 else ""
    unread = any(member.suffix in (".xml", ".json") for member in folder.members)
    also = "; its XML or JSON files are of none of the layouts that `hilum check --help` lists" if unread else ""
    remedy = "Add class folders, a labels/ or masks/ folder, or a table with a label column"
    if len(cases) > 1:
        remedy += "; where names hold the classes, give --class-rule, as in --class-rule '_(benign|malignant)'"
    problem = f"holds {errors.count_phrase(len(cases), 'image')} and no labels"
    masks = unnamed_masks.masks_among(folder.images, options.read)
    if possible_masks := [one.path.relative_to(folder.root).as_posix() for one in masks]:
        remedy = (
            "Call each mask as its image with _mask at the end, or put both into images/ and masks/ under equal names, "
            "or give a table with the columns image and mask"
        )
        problem += f"; by their values {errors.list_phrase(possible_masks)} may be masks"
        return DatasetError(problem, str(folder.root), remedy)
    if maps := unnamed_masks.label_maps_beside_series(folder, options.read):
        example = maps[0].path.relative_to(folder.root).as_posix()
        pictures = errors.count_phrase(len(maps), "picture looks", "pictures look")
        problem = f"{problem}; {pictures} like a label map, as {example}, but no picture says of which slice it is"
        remedy = (
            "Make one volume (NIfTI) of the pictures of each series, on the series' grid, and put it into the folder "
            "of the series as mask.nii.gz"
        )
        return DatasetError(problem, str(folder.root), remedy)
    here = folder.tables or folder.text_tables
    are_parts = None not in (table_join.part_in_name(member.path) for member in here)
    if len(here) == 1 or (here and are_parts):
        try:
            table = table_reading.read_table(here[0].path)
        except DatasetError as error:
            return error.stating(problem=f"{problem}; {here[0].path.name} {error.problem}", where=str(folder.root))
        also += f"; {table.path.name} has the columns {', '.join(table.columns)}"
        remedy = table_reading.label_remedy(table)
        called = {*case_ids(cases), *(dataset_folder.stem_of(path.name) for case in cases for path in case.paths)}
        if (names := table_join.column_of_strangers(table, called)) is not None:
            also += f", and {names} names none of the images"
            remedy = f"Write their file names into {names}, or name the column that has them: --column image=COLUMN"
    elif tables := [member.path.relative_to(folder.root).as_posix() for member in _tables(folder)]:
        also += f"; tables are {errors.list_phrase(tables)}"
        remedy = "Keep one table in this folder, with a column of the images' names and one of their labels"
        if here:
            remedy = f"Name a column of labels that one of them alone has, --column label=COLUMN. Or {remedy.lower()}"
    elif sheets := [member.path.name for member in folder.members if member.suffix in SPREADSHEETS]:
        also += f"; {errors.list_phrase(sheets)} cannot be read as a table"
        remedy = "Save the table as CSV in UTF-8 (in Excel: CSV UTF-8)"
    return DatasetError(f"{problem}{single}{also}", str(folder.root), remedy)


def _tables(folder: Folder) -> list[FolderMember]:
    """The tables in a folder and below it that are no series and state no readings over time."""
    series = {*folder.images, *folder.long_tables}
    return [one for one in folder.members if one.suffix in TABLE_SUFFIXES and one not in series and not folder.is_file]


def _patients(
    cases: Sequence[CaseRow], ids: Sequence[str], reading: Reading, options: DatasetOptions, join: Join | None
) -> NamedPatients:
    column = join.column if join else reading.patient_column
    if options.patient is not None and options.patient != column:
        return patient_names.patients_by_expression(options.patient, [case.name for case in cases])
    owners = [None if table_reading.names_nobody(case.patient) else case.patient for case in cases]
    if not any(owners) and reading.is_own:
        return _kept_together(cases, ids) or NamedPatients(tuple(ids), UNKNOWN, known=False)
    if not any(owners):
        in_classes = not reading.columns and all("class" in case.references for case in cases)
        guess = patient_names.patients_of([case.name for case in cases], classes=int(in_classes))
        return guess if guess.known else _kept_together(cases, ids) or replace(guess, names=tuple(ids))
    words = reading.patients or (join.patients if join else "")
    # A case without a patient stands for itself, under a name that no patient has.
    names = tuple(str(owner) if owner else f"{NOBODY}{name}" for owner, name in zip(owners, ids, strict=True))
    unknown = sum(1 for owner in owners if not owner)
    gap = f"; {unknown} cases without one stand for themselves" if unknown else ""
    people = errors.count_phrase(len(set(names)), "patient")
    return NamedPatients(names, f"{people}, identified by {words}{gap}", known=True)


def _kept_together(cases: Sequence[CaseRow], ids: Sequence[str]) -> NamedPatients | None:
    """Cases of one lesion, examination or study as one, where a column names these; None where no two are."""
    for column in dict.fromkeys(name for case in cases for name in case.covariates):
        if (what := OF_ONE_PERSON.get(column.lower().replace(" ", "_"))) is None:
            continue
        owners = [case.covariates.get(column) for case in cases]
        names = tuple(name if owner is None else f"{what}-{owner}" for owner, name in zip(owners, ids, strict=True))
        if len(names) / MOST_TOGETHER <= len(set(names)) < len(names):
            words = f"those of one {what}, column {column}, are kept together; who has several is not known"
            return NamedPatients(names, words, known=False)
    return None


def _no_case(folder: Folder, problems: Sequence[Problem]) -> DatasetError:
    """The error of a data set of which every case was left out, with the gravest reason and its remedy."""
    ranked = dataset_cases.worst_first(problems)
    reason = f": {ranked[0].what}" if ranked else ""
    remedy = next((problem.remedy for problem in ranked if problem.remedy), "")
    layouts = "See the layouts in the documentation, or name one with --layout"
    return DatasetError(f"holds no case that can be used{reason}", str(folder.root), remedy or layouts)


def _absent(rows: Sequence[CaseRow], declared: Sequence[str]) -> list[Problem]:
    """The problems that name the cases which lack an image; declared: the images that a case may have."""
    seen = [row for row in rows if row.images]
    lacking = {name: tuple(row.name for row in seen if name not in row.images) for name in declared}
    why = "a model learns from the other cases what it shows, and has to do without it in these"
    remedy, cases = "Add the files where there are some", errors.count_phrase(len(seen), "case")
    found = ((f"channel {name}: {len(without)} of {cases} lack it", without) for name, without in lacking.items())
    return [Problem("warning", what, without, why, remedy) for what, without in found if without]
