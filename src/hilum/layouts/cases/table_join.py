"""Tables joined to cases: covariates, patients and splits by case or by patient, and readings over time.

A spreadsheet may have rewritten numbers in names: 0001 as 1 or 1.0, and S007 as 7. A table may name patients of DICOM
by their numbers, and one PatientID of two issuers belongs to two people. Text files list parts of a data set, an image
or a patient in each line, as train.txt and val.txt, or train_val_list.txt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from hilum import errors
from hilum.errors import DatasetError, FormatError
from hilum.files.dicom import header_reading, tags
from hilum.files.storage import hashing
from hilum.layouts.cases import dataset_folder, table_reading, text_names
from hilum.layouts.cases.column_names import (
    CASE_COLUMNS,
    FOLD_COLUMNS,
    OF_ONE_PERSON,
    PATIENT_COLUMNS,
    SPLIT_COLUMNS,
)
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.cases.names import PART_WORDS, SPLIT_WORDS
from hilum.layouts.cases.table_reading import DataTable, LongTable, TableRow
from hilum.values import CaseRow, Problem, Split, grouping

NNUNET_FOLDS = "splits_final.json"
CLASS_TABLES = frozenset({"classes", "labels", "colours", "colors", "colormap", "dseg"})
# Names of each side in a problem, and a rule by which each case is its own patient.
FIRST, EACH_ITS_OWN = 3, "'.+'"
DECIMALS = re.compile(r"(\d+)\.0+")
LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")
WORD_AND_NUMBER = re.compile(r"(?P<word>\D*)(?P<number>\d+)")
NO_LETTER = re.compile(r"[\W_]+")
LIST_SUFFIXES = frozenset({".txt", ".list", ".lst"})
# What holds the validation cases too, of which another list may say which they are.
BOTH: frozenset[Split] = frozenset({"train", "val"})
FEWEST = 2  # parts that are listed: one alone would leave nothing to test or to train

# The lists of one folder, each with the parts that it may name.
Lists = Sequence[tuple[frozenset[Split], Path]]
# What two names have in common where they mean the same; None of a name that has nothing of the kind.
Key = Callable[[str], str | None]
Owner = tuple[str, str]  # the id of a case, and its patient


@dataclass(frozen=True)
class Join:
    """A table joined to the cases.

    cases:    with covariates, and patients and splits where the table has them
    how:      in words, for the layout
    patients: the rule, in words; empty where the table names no patients
    column:   that names the patients
    renamed:  {case, or patient whose name it starts with: its name in the table}, where numbers are written otherwise
    """

    cases: list[CaseRow]
    path: Path
    how: str
    patients: str = ""
    column: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)


def join_table(
    folder: Folder,
    cases: Sequence[CaseRow],
    ids: Sequence[str],
    patient: str | None,
    *,
    read: Collection[Path] = (),
    of_patients: bool = False,
) -> tuple[Join | None, list[Problem]]:
    """The cases with the columns of the first table that has a row for each, and notes on tables that have not.

    Where it names no patients, also those of the first table that does.
    patient: the column that names patients, where the caller chose it
    read:    tables that the layout has read, which are left out
    of_patients: only tables that name patients, or what is one person's, and hold no labels
    """
    names = (patient.strip().lower().replace(" ", "_"), *PATIENT_COLUMNS) if patient else PATIENT_COLUMNS
    problems, joined, used = list[Problem](), None, None
    for member in folder.tables:
        if member.stem.lower() in CLASS_TABLES or member.path in read:
            continue
        try:
            table = table_reading.read_table(member.path, codes=names)
        except DatasetError as error:
            what = f"{member.path.name} {error.problem}"
            problems.append(Problem("note", what, why="it is not used", remedy=error.remedy))
            continue
        column = table.column(names)
        is_of_people = not of_patients or table.column((*names, *OF_ONE_PERSON)) is not None
        if not is_of_people or (joined and column is None) or (of_patients and table_reading.is_label_column(table)):
            continue
        used_columns = (column, table.column(CASE_COLUMNS), table.column(SPLIT_COLUMNS))
        values, notes = table_reading.convert_values(table, used_columns)
        if (own := _join(values, cases, ids, column)) is None:
            problems += _unjoined_problems(table, ids, column)
            continue
        problems += [*_renamed_note(own.path, own.renamed), *notes]
        joined = own if joined is None else replace(own, how=f"{joined.how} and {own.path.name}")
        cases, used = joined.cases, used or table
        if joined.column is not None:
            break
    return joined, [*problems, *fold_notes(folder, used)]


def _renamed_note(path: Path, renamed: Mapping[str, str]) -> Iterator[Problem]:
    """The note that a table writes numbers otherwise than the cases' names, with the first three of both."""
    pairs = [f"{stated} is {case}" for case, stated in renamed.items()]
    if pairs:
        what = f"{path.name} writes names otherwise than the files: {errors.list_phrase(pairs, FIRST)}"
        why = "each of them fits exactly one, so that they are taken for the same"
        yield Problem("note", what, why=why, remedy="Correct the table if they are not")


