"""Series of regions out of a 4D image."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hilum
from hilum.errors import GeometryError, UsageError
from hilum.transforms import label_maps
from hilum.values import Deferred, Geometry, Image, Label

GRID = Geometry((4, 3, 2), np.eye(4))


def scan(times: tuple[float, ...] | None = (0.0, 2.0, 4.0)) -> Image:
    frames = np.random.default_rng(0).normal(100, 10, (1, 3, *GRID.shape))
    return Image(frames, GRID, modality="MR", times=times)


def atlas() -> Image:
    regions = np.zeros(GRID.shape, int)
    regions[:2], regions[2] = 1, 5
    return Image(regions[None], GRID, labels=(Label(1, "insula"),))


def test_a_region_s_series_is_its_mean_at_each_time():
    image = scan()
    found = label_maps.region_series(image, atlas(), "x")
    assert (found.channels, found.shape, found.geometry.unit) == (("insula", "5"), (2, 3), "s")
    assert found.spacing == (2.0,)
    assert_allclose(found.data[0], image.data[0, :, :2].mean(axis=(1, 2, 3)))
    assert_allclose(found.data[1], image.data[0, :, 2].mean(axis=(1, 2)))


def test_without_even_times_frames_are_counted():
    assert label_maps.region_series(scan((0.0, 1.0, 5.0)), atlas(), "x").spacing is None
    assert label_maps.region_series(scan(None), atlas(), "x").spacing is None


def test_an_atlas_on_another_grid_and_an_image_without_frames_are_refused():
    moved = Image(atlas().data, Geometry(GRID.shape, np.diag([2, 1, 1, 1])))
    with pytest.raises(GeometryError, match="atlas"):
        label_maps.region_series(scan(), moved, "x")
    with pytest.raises(GeometryError, match="frames"):
        label_maps.region_series(scan().frame(0), atlas(), "x")


def test_an_atlas_of_probabilities_or_of_several_maps_and_an_image_of_several_channels_are_refused():
    shares = Image(np.full((1, *GRID.shape), 0.5), GRID)
    several = Image(np.ones((2, *GRID.shape)), GRID, channels=("insula", "putamen"))
    for wrong in (shares, several):
        with pytest.raises(GeometryError, match="probabilities or several maps"):
            label_maps.region_series(scan(), wrong, "x")
    echoes = Image(np.repeat(scan().data, 2, axis=0), GRID, times=(0.0, 2.0, 4.0), channels=("echo 1", "echo 2"))
    with pytest.raises(GeometryError, match="2 channels"):
        label_maps.region_series(echoes, atlas(), "x")


def test_convert_writes_the_series_as_a_table(tmp_path):
    made = nibabel.Nifti1Image(np.moveaxis(scan().data[0], 0, -1).astype(np.float32), np.eye(4))
    made.header.set_xyzt_units("mm", "sec")
    made.header["pixdim"][4] = 2.0
    made.to_filename(tmp_path / "bold.nii.gz")
    nibabel.Nifti1Image(atlas().data[0].astype(np.uint8), np.eye(4)).to_filename(tmp_path / "atlas.nii.gz")
    hilum.convert(tmp_path / "bold.nii.gz", tmp_path / "series.csv", regions=tmp_path / "atlas.nii.gz")
    assert_allclose(
        hilum.read(tmp_path / "series.csv").data, label_maps.region_series(scan(), atlas(), "x").data, rtol=1e-5
    )


def test_each_frame_is_read_once_and_in_order():
    whole, read = scan(), []

    def opened():
        def part(region):
            read.append(region[1].start)
            return whole.data[region]

        return part

    deferred = Deferred(whole.shape, whole.data.dtype, whole.data.copy, stream=opened)
    found = label_maps.region_series(Image(deferred, GRID, modality="MR", times=whole.times), atlas(), "x")
    assert_allclose(found.data, label_maps.region_series(whole, atlas(), "x").data)
    assert read == [0, 1, 2]


def test_correlations_of_regions_are_a_table_of_covariates(tmp_path, cli):
    random, atlas = np.random.default_rng(0), np.zeros((4, 4, 2), np.uint8)
    atlas[:2], atlas[2:, :2], atlas[2:, 2:] = 1, 2, 5
    grid, first, second = np.eye(4), *random.normal(size=(2, 40))
    (tmp_path / "scans").mkdir()
    for name, sign in (("a", 1.0), ("b", -1.0)):
        voxels = np.where(atlas[..., None] == 1, first, np.where(atlas[..., None] == 2, sign * first, second))
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), grid), tmp_path / "scans" / f"{name}.nii")
    nibabel.save(nibabel.Nifti1Image(atlas, grid), tmp_path / "atlas.nii")
    done = cli("convert", tmp_path / "scans", "--connectivity", tmp_path / "atlas.nii", "--out", tmp_path / "c.csv")
    assert done.code == 0
    table = pd.read_csv(tmp_path / "c.csv", index_col="case")
    assert list(table.columns) == ["connectivity 1~2", "connectivity 1~5", "connectivity 2~5"]
    np.testing.assert_allclose(table["connectivity 1~2"], [1, -1], atol=1e-5)
    np.testing.assert_allclose(table["connectivity 1~5"], np.corrcoef(first, second)[0, 1], atol=1e-5)


def test_an_atlas_on_another_grid_and_a_series_too_short_are_refused(tmp_path):
    for name, shape in (("short", (4, 4, 2, 3)), ("long", (4, 4, 2, 30))):
        voxels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii")
    atlas = np.ones((4, 4, 2), np.uint8)
    atlas[2:] = 2
    nibabel.save(nibabel.Nifti1Image(atlas, np.eye(4)), tmp_path / "atlas.nii")
    nibabel.save(nibabel.Nifti1Image(atlas, np.diag([2.0, 1, 1, 1])), tmp_path / "other.nii")
    for scan, regions, words in (("short", "atlas", "3 frames"), ("long", "other", "another grid")):
        with pytest.raises(UsageError, match=words):
            hilum.convert(tmp_path / f"{scan}.nii", tmp_path / "c.csv", connectivity=tmp_path / f"{regions}.nii")
    assert not (tmp_path / "c.csv").exists()
