from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import hilum
import real_data
import trained
from hilum.belief import Certainty
from hilum.errors import DatasetError, UsageError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.evaluation.conformal import Conformal
from hilum.files.dicom.reading import seg_reading
from hilum.prediction import result_files
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.tasks import properties, task_catalogue
from hilum.tasks.segmentation.question import Segmentation
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Geometry, Image, Label
from matrices import rarely, thinned

SERIES = Path("dicom", "series", "mr_hippocampus_001")


def predicted(run, *inputs, **flags):
    return hilum.predict(run.out, [*inputs], device="cpu", **flags)


@pytest.fixture
def image(segmented) -> Path:
    return segmented.data / "images" / "case01.nii.gz"


def saved_probabilities(run: Path | Model, image: Path, out: Path, **flags: object) -> np.ndarray:
    hilum.predict(run, image, device="cpu", out=out, save_probabilities=True, **flags)
    return nibabel.load(out / f"{image.name.split('.')[0]}_probabilities.nii.gz").get_fdata()


def test_two_inputs_of_one_name_get_files_of_their_own(segmented, image, tmp_path):
    other = tmp_path / "case01.nii.gz"
    other.write_bytes((segmented.data / "images" / "case02.nii.gz").read_bytes())
    result = predicted(segmented, image, other, image, out=tmp_path / "out")
    assert [path.name for path in result.files] == ["case01.nii.gz", "case01_2.nii.gz", "case01_3.nii.gz"]


@pytest.mark.whole
def test_a_series_that_cannot_bear_a_seg_keeps_its_nifti_with_a_warning(segmented, data, tmp_path):
    series = data / "dicom" / "series" / "mr_hitachi_oblique"  # it states no frame of reference
    flags = {"abstain": "off", "allow_large": True}  # its gate knows other images
    result = predicted(segmented, series, out=tmp_path / "out", **flags)
    assert [path.name.partition("_MR_10")[2] for path in result.files] == [".nii.gz", "_report.dcm"]
    [lack, large] = result.problems  # it is far larger than what the model was trained on
    assert (lack.severity, large.severity) == ("warning", "warning")
    assert lack.what.startswith("no DICOM SEG")
    assert "times as large" in large.what
    with pytest.raises(DatasetError, match=r"[0-9a-f]{8}_MR_10: the image states no FrameOfReferenceUID"):
        predicted(segmented, series, out=tmp_path / "named", format="dcm", **flags)


def test_a_result_has_no_name_that_windows_keeps_for_a_device(segmented, image, tmp_path):
    odd = tmp_path / "nul.nii.gz"
    odd.write_bytes(image.read_bytes())
    assert [path.name for path in predicted(segmented, odd, out=tmp_path / "out").files] == ["nul_.nii.gz"]


def test_saved_probabilities_lie_on_the_grid_of_the_source_and_their_largest_is_the_result(segmented, image, tmp_path):
    found = saved_probabilities(segmented.out, image, tmp_path / "out")
    source, result = nibabel.load(image), nibabel.load(tmp_path / "out" / "case01.nii.gz")
    assert found.shape == (*source.shape, 3)
    written = nibabel.load(tmp_path / "out" / "case01_probabilities.nii.gz")
    assert_allclose(written.affine, source.affine, atol=1e-4)
    assert_allclose(found.sum(axis=-1), 1, atol=2e-3)
    # Two that differ by less than float16 can tell may come out either way.
    assert np.mean(found.argmax(axis=-1) == np.asarray(result.dataobj)) > 0.995
    table = pd.read_csv(tmp_path / "out" / "case01_probabilities.labels.csv")
    assert dict(zip(table["value"], table["name"], strict=True)) == {0: "background", 1: "shell", 2: "core"}
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert not [name for name in names if name.startswith(".")]


def test_an_overlay_shows_each_result(segmented, image, tmp_path):
    result = predicted(segmented, image, out=tmp_path / "out", overlay=True)
    assert [path.name for path in result.files] == ["case01.nii.gz", "case01_overlay.png"]
    assert trained.PIL.Image.open(result.files[1]).size[0] > 100


