"""What a person writes for a part of an image."""

from __future__ import annotations

import numpy as np
import pytest

import hilum
from hilum.errors import GeometryError, UsageError
from hilum.prediction import case_prediction
from hilum.values import Geometry, Image

GRID = Geometry((10, 8, 6), np.diag([-1.0, -1, 2, 1]))
IMAGE = Image(np.zeros((1, 10, 8, 6), np.int16), GRID)


@pytest.fixture
def mask(tmp_path):
    values = np.zeros((1, 10, 8, 6), np.uint8)
    values[0, 2:5, 3, 1:3] = 1
    values[0, 7, 6:8, 5] = 4
    hilum.write(Image(values, GRID), tmp_path / "a=b.nii.gz")
    return tmp_path / "a=b.nii.gz"


def test_voxels_are_the_first_and_the_one_after_the_last_along_each_axis():
    assert case_prediction.region_of("2:5,0:8,1:2", IMAGE, "case") == np.s_[2:5, 0:8, 1:2]
    assert case_prediction.region_of("2:, :3 ,:", IMAGE, "case") == np.s_[2:10, 0:3, 0:6]


@pytest.mark.parametrize(
    "asked", ["2:5,0:8", "2,3,4", "2:5,0:8,5:7", "5:2,0:8,1:2", "-3:5,0:8,1:2", "a:b,0:8,1:2", "none.nii"]
)
def test_what_is_no_part_of_the_image_is_refused(asked):
    with pytest.raises(UsageError, match="--region"):
        case_prediction.region_of(asked, IMAGE, "case")


def test_a_mask_means_the_box_around_all_that_it_marks(mask):
    assert case_prediction.region_of(str(mask), IMAGE, "case") == np.s_[2:8, 3:8, 1:6]
    assert case_prediction.region_of(f"{mask}=4", IMAGE, "case") == np.s_[7:8, 6:8, 5:6]
    assert case_prediction.with_full_paths(f"{mask}=4") == f"{mask}=4"


def test_a_label_that_marks_nothing_or_a_mask_on_another_grid_is_refused(mask):
    with pytest.raises(UsageError, match="nothing is marked with 9"):
        case_prediction.region_of(f"{mask}=9", IMAGE, "case")
    with pytest.raises(UsageError, match="is not a value"):
        case_prediction.region_of(f"{mask}=x", IMAGE, "case")
    shifted = Geometry(GRID.shape, GRID.affine + np.eye(4, k=3))
    with pytest.raises(GeometryError, match="another grid"):
        case_prediction.region_of(str(mask), Image(IMAGE.data, shifted), "case")


@pytest.mark.parametrize("asked", ["foo", "10:5,0:10,0:10", "-3:5", "a:b", "none.nii=2"])
def test_what_is_part_of_no_image_is_refused_before_any_is_read(asked):
    with pytest.raises(UsageError, match="--region"):
        case_prediction.with_full_paths(asked)


def test_voxels_are_the_same_from_everywhere():
    assert case_prediction.with_full_paths("2:, :3 ,:") == "2:, :3 ,:"
