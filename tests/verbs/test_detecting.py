"""Boxes go the whole way: a folder of annotations is planned, trained, scored, predicted and packaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import highdicom
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from numpy.testing import assert_allclose
from pydicom.uid import DigitalXRayImageStorageForPresentation

import hilum
import trained
from hilum.errors import DatasetError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.prediction import result_files
from hilum.prediction.answers import WantedFiles
from hilum.values import BoundingBoxes, Prediction
from packages import no_export
from trained import TWO_STEPS
from written_dicom import write_slice


def overlays_of(page: str) -> list[dict]:
    """What a viewer's page shows over its image."""
    facts = page.partition('id="facts"')[2].partition(">")[2].partition("</script>")[0]
    return json.loads(facts)["overlays"]


def test_a_run_is_trained_and_scored_by_average_precision(detected):
    rows = json.loads((detected.out / "evaluation" / "summary.json").read_text())["rows"]
    assert (rows[0]["metric"], rows[0]["label"]) == ("ap50", "all")
    assert {row["label"] for row in rows} == {"all", "disc", "square"}
    assert 0 <= rows[0]["value"] <= 1
    assert (detected.out / "report.html").is_file()
    log = pd.read_csv(detected.out / "log.csv")
    assert np.isfinite(log["loss"]).all()


@pytest.mark.whole
def test_every_box_that_is_found_has_a_row_and_every_image_at_least_one(detected, tmp_path):
    result = hilum.predict(str(detected.out), str(detected.data), out=tmp_path / "found", device="cpu")
    table = pd.read_csv(tmp_path / "found" / "predictions.csv")
    assert list(table.columns) == ["case", "image", "label", "score", "x0", "y0", "x1", "y1"]
    assert result.cases == table["case"].nunique() == 16
    known = table.dropna()
    assert (known["x1"] > known["x0"]).all()
    assert (known["x1"] <= 32).all()
    assert (known["y1"] <= 24).all()
    record = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert (record["predicted"], len(record["rows"])) == (16, len(table))