@pytest.mark.whole
def test_a_case_that_fails_half_way_leaves_no_file(segmented, tmp_path, monkeypatch):
    model = hilum.load(segmented.out, "cpu")
    asked = 0

    def breaking(batch):
        nonlocal asked
        asked += 1
        if asked == 2:
            raise DatasetError("broke down", "case01", "Try again")
        return model.networks.run(batch)

    few = [segmented.data / "images" / f"case{n:02}.nii.gz" for n in range(3)]
    result = hilum.predict(
        model.with_run(breaking), [*few], out=tmp_path / "out", save_probabilities=True, overlay=True
    )
    assert [problem.cases for problem in result.failures] == [("case01",)]
    assert not list((tmp_path / "out").glob("*case01*"))
    assert len(list((tmp_path / "out").iterdir())) == 2 * 5 + 4


def test_a_case_that_is_called_like_the_files_of_another_gets_a_name_of_its_own(segmented, image, tmp_path):
    other = tmp_path / "case01_probabilities.nii.gz"
    other.write_bytes(image.read_bytes())
    result = predicted(segmented, image, other, out=tmp_path / "out", save_probabilities=True)
    names = [path.name for path in result.files]
    assert len(set(names)) == 4
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == set(names)


def test_a_case_that_is_called_like_a_map_of_another_gets_a_name_of_its_own():
    """Of two parts that have a map of the same kind the second's has the part's name before it."""
    masks = {"labels": [{"value": 1, "name": "lesion"}], "loss": "dice+ce", "tolerance": 2.0}
    parts = {"segmentation": masks, "instances": {"steps": [1.0, 1.0], "reach": 8.0, "smallest": 9}}
    settings = {f"{part}.{key}": value for part, own in parts.items() for key, value in own.items()}
    kinds = result_files.map_names(task_catalogue.build_task({"name": "instances+segmentation", **settings}))
    ids = ("x", "x_segmentation_total", "x_instances_covering", "x_epistemic", "x_total_2", "y_segmentation_total")
    named = [case.id for case in result_files.with_unique_names([Case(name, name, {}) for name in ids], kinds)]
    assert named == [
        "x",
        "x_segmentation_total_2",
        "x_instances_covering_2",
        "x_epistemic_2",
        "x_total_2",
        "y_segmentation_total",
    ]


def of_parts(parts: dict[str, dict], pixels: np.ndarray, outputs, folder: Path, **flags):
    """What a model of several parts, the outputs of which are given, makes of a volume x."""
    settings = {f"{part}.{key}": value for part, own in parts.items() for key, value in own.items()}
    task = task_catalogue.build_task({"name": "+".join(parts), **settings})
    hilum.write(Image(pixels[None], Geometry.of_spacing(pixels.shape, (1, 1, 1))), folder / "x.nii.gz")
    prepares = Preprocessing(3, ("0",), (Normalisation("range", 0, 1, 0.0, 1.0),))
    model = Model(task, prepares, Inference(pixels.shape), Networks(outputs, {"name": "none", "channels": 1}))
    return hilum.predict(model, folder / "x.nii.gz", out=folder / "out", **flags)


