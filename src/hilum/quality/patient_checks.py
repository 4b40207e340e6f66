"""What tables say of one patient in two ways: numbers that lost their zeros, spellings, and two sexes."""

from __future__ import annotations

from collections.abc import Iterator

from hilum import errors
from hilum.quality import covariate_checks
from hilum.values import Dataset, Problem, covariate_values


def patient_problems(dataset: Dataset) -> Iterator[Problem]:
    """Patients that may be one person, and those of whom cases state unlike sexes; none where nobody named patients."""
    if dataset.patients_known:
        yield from _spelt_in_two_ways(dataset)
        yield from _of_two_sexes(dataset)


def _spelt_in_two_ways(dataset: Dataset) -> Iterator[Problem]:
    spellings = dict[str, dict[str, list[str]]]()
    for case in dataset:
        name = " ".join(case.patient.casefold().split())
        number = name.lstrip("0") if name.isdecimal() else name
        spellings.setdefault(number, {}).setdefault(case.patient, []).append(case.id)
    several = [names for names in spellings.values() if len(names) > 1]
    if several:
        cases = tuple(case for names in several for of_name in names.values() for case in of_name)
        people = errors.count_phrase(len(several), "person")
        yield Problem.warning(
            f"patients may be {people} spelt in two ways: names differ in leading zeros, case or blanks alone",
            cases,
            "one person may be in training and in test",
            "Write each patient in one way",
        )


def _of_two_sexes(dataset: Dataset) -> Iterator[Problem]:
    columns = dict.fromkeys(name for case in dataset for name in case.covariates)
    for column in columns:
        if not covariate_checks.column_words(column) & {"sex", "gender"}:
            continue
        levels = dict[str, dict[str, list[str]]]()
        for case in dataset:
            value = case.covariates.get(column)
            if not covariate_values.is_missing(value):
                levels.setdefault(case.patient, {}).setdefault(covariate_values.level_in(value), []).append(case.id)
        torn = [of_patient for of_patient in levels.values() if len(of_patient) > 1]
        if torn:
            yield Problem.warning(
                f"{column} is not the same in all cases of {errors.count_phrase(len(torn), 'patient')}",
                tuple(case for of_patient in torn for cases in of_patient.values() for case in cases),
                "one of the rows is wrong, or is of another person",
                "Correct the table",
            )