def _unjoined_problems(table: DataTable, ids: Sequence[str], patient: str | None) -> Iterator[Problem]:
    """The problem of a table with unlike rows of a case, or that names none of the cases, or only some.

    It is an error where the table says whose they are: cases of one patient would else lie in several parts.
    """
    column, count = table.column(CASE_COLUMNS) or patient, errors.count_phrase(len(ids), "case")
    if twice := _stated_twice(table, ids):
        what = f"{table.path.name} has several rows for {len(twice)} of {len(ids)} cases, which differ"
        is_severe = (patient or table.column(SPLIT_COLUMNS)) is not None  # patients and parts are guessed without it
        remedy = "Leave one row of each, or add a column of their times"
        yield Problem("warning" if is_severe else "note", what, twice, "it is not used", remedy)
        return
    if column is None:
        return
    rows = dict.fromkeys(map(text_names.bare_name, table.cells(column)))
    missing = [name for name in ids if name not in rows and (column != patient or _owner(name, rows) is None)]
    some = tuple(missing) if len(missing) < len(ids) else ()
    name = table.path.name
    what = f"{name} has no row for {len(some)}" if some else f"column {column} of {name} names none"
    what += f" of {count}: it names {errors.list_phrase(rows, FIRST)}, and the cases are "
    what += errors.list_phrase(missing, FIRST)
    mend = f"Write the cases' names into {column}"
    if patient is None:
        is_severe = table.column((*OF_ONE_PERSON, *SPLIT_COLUMNS)) is not None
        remedy = "Add the rows" if some else mend
        yield Problem("warning" if is_severe else "note", what, some, "it is not used", remedy)
        return
    if not missing:
        what = f"column {column} of {table.path.name} names some patients in several rows"
        mend = "Leave one row of each"
    whose = f"state whose the cases are by --patient ({EACH_ITS_OWN}: each its own)"
    why = "images of one of its patients could train and test"
    yield Problem("error", what, (), why, f"{mend}; to go on without the table, {whose}")


def fold_notes(folder: Folder, table: DataTable | None) -> list[Problem]:
    """Notes on folds that somebody else chose, in a column of the table that is used or in the file of nnU-Net."""
    column = table.column(FOLD_COLUMNS) if table else None
    stated = [f"{table.path.name} has a column {column}"] if table and column else []
    file = folder.root / NNUNET_FOLDS
    stated += [f"{NNUNET_FOLDS} states the folds of nnU-Net"] if not folder.is_file and file.is_file() else []
    why = "they are not used, because `--folds K` makes its own folds"
    remedy = "To test on one of them, name its cases in a table with the columns case and split: test for these, "
    remedy += "train for the others"
    return [Problem("note", what, why=why, remedy=remedy) for what in stated]


def split_column(table: DataTable, chosen: str | None = None) -> str | None:
    """The column that names the part of each row: the chosen one, or one of a known name.

    A column called subset or partition of whose words none names a part means something else.
    Raises DatasetError for a word that names no part: its cases would train.
    """
    column = chosen or table.column(SPLIT_COLUMNS)
    words = {str(table_reading.as_whole_number(cell)) for cell in table.cells(column)}
    strangers = sorted(word for word in words if word.lower() not in SPLIT_WORDS)
    is_sure = chosen is not None or column == table.column(SPLIT_COLUMNS[:1])
    if not strangers or (len(strangers) == len(words) and not is_sure):
        return None if strangers else column
    problem = f"column {column} says {errors.list_phrase(strangers)}, which names no part"
    remedy = "Write train, val, calibration or test, or leave the cell blank; rename a column of something else"
    raise table.refusal(problem, remedy)