def test_each_part_with_a_label_map_has_files_and_measurements_of_its_own(tmp_path):
    masks = {"labels": [{"value": 1, "name": "lesion"}], "loss": "dice+ce", "tolerance": 2.0}
    parts = {"instances": {"steps": [1.0, 1.0, 1.0], "reach": 3.0, "smallest": 0.0}, "segmentation": masks}
    bright = np.zeros((16, 16, 16), np.float32)
    bright[2:6, 2:6, 2:6] = bright[9:14, 9:14, 9:14] = 1

    def outputs(batch):
        odds = 20 * batch - 10
        return {
            "instances_instances": np.concatenate([odds, batch], axis=1),
            "segmentation_mask": np.concatenate([-odds, odds], axis=1),
        }

    result = of_parts(parts, bright, outputs, tmp_path, save_probabilities=True, overlay=True)
    with PIL.Image.open(tmp_path / "out" / "x_overlay.png") as overlay:
        assert overlay.height > 0.6 * overlay.width  # three planes of each of two parts, one below the other
    endings = ("", "_segmentation", "_probabilities", "_segmentation_probabilities")
    maps = [path for path in result.files if path.suffix != ".png"]
    assert [path.name for path in maps] == [f"x{ending}.nii.gz" for ending in endings]
    objects, structures = (hilum.read(path) for path in maps[:2])
    assert_array_equal(structures.data[0], bright)
    assert [label.name for label in structures.labels if label.value] == ["lesion"]
    assert_array_equal(np.unique(objects.data), [0, 1, 2])
    assert nibabel.load(maps[3]).shape == (16, 16, 16, 2)
    measured = pd.read_csv(tmp_path / "out" / "measurements.csv")
    assert measured["label"].tolist() == ["object 1", "object 2", "segmentation: lesion"]
    assert measured["voxels"].tolist() == [64, 125, 189]


def test_saved_probabilities_of_a_part_are_called_by_what_they_are_of(tmp_path):
    """Regions, one in the other: the values of a label map are what is left of each, the outputs are of all of it."""
    labels = [{"value": 1, "name": "core"}, {"value": 2, "name": "whole (rest)"}]
    masks = {"labels": labels, "regions": {"whole": [2, 1], "core": [1]}, "loss": "dice+ce", "tolerance": 2.0}
    parts = {"classification": {"classes": ["benign", "malignant"], "smoothing": 0.0}, "segmentation": masks}
    grey = np.zeros((16, 16, 16), np.float32)
    grey[2:12, 2:12, 2:12], grey[4:8, 4:8, 4:8] = 0.5, 1

    def outputs(batch):
        regions = np.concatenate([batch - 0.25, batch - 0.75], axis=1)
        return {"segmentation_mask": 40 * regions, "classification_class": np.zeros((len(batch), 2), np.float32)}

    of_parts(parts, grey, outputs, tmp_path, save_probabilities=True)
    named = pd.read_csv(tmp_path / "out" / "x_probabilities.labels.csv")
    found = nibabel.load(tmp_path / "out" / "x_probabilities.nii.gz").get_fdata() > 0.5
    assert dict(zip(named["name"], found.sum(axis=(0, 1, 2)), strict=True)) == {"whole": 1000, "core": 64}


