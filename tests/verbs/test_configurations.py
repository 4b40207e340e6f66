"""Slices, volumes and their mean are compared by folds, and the simplest that is not surely worse is taken."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.errors import PlanError
from hilum.planning import plan_checks, plan_file
from hilum.runs import _training_order, configuration_results
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.values import Estimate
from matrices import thinned

FOLDS = {"training.steps": 4, "training.validations": 1, "search.configurations": "auto"}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return trained.blobs(tmp_path_factory.mktemp("blobs"), 8)


@pytest.fixture(scope="module")
def compared(blobs, tmp_path_factory):
    return trained.segmenting(blobs, tmp_path_factory.mktemp("run") / "run", folds=2, assignments=FOLDS).out


@pytest.mark.whole
def test_the_simplest_configuration_that_is_not_surely_worse_is_taken_and_all_are_shown(compared):
    record = json.loads((compared / "configurations.json").read_text(encoding="utf-8"))
    assert {row["name"] for row in record["rows"]} == {"2d", "3d", "ensemble"}
    best, *others = record["rows"]
    assert best["estimate"]["value"] >= max(row["estimate"]["value"] for row in others)
    assert [row["name"] for row in others if row["name"] == record["chosen"]] or record["chosen"] == best["name"]
    plan = plan_file.read_plan(compared / "plan.yaml")
    assert plan["search.configurations"] == record["chosen"]
    assert "not surely worse" in plan.decision("search.configurations").because
    assert "not surely worse" in (compared / "report.html").read_text(encoding="utf-8")


@pytest.mark.whole
def test_a_run_notes_that_its_figures_are_of_the_cases_that_chose(compared):
    notes = json.loads((compared / "run.json").read_text(encoding="utf-8"))["notes"]
    assert "The same cases chose the configuration, so its figures are somewhat too good." in notes


@pytest.mark.whole
def test_the_model_is_that_of_the_configuration_that_was_taken(compared):
    record = json.loads((compared / "configurations.json").read_text(encoding="utf-8"))
    names = {network["name"] for network in hilum.load(compared, "cpu").networks.architectures}
    plan = plan_file.read_plan(compared / "plan.yaml")
    assert names == ({"unet_slices", "unet"} if record["chosen"] == "ensemble" else {plan["network.name"]})


@pytest.mark.whole
def test_every_configuration_is_judged_by_the_cases_that_its_fold_has_not_seen(compared):
    cases = pd.read_csv(compared / "evaluation" / "cases.csv", dtype=str)
    split = pd.read_csv(compared / "split.csv", dtype=str)
    tested = split[split["split"] == "test"].set_index("case")["fold"]
    assert dict(zip(cases["case"], cases["fold"], strict=True)) == dict(tested)


@pytest.mark.whole
def test_the_mean_of_both_is_one_model_whose_folds_have_two_networks_each(blobs, tmp_path):
    run = trained.segmenting(
        blobs, tmp_path / "run", folds=2, assignments={**FOLDS, "search.configurations": "ensemble"}
    )
    whole, fold = hilum.load(run.out, "cpu"), hilum.load(run.out, "cpu", fold=1)
    assert len(whole.networks.members) == 4
    assert isinstance(fold.networks.run, AveragedNetwork) and len(fold.networks.members) == 2
    again = hilum.evaluate(run.out, blobs)
    before = next(row["value"] for row in trained.rows_of(run.out) if row["metric"] == run.primary)
    now = next(row.estimate.value for row in again.rows if row.metric == run.primary)
    assert now == pytest.approx(before, abs=1e-6)
    assert np.isfinite(now)


CASCADE = {
    "preprocessing.cascade": 2.0,
    "training.patch": [8, 8, 8],
    "inference.patch": [16, 16, 16],
    "augmentation.flips": [],
}


def test_a_plan_with_a_cascade_compares_it_with_networks_that_see_the_image_alone(blobs, tmp_path):
    chosen = {**trained.TWO_STEPS, "search.configurations": "auto", "network.size": trained.SMALL_UNET, **CASCADE}
    made = hilum.plan(blobs, labels=trained.LABELS, device="cpu", threads=1, folds=2, assignments=chosen)
    plans = {name: _training_order.configuration_plan(made, name) for name in _training_order.configuration_names(made)}
    found = {name: (plan["network.name"], plan["preprocessing.cascade"]) for name, plan in plans.items()}
    assert found == {"2d": ("unet_slices", None), "3d": ("unet", None), "cascade": ("unet", 2.0)}
    for name, plan in plans.items():
        assert plan_checks.checked_settings(plan).architecture["channels"] == 1 + (name == "cascade")


@pytest.mark.whole
def test_a_cascade_is_compared_too_and_is_the_model_where_it_is_taken(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(configuration_results, "_is_below", lambda difference, sign: True)
    monkeypatch.setattr(configuration_results, "_figure", lambda task, table, primary, seed: next(figures))
    figures = iter([Estimate(value) for value in (0.1, 0.2, 0.4, 0.3)])  # by slices, by volumes, cascade, ensemble
    run = trained.segmenting(blobs, tmp_path / "run", folds=2, assignments={**FOLDS, **CASCADE}).out
    record = json.loads((run / "configurations.json").read_text(encoding="utf-8"))
    assert record["chosen"] == "cascade" and not record["left_out"]
    assert {row["name"] for row in record["rows"]} == {"2d", "3d", "cascade", "ensemble"}
    assert all(Estimate(**row["estimate"]).n == 8 for row in record["rows"])
    plan, model = plan_file.read_plan(run / "plan.yaml"), hilum.load(run, "cpu")
    assert (plan["search.configurations"], plan["preprocessing.cascade"]) == ("cascade", 2.0)
    assert (len(model.networks.members), len(model.first.networks.members)) == (2, 4)
    assert "cascade was taken" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.whole
def test_a_comparison_says_why_it_leaves_a_cascade_out(compared):
    record = json.loads((compared / "configurations.json").read_text(encoding="utf-8"))
    assert record["left_out"].startswith("a cascade: ")
    assert record["left_out"] in (compared / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "problem"),
    thinned(
        2,
        [
            (
                {"folds": 2, "minutes": 17, "assignments": {"search.configurations": "auto", **CASCADE}},
                "17 minutes for 10 trainings.*Give --minutes 18 or more",
            ),
            (
                {"folds": 2, "assignments": {"search.configurations": "ensemble", **CASCADE}},
                "without a first stage",
            ),
            ({"folds": 0, "assignments": {"search.configurations": "auto"}}, "held-out cases of folds"),
            (
                {"folds": 5, "minutes": 6, "assignments": {"search.configurations": "auto"}},
                "6 minutes for 10 trainings",
            ),
        ],
    ),
    ids=["too few minutes for a cascade", "a mean with a cascade", "without folds", "too few minutes"],
)
def test_a_comparison_that_cannot_be_is_refused_before_anything_is_trained(blobs, tmp_path, given, problem):
    with pytest.raises(PlanError, match=problem):
        hilum.train(blobs, out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_pictures_have_no_slices_to_compare_with(tmp_path):
    data = trained.pictures(tmp_path / "data", 12)
    with pytest.raises(PlanError, match="slices and volumes can be compared only"):
        hilum.train(data, out=tmp_path / "run", folds=2, assignments={"search.configurations": "auto"})
