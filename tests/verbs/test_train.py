from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import pandas as pd
import pytest

import hilum
import trained
from browsers import browser_running
from hilum.errors import PlanError, UsageError
from hilum.planning import plan_file
from hilum.runs import run_folder
from hilum.runs.plan_request import PlanRequest
from hilum.values import Decision
from hilum.verbs.train import Run
from packages import no_export


def test_a_run_leaves_what_the_design_lists_and_nothing_hidden(segmented):
    names = sorted(path.name for path in segmented.out.iterdir())
    assert names == [
        "checkpoints",
        "data.json",
        "dataset.csv",
        "dataset.toml",
        "environment.json",
        "evaluation",
        "log.csv",
        "plan.yaml",
        "report.html",
        "run.json",
        "split.csv",
        "tensorboard",
        "trainings.json",
    ]
    assert sorted(path.name for path in (segmented.out / "checkpoints").iterdir()) == ["best", "last"]


def test_the_report_is_written_last(segmented):
    times = {path: path.stat().st_mtime_ns for path in segmented.out.rglob("*") if path.is_file()}
    assert max(times, key=lambda path: times[path]).name == "report.html"


def test_the_training_curves_link_to_the_log_of_which_they_are_drawn(segmented):
    text = (segmented.out / "report.html").read_text(encoding="utf-8")
    assert 'href="log.csv"' in text.partition(">Training</h2>")[2].partition("</section>")[0]
    assert (segmented.out / "log.csv").is_file()


@pytest.mark.whole
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="there is no pdftotext to read what was printed")
def test_a_printed_report_has_at_most_eight_pages_before_its_appendix(segmented, tmp_path):
    with browser_running(tmp_path) as browser:
        pages = browser.pages((segmented.out / "report.html").read_text(encoding="utf-8"))
    first = [" ".join(word for word, *_ in words[:5]) for words in pages]
    assert first.index("How each figure was made") <= 8
    assert len(pages) <= 12


def test_the_report_needs_no_other_file_but_the_viewers_pages(segmented):
    text = (segmented.out / "report.html").read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert 'src="http' not in text
    for number in (1, 2):
        assert f'href="evaluation/views/{number}.html"' in text
        assert (segmented.out / "evaluation" / "views" / f"{number}.html").is_file()


def test_the_split_has_its_columns_and_every_case_once(segmented):
    table = pd.read_csv(segmented.out / "split.csv", dtype=str)
    assert list(table.columns) == ["case", "patient", "split", "fold"]
    assert sorted(table["case"]) == [f"case{n:02}" for n in range(12)]
    assert set(table["split"]) == {"train", "val", "test"}


def test_only_test_cases_are_evaluated(segmented, classified):
    for run in (segmented, classified):
        split = pd.read_csv(run.out / "split.csv", dtype=str)
        cases = pd.read_csv(run.out / "evaluation" / "cases.csv", dtype=str)
        assert set(cases["case"]) == set(split.loc[split["split"] == "test", "case"])
        assert set(cases["split"]) == {"test"}


def test_the_tables_have_the_columns_that_the_design_names(segmented, classified):
    dense = pd.read_csv(segmented.out / "evaluation" / "cases.csv")
    assert list(dense.columns[:5]) == ["case", "patient", "split", "label", "dice"]
    assert set(dense["label"]) == {"shell", "core"}
    vector = pd.read_csv(classified.out / "evaluation" / "cases.csv")
    assert list(vector.columns[:4]) == ["case", "patient", "split", "label"]
    assert {"reference", "predicted", "brier"} < set(vector.columns)
    named = [name for name in vector.columns if name.startswith("probability_")]
    assert named == ["probability_bright", "probability_dark"]
    assert set(vector["label"]) == {"all"}
    assert set(vector["predicted"]) <= {"bright", "dark"}