@pytest.mark.parametrize("letter", thinned(1, ["x", "\u00e9", "\u5c71"]))
def test_a_long_name_is_shortened_to_what_systems_allow_and_stays_its_own(segmented, image, tmp_path, letter):
    long = letter * (240 // len(letter.encode()))
    images = [tmp_path / f"{long}{n}.nii.gz" for n in (1, 2)]
    for path in images:
        path.write_bytes(image.read_bytes())
    result = predicted(segmented, *images, out=tmp_path / "out", save_probabilities=True)
    assert not result.failures
    assert len({path.name for path in result.files}) == 4
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {path.name for path in result.files}


def test_thousands_of_images_of_one_name_are_numbered_at_once():
    named = [
        case.id for case in result_files.with_unique_names([Case("ct", "ct", {})] * 5000 + [Case("ct_7", "ct", {})], ())
    ]
    assert named[:3] == ["ct", "ct_2", "ct_3"]
    assert named[-2:] == ["ct_5000", "ct_7_2"]
    assert len(set(named)) == len(named)


def test_classes_have_their_probabilities_in_the_table_and_nothing_beside(classified, tmp_path):
    picture = sorted((classified.data / "dark").iterdir())[0]
    result = predicted(classified, picture, out=tmp_path / "out", save_probabilities=True, overlay=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"findings.json", "predictions.csv", "summary.json"}
    assert not result.files
    assert result.measurements.empty


@pytest.mark.whole
def test_a_series_is_measured_and_saved_on_its_own_grid(segmented, data, tmp_path):
    flags = {"abstain": "off"}  # its gate knows other images
    predicted(segmented, data / SERIES, out=tmp_path / "out", save_probabilities=True, overlay=True, **flags)
    [found] = (tmp_path / "out").glob("*_probabilities.nii.gz")
    source = hilum.read(data / SERIES)
    assert nibabel.load(found).shape[:3] == source.geometry.shape
    assert_allclose(nibabel.load(found).affine, source.geometry.affine, atol=1e-4)
    table = pd.read_csv(tmp_path / "out" / "measurements.csv")
    assert table["label"].tolist() == ["shell", "core"]


def test_answers_about_the_whole_of_a_dicom_series_are_a_report_beside_the_mask(data, tmp_path):
    parts = {
        "segmentation": {"labels": [{"value": 1, "name": "lesion"}], "loss": "dice+ce", "tolerance": 2.0},
        "classification": {"classes": ["benign", "malignant"], "smoothing": 0.0},
        "findings": {"findings": ["oedema", "cyst"], "thresholds": {"oedema": 0.2, "cyst": 0.5}},
    }
    settings = {f"{part}.{key}": value for part, own in parts.items() for key, value in own.items()}

    def outputs(batch):
        bright = 20 * (batch > 0.5) - 10.0
        return {
            "segmentation_mask": np.concatenate([-bright, bright], axis=1),
            "classification_class": np.tile(np.array([0.0, np.log(3)], np.float32), (len(batch), 1)),
            "findings_findings": np.tile(np.log(np.array([3 / 7, 1 / 9], np.float32)), (len(batch), 1)),
        }

    prepares = Preprocessing(3, ("0",), (Normalisation("zscore"),))
    task = task_catalogue.build_task({"name": "+".join(parts), **settings})
    model = Model(task, prepares, Inference((64, 64, 64)), Networks(outputs, {"name": "none", "channels": 1}))
    result = hilum.predict(model, data / SERIES, out=tmp_path / "out")
    [path] = (tmp_path / "out").glob("*_report.dcm")
    assert not result.problems
    groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
    evaluated = [(one.name.meaning, one.value.meaning) for g in groups for one in g.get_qualitative_evaluations()]
    assert evaluated == [("classification", "Malignant"), ("oedema", "Present"), ("Cyst", "Absent")]
    numbers = [float(one.value) for group in groups for one in group.get_measurements()]
    assert_allclose(numbers, [25, 75, 30, 10], rtol=1e-5)


def brighter(grey: bool = True) -> Model:
    """Marks what is brighter than the image's mean; no weights, so that any picture will do."""
    task = task_catalogue.build_task(
        {"name": "segmentation", "labels": [{"value": 3, "name": "bright"}], "loss": "ce", "tolerance": 1}
    )
    channels = ("0",) if grey else ("R", "G", "B")
    preprocessing = Preprocessing(2, channels, (Normalisation("zscore"),) * len(channels))

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        return {"mask": np.concatenate([np.zeros_like(batch[:, :1]), 50 * batch.mean(axis=1, keepdims=True)], axis=1)}

    return Model(task, preprocessing, Inference((256, 256)), Networks(run, {"name": "none", "channels": len(channels)}))


@pytest.mark.parametrize(
    ("name", "suffix", "column"),
    [
        rarely(("pydicom_JPEG-lossy.dcm", "tiff", "area_mm2")),
        rarely(pytest.param("dcmjs_op.dcm", "tiff", "area_mm2", marks=real_data.marks("dicom/files/dcmjs_op.dcm"))),
        rarely(("highdicom_dx_image.dcm", "png", "voxels")),
        ("pydicom_CT_small.dcm", "nii.gz", "volume_ml"),
    ],
)
def test_a_single_dicom_image_gets_a_file_that_can_hold_its_place(tmp_path, name, suffix, column):
    path = real_data.find(f"dicom/files/{name}")
    source = hilum.read(path)
    result = hilum.predict(brighter(), path, out=tmp_path / "out", save_probabilities=True, overlay=True)
    assert [problem.what for problem in result.problems if problem.severity == "error"] == []
    written = hilum.read(tmp_path / "out" / f"{Path(name).stem}.{suffix}")
    assert written.geometry.shape == source.geometry.shape
    assert written.spacing == pytest.approx(source.spacing) if source.spacing else written.spacing is None
    assert_array_equal(np.unique(written.data), [0, 3])
    marked = seg_reading.read_segmentation(tmp_path / "out" / f"{Path(name).stem}.dcm", on=source.geometry)
    assert_array_equal(marked.data != 0, written.data != 0)
    probable = hilum.read(next((tmp_path / "out").glob(f"*_probabilities.{'tiff' if suffix == 'png' else suffix}")))
    assert probable.data.reshape(2, -1).sum(axis=0) == pytest.approx(1, abs=1e-3)
    assert column in result.measurements
    assert (tmp_path / "out" / f"{Path(name).stem}_overlay.png").is_file()


def test_the_entropy_of_every_voxel_is_that_of_its_probabilities_in_files_and_in_python(segmented, image, tmp_path):
    result = predicted(segmented, image, out=tmp_path / "out", maps=True, save_probabilities=True)
    assert {"case01_total.nii.gz", "case01_probabilities.nii.gz"} <= {path.name for path in result.files}
    written, source = nibabel.load(tmp_path / "out" / "case01_total.nii.gz"), nibabel.load(image)
    assert written.get_data_dtype() == np.float32
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-4)
    chances = nibabel.load(tmp_path / "out" / "case01_probabilities.nii.gz").get_fdata()
    by_hand = -(chances * np.log(np.maximum(chances, 1e-12))).sum(axis=-1)
    np.testing.assert_allclose(written.get_fdata(), by_hand, atol=0.01)  # probabilities have the precision of float16
    [kept] = predicted(segmented, image, maps=True).predictions.values()
    assert kept.maps["total"].unit == "nats"
    np.testing.assert_allclose(np.asarray(kept.maps["total"].data), written.get_fdata(), atol=1e-6)
    assert not predicted(segmented, image).predictions["case01"].maps


