from __future__ import annotations

import numpy as np
import pytest

from fingerprints import facts
from hilum.errors import DatasetError
from hilum.tasks import task_settings
from hilum.tasks.regression import question
from hilum.tasks.regression.question import Regression
from hilum.values import Case, Dataset, Fingerprint


def planned(*values: dict[str, float], columns: dict[str, str] | None = None):
    fingerprint = Fingerprint(tuple(facts(name=f"c{n}", references={"value": one}) for n, one in enumerate(values)))
    cases = tuple(Case(one.id, one.id, {}, one.references) for one in fingerprint.cases)
    return Regression.settings_for(Dataset(cases, name="set", columns=columns or {}), fingerprint)


def test_targets_are_standardised_by_the_mean_and_deviation_of_the_cases_that_have_them():
    decisions = planned({"volume": 1.0, "age": 40.0}, {"volume": 3.0}, {"age": 60.0, "volume": 8.0})
    assert decisions["targets"].value == ["volume", "age"]
    assert decisions["mean"].value == pytest.approx({"volume": 4.0, "age": 50.0})
    assert decisions["deviation"].value == pytest.approx({"volume": np.std([1, 3, 8]), "age": 10.0}, rel=1e-5)
    assert "3 cases have volume, 2 cases have age" in decisions["targets"].because
    task = task_settings.task_from_settings(Regression, {name: decision.value for name, decision in decisions.items()})
    assert (task.targets, task.noise, task.loss_name, task.error_factor) == (("volume", "age"), "none", "huber", {})


def test_a_large_mean_of_values_that_hardly_differ_keeps_its_digits():
    decisions = planned({"mass": 1234567.81}, {"mass": 1234567.83})
    assert decisions["mean"].value["mass"] == pytest.approx(1234567.82, abs=1e-7)
    assert decisions["deviation"].value["mass"] == pytest.approx(0.01, rel=1e-5)


def test_the_order_of_targets_is_that_of_the_columns_and_their_names_say_the_unit():
    columns = {"value:age": "age (years)", "value:volume": "volume_mm3", "image:image": "file"}
    decisions = planned({"volume": 1.0}, {"age": 40.0, "volume": 3.0}, {"age": 60.0}, columns=columns)
    assert decisions["targets"].value == ["age", "volume"]
    assert decisions["units"].value == {"age": "years", "volume": "mm³"}


def test_where_no_name_says_the_unit_that_is_said():
    decisions = planned({"score": 1.0}, {"score": 2.0})
    assert decisions["units"].value is None
    assert decisions["units"].because == "no column's name says that of score"
    task = task_settings.task_from_settings(Regression, {name: decision.value for name, decision in decisions.items()})
    assert task.units == {"score": ""}


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("volume_mm3", "mm³"), ("age (years)", "years"), ("Weight [kg]", "kg"), ("pressure.mmHg", "mmHg"),
        ("ejection_fraction_percent", "%"), ("BMI (kg/m2)", "kg/m2"), ("height (m)", "m"), ("VOLUME_ML", "ml"),
        ("volume", ""), ("kidney (left)", ""), ("mm", ""), ("farmland", ""), ("items", ""), ("score (raw)", ""),
    ],
)  # fmt: skip
def test_a_unit_is_what_a_name_ends_in(name, unit):
    assert question.unit_of_name(name) == unit


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([{"a": 2.0}, {"a": 2.0}, {"a": 2.0}], "a is 2 in all 3 training cases"),
        ([{"a": 1.0, "b": 1.0}, {"a": 2.0}], "1 training case has a value of b"),
        ([{}, {}], "no training case has a value"),
    ],
)
def test_what_cannot_be_learnt_is_refused_by_name(values, problem):
    with pytest.raises(DatasetError, match=problem):
        planned(*values)
