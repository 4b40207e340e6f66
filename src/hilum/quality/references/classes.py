"""Classes: one name for each case."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hilum import errors
from hilum.report import Figure
from hilum.report.figures import cohort_figures
from hilum.values import (
    Case,
    Cohort,
    Fingerprint,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
    grading,
    grouping,
)
from hilum.values.covariate_values import UNLABELLED
from hilum.values.reference_kind import ReferenceStrata

KIND = "class"
# Of fewer patients of a class none is left for one of training, selection and test.
FEWEST_PATIENTS = 3
# What parts the findings that one cell lists.
BETWEEN = re.compile(r"[|;,]")


def _answers(summary: Any) -> Mapping[str, str]:
    return {"": str(summary)}


def _count(fingerprint: Fingerprint) -> Mapping[str, int]:
    return fingerprint.counts(KIND)


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    for find in (_taught, _spellings, _unknown, _several, _grades):
        yield from find(cohort)


def _taught(cohort: Cohort) -> Iterator[Problem]:
    """Classes of which no case trains, or too few patients for all parts of a split."""
    dataset, training = cohort.dataset, cohort.training
    counts = training.counts()
    if len(counts) == 1:
        [(name, count)] = counts.items()
        which = "" if len(training) == len(dataset) else "training "
        yield Problem(
            # A set with masks can still teach them.
            "warning" if "mask" in dataset.kinds else "error",
            f"{f'all {count} {which}cases are' if count > 1 else f'the one {which}case is'} of one class, {name}",
            (),
            "there is nothing to tell apart",
            "Add cases of another class: at least two classes are needed",
        )
        return
    classes = cohort.summaries(KIND)
    declared = [label.name for label in dataset.classes.get(KIND, ())] or list(cohort.fingerprint.counts())
    untaught = [name for name in declared if counts and name not in counts]
    if untaught:
        yield Problem.warning(
            f"no case that trains is of the class {errors.list_phrase(untaught)}",
            tuple(case for case, name in classes.items() if name in untaught),
            "it cannot be learnt, so that every case of it will be misclassified",
            "Add cases of it to the training part, or leave the class out",
        )
    owner = {case.id: case.patient for case in dataset}
    people = {
        name: len({owner[case] for case, own in classes.items() if own == name})
        for name in cohort.fingerprint.counts()
        if name not in untaught
    }
    few = {name: count for name, count in people.items() if count < FEWEST_PATIENTS}
    if few:
        unit = "patient" if dataset.patients_known else "case"
        yield Problem.warning(
            f"few of a class: {', '.join(f'{name} has {errors.count_phrase(n, unit)}' for name, n in few.items())}",
            tuple(case for case, name in classes.items() if name in few),
            "it cannot be in training, selection and test at once",
            "Add cases of it, or join it with another class",
        )


def _spellings(cohort: Cohort) -> Iterator[Problem]:
    """Classes whose names differ only in upper and lower case: typed by hand, they are usually one."""
    spellings = grouping.by_key((name.casefold(), name) for name in cohort.fingerprint.counts())
    for names in spellings.values():
        if len(names) > 1:
            yield Problem.warning(
                f"the classes {errors.list_phrase(names)} differ only in upper and lower case",
                tuple(case for case, name in cohort.summaries(KIND).items() if name in names),
                "each is learnt as a class of its own, and as many mistakes are counted",
                "Spell them alike if they are one class",
            )


def _unknown(cohort: Cohort) -> Iterator[Problem]:
    """Classes whose name says that nobody knows the class."""
    for name in cohort.fingerprint.counts():
        if name.strip().lower() in UNLABELLED:
            yield Problem.warning(
                f"the class {name} seems to say that the class is not known",
                tuple(case for case, own in cohort.summaries(KIND).items() if own == name),
                "it is learnt and scored as a class of its own",
                "Leave these labels blank, unless it is a class",
            )


def _several(cohort: Cohort) -> Iterator[Problem]:
    """Classes that are made of the names of others, as a table of findings has them."""
    names = cohort.fingerprint.counts()
    parts = {name: [part.strip() for part in BETWEEN.split(name)] for name in names}
    joined = [name for name, own in parts.items() if len(own) > 1 and all(part in names for part in own)]
    if joined:
        yield Problem.warning(
            f"the class {errors.list_phrase(joined)} is made of the names of other classes",
            tuple(case for case, own in cohort.summaries(KIND).items() if own in joined),
            "its cases would be taught as having none of these",
            "If a cell lists several findings, name its column so: --column findings=COLUMN",
        )


def _grades(cohort: Cohort) -> Iterator[Problem]:
    """Classes that are numbered, with a number missing between them."""
    numbers = sorted(grading.grades_in_names(list(cohort.fingerprint.counts())) or ())
    missing = sorted(set(range(numbers[0], numbers[-1])) - set(numbers)) if len(numbers) > 2 else []
    if missing:
        yield Problem.note(
            f"the classes are numbered {errors.list_phrase(numbers)}: no case has {errors.list_phrase(missing)}",
            (),
            "if they are grades, their distances are counted in places of this order, and a gap counts as one step",
            "Add cases of the missing grade, or state what mistakes cost with --set task.costs=...",
        )


def _strata(cases: Sequence[Case]) -> Mapping[str, Sequence[str]]:
    return {case.id: [str(case.references[KIND])] for case in cases if KIND in case.references}


def _lines(cohort: Cohort) -> Mapping[str, str]:
    counts = cohort.fingerprint.counts()
    return {"classes": ", ".join(f"{name} ({count})" for name, count in counts.items())} if counts else {}


def split_balance(cohort: Cohort, names: Mapping[str, Sequence[str]]) -> Mapping[str, Mapping[str, int]]:
    """{name: {part of the set's own split: cases}}; names: {case id: its classes or findings}."""
    counts: dict[str, dict[str, int]] = {}
    for case, own in names.items():
        part = cohort.dataset.splits.get(case, "all")
        for name in own:
            counts.setdefault(name, {}).setdefault(part, 0)
            counts[name][part] += 1
    return counts


def _charts(cohort: Cohort) -> Iterator[Figure]:
    classes = sorted(cohort.summaries(KIND).items(), key=lambda item: str(item[1]))
    if counts := split_balance(cohort, {case: [str(name)] for case, name in classes}):
        yield cohort_figures.class_balance(counts, "Class balance")


CLASS = ReferenceKind(
    KIND,
    ReferenceFacts(answers=_answers, counted=_count),
    ReferenceChecks(cohort=_cohort_problems),
    ReferenceStrata(_strata),
    ReferenceWords("classes", "the classes can be told apart", _lines, _charts),
)
