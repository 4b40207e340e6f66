"""The way from a folder to results that travels in a package, run here: it is the same code."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import torch
from numpy.testing import assert_array_equal

from hilum.belief import Certainty
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.runtime import Model, Preprocessing, torch_networks
from hilum.runtime.bundle import formats, inference
from hilum.runtime.bundle.inference import Evaluator, Inferer
from hilum.runtime.bundle.network import OneTensor
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.tasks import task_catalogue, task_settings
from hilum.transforms.intensity import Normalisation
from packages import segmenting

torch.set_num_threads(1)


def inferer(model: Model) -> Inferer:
    return Inferer(model.task, model.preprocessing, model.inference.settings, model.networks.run)


def ran(model: Model, source: Path, out: Path) -> None:
    known = formats.volumes() if model.preprocessing.ndim == 3 else formats.pictures()
    found = inference.cases(str(source), known, model.preprocessing.channels)
    Evaluator(found, inferer(model), known, str(out)).run()


def of_channels(channels: tuple[str, ...], ndim: int) -> Model:
    """Segmentation of one structure, tidied, with random weights."""
    label = {"value": 1, "name": "thing"}
    rules = {"thing": {"largest": True, "holes": True, "smallest": 0.0}}
    settings = {"name": "segmentation", "labels": [label], "loss": "ce", "tolerance": 1.0, "postprocessing": rules}
    task, count = task_catalogue.build_task(settings), len(channels)
    preprocessing = Preprocessing(ndim, channels, (Normalisation("zscore"),) * count)
    size = {"strides": [[1] * ndim, [2] * ndim], "width": 4}
    network = {"name": "unet", "channels": count, "spatial_dims": ndim, "size": size}
    torch.manual_seed(1)
    run = TorchNetwork(torch_networks.build_module(task, network).eval())
    return Model(task, preprocessing, Inference((8,) * ndim), Networks(run, network))


def nifti(path: Path, seed: int = 0, shape: tuple[int, ...] = (10, 9, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(np.random.default_rng(seed).normal(size=shape).astype(np.float32), np.eye(4)).to_filename(path)
    return path


def test_one_file_is_a_cohort_of_one(tmp_path):
    model = segmenting()
    ran(model, nifti(tmp_path / "scan.nii"), tmp_path / "out")
    found = np.asarray(nibabel.load(tmp_path / "out" / "scan.nii.gz").dataobj)
    assert_array_equal(found, np.asarray(model.predict(tmp_path / "scan.nii").data))
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["case"] for row in record["rows"]] == ["scan"]


def test_calibrated_outputs_make_the_label_map_here_too(tmp_path):
    plain, source = segmenting(), nifti(tmp_path / "scan.nii.gz")
    shifted = {"background": [0.5, -1.0], "kidney left": [1.5, 0.4], "kidney right": [0.8, 0.6]}
    certainty = Certainty(calibration=Calibrator("vector", shifted, cases=9))
    made = replace(plain, task=replace(plain.task, certainty=certainty, calibrated_map=True))
    ran(made, source, tmp_path / "out")
    [written] = (tmp_path / "out").rglob("scan*.nii.gz")
    assert_array_equal(np.asarray(nibabel.load(written).dataobj), np.asarray(made.predict(source).data))
    assert (np.asarray(plain.predict(source).data) != np.asarray(made.predict(source).data)).mean() > 0.05


def test_turned_and_scaled_views_are_averaged_here_too(tmp_path):
    plain, source = of_channels(("T1",), 3), nifti(tmp_path / "scan.nii.gz")
    made = replace(plain, inference=replace(plain.inference, views=2, turn=20.0, gamma=0.3))
    ran(made, source, tmp_path / "out")
    [written] = (tmp_path / "out").rglob("scan*.nii.gz")
    assert_array_equal(np.asarray(nibabel.load(written).dataobj), np.asarray(made.predict(source).data))


def test_the_table_beside_a_label_map_says_what_its_values_mean(tmp_path):
    ran(segmenting(), nifti(tmp_path / "scan.nii"), tmp_path / "out")
    with (tmp_path / "out" / "scan.labels.csv").open(newline="") as file:
        assert {row["value"]: row["name"] for row in csv.DictReader(file)} == {"3": "kidney left", "7": "kidney right"}


def test_volumes_in_ml_and_in_voxels_stand_in_columns_of_their_own(tmp_path):
    nifti(tmp_path / "in" / "sized.nii")
    unknown = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32), None)
    unknown.header.set_xyzt_units("unknown")
    unknown.to_filename(tmp_path / "in" / "unknown.nii")
    plain = segmenting()
    without_sides = {
        **task_settings.settings_of(plain.task),
        "labels": [{"value": 3, "name": "kidney"}, {"value": 7, "name": "cyst"}],
    }
    ran(
        replace(plain, task=task_catalogue.build_task({"name": "segmentation", **without_sides})),
        tmp_path / "in",
        tmp_path / "out",
    )
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        sized, unknown = csv.DictReader(file)
    assert float(sized["kidney_ml"]) > 0
    assert unknown["kidney_ml"] == ""
    assert float(unknown["kidney_voxels"]) > 0


def test_a_volume_without_sides_is_refused_where_labels_have_them(tmp_path):
    array = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    nifti(tmp_path / "in" / "stated.nii")
    nibabel.Nifti1Image(array, None).to_filename(tmp_path / "in" / "unknown.nii")
    with pytest.raises(DatasetError, match="unknown: left and right are not known"):
        ran(segmenting(), tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "stated.nii.gz").is_file()


def test_files_numbered_by_channel_are_one_case(tmp_path):
    model = of_channels(("T1", "T2"), 3)
    for case in ("a", "b"):
        for channel in range(2):
            nifti(tmp_path / "in" / f"{case}_{channel:04}.nii.gz", seed=channel)
    ran(model, tmp_path / "in", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]


def test_a_case_without_all_its_channels_is_refused_by_name(tmp_path):
    nifti(tmp_path / "in" / "a_0000.nii.gz")
    with pytest.raises(DatasetError, match="a: the case has 1 file"):
        inference.cases(str(tmp_path / "in"), formats.volumes(), ("T1", "T2"))


def test_a_colour_picture_is_one_file_of_three_channels_and_gets_a_picture(tmp_path):
    model = of_channels(("R", "G", "B"), 2)
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    PIL.Image.fromarray(pixels).save(tmp_path / "in" / "eye_0001.png")
    ran(model, tmp_path / "in", tmp_path / "out")
    found = np.asarray(PIL.Image.open(tmp_path / "out" / "eye_0001.png"))
    expected = np.asarray(model.predict(tmp_path / "in" / "eye_0001.png").data)
    assert expected.any()
    assert_array_equal(found, expected)


def test_two_files_of_one_name_are_refused(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        nifti(tmp_path / "in" / name)
    with pytest.raises(DatasetError, match="2 files"):
        inference.cases(str(tmp_path / "in"), formats.volumes(), ("T1",))


def test_a_damaged_file_is_named_and_the_others_are_predicted(tmp_path):
    nifti(tmp_path / "in" / "whole.nii.gz")
    (tmp_path / "in" / "damaged.nii.gz").write_bytes(b"no image at all")
    with pytest.raises(DatasetError, match=r"1 of 2 cases.*damaged\.nii\.gz"):
        ran(segmenting(), tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "whole.nii.gz").is_file()


def test_where_no_case_can_be_predicted_nothing_is_written(tmp_path):
    (tmp_path / "damaged.nii.gz").write_bytes(b"no image at all")
    with pytest.raises(FormatError, match=r"damaged\.nii\.gz"):
        ran(segmenting(), tmp_path / "damaged.nii.gz", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.nii.gz"]


def test_results_are_never_written_over_older_ones(tmp_path):
    ran(segmenting(), nifti(tmp_path / "scan.nii"), tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        ran(segmenting(), tmp_path / "scan.nii", tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "error", "message"), [("no", UsageError, "there is no"), ("", DatasetError, "no image")]
)
def test_a_folder_without_images_is_refused(tmp_path, source, error, message):
    with pytest.raises(error, match=message):
        inference.cases(str(tmp_path / source), formats.volumes(), ("T1",))


def test_one_tensor_of_several_networks_says_what_their_mean_says():
    model = segmenting(3)
    assert isinstance(model.networks.run, AveragedNetwork)
    images = torch.randn(2, 1, 8, 8, 4)
    one = OneTensor([member.module for member in model.networks.run.members], "mask").eval()
    with torch.inference_mode():
        found = one(images).numpy()
    np.testing.assert_allclose(found, model.networks.run(images.numpy())["mask"], atol=1e-5)


def test_one_tensor_of_one_network_is_its_output():
    model = segmenting()
    images = torch.randn(1, 1, 8, 8, 4)
    with torch.inference_mode():
        found = OneTensor([model.networks.run.module], "mask").eval()(images).numpy()
    assert_array_equal(found, model.networks.run(images.numpy())["mask"])


def test_a_table_of_covariates_names_cases_as_their_files_are_called(tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("case,age\nsite1.004,40\nscans/site1.005.nii.gz,50\nsite1.NII,60\nsite1.004,40\n")
    found = inference.read_covariates(table, formats.volumes())
    assert {case: row["age"] for case, row in found.items()} == {"site1.004": "40", "site1.005": "50", "site1": "60"}


def test_two_rows_of_one_case_that_differ_are_refused_as_predict_refuses_them(tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("case,age\nkim,40\nkim.nii.gz,50\n")
    with pytest.raises(DatasetError, match=r"patients\.csv: rows of one case differ") as refused:
        inference.read_covariates(table, formats.volumes())
    assert "kim" not in str(refused.value)


def test_a_blank_image_has_no_result_and_the_others_have_theirs(tmp_path):
    source = nifti(tmp_path / "scans" / "scan.nii").parent
    nibabel.Nifti1Image(np.full((10, 9, 8), 7, np.float32), np.eye(4)).to_filename(source / "blank.nii")
    with pytest.raises(DatasetError, match=r"1 of 2 cases failed.*blank: has no answer: it is one value everywhere"):
        ran(segmenting(), source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["scan.nii.gz"]
