"""Patients by the names of files and folders: rules that assign each name to a person, and that are printed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from hilum import errors
from hilum.errors import UsageError
from hilum.files.modality_words import WORDS
from hilum.values import grouping


@dataclass(frozen=True)
class NameRule:
    """The part of a file name that stands for the patient.

    pattern: its groups together are the patient
    words:  the rule as it is printed
    proves: whether it names patients even where each has one image; else it holds only where it joins several images
    """

    pattern: re.Pattern[str]
    words: str
    proves: bool = True


@dataclass(frozen=True)
class NamedPatients:
    """The patients of a list of names.

    names: the patient of each name, in the order of the names
    words: the rule
    known: False where each case stands for itself because nothing is known
    """

    names: tuple[str, ...]
    words: str
    known: bool


UNKNOWN = "each case stands for itself, because the names do not say whose they are"

# Words for the kinds of image that one patient may have several of.
_KINDS = "|".join(sorted((*WORDS["MR"], *WORDS["CT"], *WORDS["PT"]), key=len, reverse=True))
# Words for the times of a person's examinations: around a treatment, and with a number.
_STAGES = (
    r"(?:pre|post)(?:[_ .-]?(?:op|treatment|therapy|contrast|surgery|chemo))?|baseline|follow[_ -]?up|before|after"
    r"|vorher|nachher"
)
_VISITS = r"visit|session|ses|exam|time[_ -]?point|tp|week|month|day|year|fu|v"
_DATE = r"(?:19|20)\d{2}[-_.]?[01]\d[-_.]?[0-3]\d|\d{2}[-_.]\d{2}[-_.](?:19|20)\d{2}"
EXAMINATION = re.compile(
    rf"(?i)(?:(?:{_STAGES})[_ .-]?\d{{0,2}}|(?:{_VISITS})[_ .-]?\d{{1,3}}|(?:{_DATE})(?:[_ -].*)?)"
)
# The first that fits a name counts. What stands in the groups is the patient.
RULES = (
    NameRule(re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+)"), "the BIDS subject (sub-...)"),
    NameRule(re.compile(r"(TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4}(?:[-_]\d{8})?)"), "the TCGA barcode (and date)"),
    NameRule(re.compile(r"(?:^|[/_-])(\d{3}_S_\d{4})(?!\d)"), "the ADNI subject (site_S_number)"),
    NameRule(
        re.compile(
            r"(LIDC-IDRI-\d+|LUNG1-\d+|OAS\d_?\d{4}|C\d+P\d+(?=ThinF)|BraTS-[A-Za-z]+-\d{5}|ProstateX-\d{4}|Breast_MRI_\d+"
            r"|P_\d{5}(?=_(?:LEFT|RIGHT))|UPENN-GBM-\d{5}|UCSF-PDGM-\d{4}|C3[LN]-\d{5}"
            r"|(?<!\d)\d{7}(?=_\d{5}_\d_\d)|(?<!\d)\d{3}(?=_\d?HC$)|(?<=\d{8}_)[\da-f]{16}(?=_MG_))"
        ),
        "the collection's patient number",
    ),
    NameRule(
        re.compile(
            r"(?i)(?:^|[/_ -])"
            r"((?:patient|person|subject|subj|volunteer|participant|proband|pat|pt)[_ -]?(?:id)?[_ -]?\d+)"
        ),
        "the number after a word for a person (patient, person, subject, ...)",
    ),
    NameRule(re.compile(r"([^/]*\bIM-\d+)-\d+"), "the name up to the series number after IM-"),
    NameRule(
        re.compile(r"(?i)([^/]*\d)[_ .-]*(?:OD|OS|L|R|left|right)$"),
        "the name without the side (L, R, ...) at its end",
        False,
    ),
    NameRule(
        re.compile(
            r"(?i)(?:^|/)([^/]*\d[^/]*?)[_ .-]+(?:(?:L|R|OD|OS|left|right)[_ .-]*)?"
            r"(?:CC|MLO|XCCL|AP|PA|LAT|lateral|frontal|axial|coronal|sagittal|ax|cor|sag|2CH|3CH|4CH|SAX|LAX|LA|SA)"
            r"(?:[_ .-]+(?:L|R|OD|OS|left|right))?$"
        ),
        "the name without the side and the view (L_CC, AP, sagittal, ...) at its end",
        False,
    ),
    NameRule(
        re.compile(rf"(?i)(?:^|/)([^/]*[^\W_][^/]*?)[_ .-]+(?:{_STAGES})[_ .-]?\d{{0,2}}$"),
        "the name without the time (pre, post, baseline, follow-up) at its end",
        False,
    ),
    NameRule(
        re.compile(
            r"(?i)([^/]*\d[^/]*?)[_ -]+(?:slice|slc|frame|view|phase|tile|patch|crop|cell|img|image|"
            rf"{_VISITS}|m|t)[_ -]?\d+$"
        ),
        "the name without the slice, frame, view, visit or image number at its end",
        False,
    ),
    NameRule(
        re.compile(r"(?:^|/)([^/]*\d[^/]*?)[_ -]+(?:\d{2}-\d{2}-\d{4}|(?:19|20)\d{2}-?[01]\d-?[0-3]\d)$"),
        "the name without the date at its end",
        False,
    ),
    NameRule(re.compile(r"(?i)(?:^|/)((?:case|p|s)[_-]?\d+)[_-][^/]*$"), "the number at the start of the name", False),
    # Without a word before it, which may be the class: CNV-12-3 and NORMAL-12-1 are of the same person.
    NameRule(re.compile(r"(?:^|/)(?:[A-Za-z]+-)?(\d+)[_-]\d+$"), "the first of the name's two numbers", False),
    NameRule(
        re.compile(rf"(?i)(?:^|/)([^/]*\d)[_ .-]+(?:{_KINDS})(?:[_ .-][a-z]+)*$"),
        "the name without the kind of image (T1, CT, ...) at its end",
        False,
    ),
    NameRule(
        re.compile(rf"(?i)(?:^|/)((?:[^/]*[_ .-])?)(?:{_KINDS})[_ .-]([^/]*\d)$"),
        "the name without the kind of image (T1, CT, ...) in it",
        False,
    ),
    NameRule(
        re.compile(r"(?i)(?:^|/)([^/]+?)[_.](?:jpe?g|png|bmp|tiff?|webp)\.rf\.[\da-z]+$"),
        "the name before .rf., with which Roboflow numbers changed copies of an image",
        False,
    ),
)
FEWEST = 3  # A rule that leaves one or two patients has matched the study's name, not the patient's.
# Numbered folders that part a set, or are classes of it.
NO_PERSON = re.compile(
    r"(?i)(?:part|batch|chunk|fold|split|set|images?|imgs?|masks?|labels?|class|grade|stage|type|level|category|score|"
    r"group|birads|bi-rads|pirads|pi-rads|isup|site|cent(?:er|re)|hospital|scanner|task|year)[_\- ]?\d+$"
    r"|^(?:19|20)\d{2}$"
)
# Fewer numbered folders part a set; and fewer with the same numbers in each folder above them are kinds of image.
FEWEST_FOLDERS, FEWEST_NUMBERED = 5, 10
NUMBERED = re.compile(r"^(?P<before>.*?)(?P<number>\d+)(?P<after>\D*)$")


def patients_of(names: Sequence[str], *, classes: int = 0) -> NamedPatients:
    """The patient of each name (a path without suffix) by the first rules that fit all of them.

    Where no rule knows a person, those images are one's that lie in the same numbered folder: people who are taken for
    one lie in one part of a set, which leaks nothing.
    classes: so many folders at the start of each name are classes
    """
    fits = [_first_fit(name) for name in names]
    fitting = [fit for fit in fits if fit is not None]
    owners, rules = tuple(owner for owner, _ in fitting), {rule.words: rule for _, rule in fitting}
    fit_all = bool(fits) and len(fitting) == len(fits)
    if fit_all and all(rule.proves for rule in rules.values()):
        return _known_patients(owners, " or ".join(rules))
    paths = [PurePosixPath(name).parts[classes:] for name in names]
    if hold_examinations(paths) and len(folders := tuple(path[0] for path in paths)) > len(set(folders)):
        return _known_patients(folders, "the folder in which several examinations lie")
    people = _by_folders(names, classes)
    if fit_all and FEWEST <= len(set(owners)) < len(names) and not (people and _begin_anew(owners, people)):
        return _known_patients(owners, " or ".join(rules))
    if people is not None:
        return _known_patients(people, "the numbered folder in which several images lie")
    return NamedPatients(tuple(names), UNKNOWN, known=False)


def hold_examinations(paths: Collection[Sequence[str]]) -> bool:
    """Whether the first folders are people: what lies in them is called by times (pre, post, visit_2, 2020-01-31)."""
    people = {path[0] for path in paths if len(path) > 1}
    return len(people) >= FEWEST and all(len(path) > 1 and EXAMINATION.fullmatch(path[1]) for path in paths)


def _begin_anew(owners: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether most owners by a name are found in several folders, so that these are the people."""
    places = grouping.distinct_by_key(zip(owners, folders, strict=True))
    return 2 * sum(len(own) > 1 for own in places.values()) > len(places)


