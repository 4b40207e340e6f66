"""A lesion segmented, classified and measured by one network, where most cases lack one of the three answers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.layouts import dataset_layouts
from hilum.planning import plan_changes
from hilum.tasks import task_settings
from packages import bundle_checked_and_run, no_export

COLUMN = {"value:size": "size_px"}
JOINED = "classification+regression+segmentation"


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """A table in which each case lacks one answer, and the folder of the run on it; tests only read them."""
    root = tmp_path_factory.mktemp("answering")
    data = trained.lesions(root / "data", known=2)
    trained.answering_all(data, root / "run")
    return data, root / "run"


def test_the_plan_says_what_each_part_decides_and_what_all_decide_together(answering):
    plan = hilum.plan(answering[0], column=COLUMN, task="multitask", device="cpu", threads=1).plan
    assert plan["task.name"] == JOINED
    assert plan["task.weighting"] == "uncertainty"
    assert "segmentation is known of" in plan.decision("task.weighting").because
    assert plan["task.segmentation.labels"] == [{"value": 1, "name": "1"}]
    assert plan["task.classification.classes"] == ["bright", "dim"]
    other = {"bright": "dim", "dim": "bright"}[plan["task.classification.positive"]]
    assert (
        plan_changes.with_settings(plan, {"task.positive": other})["task.classification.positive"] == other
    )  # as --positive does
    assert plan["task.regression.targets"] == ["size"]
    assert plan["network.name"] == "unet"
    assert plan["augmentation.scale"] == 0  # a size is asked for
    assert plan["training.patch"] == plan["preprocessing.shape"] == [24, 24]  # whole images
    assert plan["training.selection"] == "mean_of_parts"
    assert plan["evaluation.primary"] == "dice"
    assert "auroc of classification" in plan.decision("evaluation.primary").because


def test_a_run_is_scored_part_by_part_on_the_cases_that_have_its_answer(answering):
    _, run = answering
    rows = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
    labels = {row["label"].partition(":")[0] for row in rows}
    assert labels == {"segmentation", "classification", "regression"}
    table = pd.read_csv(run / "evaluation" / "cases.csv")
    counts = table["label"].str.partition(":")[0].value_counts()
    scored = {row["label"]: row["n"] for row in rows if row["metric"] in ("dice", "brier", "mae")}
    assert scored["segmentation: all"] == counts["segmentation"]
    assert scored["regression: size"] == counts["regression"]
    assert counts.sum() < 3 * table["case"].nunique()
    page = (run / "report.html").read_text()
    assert "size: differences" in page
    assert "Dice of the cases" in page


def test_what_training_left_open_is_decided_for_each_part(answering):
    record = json.loads((answering[1] / "checkpoints" / "last" / "model.json").read_text())
    assert record["task"]["name"] == JOINED
    assert record["task"]["classification.thresholds"] is not None
    assert record["task"]["segmentation.postprocessing"] is not None
    assert len(record["record"]["terms"]["log_variance"]) == 3
    assert 0.0 not in record["record"]["terms"]["log_variance"]


@pytest.mark.whole
def test_predictions_are_a_mask_and_columns_of_all_parts(answering, cli, tmp_path):
    data, run = answering
    done = cli(
        "predict", run, data.parent / "images", "--out", tmp_path / "out", "--device", "cpu", "--save-probabilities"
    )
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert {"1_pixels", "predicted", "probability_bright", "value_size"} <= set(table.columns)
    assert len(table) == 24
    model = hilum.load(run, "cpu")
    prediction = model.predict(data.parent / "images" / "ball03.png")
    mask = hilum.read(tmp_path / "out" / "ball03.png")
    np.testing.assert_array_equal(mask.data[0], np.asarray(prediction.data))
    assert prediction.values["size"] == pytest.approx(table["value_size"][3])
    assert prediction.probabilities["bright"] == pytest.approx(table["probability_bright"][3])
    chances = hilum.read(tmp_path / "out" / "ball03_probabilities.tiff")
    assert chances.data.shape[-2:] == (24, 24)


@pytest.mark.whole
def test_other_data_are_scored_by_what_they_have(answering, tmp_path):
    rows = answering[0].read_text().splitlines()
    kept = [",".join([cells[0], "", cells[2], "", cells[4]]) for cells in (row.split(",") for row in rows[1:])]
    other = answering[0].parent / "others.csv"
    other.write_text("\n".join([rows[0], *kept]))
    dataset = dataset_layouts.read_dataset(other)
    out = tmp_path / "evaluated"
    found = hilum.evaluate(answering[1], replace(dataset, splits={}), split="all", device="cpu", out=out)
    assert {row.label.partition(":")[0] for row in found.rows} == {"classification"}
    assert "Can it be believed?" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.whole
def test_a_package_says_the_same_with_and_without_hilum(answering, tmp_path):
    data, run = answering
    packaged = hilum.package(run, out=tmp_path / "balls", backends=(), threads=1)
    images = data.parent / "images"
    ours = hilum.load(run, "cpu").predict(images / "ball03.png")
    for backend in ("torch", "onnx"):
        theirs = hilum.load(packaged.out, "cpu", backend=backend).predict(images / "ball03.png")
        np.testing.assert_array_equal(np.asarray(theirs.data), np.asarray(ours.data))
        assert theirs.values == pytest.approx(ours.values, rel=1e-4)
        assert theirs.probabilities == pytest.approx(ours.probabilities, rel=1e-4)
    page = (packaged.out / "docs" / "README.md").read_text()
    for name in ("bright", "size"):
        assert f"| {name} |" in page
    done = bundle_checked_and_run(packaged.out, images, tmp_path / "results")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "results" / "predictions.csv").set_index("case")
    table = hilum.predict(run, images, device="cpu").table.set_index("case")
    assert set(theirs.columns) == set(table.columns)
    np.testing.assert_allclose(theirs["value_size"], table["value_size"], rtol=1e-4)
    assert (tmp_path / "results" / "ball03.png").is_file()


@pytest.mark.whole
def test_volumes_are_answered_as_pictures_are(tmp_path):
    data = trained.lesions(tmp_path / "data", 12, axes=3)
    fixed = {"task.weighting": "fixed", "task.loss_weights": {"regression": 0.5}}
    run = trained.answering_all(
        data, tmp_path / "run", task="segmentation+classification+regression", assignments=fixed
    )
    assert {row.metric for row in run.rows} >= {"dice", "auroc", "mae"}
    model = hilum.load(tmp_path / "run", "cpu")
    assert model.task.weighting == "fixed"
    found = model.predict(tmp_path / "data" / "images" / "ball03.nii.gz")
    assert found.data.shape == (16, 16, 16)
    assert set(found.values) == {"size"}
    assert found.labels[0].name == "1"
    assert not (tmp_path / "run" / "checkpoints" / "last" / "objectives.safetensors").exists()


@pytest.mark.whole
def test_folds_answer_together(tmp_path):
    data = trained.lesions(tmp_path / "data", 12)
    trained.answering_all(data, tmp_path / "run", folds=2, assignments={"training.steps": 2})
    table = pd.read_csv(tmp_path / "run" / "evaluation" / "cases.csv")
    assert len(table) == 36
    image = hilum.read(tmp_path / "data" / "images" / "ball00.png")
    each = [hilum.load(tmp_path / "run", "cpu", fold=n).predict(image).values["size"] for n in range(2)]
    assert hilum.load(tmp_path / "run", "cpu").predict(image).values["size"] == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.whole
def test_a_site_with_references_of_one_part_calibrates_it_and_the_others_stay_as_they_were(answering, tmp_path):
    """Else label maps would no longer be tidied, and their intervals would be gone."""
    site = trained.lesions(tmp_path / "site", count=34)
    cells = [row.split(",") for row in site.read_text().splitlines()[25:]]  # the first ones have trained
    site.write_text("\n".join(["image,label,patient", *(f"{row[0]},{row[2]},{row[4]}" for row in cells)]))
    with no_export():
        made = hilum.calibrate(answering[1], site, out=tmp_path / "package", backends=())
    before, after = (task_settings.settings_of(hilum.load(place, "cpu").task) for place in (answering[1], made.out))
    stay = [name for name in before if name.startswith(("segmentation.", "regression."))]
    assert before["segmentation.postprocessing"] is not None and before["segmentation.calibration"] is not None
    assert {name: after[name] for name in stay} == {name: before[name] for name in stay}
    assert after["classification.calibration"]["cases"] == 10
    assert "No calibrating case has a reference of segmentation, regression" in repr(made)