def test_classes_have_no_map_of_their_entropy(classified, tmp_path):
    picture = sorted((classified.data / "dark").iterdir())[0]
    assert not predicted(classified, picture, out=tmp_path / "out", maps=True).files


def test_a_trained_segmentation_is_calibrated_and_states_the_dice_to_be_expected(segmented, image, tmp_path):
    task = hilum.load(segmented.out, device="cpu").task
    assert task.certainty.calibration.cases > 0
    assert set(task.expected_dice) == set(task.names)
    result = predicted(segmented, image, out=tmp_path / "out")
    [row] = result.table.to_dict("records")
    marked = [name for name in task.names if row[f"{name}_ml"]]
    assert all(0 < row[f"expected_dice_{name}"] < 1 for name in marked)
    metrics = {one["metric"] for one in json.loads((segmented.out / "evaluation" / "summary.json").read_text())["rows"]}
    assert {"ece_near", "summed_volume_error", "expected_dice_bias"} <= metrics


def covering(model: Model, limits: dict[str, float]) -> Model:
    """The model with thresholds of covering masks, of 1 less the probability."""
    return replace(model, task=replace(model.task, certainty=replace(model.task.certainty, covering=crc(limits))))


def crc(limits: dict[str, float]) -> Conformal:
    return Conformal("crc", 0.9, "label", dict.fromkeys(limits, 20), limits, exact=True)