def _known_patients(owners: tuple[str, ...], rule: str) -> NamedPatients:
    return NamedPatients(
        owners, f"{errors.count_phrase(len(set(owners)), 'patient')}, identified by {rule}", known=True
    )


def _by_folders(names: Sequence[str], classes: int) -> tuple[str, ...] | None:
    """The highest folders below the classes that can be persons; None where there are none.

    Folders of the same names in each folder above them, as of views or contrasts, are kinds of image.
    """
    paths = [PurePosixPath(name).parts[:-1] for name in names]
    for level in range(classes, min(map(len, paths), default=0)):
        owners = tuple(path[level] for path in paths)
        patients = set(owners)
        are_numbered = all(any(map(str.isdigit, folder)) and not NO_PERSON.search(folder) for folder in patients)
        if not FEWEST_FOLDERS <= len(patients) < len(names) or not are_numbered:
            continue
        above = {path[:level] for path in paths}
        places = {path[: level + 1] for path in paths}
        is_kinds = len(above) > 1 and len(places) == len(patients) * len(above)
        if not is_kinds or (len(patients) >= FEWEST_NUMBERED and all(map(str.isdecimal, patients))):
            return owners
    return None


def are_numbered_people(folders: Collection[str]) -> bool:
    """Whether folders of images with masks are numbered as cases are (Case01, pig_2, 003), and are no classes."""
    fits = [NUMBERED.match(folder) for folder in folders]
    if len(folders) < FEWEST or not all(fits) or any(NO_PERSON.search(folder) for folder in folders):
        return False
    around = {(fit["before"].lower(), fit["after"].lower()) for fit in fits if fit}
    numbers = [fit["number"] for fit in fits if fit]
    before = next(iter(around))[0].strip("_- ")
    if len(around) > 1:
        return False
    is_code = any(number.startswith("0") and len(number) > 1 for number in numbers)
    return is_code if not before else len(before) > 1 or before in {"p", "s"}


