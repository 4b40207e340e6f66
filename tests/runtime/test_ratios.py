"""Ratios of measurements: their grammar, their interval, and what is refused."""

from types import SimpleNamespace

import pytest

from hilum.errors import UsageError
from hilum.runtime import label_measurements
from hilum.tasks import task_settings
from hilum.tasks.segmentation.question import Segmentation
from hilum.tasks.shared.structure_findings import Ratio
from hilum.values import Finding, Label

TASK = Segmentation((Label(1, "cup"), Label(2, "optic disc")))
ROWS = [
    {"label": "cup", "voxels": 3, "area_mm2": 3.0, "short_axis_mm": 0.6},
    {"label": "optic disc", "voxels": 6, "area_mm2": 6.0, "short_axis_mm": 1.5},
]
SIZES = [
    Finding("cup", 3.0, "mm2", low=2.0, high=4.0, group="cup"),
    Finding("optic disc", 6.0, "mm2", low=5.0, high=8.0, group="optic disc"),
]


def test_a_ratio_divides_two_measurements_and_has_the_unit_of_neither_where_both_have_one():
    ratio = Ratio.from_text("cdr = cup.short_axis_mm / optic disc.short_axis_mm")
    found = ratio.compute(SIZES, ROWS)
    assert (found.concept, found.value, found.unit, found.low) == ("cdr", 0.4, "1", None)
    assert Ratio.from_text(str(ratio)) == ratio


def test_the_interval_of_a_ratio_of_sizes_holds_what_both_intervals_hold():
    found = Ratio.from_text("share = cup.area_mm2 / optic disc.area_mm2").compute(SIZES, ROWS)
    assert (found.value, found.low, found.high) == (0.5, 0.25, 0.8)


def test_there_is_no_ratio_where_a_measurement_is_missing_or_the_second_is_zero():
    ratio = Ratio.from_text("cdr = cup.area_mm2 / optic disc.area_mm2")
    assert ratio.compute([], ROWS[:1]) is None
    assert ratio.compute([], [ROWS[0], {**ROWS[1], "area_mm2": 0.0}]) is None
    assert ratio.compute([], [ROWS[0], {**ROWS[1], "area_mm2": float("nan")}]) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cdr = cup.area_mm2", "cannot understand"),
        ("cdr = cup.area_mm2 / cup.area_mm2 / cup.area_mm2", "cannot understand"),
        ("cdr = __import__('os').system('ls') / 2", "cannot understand"),
        ("cdr = cup.area / optic disc.area_mm2", "no such measurement"),
        ("cdr = rim.area_mm2 / optic disc.area_mm2", "no such structure"),
    ],
)
def test_what_is_no_ratio_of_structures_of_the_model_is_refused(text, problem):
    with pytest.raises(UsageError, match=problem):
        label_measurements.checked_ratios([text], TASK)


def test_two_ratios_of_one_name_are_refused():
    with pytest.raises(UsageError, match="one name"):
        label_measurements.checked_ratios(["a = cup.voxels / cup.voxels"] * 2, TASK)


def test_a_ratio_of_the_plan_is_stated_without_a_flag_and_one_of_the_package_stands_in_its_place():
    given = {**task_settings.settings_of(TASK), "measures": "cdr = cup.short_axis_mm / optic disc.short_axis_mm"}
    task = task_settings.task_from_settings(Segmentation, given)
    assert [str(one) for one in label_measurements.ratios_of(SimpleNamespace(task=task, record={}))] == [
        given["measures"]
    ]
    own = "cdr = cup.area_mm2 / optic disc.area_mm2"
    assert [
        str(one) for one in label_measurements.ratios_of(SimpleNamespace(task=task, record={"measures": [own]}))
    ] == [own]
    with pytest.raises(UsageError, match=r"task.measures: rim.area_mm2: there is no such structure"):
        task_settings.task_from_settings(Segmentation, {**given, "measures": ["rest = rim.area_mm2 / cup.area_mm2"]})
