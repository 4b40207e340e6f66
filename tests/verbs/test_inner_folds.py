"""Inner folds: what is found after training is found on cases that the predicting network has not seen."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.belief import operating_points
from hilum.belief.operating_points import OperatingPoint
from hilum.errors import PlanError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.layouts import dataset_layouts
from hilum.planning import plan_checks, plan_file
from hilum.planning.rules import split_rules
from hilum.runs import run_folder, training_jobs
from hilum.runs.plan_request import PlanRequest
from hilum.values import Case, Dataset
from matrices import rarely

UNCALIBRATED = {"task.calibration_method": "none"}
TWO = {**trained.TWO_STEPS, "split.inner_folds": 2}


@dataclass(frozen=True)
class Parted:
    """A run with two inner folds.

    shown: ids of the cases that each training was given, in order: the model's, then the folds'
    """

    data: Path
    out: Path
    shown: list[set[str]]


@pytest.fixture(scope="module")
def parted(classified, tmp_path_factory) -> Parted:
    out, shown, prepared = tmp_path_factory.mktemp("inner") / "run", list[set[str]](), training_jobs.prepare_cases

    def noted(cases, *rest, **words):
        if len(cases) > 1:  # not the one by which the time of all is foreseen
            shown.append({case.id for case in cases})
        return prepared(cases, *rest, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_jobs, "prepare_cases", noted)
        trained.classifying(classified.data, out, assignments=TWO)
    return Parted(classified.data, out, shown)


def parts_of(run: Path) -> dict[str, set[str]]:
    table = pd.read_csv(run / "split.csv", dtype=str)
    return {part: set(table["case"][table["split"] == part]) for part in ("train", "val", "test")}


def folds_of(run: Path) -> list[set[str]]:
    table = pd.read_csv(run / "inner" / "split.csv", dtype={"case": str})
    return [set(rows["case"]) for _, rows in table.groupby("fold")]


@pytest.mark.whole
def test_no_network_of_an_inner_fold_sees_its_part_and_none_sees_a_test_case(parted):
    parts, folds = parts_of(parted.out), folds_of(parted.out)
    assert set.union(*folds) == parts["train"]
    assert not set.intersection(*folds)
    everything = parts["train"] | parts["val"]
    assert parted.shown == [everything, everything - folds[0], everything - folds[1]]


@pytest.mark.whole
def test_calibration_and_threshold_are_those_of_predictions_by_networks_that_have_not_seen_the_case(parted):
    cases = {case.id: case for case in dataset_layouts.read_dataset(parted.data)}
    likely, dark = list[float](), list[bool]()
    unseen = [parts_of(parted.out)["val"], *folds_of(parted.out)]
    for folder, own in zip((parted.out, *(parted.out / "inner" / f"fold_{n}" for n in (0, 1))), unseen, strict=True):
        model = hilum.load(folder / "checkpoints" / "best", "cpu")
        likely += [model.predict(cases[case]).confidence.uncalibrated["dark"] for case in sorted(own)]
        dark += [cases[case].references["class"] == "dark" for case in sorted(own)]
    plan = plan_file.read_plan(parted.out / "plan.yaml")
    calibrator = Calibrator.from_record(plan["task.calibration"])
    assert calibrator.cases == len(likely)
    likely = np.exp(calibrator.classes(np.log([[1 - p, p] for p in likely]), ("light", "dark")))[:, 1]
    assert plan["task.thresholds"]["dark"] == pytest.approx(
        operating_points.choose_threshold(OperatingPoint("youden"), likely, dark), abs=2e-6
    )
    because = plan.decision("task.thresholds").because
    assert f"{len(unseen[0])} validation cases, and {len(likely) - len(unseen[0])} training cases" in because


@pytest.mark.whole
def test_a_run_stopped_in_an_inner_fold_goes_on_to_the_same_threshold(parted, tmp_path):
    moments = count()

    def pressed(moment):
        if next(moments) == 3:  # the second step of the first fold, after the two of the model
            signal.raise_signal(signal.SIGINT)

    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        trained.classifying(parted.data, tmp_path / "run", assignments=TWO)
    hilum.train(resume=tmp_path / "run")
    ours, theirs = (plan_file.read_plan(run / "plan.yaml")["task.thresholds"] for run in (tmp_path / "run", parted.out))
    assert ours == theirs


@pytest.mark.parametrize(
    ("given", "folds", "because"),
    [
        ({"minutes": 30}, 3, "4 validation cases are too few"),
        rarely(({"minutes": 2}, 0, "2 minutes are too few for 4 trainings")),
        ({"folds": 3}, 0, "each fold tests cases that it has not seen"),
        (
            {"assignments": {"task.thresholds": {"dark": 0.3}, "task.calibration_method": "none"}},
            0,
            "nothing is left to decide",
        ),
        rarely(({"assignments": {"training.steps": 10}}, 0, "steps were set by hand")),
        rarely(({"assignments": {"split.inner_folds": 5}}, 5, "set by hand")),
    ],
)
def test_a_plan_says_whether_there_are_inner_folds_and_why(classified, given, folds, because):
    decision = hilum.plan(classified.data, device="cpu", **given).plan.decision("split.inner_folds")
    assert decision.value == folds
    assert because in decision.because


@pytest.mark.parametrize(
    ("ill", "assignments", "folds", "because"),
    [
        (50, {"task.operating_point": "sensitivity>=0.95"}, 3, "6 validation patients of ill are too few"),
        (50, {}, 0, "120 validation cases are enough"),
        (50, {"task.operating_point": "youden", "task.thresholds": {"dark": 0.3}}, 0, "are enough"),
        (300, {"task.operating_point": "sensitivity>=0.95"}, 0, "are enough"),
        (16, {"task.operating_point": "sensitivity>=0.95"}, 0, "are enough"),  # all of them would not do either
    ],
)
@pytest.mark.whole
def test_a_preregistered_rule_keeps_them_where_its_rarest_class_has_too_few_validation_cases(
    classified, ill, assignments, folds, because
):
    made = hilum.plan(classified.data, device="cpu", minutes=60, assignments=assignments).plan
    cases = tuple(Case(f"c{n}", f"p{n}", {}, {"class": "ill" if n < ill else "well"}) for n in range(1000))
    data = Dataset(cases, patients_known=True)
    parts = split_rules.split_dataset(data, seed=0, calibration=0)[0]
    decision = split_rules.with_inner_folds(made, plan_checks.checked_settings(made).task, data, parts).decision(
        "split.inner_folds"
    )
    assert decision.value == folds
    assert because in decision.because


# A data set of which 2 patients select and 46 train.
PATIENTS = tuple(Case(f"c{n}", f"p{n}", {}, {}) for n in range(60))
FORTY_EIGHT = (
    Dataset(PATIENTS, patients_known=True),
    {case.id: "val" if n < 2 else "train" if n < 48 else "test" for n, case in enumerate(PATIENTS)},
)


@pytest.mark.parametrize(
    ("assignments", "folds", "because"),
    [
        ({"task.risk": 0.05}, 3, "2 validation patients, of 38 for the preregistered risk, are too few"),
        ({"task.risk": 0.1, "task.risk_delta": 0.3}, 3, "of 24 for the preregistered risk"),
        ({"task.risk": 0.01}, 0, "many answers"),  # all cases would not be enough either
        ({"task.risk": None}, 0, "many answers"),
        ({}, 0, "many answers"),  # nobody has preregistered the usual one
        ({"task.risk": 0.05, "split.inner_folds": 2}, 2, "set by hand"),
    ],
)
@pytest.mark.whole
def test_many_boxes_have_them_where_a_preregistered_risk_needs_more_patients_than_select(
    detected, assignments, folds, because
):
    made = hilum.plan(detected.data, device="cpu", minutes=60, assignments=assignments).plan
    decision = split_rules.with_inner_folds(made, plan_checks.checked_settings(made).task, *FORTY_EIGHT).decision(
        "split.inner_folds"
    )
    assert decision.value == folds
    assert because in decision.because


def test_where_patients_are_unknown_cases_are_too_few(detected):
    made = hilum.plan(detected.data, device="cpu", minutes=60, assignments={"task.risk": 0.05}).plan
    unknown = replace(FORTY_EIGHT[0], patients_known=False)
    decision = split_rules.with_inner_folds(
        made, plan_checks.checked_settings(made).task, unknown, FORTY_EIGHT[1]
    ).decision("split.inner_folds")
    assert decision.because.startswith("2 validation cases, of 38 for the preregistered risk, are too few")


def test_volumes_have_none_by_themselves_whatever_risk_is_preregistered(segmented):
    given = {"labels": trained.LABELS, "device": "cpu", "minutes": 60, "assignments": {"task.risk": 0.05}}
    made = hilum.plan(segmented.data, **given).plan
    decision = split_rules.with_inner_folds(made, plan_checks.checked_settings(made).task, *FORTY_EIGHT).decision(
        "split.inner_folds"
    )
    assert decision.value == 0
    assert "networks of volumes need all the minutes" in decision.because


@pytest.mark.whole
def test_covering_boxes_go_by_every_case_that_its_network_has_not_seen(detected, tmp_path):
    given = {**trained.TWO_STEPS, "split.inner_folds": 2, "task.risk": 0.2, "guard.gate": False}
    run = trained.detecting(detected.data, tmp_path / "run", assignments=given)
    parts, plan = parts_of(run.out), plan_file.read_plan(run.out / "plan.yaml")
    assert set.union(*folds_of(run.out)) == parts["train"]
    counted = plan["task.covering"]["n"]
    assert max(counted.values()) > len(parts["val"])
    assert f"{len(parts['train'])} training cases predicted by 2 networks" in plan.decision("task.threshold").because


def test_masks_need_none(segmented):
    plan = hilum.plan(segmented.data, labels=trained.LABELS, device="cpu").plan
    assert (plan["split.inner_folds"], "many answers" in plan.decision("split.inner_folds").because) == (0, True)


def test_inner_folds_of_folds_are_refused(classified):
    with pytest.raises(PlanError, match=r"split\.inner_folds.*would decide nothing"):
        hilum.plan(classified.data, device="cpu", folds=3, assignments={"split.inner_folds": 3})


@pytest.mark.parametrize(("given", "folds"), [({"folds": 3}, 0), ({"minutes": 2.0}, 0), ({}, 3)])
@pytest.mark.whole
def test_a_plan_that_is_trained_in_another_way_decides_again_on_inner_folds(classified, tmp_path, given, folds):
    hilum.plan(classified.data, device="cpu", out=tmp_path / "plan.yaml")
    made = run_folder.planned_from(tmp_path / "plan.yaml", PlanRequest(**given))
    assert made.plan["split.inner_folds"] == folds
    by_hand = PlanRequest(minutes=2.0, assignments={"split.inner_folds": 2})
    assert run_folder.planned_from(tmp_path / "plan.yaml", by_hand).plan["split.inner_folds"] == 2