def split_of(word: Any) -> Split | None:
    """The part that a cell of the column of `split_column` names; None where it is blank."""
    return None if word is None else SPLIT_WORDS[str(word).lower()]


def part_of_row(table: DataTable, row: TableRow) -> Split | None:
    """The part that a row states in a column called split; None where it states none."""
    column = table.column(SPLIT_COLUMNS[:1])
    return SPLIT_WORDS.get(str(row[column]).lower()) if column else None


def part_in_name(path: Path) -> Split | None:
    """The part that one word of a file's name states, as in train.csv, labels_test.csv and trainLabels.csv."""
    parts = parts_in_name(path)
    return next(iter(parts)) if len(parts) == 1 else None


def parts_in_name(path: Path) -> frozenset[Split]:
    """The parts that the words of a file's name state, as in train_val_list.txt."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", path.name.split(".")[0])
    return frozenset(PART_WORDS[word.lower()] for word in words if word.lower() in PART_WORDS)


def column_of_strangers(table: DataTable, ids: Collection[str]) -> str | None:
    """The column whose name says that it names cases, where it names none of these, nor begins one's name."""
    column = table.column(CASE_COLUMNS)
    known = {*ids, *(re.split(r"[\W_]", name)[0] for name in ids)}
    return column if column and known.isdisjoint(map(text_names.bare_name, table.cells(column))) else None


def join_courses(
    tables: Iterable[LongTable], cases: Sequence[Owner], files: Sequence[Path] = ()
) -> tuple[list[TableRow], list[Path], list[Problem]]:
    """The readings of each case, (id, patient), in long tables, the tables that have some, and notes on the others.

    files: one of each case
    """
    joined: list[TableRow] = [{} for _ in cases]
    used, problems = [], list[Problem]()
    for long in tables:
        own = _read_of(long, cases, files)
        if not _has_readings(own):
            alike = _owners_alike(long, cases)
            own = _read_of(long, [(alike.get(case, case), alike.get(person, person)) for case, person in cases], files)
            problems += _renamed_note(long.table.path, alike) if alike else [_unmatched_courses(long, cases)]
        if _has_readings(own):
            joined = [{**had, **one} for had, one in zip(joined, own, strict=True)]
            used.append(long.table.path)
            problems += long.problems
    return joined, used, problems


def _has_readings(rows: Sequence[TableRow]) -> bool:
    return any(value is not None for row in rows for value in row.values())


def _owners_alike(long: LongTable, cases: Sequence[Owner]) -> dict[str, str]:
    """{case or patient: its name in a long table}, where numbers are written otherwise."""
    stated = long.courses().keys()
    sides = zip(*cases, strict=True) if long.is_of_cases else ([person for _, person in cases],)
    return next(filter(None, (match_same_names(stated, dict.fromkeys(names)) for names in sides)), {})


def _unmatched_courses(long: LongTable, cases: Sequence[Owner]) -> Problem:
    """The note on a long table that names none of the cases; where patients are hidden, no name in it is repeated."""
    what = f"column {long.owner} of {long.table.path.name} names none of "
    what += f"{errors.count_phrase(len(cases), 'case')} or their patients"
    if not any(hashing.is_pseudonym(person) for _, person in cases):
        what += f": it names {errors.list_phrase(long.courses(), FIRST)}, "
        what += f"and the cases are {errors.list_phrase((c for c, _ in cases), FIRST)}"
    return Problem("note", what, why="its readings are not used", remedy=f"Write the cases' names into {long.owner}")


