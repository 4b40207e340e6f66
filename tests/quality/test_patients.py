"""Patients that a table names or describes in two ways."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.quality import patient_checks
from hilum.values import Case, Dataset, Geometry, Image

GREY = Image(np.zeros((1, 2, 2)), Geometry.of_pixels((2, 2)))


def cohort(patients: list[str], sexes: str = "", *, known: bool = True) -> Dataset:
    """A case for each patient that is named."""
    cases = [
        Case(f"c{n}", patient, {"image": GREY}, {}, {"sex": sexes[n]} if sexes else {})
        for n, patient in enumerate(patients)
    ]
    return Dataset(tuple(cases), patients_known=known)


@pytest.mark.parametrize(("one", "other"), [("00009", "9"), ("Doe J", "doe  j"), ("p7", "P7"), ("0", "000")])
def test_two_spellings_of_a_patient_are_named_with_their_cases(one, other):
    [found] = patient_checks.patient_problems(cohort([one, "8", other]))
    assert found.severity == "warning"
    assert found.cases == ("c0", "c2")


@pytest.mark.parametrize("names", [["9", "90"], ["p09", "p9"], ["a", "b"], ["7", "7"]])
def test_other_names_are_other_patients(names):
    assert not list(patient_checks.patient_problems(cohort(names)))


def test_a_patient_of_two_sexes_is_named():
    [found] = patient_checks.patient_problems(cohort(["7", "7", "8", "8"], "FMmM"))
    assert found.what == "sex is not the same in all cases of 1 patient"
    assert found.cases == ("c0", "c1")


def test_patients_that_nobody_named_say_nothing():
    assert not list(patient_checks.patient_problems(cohort(["009", "9"], "FM", known=False)))