def test_the_summary_has_the_columns_that_the_design_names_and_no_bare_number(segmented, classified):
    for run, primary in ((segmented, "dice"), (classified, "auroc")):
        record = json.loads((run.out / "evaluation" / "summary.json").read_text())
        assert {"schema", "version", "rows"} <= set(record)
        first = record["rows"][0]
        expected = {"metric", "label", "value", "low", "high", "level", "n", "patients", "unit", "method"}
        assert set(first) == expected
        assert (first["metric"], first["label"]) == (primary, "all")
        assert all(row["method"] for row in record["rows"])


def test_the_plan_of_a_run_names_its_data_relative_to_itself(segmented):
    [line] = [line for line in (segmented.out / "plan.yaml").read_text().splitlines() if line.startswith("data:")]
    assert line == "data: ../data"


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> trained.Trained:
    """A table with patients of a name that stands nowhere else, two of whose cases are called as missing values are."""
    root = tmp_path_factory.mktemp("named")
    data = trained.pictures(root / "data")
    (data / "bright" / "00.png").rename(data / "bright" / "NA.png")
    (data / "dark" / "01.png").rename(data / "dark" / "null.png")
    rows = ["image,class,patient"]
    for n, path in enumerate(sorted(data.rglob("*.png"))):
        rows.append(f"{path.relative_to(data).as_posix()},{path.parent.name},ZAPHOD{n // 2}")
    (data / "table.csv").write_text("\n".join(rows))
    return trained.Trained(data / "table.csv", trained.classifying(data / "table.csv", root / "run").out)


def test_patients_stand_in_no_file_of_a_model(named):
    run = named.out
    holding = {
        path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and b"ZAPHOD" in path.read_bytes()
    }
    assert holding == {"dataset.csv", "split.csv", "evaluation/cases.csv"}
    patients = pd.read_csv(run / "split.csv").groupby("patient")["split"].nunique()
    assert (patients == 1).all()
    assert len(patients) == 20


@pytest.mark.whole
def test_every_case_trains_with_everything_and_nothing_is_estimated_as_its_package_says_too(tmp_path):
    run = trained.classifying(trained.pictures(tmp_path / "data", 12), tmp_path / "run", everything=True)
    assert set(pd.read_csv(run.out / "split.csv")["split"]) == {"train"}
    assert run.rows == ()
    assert run.report.is_file()
    assert not (run.out / "evaluation").exists()
    assert "Patients unknown." in run.notes  # nothing was split
    assert str(run).count("nothing is estimated") == 1
    with no_export():
        assert "nothing is estimated" in repr(hilum.package(run.out, out=tmp_path / "out", backends=()))
    page = (tmp_path / "out" / "docs" / "README.md").read_text()
    assert "No performance was estimated" in page
    assert "Every case was trained on" in page


@pytest.mark.whole
def test_a_model_is_begun_from_the_package_of_another(segmented, packaged, tmp_path):
    few = {"training.steps": 1, "training.validations": 1, "training.learning_rate": 1e-12, "training.ema": 0.0}
    run = trained.segmenting(segmented.data, tmp_path / "run", start=packaged.out, assignments=few)
    theirs, ours = (hilum.load(path, "cpu").networks.run.module.state_dict() for path in (segmented.out, run.out))
    for name, weight in theirs.items():
        assert (weight - ours[name]).abs().max() < 1e-6


def test_test_cases_that_change_or_go_while_it_trains_are_named_and_not_scored(tmp_path):
    data, out = trained.blobs(tmp_path / "data", 20), tmp_path / "run"
    tests: list[str] = []

    def meddle(moment):
        if moment.step == 1:
            table = pd.read_csv(out / "split.csv", dtype=str)
            tests.extend(sorted(table.loc[table["split"] == "test", "case"]))
            (data / "images" / f"{tests[0]}.nii.gz").unlink()
            shutil.copy(data / "labels" / f"{tests[2]}.nii.gz", data / "labels" / f"{tests[1]}.nii.gz")

    with trained.watching(meddle):
        run = trained.segmenting(data, out)
    assert set(pd.read_csv(out / "evaluation" / "cases.csv", dtype=str)["case"]) == set(tests[2:])
    assert "2 test cases could not be scored: see Data." in run.notes
    assert str(run).startswith("Dice ")
    assert f"not scored: {tests[0]}, {tests[1]}" in (out / "report.html").read_text()


