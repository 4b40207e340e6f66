"""Patients by file names: rules that assign each name to a person, and that are printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from isocenter.errors import UsageError, counted


@dataclass(frozen=True)
class Rule:
    """The part of a file name that stands for the patient.

    words:  the rule as it is printed
    proves: whether it names patients even where each has one image; else it holds only where it joins several images
    """

    pattern: re.Pattern[str]
    words: str
    proves: bool = True


@dataclass(frozen=True)
class Patients:
    """The patients of a list of names.

    names: the patient of each name, in the order of the names
    words: the rule
    known: False where each case stands for itself because nothing is known
    """

    names: tuple[str, ...]
    words: str
    known: bool


UNKNOWN = "each case stands for itself, because the names do not say whose they are"

# The first that fits a name counts. What stands in the group is the patient.
RULES = (
    Rule(re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+)"), "the BIDS subject (sub-...)"),
    Rule(re.compile(r"(TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4}(?:[-_]\d{8})?)"), "the TCGA barcode (and date)"),
    Rule(re.compile(r"(?:^|[/_-])(\d{3}_S_\d{4})(?!\d)"), "the ADNI subject (site_S_number)"),
    Rule(re.compile(r"(LIDC-IDRI-\d+|LUNG1-\d+)"), "the collection's patient number"),
    Rule(
        re.compile(
            r"(?i)(?:^|[/_ -])"
            r"((?:patient|person|subject|subj|volunteer|participant|proband|pat|pt)[_ -]?(?:id)?[_ -]?\d+)"
        ),
        "the number after a word for a person (patient, person, subject, ...)",
    ),
    Rule(re.compile(r"([^/]*\bIM-\d+)-\d+"), "the name up to the series number after IM-"),
    Rule(
        re.compile(r"(?i)([^/]*\d)[_ .-]*(?:OD|OS|L|R|left|right)$"),
        "the name without the side (L, R, ...) at its end",
        False,
    ),
    Rule(
        re.compile(r"(?i)([^/]*\d[^/]*?)[_ -]+(?:slice|slc|frame|view|phase|visit|tile|patch|img|image)[_ -]?\d+$"),
        "the name without the slice, frame, view or image number at its end",
        False,
    ),
    Rule(re.compile(r"(?i)(?:^|/)((?:case|p|s)[_-]?\d+)[_-][^/]*$"), "the number at the start of the name", False),
    Rule(re.compile(r"(?:^|/)(\d+)[_-]\d+$"), "the first of the name's two numbers", False),
)
FEWEST = 3  # A rule that leaves one or two patients has matched the study's name, not the patient's.


def patients_of(names: Sequence[str]) -> Patients:
    """The patient of each name (a path without suffix) by the first rules that fit all of them."""
    fits = [_first_fit(name) for name in names]
    if not fits or any(fit is None for fit in fits):
        return Patients(tuple(names), UNKNOWN, known=False)
    known = [fit for fit in fits if fit is not None]
    owners, rules = tuple(owner for owner, _ in known), {rule.words: rule for _, rule in known}
    proven = all(rule.proves for rule in rules.values())
    joins = FEWEST <= len(set(owners)) < len(names)
    if not (proven or joins):
        return Patients(tuple(names), UNKNOWN, known=False)
    return Patients(owners, f"{counted(len(set(owners)), 'patient')}, identified by {' or '.join(rules)}", known=True)


def patients_by(pattern: str, names: Sequence[str]) -> Patients:
    """The patient of each name by a person's own regular expression: its first group, else all that it matches.

    Raises UsageError where the expression is wrong or does not fit every name.
    """
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"is not a regular expression ({error})", f"--patient {pattern}", "Try (case\\d+)") from error
    fits = [rule.search(name) for name in names]
    missed = [name for name, fit in zip(names, fits, strict=True) if fit is None]
    if missed:
        raise UsageError(
            f"is not a column, and does not match {len(missed)} of {len(names)} case names, such as {missed[0]}",
            f"--patient {pattern}",
            "Give the name of a column, or an expression with a group around the patient, such as (case\\d+)",
        )
    owners = tuple(fit.group(1 if rule.groups else 0) for fit in fits if fit is not None)
    return Patients(owners, f"{counted(len(set(owners)), 'patient')}, identified by --patient {pattern}", known=True)


def names_a_person(name: str) -> bool:
    """Whether a folder's name stands for a person, not for a class."""
    fit = _first_fit(name)
    return fit is not None and fit[1].proves


def _first_fit(name: str) -> tuple[str, Rule] | None:
    for rule in RULES:
        if fit := rule.pattern.search(name):
            return fit.group(1), rule
    return None
