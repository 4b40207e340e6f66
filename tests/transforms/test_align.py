"""One image on the grid of another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.errors import GeometryError
from hilum.transforms import spatial_transforms
from hilum.values import Geometry, Image
from strategies import rotations

SOURCE = Geometry((12, 10, 8), np.diag([1.0, 1.5, 2.0, 1.0]))


def _ramp(geometry: Geometry) -> np.ndarray:
    """A function that is linear in the world: linear sampling keeps it exactly."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    return (geometry.to_world(index) @ np.array([1.0, -2.0, 0.5]))[None].astype(np.float32)


@given(st.floats(-0.3, 0.3), st.floats(0.5, 2.0), st.tuples(*[st.floats(0, 3)] * 3))
def test_a_function_that_is_linear_in_the_world_stays_itself_on_any_grid(angle, step, origin):
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * step, origin
    target = Geometry((6, 5, 4), affine)
    moved = spatial_transforms.align_to_grid(Image(_ramp(SOURCE), SOURCE), target, "case")
    covered = moved.valid
    assert moved.geometry.equals(target)
    # Within 1e-3 mm beyond the outermost centres the edge goes on.
    assert_allclose(moved.data[covered], _ramp(target)[covered], atol=4e-3)


def test_what_the_image_does_not_cover_is_no_measurement():
    beyond = Geometry((3, 3, 3), np.array([[1, 0, 0, 100], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    assert not spatial_transforms.align_to_grid(Image(_ramp(SOURCE), SOURCE), beyond, "case").valid.any()


@given(rotations(), st.sampled_from([0.33, 0.7, 0.9765625, 1.1]), st.integers(1, 3))
def test_the_outermost_voxels_of_a_common_lattice_are_covered_however_their_places_are_rounded(turn, step, times):
    affine, coarser = np.eye(4), np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * step, (-121.7, 88.1, 13.3)
    coarser[:3, :3], coarser[:3, 3] = times * affine[:3, :3], affine[:3, 3]
    image = Image(np.arange(13.0**3).reshape(1, 13, 13, 13), Geometry((13, 13, 13), affine))
    count = 12 // times + 1
    moved = spatial_transforms.align_to_grid(image, Geometry((count,) * 3, coarser), "case")
    assert moved.valid.all()
    assert_allclose(moved.data, image.data[:, ::times, ::times, ::times], rtol=1e-4, atol=1e-2)


def test_what_is_no_measurement_stays_none_and_is_mixed_with_nothing():
    """The rim of a scanner's circle: HU beside a padding value far below them."""
    values = np.full((1, *SOURCE.shape), 40, np.int16)
    values[:, :4] = -2000
    image = Image(values, SOURCE, padding=(-2000, -2000))
    between = Geometry((11, 9, 7), np.array([[1, 0, 0, 0.5], [0, 1.5, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]]))
    moved = spatial_transforms.align_to_grid(image, between, "case")
    assert not moved.valid[:, :4].any()
    assert (moved.data[:, 4:] == 40).all()
    here = Geometry((12, 10, 7), SOURCE.affine)  # places that are those of voxels have no neighbours
    assert (spatial_transforms.align_to_grid(image, here, "case").valid == image.valid[..., :7]).all()


def test_images_of_two_frames_of_reference_are_not_aligned():
    here = Geometry(SOURCE.shape, SOURCE.affine, "1.2.3")
    there = Geometry(SOURCE.shape, SOURCE.affine, "1.2.4")
    with pytest.raises(GeometryError, match="Register"):
        spatial_transforms.align_to_grid(Image(_ramp(here), here), there, "case")


def test_pictures_have_no_world_to_align_in():
    picture = Geometry.of_pixels((4, 4))
    with pytest.raises(GeometryError, match="spacing or orientation"):
        spatial_transforms.align_to_grid(Image(np.zeros((1, 4, 4)), picture), picture, "case")
