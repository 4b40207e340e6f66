from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import isocenter
import trained
from isocenter.errors import DatasetError, UsageError


def evaluated(run, data, **flags):
    return isocenter.evaluate(run.out, data, device="cpu", **{"labels": trained.LABELS, **flags})


def parts(run) -> dict[str, set[str]]:
    table = pd.read_csv(run.out / "split.csv", dtype=str)
    return {part: set(rows["case"]) for part, rows in table.groupby("split")}


def cases(result) -> set[str]:
    return set(result.scored.table["case"])


def test_of_the_runs_own_data_the_test_cases_are_scored_wherever_they_lie(segmented, tmp_path):
    moved = shutil.copytree(segmented.data, tmp_path / "elsewhere")
    result = evaluated(segmented, moved)
    assert cases(result) == parts(segmented)["test"]
    assert result.which == "the test cases of the run's own data"


def test_the_evaluation_repeats_what_the_run_measured(segmented):
    again = evaluated(segmented, segmented.data).scored.table
    kept = pd.read_csv(segmented.out / "evaluation" / "cases.csv")
    pd.testing.assert_frame_equal(again[kept.columns].reset_index(drop=True), kept, check_dtype=False)


def test_of_other_data_all_cases_are_scored(segmented, tmp_path):
    other = trained.blobs(tmp_path / "other", 3)
    (other / "images" / "case00.nii.gz").write_bytes((other / "images" / "case01.nii.gz").read_bytes())
    assert cases(evaluated(segmented, other)) == {"case00", "case01", "case02"}


def test_one_changed_file_makes_them_other_data(segmented, tmp_path):
    changed = shutil.copytree(segmented.data, tmp_path / "changed")
    shutil.copy(changed / "images" / "case01.nii.gz", changed / "images" / "case00.nii.gz")
    result = evaluated(segmented, changed)
    assert len(cases(result)) == 12
    assert "other data" in result.which
    trained_on = len(parts(segmented)["train"] | parts(segmented)["val"])
    [note] = result.notes
    assert note.startswith(f"{trained_on} cases have the names of cases that trained this model")
    assert note in str(result)


def test_training_cases_are_scored_only_when_asked_for_and_the_report_says_so(segmented, tmp_path):
    result = evaluated(segmented, segmented.data, split="train", out=tmp_path / "out")
    assert cases(result) == parts(segmented)["train"]
    assert "used in training" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    evaluated(segmented, segmented.data, out=tmp_path / "test")
    assert "used in training" not in (tmp_path / "test" / "report.html").read_text(encoding="utf-8")


def test_an_evaluation_leaves_its_records(segmented, tmp_path):
    evaluated(segmented, segmented.data, out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cases.csv", "report.html", "summary.json", "views"}
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    assert rows == json.loads((segmented.out / "evaluation" / "summary.json").read_text())["rows"]


def test_nothing_is_written_without_out(segmented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluated(segmented, segmented.data)
    assert not list(tmp_path.iterdir())


def test_data_without_the_models_references_are_refused(segmented, classified):
    with pytest.raises(DatasetError, match="mask"):
        isocenter.evaluate(segmented.out, classified.data, device="cpu")


def test_an_unknown_split_is_wrong_use(segmented):
    with pytest.raises(UsageError, match="practice"):
        evaluated(segmented, segmented.data, split="practice")


def test_masks_whose_numbers_mean_something_else_are_refused(segmented):
    with pytest.raises(DatasetError, match="the value 1 is 'core' in the reference and 'shell' in the model"):
        evaluated(segmented, segmented.data, labels="1=core,2=shell")


def test_numbers_are_no_names_that_could_differ(segmented, tmp_path):
    other = trained.blobs(tmp_path / "other", 2)
    assert cases(isocenter.evaluate(segmented.out, other, device="cpu")) == {"case00", "case01"}


def test_a_class_that_was_not_trained_is_named_and_the_others_are_scored(classified, tmp_path):
    other = trained.pictures(tmp_path / "other", 6)
    (other / "grey").mkdir()
    for name in ("00.png", "02.png"):
        (other / "bright" / name).rename(other / "grey" / name)
    result = isocenter.evaluate(classified.out, other, device="cpu")
    assert len(cases(result)) == 4
    assert all("class 'grey' is none of bright, dark" in problem.what for problem in result.scored.problems)


def test_of_cases_with_different_references_those_that_fit_are_used(tmp_path):
    data = trained.pictures(tmp_path / "data", 24)
    masked = (data / "bright" / "00.png", data / "dark" / "01.png")
    rows = []
    for path in sorted(data.glob("*/*.png")):
        mask = path.with_name(f"{path.stem}_mask.png") if path in masked else None
        if mask is not None:
            PIL.Image.fromarray(np.asarray(PIL.Image.open(path)) // 255).save(mask)
        truth = f",{mask.relative_to(data).as_posix()}" if mask is not None else f"{path.parent.name},"
        rows.append(f"{path.relative_to(data).as_posix()},{truth}")
    (data / "table.csv").write_text("\n".join(["image,label,mask", *rows]))
    run = trained.classifying(data / "table.csv", tmp_path / "run", task="classification")
    assert len(parts(run)["train"] | parts(run)["val"] | parts(run)["test"]) == 22
    assert "2 cases have no reference of the kind class" in run.report.read_text(encoding="utf-8")
    result = isocenter.evaluate(run.out, data / "table.csv", split="all", device="cpu")
    assert len(cases(result)) == 22


def test_a_runs_own_data_are_read_as_it_read_them(tmp_path):
    data = trained.pictures(tmp_path / "data", 24)
    rows = [f"{path.relative_to(data).as_posix()},{path.parent.name}" for path in sorted(data.rglob("*.png"))]
    (data / "table.csv").write_text("\n".join(["scan,finding", *rows]))
    column = {"image": "scan", "label": "finding"}
    run = trained.classifying(data / "table.csv", tmp_path / "run", column=column)
    again = isocenter.evaluate(run.out, data / "table.csv", device="cpu")
    assert again.which == "the test cases of the run's own data"
    moved = shutil.copytree(data, tmp_path / "moved")
    with pytest.raises(DatasetError, match="no column says"):
        isocenter.evaluate(run.out, moved / "table.csv", device="cpu")