@pytest.mark.whole
def test_a_package_finds_the_same_boxes(detected, tmp_path):
    with no_export():
        hilum.package(detected.out, out=tmp_path / "packaged", backends=())
    image = hilum.read(detected.data / "smear00.png")
    own = hilum.load(detected.out, "cpu").predict(image).boxes
    packaged = hilum.load(tmp_path / "packaged", "cpu").predict(image).boxes
    assert packaged.names == own.names
    assert_allclose(packaged.corners, own.corners)
    described = json.loads((tmp_path / "packaged" / "configs" / "metadata.json").read_text())
    channels = described["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(channels.values())[:3] == ["disc", "square", "length along axis 0"]
    assert len(channels) == 6
    assert not list((tmp_path / "packaged" / "scripts").rglob("maps.py"))


def test_boxes_that_it_takes_to_miss_little_are_listed_where_somebody_asks(detected):
    model = hilum.load(detected.out, "cpu")
    assert model.task.certainty.covering is not None  # by the validation cases
    image = detected.data / "smear00.png"
    usual, covering = (hilum.predict(model, image, covering=asked).table for asked in (False, True))
    scores = hilum.predict(model, image).predictions["smear00"].boxes.scores
    least = min(model.task.certainty.covers_from.values())
    assert len(covering) == (scores >= least).sum() > usual["score"].notna().sum()


def test_boxes_are_called_by_calibrated_scores_and_without_calibration_the_same_have_those_of_the_network(detected):
    model = hilum.load(detected.out, "cpu")
    assert model.task.certainty.calibration is not None  # by the validation cases
    names, shift = model.task.classes, np.log(4.0)
    found = Calibrator("platt", {name: [1.0, shift] for name in names}, 3)
    certainty = replace(model.task.certainty, calibration=found)
    model = replace(model, task=replace(model.task, certainty=certainty, threshold=0.2))
    image = detected.data / "smear00.png"
    stated, given = (hilum.predict(model, image, calibration=word).table for word in ("on", "off"))
    assert len(stated) and stated.drop(columns="score").equals(given.drop(columns="score"))
    odds = [np.log(table["score"] / (1 - table["score"])) for table in (stated, given)]
    assert_allclose(odds[0] - odds[1], shift, atol=1e-3)


def test_an_overlay_shows_the_boxes(detected, tmp_path):
    image = detected.data / "smear00.png"
    result = hilum.predict(str(detected.out), str(image), out=tmp_path / "found", device="cpu", overlay=True)
    assert result.cases == 1
    picture = PIL.Image.open(tmp_path / "found" / "smear00_overlay.png")
    assert min(picture.size) > 24  # a picture of the image, and not the image


def test_the_pages_of_a_run_and_of_a_check_draw_the_reference_boxes(detected, tmp_path):
    page = (detected.out / "evaluation" / "views" / "1.html").read_text()
    assert {"name": "reference", "style": "both"}.items() <= overlays_of(page)[0].items()
    hilum.check(detected.data, out=tmp_path / "check", threads=1)
    assert "Outlines: the reference." in (tmp_path / "check" / "check.html").read_text()


@pytest.mark.whole
def test_the_viewer_takes_an_annotation_and_what_was_predicted(detected, cli, tmp_path):
    image = detected.data / "smear01.png"
    done = cli("view", image, image.with_suffix(".xml"), "--out", tmp_path / "own.html")
    assert done.code == 0, done.err
    [overlay] = overlays_of((tmp_path / "own.html").read_text())
    assert {label["name"] for label in overlay["labels"]} == {"disc", "square"}
    hilum.predict(str(detected.out), str(detected.data), out=tmp_path / "found", device="cpu")
    assert cli("view", image, tmp_path / "found" / "predictions.csv", "--out", tmp_path / "found.html").code == 0
    done = cli("view", tmp_path / "own.png", tmp_path / "found" / "predictions.csv")
    assert done.code != 0


def test_boxes_of_a_namesake_in_another_folder_are_not_drawn_on_an_image(tmp_path):
    for patient in ("p1", "p2", "p3"):
        (tmp_path / patient).mkdir()
        PIL.Image.new("L", (40, 40)).save(tmp_path / patient / "scan[1].png")
    table = tmp_path / "boxes.csv"
    rows = ["p1/scan[1].png,mine,2,2,8,8", "p2/scan[1].png,theirs,20,20,30,30"]
    table.write_text("\n".join(["image,label,x0,y0,x1,y1", *rows]))
    [overlay] = overlays_of(hilum.view(tmp_path / "p1" / "scan[1].png", table).html)
    assert [label["name"] for label in overlay["labels"]] == ["mine"]
    with pytest.raises(DatasetError, match=r"rows for p1/scan\[1\].png, p2/scan"):
        hilum.view(tmp_path / "p3" / "scan[1].png", table)
    table.write_text("\n".join(["image,label,x0,y0,x1,y1", "scan[1].png,any,2,2,8,8"]))
    [overlay] = overlays_of(hilum.view(tmp_path / "p3" / "scan[1].png", table).html)
    assert [label["name"] for label in overlay["labels"]] == ["any"]


@pytest.mark.whole
def test_a_family_with_a_loss_of_its_own_goes_the_same_way(detected, tmp_path):
    strides = [[1, 1], [2, 2], [2, 2]]
    size = {"strides": strides, "width": 8, "inside": 8, "finest": 1, "levels": 2, "head": 1}
    asked = {**TWO_STEPS, "network.name": "yolox", "network.size": size, "preprocessing.reduction": 1.5}
    run = trained.detecting(detected.data, tmp_path / "run", assignments=asked)
    assert np.isfinite(pd.read_csv(run.out / "log.csv")["loss"]).all()
    assert hilum.package(run.out, out=tmp_path / "packaged", backends=()).onnx["exported"]
    image = hilum.read(detected.data / "smear00.png")
    own = hilum.load(run.out, "cpu").predict(image).boxes
    packaged = hilum.load(tmp_path / "packaged", "cpu").predict(image).boxes
    assert_allclose(packaged.corners, own.corners, atol=1e-3)
    assert (own.corners <= [24, 32, 24, 32]).all()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "more", "because"),
    [
        ("retinanet", {}, ""),
        ("faster_rcnn", {"deep": 16, "samples": 16}, "number of its proposals differs"),
    ],
)
def test_a_detector_of_torchvision_is_trained_scored_packaged_and_predicts(
    detected, tmp_path, cli, name, more, because
):
    asked = {**TWO_STEPS, "network.name": name, "network.size": {"inside": 32, "layers": [1], **more}}
    run = trained.detecting(detected.data, tmp_path / "run", assignments=asked)
    assert np.isfinite(pd.read_csv(run.out / "log.csv")["loss"]).all()
    assert {row.metric for row in run.rows} >= {"ap50", "cpm"}
    stated = hilum.package(run.out, out=tmp_path / "packaged", backends=())
    assert stated.onnx["exported"] is not bool(because)
    assert because in stated.onnx.get("because", "")
    image = detected.data / "smear00.png"
    own = hilum.load(run.out, "cpu").predict(hilum.read(image)).boxes
    packaged = hilum.load(tmp_path / "packaged", "cpu").predict(hilum.read(image)).boxes
    assert packaged.names == own.names
    assert_allclose(packaged.corners, own.corners, atol=1e-3)
    if because:
        done = cli("predict", tmp_path / "packaged", image, "--backend", "onnx", "--out", tmp_path / "found")
        assert done.code != 0
        assert because in done.last


