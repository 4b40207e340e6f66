"""One pass over all cases: what is here, what is wrong, and the numbers that planning needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from isocenter.errors import IsocenterError
from isocenter.quality.case_checks import letters, no_measurement, odd_image, on_other_grids
from isocenter.quality.case_facts import facts_of
from isocenter.quality.cohort_checks import mixed_images, none_left
from isocenter.quality.covariates import covariates
from isocenter.quality.label_proxies import disguises
from isocenter.quality.leakage import leakage
from isocenter.quality.near_duplicates import Twin, groups, twins
from isocenter.quality.outliers import outliers
from isocenter.quality.references import kinds_of, reference_kinds
from isocenter.quality.shortcuts import Seen, shortcut_problems, shortcuts
from isocenter.quality.thumbnail import Look, look
from isocenter.runtime import Spread, local
from isocenter.transforms import stacked
from isocenter.values import (
    Array,
    Case,
    CaseFacts,
    CaseReference,
    Cohort,
    Dataset,
    Fingerprint,
    Image,
    Problem,
    Shortcut,
)

# Called with the number of cases done and of all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Examination:
    """A data set as far as it can be used, and what was found about it.

    dataset:   without the cases that cannot be used
    problems:  all that was found
    fatal:     those of them because of which nothing should be trained on the rest either
    twins:     groups of cases that hold (nearly) the same image
    shortcuts: what was tried to tell the classes apart without the disease, the strongest first
    pairs:     the twins, two by two
    looks:     {case id: how it looks}
    """

    dataset: Dataset
    fingerprint: Fingerprint
    problems: tuple[Problem, ...]
    fatal: tuple[Problem, ...] = ()
    twins: tuple[frozenset[str], ...] = ()
    shortcuts: tuple[Shortcut, ...] = ()
    pairs: tuple[Twin, ...] = ()
    looks: Mapping[str, Look] = field(default_factory=dict)


def examine(
    dataset: Dataset, *, threads: int = 1, progress: Progress | None = None, spread: Spread | None = None
) -> Examination:
    """Read every case once, several side by side; one bad case is named and the rest goes on.

    spread: where cases are read; if none is given on this machine, many cases in processes that may crash
    """
    facts: list[CaseFacts] = []
    looks: dict[str, Look] = {}
    problems = list(dataset.problems)
    outcomes: dict[int, _Measured | IsocenterError] = {}
    for number, outcome in (spread or local(threads, dataset.cases))(_measured, dataset.cases):
        outcomes[number] = outcome
        if progress is not None:
            progress(len(outcomes), len(dataset))
    for number, case in enumerate(dataset.cases):
        outcome = outcomes.pop(number)
        seen, found = (None, [_unusable(case, outcome)]) if isinstance(outcome, IsocenterError) else outcome
        problems.extend(found)
        if seen is not None:
            facts.append(seen[0])
            looks[seen[0].id] = seen[1]
    return _compared(dataset, Fingerprint(tuple(facts)), looks, problems)


def retested(
    examination: Examination,
    *,
    aspect: str = "stretch",
    border: float = 0.0,
    shape: Sequence[int] | None = None,
    ids: set[str] | None = None,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """The shortcuts as they stand after the plan's preprocessing, from what each case's small image keeps.

    aspect, border: as in the plan's section "preprocessing"; shape: of the network's grid, where it is fixed
    ids:            of these (training) cases alone; else of all but the set's own test part
    """
    seen = Seen(aspect, border, None if shape is None else tuple(shape))
    return shortcuts(examination.dataset, examination.fingerprint, examination.looks, ids=ids, seen=seen, seed=seed)


_Measured = tuple[tuple[CaseFacts, Look] | None, list[Problem]]


def _measured(case: Case) -> _Measured:
    try:
        image = stacked(case.images, case.id)
        image = image.with_pixels(image.data)  # read once: every measure looks at the voxels
        valid = image.valid
        references = {name: _read(case, name, image, valid) for name in case.references}
        masks = [one for one in references.values() if isinstance(one.value, Image)]
        checked = [(kind.checks, references[kind.name]) for kind in kinds_of(references)]
        problems = [
            *no_measurement(case, image, valid),
            *(problem for checks, reference in checked for problem in checks.unusable(reference)),
            *on_other_grids(case, image, masks),
        ]
        if problems:
            return None, problems
        measures = {kind.name: kind.facts.measure(references[kind.name]) for kind in kinds_of(references)}
        seen = look(image, valid)
        problems = [
            *odd_image(case, image, valid, masks),
            *(problem for checks, own in checked for problem in checks.odd(own, measures[own.name])),
            *letters(case, seen),
        ]
        return (facts_of(case, image, valid, measures), seen), problems
    except IsocenterError as error:
        return None, [_unusable(case, error)]


def _unusable(case: Case, error: IsocenterError) -> Problem:
    # Without the case's name in it, what many cases have is said once.
    what = error.problem if error.where == case.id else f"{error.where}: {error.problem}"
    return Problem("error", what, (case.id,), "cannot be used", error.remedy)


def _read(case: Case, name: str, image: Image, valid: Array) -> CaseReference:
    """A reference with its voxels, if it has any, read once."""
    value: Any = case.references[name]
    value = value.with_pixels(value.data) if isinstance(value, Image) else value
    return CaseReference(case.id, name, value, image, valid)


def _compared(
    dataset: Dataset, fingerprint: Fingerprint, looks: Mapping[str, Look], problems: Sequence[Problem]
) -> Examination:
    """What is found about the cases beside each other."""
    usable = dataset.only({case.id for case in fingerprint.cases})
    pairs = twins(looks)
    tried = shortcuts(usable, fingerprint, looks)
    of_all = [
        *none_left(problems, fingerprint),
        *(problem for kind in reference_kinds() for problem in kind.checks.cohort(Cohort(usable, fingerprint))),
        *mixed_images(usable, fingerprint),
        *leakage(dataset, fingerprint, pairs),
        *covariates(dataset),
        *disguises(usable, fingerprint),
        *shortcut_problems(tried),
    ]
    of_the_whole = [problem for problem in dataset.problems if not problem.cases]
    fatal = tuple(problem for problem in (*of_the_whole, *of_all) if problem.severity == "error")
    found = (*_joined(problems), *of_all, *outliers(fingerprint.cases, looks))
    return Examination(replace(usable, problems=found), fingerprint, found, fatal, groups(pairs), tried, pairs, looks)


def _joined(problems: Sequence[Problem]) -> list[Problem]:
    """One problem for all cases that have it."""
    cases: dict[Problem, list[str]] = {}
    for problem in problems:
        cases.setdefault(replace(problem, cases=()), []).extend(problem.cases)
    return [replace(problem, cases=tuple(found)) for problem, found in cases.items()]
