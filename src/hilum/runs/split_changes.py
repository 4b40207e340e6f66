"""Changes of a run's split that a person made after the training had begun: who moved, and what no split may be."""

from __future__ import annotations

from collections.abc import Mapping

from hilum import errors
from hilum.errors import PlanError
from hilum.lazy import pandas as pd
from hilum.values import Dataset, dataset_cases, grouping
from hilum.values.dataset_cases import SPLITS

# {fold: {case: part}}; the set's own test part is in no fold, whose name is empty.
PartsByFold = Mapping[str, Mapping[str, str]]
NO_PART = "no part"


def parts_by_fold(split: pd.DataFrame) -> dict[str, dict[str, str]]:
    """The part of each case, in each fold, however the table is sorted and saved."""
    parts: dict[str, dict[str, str]] = {}
    for case, fold, part in zip(split["case"], split["fold"], split["split"], strict=True):
        parts.setdefault(str(fold), {})[str(case)] = str(part)
    return parts


def refuse_unfit_parts(before: PartsByFold, now: PartsByFold, dataset: Dataset, where: str) -> None:
    """Raise PlanError for parts that there are not, and for patients whom a change has put into several parts."""
    unknown = {part for of_fold in now.values() for part in of_fold.values()} - {*SPLITS}
    if unknown:
        problem = f"names parts that there are not: {errors.list_phrase(map(repr, sorted(unknown)))}"
        raise PlanError(problem, where, f"Write {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    torn = _torn_patients(now, dataset) - _torn_patients(before, dataset)
    if torn and dataset.patients_known:
        cases = [case.id for case in dataset if not torn.isdisjoint(dataset_cases.people_of_patient(case.patient))]
        raise PlanError(
            f"{errors.count_phrase(len(torn), 'patient lies', 'patients lie')} in several parts "
            f"(cases {errors.list_phrase(cases)}): a model that only recognises a person would pass the test",
            where,
            "Write one part for all cases of a patient",
        )


def moves_phrase(before: PartsByFold, now: PartsByFold, dataset: Dataset) -> str:
    """ "2 cases of 1 patient from test to train": how many moved between which parts, in any fold."""
    moved: dict[tuple[str, str], set[str]] = {}
    for fold in {**before, **now}:
        old, new = before.get(fold, {}), now.get(fold, {})
        for case in {**old, **new}:
            source, target = old.get(case, NO_PART), new.get(case, NO_PART)
            if source != target:
                moved.setdefault((source, target), set()).add(case)
    owners = {case.id: case.patient for case in dataset} if dataset.patients_known else {}
    phrases = []
    for (source, target), cases in sorted(moved.items()):
        patients = len({owners.get(case, case) for case in cases})
        phrases.append(f"{errors.cases_of_patients(len(cases), patients)} from {source} to {target}")
    return errors.list_phrase(phrases)


def _torn_patients(parts: PartsByFold, dataset: Dataset) -> set[str]:
    """The patients who lie in several parts of one fold."""
    torn = set[str]()
    for of_fold in parts.values():
        sides = grouping.distinct_by_key(
            (person, of_fold[case.id])
            for case in dataset
            if case.id in of_fold
            for person in dataset_cases.people_of_patient(case.patient)
        )
        torn |= {person for person, own in sides.items() if len(own) > 1}
    return torn