def covariates_of_cases(
    path: Path, cases: Sequence[Owner], files: Sequence[Path] = (), numbers: Collection[str] = ()
) -> tuple[list[TableRow], list[Problem]]:
    """The columns of a table for each case, (id, patient), without those that name either: of its row or the patient's.

    files:   one of each case, in whose headers issuers of PatientIDs are looked up where the table states such numbers
    numbers: columns that have to be numbers
    The second value is what was understood of columns, and what was not.
    Raises DatasetError for a table that names neither, or has no row for one of them, and for a cell that is no number.
    """
    table = table_reading.read_table(path)
    by_case, by_patient = table.column(CASE_COLUMNS), table.column(PATIENT_COLUMNS)
    if (column := by_case or by_patient) is None:
        problem = f"no column names cases or patients (columns: {', '.join(table.columns)})"
        raise table.refusal(problem, "Call a column case, with the files' names, or patient")
    if (long := LongTable.from_table(table)) is not None:
        return _read_of(long, cases, files), list(long.problems)
    own_numbers = {name for name in table.columns if name.casefold() in {one.casefold() for one in numbers}}
    table, problems = table_reading.convert_values(table, (by_case, by_patient), own_numbers)
    known = [name for name in table.columns if name not in (by_case, by_patient)]
    numbered, rows = NumberedPatients(files, str(path)), list[TableRow | None]([None] * len(cases))
    if by_case:
        rows = _rows_of(_row_of_each(table, by_case, known), cases, numbered)
    if by_patient and None in rows:
        own = _rows_of(_row_of_each(table, by_patient, known, needed=not by_case), _of_patients(cases), numbered)
        rows = [one or other for one, other in zip(rows, own, strict=True)]
    if missing := [case for (case, _), row in zip(cases, rows, strict=True) if row is None]:
        raise _lacking_rows(table, column, missing, cases)
    return [{name: row[name] for name in known} for row in rows if row is not None], problems


def _row_of_each(table: DataTable, column: str, known: Sequence[str], *, needed: bool = True) -> dict[str, TableRow]:
    """{what a column names: its row}.

    Raises DatasetError where two rows of one name differ in what is known; where they are not needed, they are left
    out. Their names are not repeated: they may be those of people.
    """
    first, unsure, above = dict[str, int](), set(), 1 + table.has_header  # lines are counted from 1
    for number, row in enumerate(table.rows):
        if row[column] is None:
            continue
        before = first.setdefault(name := str(row[column]), number)
        if all(table.rows[before][other] == row[other] for other in known):
            continue
        if needed:
            lines = f"lines {before + above} and {number + above}"
            problem = f"{lines} have the same {column}, and differ in what they state of it"
            raise table.refusal(problem, "Leave one row of each, or add a column of their times")
        unsure.add(name)
    return {name: table.rows[number] for name, number in first.items() if name not in unsure}


def _lacking_rows(table: DataTable, column: str, missing: Sequence[str], cases: Sequence[Owner]) -> DatasetError:
    """The error on cases without a row; where patients are hidden, it repeats no name in the table."""
    problem = f"has no row for {errors.list_phrase(missing)}"
    remedy = "Add a row, if need be with blanks: what is missing is filled in"
    if twice := sorted(case for case, count in Counter(case for case, _ in cases).items() if count > 1):
        problem += f"; several images are called {errors.list_phrase(twice)}, "
        problem += "and a row of this name may be of any of them"
        remedy = "Name their patients in the table, or give the folder that holds them all: "
        remedy += "their folders name them then"
    if len(missing) == len(cases) and any(hashing.is_pseudonym(patient) for _, patient in cases):
        problem += f"; its column {column} names other patients"
        remedy = "Give PatientIDs as the files have them, or the names in cases.csv of an evaluation"
    elif len(missing) == len(cases):
        names = dict.fromkeys(str(row[column]) for row in table.rows)
        problem += f"; its column {column} names {errors.list_phrase([text_names.bare_name(name) for name in names])}"
        remedy = "Give the names of the cases' files, without their endings, or of their patients"
    return table.refusal(problem, remedy)


def _read_of(long: LongTable, cases: Sequence[Owner], files: Sequence[Path]) -> list[TableRow]:
    """The readings by the row's case or else its patient; without rows every column is missing."""
    nothing = table_reading.covariates_of_row(dict.fromkeys(long.table.columns), (long.owner, long.time))
    whose = cases if long.is_of_cases else _of_patients(cases)
    rows = _rows_of(long.courses(), whose, NumberedPatients(files, str(long.table.path)))
    return [nothing if own is None else own for own in rows]


def _of_patients(cases: Sequence[Owner]) -> list[Owner]:
    """The cases, (id, patient), without ids, of which a column of patients says nothing."""
    return [("", patient) for _, patient in cases]


