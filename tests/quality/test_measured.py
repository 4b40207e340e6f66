from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprints import facts
from hilum.quality import covariate_checks, number_checks
from hilum.quality.references import values as references_values
from hilum.quality.references.values import VALUE
from hilum.values import Case, Cohort, Dataset, Fingerprint
from matrices import thinned

seeds = st.integers(0, 10**6)


def found(values, name: str = "volume", others: dict | None = None, splits: dict | None = None):
    """What is said of values, one a case."""
    cases = tuple(
        facts(name=f"c{n}", references={"value": {name: float(value)}, **(others or {})})
        for n, value in enumerate(values)
    )
    dataset = Dataset(tuple(Case(one.id, one.id, {}, one.references) for one in cases), splits=splits or {})
    return list(VALUE.checks.cohort(Cohort(dataset, Fingerprint(cases))))


@given(seeds, st.floats(0.01, 2.5), st.integers(20, 300))
def test_lognormal_values_of_any_spread_are_in_one_unit_and_have_no_outlier(seed, spread, n):
    values = np.random.default_rng(seed).lognormal(2, spread, n)
    assert number_checks.mixed_units(values) is None
    assert not number_checks.far_outside(values).any()


@given(seeds, st.integers(20, 300))
def test_normal_uniform_and_exponential_values_raise_no_alarm(seed, n):
    rng = np.random.default_rng(seed)
    for values in (rng.normal(170, 10, n), rng.uniform(20, 90, n), rng.normal(0, 1, n), rng.exponential(5, n)):
        assert found(values) == []


def test_children_beside_adults_are_no_other_unit():
    rng = np.random.default_rng(0)
    assert number_checks.mixed_units(np.concatenate([rng.normal(25, 4, 60), rng.normal(75, 10, 60)])) is None


@pytest.mark.parametrize("factor", thinned(2, [2.54, 10.0, 100.0, 1000.0]))
@given(seeds, st.integers(3, 37))
def test_values_of_which_some_are_in_another_unit_are_found_with_the_factor(factor, seed, count):
    values = np.random.default_rng(seed).lognormal(np.log(3300), 0.06, 40)
    values[:count] *= factor
    mixed = number_checks.mixed_units(values)
    assert mixed is not None
    assert mixed[0] == factor
    assert (np.flatnonzero(mixed[1]) == np.arange(count)).all()


def test_mixed_units_are_said_with_the_fewer_cases():
    values = np.random.default_rng(1).lognormal(np.log(3.3), 0.1, 30)
    values[[2, 5, 7, 11]] *= 1000
    [problem] = found(values)
    assert (problem.severity, problem.cases) == ("warning", ("c2", "c5", "c7", "c11"))
    assert "4 values of 30 are about 1000 times as large as the others (mm³ beside ml" in problem.what


def test_a_slip_of_the_pen_is_far_outside_and_named():
    values = np.random.default_rng(2).lognormal(np.log(3.3), 0.12, 60)
    values[9] *= 10
    [problem] = found(values)
    assert problem.cases == ("c9",)
    assert "1 value far outside" in problem.what


def test_many_zeros_are_no_outliers_and_make_none():
    rng = np.random.default_rng(3)
    assert not number_checks.far_outside(np.concatenate([np.zeros(50), rng.lognormal(3, 1, 50)])).any()
    assert not number_checks.far_outside(
        np.concatenate([np.full(50, 2.0), [900.0]])
    ).any()  # no middle half to measure by


@pytest.mark.parametrize(
    ("name", "values", "is_one"),
    [
        ("row", np.arange(1, 41), True),
        ("case_number", 70000 + 13 * np.arange(40), True),
        ("PatientID", 70000 + 13 * np.arange(40), True),
        ("volume_mm3", 3000 + 13 * np.arange(40), False),
        ("age", np.repeat(np.arange(30, 70), 2), False),
        ("volume", np.arange(40) + 0.5, False),
    ],
)
def test_an_identifier_is_whole_and_unique_and_called_so_or_dense(name, values, is_one):
    assert references_values.is_identifier(name, np.asarray(values, dtype=float)) is is_one
    assert any("identifier" in one.what for one in found(values, name)) is is_one


def test_a_constant_forbids_training_where_nothing_else_can_be_learnt():
    [single] = found([2.5] * 5)
    assert (single.severity, single.what) == ("error", "volume is 2.5 in all 5 training cases")
    [others] = found([2.5] * 5, others={"class": "benign"})
    assert others.severity == "warning"


def test_only_the_cases_that_train_have_to_differ():
    parts = {f"c{n}": "test" if n == 0 else "train" for n in range(5)}
    assert [one.severity for one in found([1.0, 2.5, 2.5, 2.5, 2.5], splits=parts)] == ["error"]


def test_a_covariate_in_two_units_is_a_warning_with_the_fewer_cases_and_codes_of_groups_are_none():
    rng = np.random.default_rng(0)
    heights = rng.normal(1.72, 0.08, 60)
    heights[[3, 8, 20]] *= 100
    stages = [1, 2, 3] * 19 + [100, 200, 300]
    cases = [Case(f"c{n}", f"p{n}", {}, covariates={"height": heights[n], "stage": stages[n]}) for n in range(60)]
    [problem] = covariate_checks.covariate_problems(Dataset(tuple(cases)))
    assert (problem.severity, problem.cases) == ("warning", ("c3", "c8", "c20"))
    assert "3 values of 60 are about 100 times as large as the others (cm beside m" in problem.what


def test_of_few_numbers_one_in_another_unit_is_named_and_odd_ones_are_not():
    heights = [1.61, 1.72, 1.58, 1.80, 1.69, 172.0, 1.75, 1.66]
    cases = [Case(f"c{n}", f"p{n}", {}, covariates={"height": value}) for n, value in enumerate(heights)]
    [problem] = covariate_checks.covariate_problems(Dataset(tuple(cases)))
    assert problem.cases == ("c5",)
    assert problem.what.startswith(
        "height is 172, far outside of the others, which lie between 1.58 and 1.8; divided by"
    )
    # Of all people the smallest: in metres it lies beyond the few others.
    smallest = {str(value): value for value in (1.93, 1.74, 1.84, 157.0, 1.64, 1.79, 1.70, 1.83)}
    [problem] = number_checks.number_problems("height", smallest)
    assert problem.cases == ("157.0",)
    assert "divided by 100 it is 1.57" in problem.what
    assert not list(number_checks.number_problems("size", {str(n): float(n) for n in (3, 5, 4, 8, 2, 18)}))
    assert not list(number_checks.number_problems("size", {"a": 1.0, "b": 1.1, "c": 100.0}))
