from __future__ import annotations

import numpy as np
import pytest

from hilum.quality import covariate_checks
from hilum.values import Case, Dataset, Geometry, Image, covariate_values, personal_columns

GREY = Image(np.zeros((1, 2, 2)), Geometry.of_pixels((2, 2)))


def table(**columns: list) -> Dataset:
    """A case a row."""
    rows = zip(*columns.values(), strict=True)
    cases = [Case(f"c{n}", f"p{n}", {"image": GREY}, {}, dict(zip(columns, row, strict=True)))
             for n, row in enumerate(rows)]  # fmt: skip
    return Dataset(tuple(cases))


@pytest.mark.parametrize("age", [0, 44, 120, "045Y", "18M", "3.5", "007D", 66.0])
def test_ages_that_can_be_are_no_finding(age):
    assert not list(covariate_checks.covariate_problems(table(age=[age])))


@pytest.mark.parametrize("age", [-1, 121, "200Y", "old", "2001-01-01", "1500M"])
def test_ages_that_cannot_be_are_named_with_their_case(age):
    [found] = covariate_checks.covariate_problems(table(age_at_diagnosis=[50, age]))
    assert found.severity == "warning"
    assert found.cases == ("c1",)
    assert str(age) in found.what


@pytest.mark.parametrize("age", ["40-60", "40\u201360 ", "<40", ">89", ">= 60", "\u226565", "90+", "090Y+", "0-18M"])
def test_ranges_of_ages_are_ages_too(age):
    assert not list(covariate_checks.covariate_problems(table(age_group=[age])))


@pytest.mark.parametrize("age", ["40-600", "<-1", "-+", "a-b", ">", "130+"])
def test_ranges_of_what_is_no_age_are_named(age):
    assert list(covariate_checks.covariate_problems(table(age_group=[age])))


def test_a_column_that_only_contains_the_letters_is_no_age():
    assert not list(covariate_checks.covariate_problems(table(stage=["IIIb"], dosage=[500], manager=["x"])))


@pytest.mark.parametrize("name", ["patient_age", "PatientAge", "patient.age", "Age", "AGE", "age (years)"])
def test_an_age_is_known_however_its_column_is_written(name):
    assert covariate_checks.column_words(name) & {"age"}
    [found] = covariate_checks.covariate_problems(table(**{name: [-3]}))
    assert name in found.what


@pytest.mark.parametrize(("column", "age"), [("age_months", 228), ("age_days", 4000), ("AgeInWeeks", 300)])
def test_ages_are_in_the_unit_of_their_column(column, age):
    assert not list(covariate_checks.covariate_problems(table(**{column: [age]})))
    assert list(covariate_checks.covariate_problems(table(**{column: [50000]})))


@pytest.mark.parametrize("sex", ["M", "female", "0", 1, 2.0, "O", "divers", "Femme", "boy"])
def test_known_words_for_a_sex_are_no_finding(sex):
    assert not list(covariate_checks.covariate_problems(table(sex=[sex])))


def test_an_unknown_word_for_a_sex_is_named():
    [found] = covariate_checks.covariate_problems(table(gender=["M", "7", "F"]))
    assert (found.cases, "7" in found.what) == (("c1",), True)


def test_gaps_are_said_once_with_their_columns():
    [found] = covariate_checks.covariate_problems(
        table(sex=["M", None, ""], site=["a", "b", "c"], age=[float("nan"), 3, "n/a"])
    )
    assert found.severity == "note"
    assert "2 of 3 columns" in found.what
    assert "sex 2" in found.what


@pytest.mark.parametrize("value", [None, "", " ", float("nan"), "NA", "[Not Available]"])
def test_what_is_missing(value):
    assert covariate_values.is_missing(value)
    assert not covariate_values.is_missing(0)


@pytest.mark.parametrize(
    "column",
    [
        "Name",
        "patient_name",
        "PatientID",
        "Patienten-Nr",
        "Geburtsdatum",
        "Vorname",
        "date_naissance",
        "MRN",
        "clinical_notes",
        "Bemerkung",
    ],
)
def test_columns_that_say_who_somebody_is_are_known_in_several_languages(column):
    assert personal_columns.identifies_person(column)


@pytest.mark.parametrize("column", ["age", "scanner_name", "id", "Diagnose", "nominal", "number_of_lesions"])
def test_columns_of_other_things_say_of_nobody_who_it_is(column):
    assert not personal_columns.identifies_person(column)


@pytest.mark.parametrize("column", ["site", "ScannerModel", "exposure_time", "field_strength", "tissue_source_site"])
def test_columns_that_say_how_an_image_was_made_are_known(column):
    assert covariate_checks.describes_imaging(column)


@pytest.mark.parametrize(
    "column",
    [
        "anatom_site_general_challenge",  # of the ISIC archive
        "primary_site",
        "visual_field_md",
        "asbestos_exposure",
        "grip_strength",
        "nodule_location",
        "age",
    ],
)
def test_columns_about_the_body_and_what_it_has_met_say_nothing_of_how_an_image_was_made(column):
    assert not covariate_checks.describes_imaging(column)


def test_dates_with_the_day_and_with_the_month_first_in_one_column_are_named():
    [found] = covariate_checks.covariate_problems(table(examined=["13/02/2023", "03/02/2023", "02/14/2023"]))
    assert "13/02/2023" in found.what and "02/14/2023" in found.what
    assert found.cases == ("c0", "c2")
    assert not list(covariate_checks.covariate_problems(table(examined=["13/02/2023", "03/02/2023", "2023-02-14"])))