def test_a_run_prints_its_headline_and_ends_with_the_reports_path(segmented):
    run = Run(segmented.out, (), "dice", 6, 0.1)
    assert "6 steps in 0.1 min" in str(run)
    assert "3 folds of up to 6 steps in 0.1 min" in str(Run(segmented.out, (), "dice", 6, 0.1, folds=3))
    assert str(run).splitlines()[-1] == str(segmented.out / "report.html")


def test_data_and_a_run_to_resume_cannot_both_be_given(segmented, tmp_path):
    with pytest.raises(UsageError, match="either"):
        hilum.train(segmented.data, resume=segmented.out, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.whole
def test_minutes_beside_a_plan_decide_its_steps_anew(segmented, tmp_path):
    run = hilum.train(segmented.out / "plan.yaml", minutes=0.01, out=tmp_path / "run")
    assert run.steps == 10  # the least; the plan had 6
    kept = run_folder.planned_from(segmented.out / "plan.yaml", PlanRequest(0.01, assignments={"training.steps": 3}))
    assert kept.plan["training.steps"] == 3


@pytest.mark.parametrize(("given", "networks"), [({}, 5), ({"minutes": 30.0}, None)])
@pytest.mark.whole
def test_networks_for_which_an_earlier_run_had_time_share_no_other_minutes(classified, tmp_path, given, networks):
    made = replace(plan_file.read_plan(classified.out / "plan.yaml"), data=str(classified.data))
    five = made.with_decision("training.networks", Decision(5, "after the first 900 s were left"))
    (tmp_path / "plan.yaml").write_text(plan_file.plan_text(five), encoding="utf-8")
    assert run_folder.planned_from(tmp_path / "plan.yaml", PlanRequest(**given)).plan["training.networks"] == networks


@pytest.mark.whole
def test_another_training_by_the_plan_of_a_run_finds_its_own_calibration_and_keeps_a_threshold_set_by_hand(classified):
    place = classified.out / "plan.yaml"
    assert plan_file.read_plan(place)["task.calibration"] is not None
    made = run_folder.planned_from(place, PlanRequest(seed=5, assignments={"task.thresholds": {"dark": 0.3}})).plan
    assert (made["task.calibration"], made["task.conformal"]) == (None, None)
    assert made["task.thresholds"] == {"dark": 0.3}


@pytest.mark.whole
def test_the_device_of_a_plan_is_logged_with_the_reason_of_the_plan(classified, tmp_path, caplog):
    made = replace(plan_file.read_plan(classified.out / "plan.yaml"), data=str(classified.data))
    unaided = made.with_decision("training.device", Decision("cpu", "no GPU was found"))
    (tmp_path / "plan.yaml").write_text(plan_file.plan_text(unaided), encoding="utf-8")
    with caplog.at_level(logging.INFO, logger="hilum"):
        run_folder.planned_from(tmp_path / "plan.yaml", PlanRequest())
    assert "computing on cpu: the plan says so (no GPU was found)" in caplog.messages


@pytest.mark.whole
def test_a_case_may_be_called_na(named):
    scored = hilum.evaluate(named.out, named.data, split="all", device="cpu").scored.table
    assert len(scored) == 40
    assert {"NA", "null"} <= set(scored["case"])


def test_weights_of_which_none_fits_are_refused_before_a_run_begins(segmented, classified, tmp_path):
    with pytest.raises(PlanError, match="not one weight fits"):
        trained.segmenting(segmented.data, tmp_path / "run", start=classified.out)
    assert not (tmp_path / "run").exists()


def test_where_nobody_says_who_the_patients_are_no_number_of_them_is_claimed(segmented):
    rows = json.loads((segmented.out / "evaluation" / "summary.json").read_text())["rows"]
    assert {row["patients"] for row in rows} == {None}
    assert not any("patient" in row["method"] for row in rows)
    assert any("case bootstrap" in row["method"] for row in rows)
