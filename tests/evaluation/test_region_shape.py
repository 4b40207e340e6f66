"""The shape of regions: pieces, centre, principal axes and surface, whole and in parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hilum.evaluation.region_shape import MeshCells
from hilum.quality import ibsi
from hilum.runtime import label_measurements
from hilum.values import Geometry, Image, Label

STEPS = (1.0, 1.5, 2.0)
BOTH = (Label(1, "a"), Label(3, "b"))
GRID = Geometry((40, 40, 30), np.diag([*STEPS, 1.0]))


def rows_of(mask, geometry=GRID, labels=BOTH):
    return label_measurements.measure_labels(mask, labels, Image(np.zeros((1, *mask.shape)), geometry))


def ball(radius):
    places = np.moveaxis(np.indices(GRID.shape), 0, -1) - np.array([20, 20, 15])
    return np.linalg.norm(places * STEPS, axis=-1) < radius


@given(st.integers(0, 30))
def test_a_volume_that_comes_in_parts_has_the_shape_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(12, 10, 14)), 1.0)
    mask = np.select([noise > 0.15, noise < -0.15], [1, 3], 0).astype(np.uint8)
    grid = Geometry(mask.shape, np.diag([*STEPS, 1.0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hilum.runtime.label_measurements.BLOCK_VOXELS", 240)  # two planes
        rows = rows_of(mask, grid)
    for row, value in zip(rows, (1, 3), strict=True):
        inside = mask == value
        expected = ibsi.region_morphology(inside, STEPS)
        volume, area = expected["morph_volume"], expected["morph_area_mesh"]
        assert row["pieces"] == ndimage.label(inside, np.ones((3, 3, 3)))[1]
        assert row["sphericity"] == pytest.approx((36 * np.pi * volume**2) ** (1 / 3) / area, abs=1e-6)
        for name, principal in (("elongation", "morph_pca_elongation"), ("flatness", "morph_pca_flatness")):
            assert row[name] == pytest.approx(expected[principal], abs=1e-5)
        centre = (np.argwhere(inside) * STEPS).mean(axis=0)
        assert [row[f"centre_{axis}_mm"] for axis in "xyz"] == pytest.approx(centre, abs=1e-3)


def test_a_ball_is_round_and_a_rod_is_long():
    mask = ball(12.0).astype(np.uint8)
    mask[2:38, 2:4, 2] = 3
    round_, rod = rows_of(mask)
    assert round_["sphericity"] > 0.9 and round_["elongation"] == pytest.approx(1, abs=0.02)
    assert rod["elongation"] < 0.1 and rod["pieces"] == 1


def test_the_surface_of_a_sheared_grid_is_measured_in_mm():
    box = np.zeros((6, 6, 6), bool)
    box[1:5, 1:5, 1:5] = True
    tilted = np.array([[1, 0, 0], [0, 1, 0.4], [0, 0, 2.0]])
    volume, area = MeshCells.from_region(box).volume_and_area(tilted)
    straight = MeshCells.from_region(box).volume_and_area(np.diag([1.0, 1.0, 2.0]))
    assert volume == pytest.approx(straight[0]) and area > straight[1]


def test_a_structure_without_a_voxel_has_no_shape_and_a_single_voxel_no_axes():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[0, 0, 0] = 1
    single, empty = rows_of(mask)
    assert (single["pieces"], empty["pieces"]) == (1, 0)
    assert np.isnan(single["elongation"]) and np.isnan(empty["sphericity"]) and np.isnan(empty["centre_x_mm"])


def test_the_pieces_of_a_picture_are_counted_and_its_centre_is_that_of_rows_and_columns():
    mask = np.zeros((10, 12), np.uint8)
    mask[0, 0:3] = mask[5, 8:11] = 1
    [row] = rows_of(mask, Geometry(mask.shape, np.diag([2.0, 0.5, 1.0])), [Label(1, "a")])
    assert (row["pieces"], row["centre_row_mm"], row["centre_column_mm"]) == (2, 5.0, 2.5)
    assert "sphericity" not in row and 0 < row["elongation"] < 1
