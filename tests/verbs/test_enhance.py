"""Cleaner images without training."""

from __future__ import annotations

import json
import warnings

import nibabel
import numpy as np
import PIL.Image
import pytest

import hilum
from hilum.errors import DatasetError, UsageError


@pytest.fixture
def volumes(tmp_path):
    folder = tmp_path / "volumes"
    folder.mkdir()
    for name in ("a", "b"):
        values = 100 + np.random.default_rng(0).normal(0, 5, (16, 14, 12))
        nibabel.Nifti1Image(values.astype(np.float32), np.diag([1, 1, 2, 1])).to_filename(folder / f"{name}.nii.gz")
    return folder


def test_a_folder_becomes_images_on_their_own_grids_a_record_and_a_report(volumes, tmp_path, cli):
    (volumes / "c.nii.gz").write_bytes(b"no volume")
    done = cli("enhance", volumes, "--method", "tv", "--out", tmp_path / "out")
    assert done.code != 0  # of one case that could not be read
    record = json.loads((tmp_path / "out" / "enhancement.json").read_text())
    assert (record["method"], [one["case"] for one in record["cases"]]) == ("tv", ["a", "b"])
    for case in record["cases"]:
        before = hilum.read(volumes / f"{case['case']}.nii.gz")
        after = hilum.read(tmp_path / "out" / case["file"])
        np.testing.assert_allclose(after.geometry.affine, before.geometry.affine)
        change = np.sqrt(np.mean((after.data.astype(float) - before.data) ** 2))
        assert case["change"] == pytest.approx(change, rel=1e-5)
        assert case["settings"][0]["noise"] == pytest.approx(5, rel=0.2)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png") == 2
    assert "before, after, residual" in page
    assert "c.nii.gz" in page


def test_an_empty_scan_among_others_is_named_and_the_others_are_written(volumes, tmp_path, cli):
    empty = nibabel.Nifti1Image(np.zeros((16, 14, 12), np.float32), np.diag([1, 1, 2, 1]))
    empty.to_filename(volumes / "c.nii.gz")
    done = cli("enhance", volumes, "--method", "n4", "--out", tmp_path / "out")
    assert done.code == 1
    assert "c: is empty: every voxel of it is 0" in done.err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        "a_enhanced.nii.gz",
        "b_enhanced.nii.gz",
    ]


def test_voxels_that_are_no_numbers_are_left_out_of_what_changed_without_a_warning(volumes, tmp_path):
    values = 100 + np.random.default_rng(0).normal(0, 5, (16, 14, 12)).astype(np.float32)
    values[0, 0, 0] = np.inf
    nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])).to_filename(volumes / "a.nii.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        result = hilum.enhance(volumes, method="tv", out=tmp_path / "out")
    assert all(0 < row["change"] < 10 for row in result.cases)


def test_a_colour_picture_keeps_its_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(90, 110, (24, 20, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "x.png")
    hilum.enhance(tmp_path / "x.png", out=tmp_path / "out")
    enhanced = hilum.read(tmp_path / "out" / "x_enhanced.nii.gz")
    np.testing.assert_allclose(enhanced.data.mean(), pixels.mean(), rtol=0.01)
    assert enhanced.data.size == pixels.size


def test_an_image_in_memory_is_enhanced_without_a_folder(volumes):
    image = hilum.read(volumes / "a.nii.gz")
    result = hilum.enhance(image)
    [enhanced] = result.images.values()
    assert enhanced.data.std() < image.data.std() / 2
    assert list(result.table["case"]) == ["image"]


def test_what_cannot_be_enhanced_is_refused_and_nothing_is_written(volumes, segmented, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="is a model for segmentation"):
        hilum.enhance(volumes, method=segmented.out, out=out)
    with pytest.raises(UsageError, match=r"bm3d.*nlm, n4, tv, clahe"):
        hilum.enhance(volumes, method="bm3d", out=out)
    with pytest.raises(DatasetError, match="no case could be enhanced"):
        hilum.enhance(hilum.read(volumes / "a.nii.gz").with_pixels(np.zeros((1, 16, 14, 12)) - 5), method="n4")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    with pytest.raises(UsageError, match="exists already"):
        hilum.enhance(volumes, out=tmp_path / "taken")
    assert not out.exists()
