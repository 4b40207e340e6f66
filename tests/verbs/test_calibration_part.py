"""A fourth part of the cases: they train nothing and choose nothing, and guarantees come from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import hilum
import trained
from hilum.errors import PlanError, UsageError
from hilum.evaluation.case_tables import SUMMARY_SCHEMA
from hilum.layouts import dataset_layouts
from hilum.planning import plan_file
from hilum.runs import run_folder, training_jobs
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import record_files
from hilum.tasks import task_catalogue, task_settings
from packages import no_export

SPARED = {"split.calibration": 6}


@pytest.fixture(scope="module")
def spared(classified, tmp_path_factory) -> tuple[Path, list[set[str]]]:
    """A run with six such cases, and the ids of the cases that its training was given."""
    out, shown, prepared = tmp_path_factory.mktemp("spared") / "run", list[set[str]](), training_jobs.prepare_cases

    def noted(cases, *rest, **words):
        shown.append({case.id for case in cases})
        return prepared(cases, *rest, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_jobs, "prepare_cases", noted)
        trained.classifying(classified.data, out, assignments={**trained.TWO_STEPS, **SPARED})
    return out, shown


@pytest.fixture(scope="module")
def package(spared, tmp_path_factory) -> Path:
    """The package of that run; tests only read it."""
    with no_export():
        return hilum.package(spared[0], out=tmp_path_factory.mktemp("packaged") / "package", backends=()).out


def parts_of(run: Path) -> dict[str, set[str]]:
    table = pd.read_csv(run / "split.csv", dtype=str)
    return {part: set(table["case"][table["split"] == part]) for part in ("train", "val", "calibration", "test")}


def test_cases_that_calibrate_are_in_no_other_part_and_the_test_part_is_the_same_without_them(spared, classified):
    run, shown = spared
    parts, without = parts_of(run), parts_of(classified.out)
    assert len(parts["calibration"]) == 6
    assert (parts["test"], parts["val"]) == (without["test"], without["val"])
    assert parts["train"] | parts["calibration"] == without["train"]
    assert set().union(*shown) == parts["train"] | parts["val"]


def test_they_can_be_scored_and_the_report_says_what_they_decided(spared, classified):
    run, _ = spared
    result = hilum.evaluate(run, classified.data, split="calibration", device="cpu")
    assert set(result.scored.table["case"]) == parts_of(run)["calibration"]
    assert any("thresholds of sets" in note for note in result.notes)


def test_they_alone_set_the_thresholds_of_sets_and_results_state_these(spared, classified, package, tmp_path):
    run, _ = spared
    found = task_settings.settings_of(hilum.load(run).task)["conformal"]
    assert (found["exact"], found["n"], found["thresholds"]) == (True, {"all": 6}, {"all": None})
    assert (
        "like those of the 6 cases that set them: these cases trained nothing"
        in plan_file.read_plan(run / "plan.yaml").decision("task.conformal").because
    )
    stated = pd.read_csv(run / "evaluation" / "cases.csv")["set"].map(json.loads)
    assert all(one == ["bright", "dark"] for one in stated)
    image = next((classified.data / "dark").iterdir())
    hilum.predict(package, image, out=tmp_path / "out", device="cpu")
    assert json.loads(pd.read_csv(tmp_path / "out" / "predictions.csv")["set"][0]) == ["bright", "dark"]


def test_without_them_validation_cases_do_and_that_is_called_approximate(classified):
    found = task_settings.settings_of(hilum.load(classified.out).task)["conformal"]
    assert (found["exact"], found["level"]) == (False, 0.9)
    assert "approximate" in plan_file.read_plan(classified.out / "plan.yaml").decision("task.conformal").because
    rows = {
        row["metric"]
        for row in record_files.read_json(classified.out / "evaluation" / "summary.json", SUMMARY_SCHEMA)["rows"]
    }
    assert {"coverage", "set_size"} <= rows
    assert "approximate" in (classified.out / "report.html").read_text(encoding="utf-8")


def test_a_case_gets_the_set_of_its_value_of_a_covariate(classified):
    model = hilum.load(classified.out, "cpu")
    limits = {"north": -1.0, "south": None}
    found = {"method": "lac", "level": 0.9, "by": "site", "n": {}, "thresholds": limits, "exact": True}
    model = replace(
        model,
        task=task_catalogue.build_task(
            {"name": "classification", **task_settings.settings_of(model.task), "conformal": found}
        ),
    )
    case = dataset_layouts.read_dataset(classified.data).cases[0]
    of_site = {site: model.predict(replace(case, covariates={"site": site})) for site in ("north", "south", "east")}
    assert [one.confidence.set[""] for one in of_site.values()] == [(), ("bright", "dark"), ("bright", "dark")]
    assert ["widest" in " ".join(one.notes) for one in of_site.values()] == [False, False, True]


def test_they_are_left_out_where_the_data_are_not_the_runs_own(spared, classified, package):
    run, _ = spared
    result = hilum.evaluate(package, classified.data, device="cpu")
    assert set(result.scored.table["case"]) == parts_of(run)["test"]


@pytest.mark.whole
def test_a_plan_that_is_trained_samples_the_same_cases_again(classified, tmp_path):
    made = hilum.plan(classified.data, device="cpu", out=tmp_path / "plan.yaml", assignments=SPARED)
    again = run_folder.planned_from(tmp_path / "plan.yaml", PlanRequest())
    assert (again.parts, again.plan["split.calibration"]) == (made.parts, 6)
    without = run_folder.planned_from(tmp_path / "plan.yaml", PlanRequest(assignments={"split.calibration": 0}))
    assert "calibration" not in without.parts.values()


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"everything": True}, UsageError, "none is left to calibrate"),
        ({"folds": 3}, PlanError, "each fold tests cases that it has not seen"),
    ],
)
@pytest.mark.whole
def test_where_each_case_trains_none_is_kept_and_asking_for_some_is_refused(classified, flags, error, words):
    plan = hilum.plan(classified.data, device="cpu", **flags).plan
    assert plan["split.calibration"] == 0
    with pytest.raises(error, match=f"split.calibration.*{words}"):
        hilum.plan(classified.data, device="cpu", assignments=SPARED, **flags)


@pytest.mark.whole
def test_other_references_of_the_test_part_leave_the_package_the_same_bit_for_bit(tmp_path):
    """Whatever the test cases are said to be, nothing that predicts comes from them."""
    files = sorted(trained.pictures(tmp_path / "data").rglob("*.png"))
    parts = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    ordered = sorted(files, key=lambda path: (int(path.stem) // 2, path.parent.name))
    packages = []
    for name, other in (("true", {}), ("shuffled", {"bright": "dark", "dark": "bright"})):
        rows = ["image,class,split"]
        for path, part in zip(ordered, parts, strict=True):
            own = path.parent.name
            rows.append(f"{path},{other.get(own, own) if part == 'test' else own},{part}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
        trained.classifying(tmp_path / f"{name}.csv", tmp_path / name, assignments=trained.TWO_STEPS)
        with no_export():
            packages.append(hilum.package(tmp_path / name, out=tmp_path / f"{name}-package", backends=()).out)
    same, other = packages
    found = {path.relative_to(same) for path in same.rglob("*") if path.suffix in (".safetensors", ".pt")}
    assert len(found) >= 2  # the weights, and the gate
    for file in found:
        assert (same / file).read_bytes() == (other / file).read_bytes(), file
    settings = [task_settings.settings_of(hilum.load(one, "cpu").task) for one in packages]
    assert settings[0] == settings[1] and settings[0]["calibration"] is not None
    accuracy = [hilum.load(one, "cpu").record for one in packages]
    assert accuracy[0]["weights_sha256"] == accuracy[1]["weights_sha256"]