def _rows_of(rows: Mapping[str, TableRow], cases: Sequence[Owner], numbered: NumberedPatients) -> list[TableRow | None]:
    """The row of each case, (id, patient), by its name or else its patient's; None without any.

    Patients of DICOM are pseudonyms, and a table may name them by these or by their PatientIDs. Of images of one name
    in several folders, each is known by the whole path alone; several cases of one name have no row by it.
    """
    called = Counter(map(text_names.bare_name, rows))
    named = {text_names.bare_name(name): row for name, row in rows.items() if called[text_names.bare_name(name)] == 1}
    again = ((name, row) for name, row in rows.items() if called[text_names.bare_name(name)] > 1)
    named |= {dataset_folder.stem_of(text_names.dashed_name(name)): row for name, row in again}
    count = Counter(case for case, _ in cases)
    names = [[one for one in (case, patient) if count[case] == 1 or one != case] for case, patient in cases]
    of_cases = [next((named[one] for one in own if one in named), None) for own in names]
    nameless = {patient for row, (_, patient) in zip(of_cases, cases, strict=True) if row is None}
    if not any(map(hashing.is_pseudonym, nameless)):
        return of_cases
    hidden = {patient: row for name, row in rows.items() for patient in numbered.patients(name, nameless)}
    return [hidden.get(patient) if row is None else row for row, (_, patient) in zip(of_cases, cases, strict=True)]


def _stated_twice(table: DataTable, ids: Sequence[str]) -> tuple[str, ...]:
    """The cases of which two rows state something else; empty for a table that does not have all cases."""
    column = table.column(CASE_COLUMNS)
    stated = [{name: cell for name, cell in row.items() if name != column} for row in table.rows]
    names = [text_names.bare_name(row[column]) for row in table.rows] if column is not None else []
    rows = grouping.by_key(zip(names, stated, strict=False))
    is_whole = set(ids) <= rows.keys()
    return tuple(name for name in ids if any(row != rows[name][0] for row in rows[name])) if is_whole else ()


def _join(table: DataTable, files: Sequence[CaseRow], ids: Sequence[str], patient: str | None) -> Join | None:
    """The table joined by the names of the cases, else by those of patients with which these begin."""
    rows, renamed = _rows_by_case(table, ids)
    owners: Sequence[str | None] = [row[patient] if patient else None for row in rows]
    used, words = (table.column(CASE_COLUMNS), patient), f"column {patient} of {table.path.name}" if patient else ""
    if not rows and patient is not None:
        used, words = (patient, None), f"the name's beginning, which is in {words}"
        rows, owners, renamed = _rows_by_patient(table, ids, patient)
    if not rows:
        return None
    split = split_column(table)
    cases = [
        replace(
            case,
            covariates={**case.covariates, **table_reading.covariates_of_row(row, (*used, split))},
            split=case.split or split_of(row[split] if split else None),
            patient=case.patient if owner is None else str(owner),
        )
        for case, row, owner in zip(files, rows, owners, strict=True)
    ]
    return Join(cases, table.path, f"covariates from {table.path.name}", words, patient, renamed)


def _rows_by_case(table: DataTable, ids: Sequence[str]) -> tuple[list[TableRow], dict[str, str]]:
    """(row of each case, {case: its name in the table} where numbers are written otherwise); none where one has none.

    Names that are written otherwise count where no two rows are of one name.
    """
    column, renamed = table.column(CASE_COLUMNS), dict[str, str]()
    if column is None or _stated_twice(table, ids):
        return [], {}
    rows = {text_names.bare_name(row[column]): row for row in table.rows if row[column] is not None}
    if not set(ids) <= rows.keys() and len(rows) == len(table.cells(column)):
        renamed = match_same_names(rows, ids)
    rows |= {name: rows[stated] for name, stated in renamed.items()}
    return ([rows[name] for name in ids], renamed) if set(ids) <= rows.keys() else ([], {})


def _rows_by_patient(
    table: DataTable, ids: Sequence[str], column: str
) -> tuple[list[TableRow], list[str], dict[str, str]]:
    """As `_rows_by_case` by the patient with whose name that of a case begins, with these; none of several rows."""
    rows, renamed = {str(row[column]): row for row in table.rows if row[column] is not None}, dict[str, str]()
    owners = [own for own in (_owner(name, rows) for name in ids) if own is not None]
    if len(rows) < len(table.rows):
        return [], [], {}
    if len(owners) < len(ids):
        owners = match_same_beginnings(rows, [_beginnings(name) for name in ids])
        renamed = match_same_names(rows, dict.fromkeys(owners))
        rows |= {name: rows[stated] for name, stated in renamed.items()}
    return [rows[owner] for owner in owners], owners, renamed