def test_a_covering_mask_holds_every_voxel_that_is_likely_enough_in_files_and_in_python(segmented, image, tmp_path):
    model = covering(hilum.load(segmented.out, "cpu"), {"shell": 0.7, "core": np.inf})
    result = hilum.predict(model, image, out=tmp_path / "out", covering=True, save_probabilities=True)
    assert "case01_covering.nii.gz" in {path.name for path in result.files}
    written = nibabel.load(tmp_path / "out" / "case01_covering.nii.gz")
    chances = nibabel.load(tmp_path / "out" / "case01_probabilities.nii.gz").get_fdata()
    masks = written.get_fdata()
    assert written.get_data_dtype() == np.uint8
    sure = abs(chances[..., 1] - 0.3) > 1e-3  # probabilities have the precision of float16
    assert_array_equal(masks[..., 0][sure], (chances[..., 1] > 0.3)[sure])
    assert (masks[..., 1] == 1).all()  # of the core nothing is known: its mask is the whole image
    assert (tmp_path / "out" / "case01_covering.labels.csv").read_text().splitlines()[1].startswith("0,shell")
    [kept] = hilum.predict(model, image, covering=True).predictions.values()
    assert kept.maps["covering"].names == ("shell", "core")
    assert_array_equal(np.moveaxis(np.asarray(kept.maps["covering"].data), 0, -1), masks)


def test_a_structure_without_a_threshold_is_covered_by_the_whole_image(segmented, image):
    model = covering(hilum.load(segmented.out, "cpu"), {"core": 0.5})
    [kept] = hilum.predict(model, image, covering=True).predictions.values()
    covered = dict(zip(kept.maps["covering"].names, np.asarray(kept.maps["covering"].data), strict=True))
    assert covered["shell"].all()
    assert not covered["core"].all()


def test_a_covering_mask_of_one_structure_has_the_axes_of_the_image():
    task = Segmentation((Label(1, "core"),), certainty=Certainty(covering=crc({"core": 0.5})))
    made, chances = (
        properties.added_results(task).stream(Geometry.of_pixels((2, 3))),
        np.array([[[0.4, 0.5, 0.6]] * 2], np.float32),
    )
    made((slice(0, 2), slice(0, 3)), {next(iter(task.heads)): np.concatenate([1 - chances, chances])})
    assert_array_equal(made.maps["covering"].data, [[0, 1, 1]] * 2)


def test_without_calibration_probabilities_alone_are_those_of_the_network(segmented, image, tmp_path):
    loaded = hilum.load(segmented.out, "cpu")
    found = Conformal("doubt", 0.9, "label", {"shell": 20, "core": 20}, {"shell": 0.5, "core": 2.0}, exact=True)
    certainty = Certainty(calibration=Calibrator("temperature", {"all": [0.25]}, 20), conformal=found)
    calibrated = replace(loaded, task=replace(loaded.task, certainty=certainty, expected_dice={"shell": 1, "core": 2}))
    plain = replace(calibrated, task=task_catalogue.without_voxel_calibration(calibrated.task))
    tables, chances = {}, {}
    for name, model, word in (("on", calibrated, "on"), ("off", calibrated, "off"), ("raw", plain, "on")):
        chances[name] = saved_probabilities(model, image, tmp_path / name, calibration=word)
        tables[name] = hilum.predict(model, image, device="cpu", calibration=word).table
    sets = [name for name in tables["on"] if name.startswith("expected_dice_") or name.endswith(("_low", "_high"))]
    assert len(sets) == 6
    pd.testing.assert_frame_equal(tables["off"], tables["on"])
    assert (tables["raw"][sets].to_numpy() != tables["on"][sets].to_numpy()).any()
    assert_array_equal(chances["off"], chances["raw"])
    assert abs(chances["off"] - chances["on"]).max() > 0.05


def test_a_folder_of_results_is_no_folder_of_images(segmented, image, tmp_path):
    predicted(segmented, image, out=tmp_path / "out")
    with pytest.raises(UsageError, match="holds results of a prediction"):
        predicted(segmented, tmp_path / "out")
    with pytest.raises(UsageError, match="holds results of a prediction"):
        hilum.check(tmp_path / "out")
    [result] = (tmp_path / "out").glob("*.nii.gz")
    assert len(predicted(segmented, result).predictions) == 1  # who names the file means it


def test_covering_masks_without_thresholds_or_calibration_are_refused(segmented, classified, image):
    with pytest.raises(UsageError, match="only masks, boxes and objects can be covering"):
        hilum.predict(classified.out, image, covering=True)
    with pytest.raises(UsageError, match="calibrated"):
        hilum.predict(segmented.out, image, covering=True, calibration="off")