@pytest.mark.whole
def test_discs_and_squares_are_learnt(tmp_path):
    some = {"training.steps": 300, "training.batch": 4, "training.learning_rate": 5e-3}
    run = trained.detecting(trained.smears(tmp_path / "data", 40), tmp_path / "run", assignments=some)
    rows = {(row.metric, row.label): row.estimate.value for row in run.rows}
    assert rows["ap50", "all"] > 0.8


def test_boxes_on_a_radiograph_are_written_as_a_report_of_the_patient_and_read_again(detected, tmp_path):
    pixels = hilum.read(detected.data / "smear00.png").data[0].astype(np.uint16)
    none = dict.fromkeys(("position", "orientation", "spacing"))
    kind = {"sop_class": DigitalXRayImageStorageForPresentation, "Modality": "DX"}
    (tmp_path / "both").mkdir()
    image = write_slice(tmp_path / "both" / "dx.dcm", pixels, **none, **kind)
    model = hilum.load(detected.out, "cpu")
    model = replace(model, task=replace(model.task, threshold=0.03))
    hilum.predict(model, str(image), out=tmp_path / "found", format="dcm")
    [report] = (tmp_path / "found").glob("*_report.dcm")
    table = pd.read_csv(tmp_path / "found" / "predictions.csv").dropna(subset=["score"])
    assert len(table)
    shutil.copy(report, tmp_path / "both")
    [case] = hilum.check(tmp_path / "both").dataset
    boxes = case.references["boxes"]
    assert list(boxes.names) == table["label"].tolist()
    assert_allclose(boxes.corners, table[["y0", "x0", "y1", "x1"]], atol=1e-3)


def test_a_report_states_which_classes_were_looked_for_in_which_part_and_that_the_model_would_give_no_answer(
    detected, tmp_path
):
    pixels = hilum.read(detected.data / "smear00.png").data[0].astype(np.uint16)
    none = dict.fromkeys(("position", "orientation", "spacing"))
    kind = {"sop_class": DigitalXRayImageStorageForPresentation, "Modality": "DX"}
    image = hilum.read(write_slice(tmp_path / "dx.dcm", pixels, **none, **kind))
    prediction = Prediction(image.geometry, boxes=BoundingBoxes.none(2), threshold=0.4, abstained="too unlike")
    model = hilum.load(detected.out, "cpu")
    [report], lacking = result_files.write_result(
        prediction, image, tmp_path, "case", WantedFiles(), model, is_part=True
    )
    [group] = highdicom.sr.srread(report).content.get_image_measurement_groups()
    stated = [str(item.TextValue) for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert not lacking
    assert stated[-4:] == [
        "looked for: disc, square",
        "least score: 40 %",
        "only a part of the image was looked at",
        "the model would give no answer here: too unlike",
    ]