def _owner(name: str, rows: Container[str]) -> str | None:
    """The longest patient that the name starts with, up to a separator or the end."""
    return next((beginning for beginning in _beginnings(name) if beginning in rows), None)


def _beginnings(name: str) -> list[str]:
    """The beginnings of a name, up to its end or a separator, the longest first."""
    return [name[:n] for n in range(len(name), 0, -1) if n == len(name) or not name[n].isalnum()]


def match_same_names(stated: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """{name of a case: its name in a table}, one to one; empty where some case has none, or two names could be meant.

    stated: the names in the table, of which some may be of no case here
    """
    return next(filter(None, (_one_to_one(stated, wanted, key) for key in _keys(stated, wanted))), {})


def match_same_beginnings(stated: Collection[str], beginnings: Sequence[Sequence[str]]) -> list[str]:
    """The beginning of each case's name that a table states as a patient; empty where some case has none.

    beginnings: of each case's name, the longest first
    """
    for key in (_unpad_numbers, _number):
        known = {key(name) for name in stated} - {None}
        owners = [next((one for one in own if key(one) in known), "") for own in beginnings]
        if "" not in owners and match_same_names(stated, dict.fromkeys(owners)):
            return owners
    return []


def _unpad_numbers(name: str) -> str:
    """The name without the zeros before its numbers, without the decimals of a whole number, and in lower case."""
    whole = DECIMALS.fullmatch(name)
    return LEADING_ZEROS.sub("", whole[1] if whole else name).casefold()


def _keys(stated: Collection[str], wanted: Collection[str]) -> Sequence[Key]:
    """The keys that may be tried: numbers without their word only where one word stands before all that have any."""
    words = {_word(_unpad_numbers(name)) for name in (*stated, *wanted)} - {""}
    is_of_all = len(words) == 1 and None not in words and len(set(stated)) == len(set(wanted))
    return (_unpad_numbers, _number) if is_of_all else (_unpad_numbers,)


def _one_to_one(stated: Collection[str], wanted: Collection[str], key: Key) -> dict[str, str]:
    names, cases = _by_key(stated, key), _by_key(wanted, key)
    is_whole = len(cases) == len(set(wanted)) and len(names) == len(set(stated))
    return {case: names[own] for own, case in cases.items()} if is_whole and cases.keys() <= names.keys() else {}


def _by_key(names: Collection[str], key: Key) -> Mapping[str, str]:
    """{key: the name that has it}; fewer than the names where two have one, or one has none."""
    return {own: name for name in names if (own := key(name)) is not None}


def _word(name: str) -> str | None:
    """The word before the number of a name; empty for a bare number, None for a name of another form."""
    fit = WORD_AND_NUMBER.fullmatch(name)
    return NO_LETTER.sub("", fit["word"]) if fit else None


def _number(name: str) -> str | None:
    """The number of a name that is a word and a number."""
    fit = WORD_AND_NUMBER.fullmatch(_unpad_numbers(name))
    return fit["number"] if fit else None


def assign_parts(cases: list[CaseRow], folder: Folder) -> tuple[list[CaseRow], str, list[Problem]]:
    """The cases with the parts that lists name, these in words, and the note on lists that leave cases out.

    Such are not used, nor are lists of several folders that name other parts: nobody could say which was meant.
    Raises DatasetError where two lists name the same case.
    """
    found = [] if folder.is_file or any(case.split for case in cases) else list(_lists(folder))
    keys = _list_keys(cases, folder.root) if found else {}
    stated = [(parts, lists) for lists in found if len(set((parts := _parts(lists, keys)).values())) >= FEWEST]
    whole = [(parts, lists) for parts, lists in stated if len(parts) == len(cases)]
    if not whole or any(parts != whole[0][0] for parts, _ in whole):
        return cases, "", [_unused_lists(parts, lists, len(cases)) for parts, lists in stated]
    parts, lists = whole[0]
    parted = [replace(case, split=parts[number]) for number, case in enumerate(cases)]
    return parted, f"parts as in {errors.list_phrase(path.name for _, path in lists)}", []


def _unused_lists(parts: Mapping[int, Split], lists: Lists, count: int) -> Problem:
    names, absent = errors.list_phrase(path.name for _, path in lists), count - len(parts)
    cases = errors.count_phrase(absent, "case is", "cases are")
    why = f"{cases} in none of them" if absent else "other lists name other parts"
    remedy = "To use them, list every case once, or give a table with the columns case and split"
    return Problem("note", f"the parts of {names} are not used", why=why, remedy=remedy)


def _lists(folder: Folder) -> Iterator[Lists]:
    """The lists of each folder that has at most one for each part, and one of two parts together."""
    listing = ((parts_in_name(one.path), one) for one in folder.members if one.suffix in LIST_SUFFIXES)
    parted = ((BOTH if "trainval" in one.stem.lower() else parts, one.path) for parts, one in listing if parts)
    for own in grouping.by_key((one[1].parent, one) for one in parted).values():
        kinds = {named for named, _ in own}
        if len(own) == len(kinds) >= FEWEST and all(len(named) == 1 or named == BOTH for named in kinds):
            yield sorted(own, key=lambda one: len(one[0]))  # that of both last


def _parts(lists: Lists, keys: Mapping[str, set[int]]) -> dict[int, Split]:
    """{number of a case: its part} of those that are listed; in a list of both parts it trains, unless another says."""
    parts, before = dict[int, Split](), dict[int, Path]()
    for named, path in lists:
        for number, line in _cases_named(path, keys):
            if parts.setdefault(number, min(named)) not in named:
                problem = f"lists {line}, which {before[number].name} lists too"
                raise DatasetError(problem, str(path), "Leave it in one of them")
            before.setdefault(number, path)
    return parts


def _cases_named(path: Path, keys: Mapping[str, set[int]]) -> Iterator[tuple[int, str]]:
    """(number of a case, what names it) for the lines of a list; a line may say more than a name."""
    for line in table_reading.compose_letters(path.read_text(encoding="utf-8", errors="replace")).splitlines():
        name = next((text for text in (line.strip(), *line.replace(",", " ").split()) if text in keys), None)
        yield from ((number, name) for number in sorted(keys[name])) if name is not None else ()


def _list_keys(cases: Sequence[CaseRow], root: Path) -> dict[str, set[int]]:
    """{what may stand in a list: the cases that are meant}: names, files, folders."""
    keys = list[tuple[str, int]]()
    for number, case in enumerate(cases):
        places = [path.relative_to(root) if path.is_relative_to(root) else Path(path.name) for path in case.paths]
        # A path as each of its folders sees it, with and without suffix, and the names of these folders.
        endings = (end for place in places for end in text_names.path_endings(place.as_posix()))
        texts = {one for end in endings for one in (end, dataset_folder.stem_of(end))}
        texts.update({case.name, PurePosixPath(case.name).name}, *(place.parts[:-1] for place in places))
        keys += [(text, number) for text in texts]
    return grouping.distinct_by_key(keys)


class NumberedPatients:
    """The pseudonyms of patients whose PatientIDs a table may state, without the issuer that files name too."""

    def __init__(self, files: Iterable[Path], where: str) -> None:
        """files: one of each case, in whose headers issuers are looked up, once; where: what a refusal names."""
        self._files, self._where = files, where

    def patients(self, number: str, known: Container[str]) -> Sequence[str]:
        """The known pseudonyms that this number stands for: of no issuer, else of the only one of the files.

        DatasetError where several issuers gave numbers, and this is one of them.
        """
        people = self.candidates(number, known)
        if people and hashing.pseudonym_of_number(number) not in known and len(self._issuers) > 1:
            problem = f"{len(self._issuers)} issuers gave the PatientIDs, and one number may be of several people"
            remedy = "Name patients as in cases.csv of an evaluation, or images by their files or folders"
            raise DatasetError(problem, self._where, remedy)
        return people

    def candidates(self, number: str, known: Container[str]) -> Sequence[str]:
        """The known pseudonyms that this number may stand for: of no issuer, else of any of the files."""
        if (own := hashing.pseudonym_of_number(number)) in known:
            return (own,)
        return [one for issuer in self._issuers if (one := hashing.pseudonym_of_number(number, issuer)) in known]

    @cached_property
    def _issuers(self) -> frozenset[str]:
        issuers = set()
        for path in self._files:
            with suppress(FormatError):  # a case of another format has no issuer
                issuers.add(tags.text(header_reading.read_header(path).dataset, "IssuerOfPatientID"))
        return frozenset(issuers - {""})