def are_named_people(folders: Collection[str]) -> bool:
    """Whether folders are numbered as cases are (Case01, IMD002), by codes or in large number, after a word."""
    if not are_numbered_people(folders) or all(map(str.isdecimal, folders)):
        return False
    numbers = [fit["number"] for folder in folders if (fit := NUMBERED.match(folder))]
    return len(folders) >= FEWEST_NUMBERED or any(number.startswith("0") and len(number) > 1 for number in numbers)


def patients_by_expression(pattern: str, names: Sequence[str]) -> NamedPatients:
    """The patient of each name by a person's own regular expression: its first group, else all that it matches.

    Raises UsageError where the expression is wrong or does not fit every name.
    """
    found = match_by_expression(pattern, names, "--patient", "(case\\d+)")
    missed = [name for name, owner in zip(names, found, strict=True) if owner is None]
    if missed:
        raise UsageError(
            f"is not a column, and does not match {len(missed)} of {len(names)} case names, such as {missed[0]}",
            f"--patient {pattern}",
            "Give the name of a column, or an expression with a group around the patient, such as (case\\d+)",
        )
    owners = tuple(owner for owner in found if owner is not None)
    return NamedPatients(
        owners, f"{errors.count_phrase(len(set(owners)), 'patient')}, identified by --patient {pattern}", known=True
    )


def match_by_expression(pattern: str, names: Sequence[str], flag: str, example: str) -> list[str | None]:
    """The match of a person's own regular expression in each name: its first group, else all of it.

    None where it matches nothing. Raises UsageError, by the flag and with an example, where it is wrong.
    """
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"is not a regular expression ({error})", f"{flag} {pattern}", f"Try {example}") from error
    return [fit.group(1 if rule.groups else 0) if (fit := rule.search(name)) else None for name in names]


def names_a_person(name: str) -> bool:
    """Whether a folder's name stands for a person, not for a class."""
    fit = _first_fit(name)
    return fit is not None and fit[1].proves


def _first_fit(name: str) -> tuple[str, NameRule] | None:
    for rule in RULES:
        if fit := rule.pattern.search(name):
            return "".join(fit.groups()), rule
    return None
