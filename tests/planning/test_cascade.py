"""Whether a network at low resolution goes before the one that is planned."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fingerprints import LAPTOP, SAMPLED, cohort, facts, several
from hilum.errors import PlanError
from hilum.planning import plan_changes, plan_checks, planner
from hilum.planning.plan_inputs import Wishes
from hilum.planning.rules import cascade_rules
from hilum.values import Decision, Fingerprint, Plan

# A body of 240 x 220 x 200 mm, of which two cores look at some 50 mm a side.
LARGE = {"shape": (240, 220, 200)}


def planned(found: Fingerprint, minutes: float = 480.0, **given: Any) -> Plan:
    given = {"device": Decision("cpu", "a test"), "minutes": minutes, "seed": 0, **given}
    return planner.make_plan(
        cohort(found.cases, given.pop("labels", ("lesion",))), found, SAMPLED, LAPTOP, Wishes(**given)
    )


def test_small_images_need_no_cascade_and_the_plan_says_how_much_of_them_is_seen():
    plan = planned(several(6))
    assert plan["preprocessing.cascade"] is None
    assert "a patch shows 100% of the median image" in plan.decision("preprocessing.cascade").because
    assert plan_checks.checked_settings(plan).architecture["channels"] == 1


def test_the_plan_states_the_size_of_images_as_they_are_cropped():
    found = Fingerprint(tuple(replace(one, content_shape=(100, 110, 100)) for one in several(6, **LARGE).cases))
    plan, whole = planned(found), planned(several(6, **LARGE))
    assert (plan["preprocessing.crop"], whole["preprocessing.crop"]) == ("content", "none")
    assert "(100, 110, 100) voxels on that grid once they are cropped" in plan.decision("training.patch").because
    shown, less = (one.decision("preprocessing.cascade").because for one in (plan, whole))
    assert float(re.findall(r"shows (\d+)%", shown)[0]) > 5 * float(re.findall(r"shows (\d+)%", less)[0])


def test_of_large_images_all_is_seen_on_a_coarser_grid_first():
    found = several(6, **LARGE)
    plan = planned(found)
    factor = plan["preprocessing.cascade"]
    low = cascade_rules.low_resolution_plan(plan, found, LAPTOP)
    assert factor > 2
    assert f"{factor:.3g} x {factor:.3g} x {factor:.3g} mm" in plan.decision("preprocessing.cascade").because
    assert low["preprocessing.cascade"] is None
    assert low["preprocessing.reduction"] == factor
    for seen, size in zip(low["training.patch"], LARGE["shape"], strict=True):
        assert seen >= math.floor(size / factor)
    assert np.prod(low["training.patch"]) < 2 * np.prod(plan["training.patch"])
    assert plan_checks.checked_settings(low).architecture["channels"] == 1
    assert plan_checks.checked_settings(plan).architecture == {
        **plan_checks.checked_settings(plan).architecture,
        "channels": 2,
        "marked": 1,
    }


def test_the_memory_is_that_of_the_stage_that_takes_more():
    found = several(6, **LARGE)
    plan = planned(found)
    low = plan_changes.with_predicted_memory(cascade_rules.low_resolution_plan(plan, found, LAPTOP), found, LAPTOP)
    single = plan_changes.with_predicted_memory(
        plan_changes.with_settings(plan, {"preprocessing.cascade": None}), found, LAPTOP
    )
    assert plan["training.memory"] >= max(low["training.memory"], single["training.memory"])


@pytest.mark.parametrize(
    ("given", "because"),
    [
        ({"minutes": 30.0}, "30 minutes are too few for 3 trainings: 120 would do"),
        ({"minutes": 300.0, "folds": 3}, "300 minutes are too few for 9 trainings: 360 would do"),
        (
            {"minutes": 26.0, "folds": 3, "configurations": "auto"},
            "26 minutes are too few for 9 trainings and the other configurations: 27 would do",
        ),
        ({"folds": 3, "configurations": "ensemble"}, "the mean of slices and volumes was asked for"),
    ],
)
def test_where_there_is_no_time_for_it_the_plan_says_so(given, because):
    plan = planned(several(6, **LARGE), **given)
    assert plan["preprocessing.cascade"] is None
    assert because in plan.decision("preprocessing.cascade").because


@pytest.mark.parametrize(
    ("given", "because"),
    [
        ({"minutes": 360.0}, "Each of 9 trainings gets an equal share of the minutes"),
        ({"minutes": 27.0, "configurations": "auto"}, "All configurations get equal parts of the minutes"),
    ],
)
def test_each_fold_has_a_cascade_of_its_own_where_the_minutes_are_enough_for_all_of_them(given, because):
    plan = planned(several(6, **LARGE), folds=3, **given)
    assert plan["preprocessing.cascade"] > 2
    assert because in plan.decision("preprocessing.cascade").because
    assert "in each fold 2 networks" in plan.decision("preprocessing.cascade").because


def test_a_plan_loses_its_cascade_with_all_that_follows_from_it():
    plan = plan_changes.without_cascade(planned(several(6, **LARGE)), "a test")
    assert (plan["preprocessing.cascade"], plan["augmentation.marks"]) == (None, 0)
    assert plan_checks.checked_settings(plan).architecture["channels"] == 1
    age = {"median": 50.0, "mean": 50.0, "deviation": 9.0, "missing": False}
    with_covariates = plan.with_decision("network.context", Decision({"age": age}, "a test"))
    assert plan_changes.without_cascade(with_covariates, "a test")["evaluation.image_only"] is True


def test_a_person_switches_it_on_and_off():
    small, large = planned(several(6)), planned(several(6, **LARGE))
    on = plan_changes.with_settings(small, {"preprocessing.cascade": 2.0})
    off = plan_changes.with_settings(large, {"preprocessing.cascade": None})
    assert plan_checks.checked_settings(on).preprocessing.cascade == 2.0
    assert on["augmentation.marks"] > 0
    assert plan_checks.checked_settings(off).preprocessing.cascade is None
    assert off["augmentation.marks"] == 0


def test_what_has_no_label_map_has_no_cascade():
    images = Fingerprint(tuple(facts(name=f"c{n}", references={"class": "ab"[n % 2]}) for n in range(6)))
    plan = planned(images)
    assert "gives no label map" in plan.decision("preprocessing.cascade").because
    with pytest.raises(PlanError, match="gives no label map"):
        plan_checks.checked_settings(plan_changes.with_settings(plan, {"preprocessing.cascade": 2.0}))


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        ({"preprocessing.cascade": 2.0, "split.inner_folds": 3}, "give split.inner_folds 0"),
        ({"preprocessing.cascade": 1.0}, "shows no more of an image"),
        ({"augmentation.marks": 0.4}, "no first network marks labels"),
    ],
)
def test_what_cannot_be_a_cascade_is_refused(assignments, problem):
    with pytest.raises(PlanError, match=problem):
        plan_checks.checked_settings(plan_changes.with_settings(planned(several(6)), assignments))
