from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import spatial

from hilum.errors import GeometryError
from hilum.evaluation import vessel_diameters


def tube(seed: int, spacing: tuple[float, ...], length: float = 40.0, bend: float = 40.0):
    """A bent tube that is narrow somewhere: mask, least diameter, percent, and the place in voxels."""
    random, axes = np.random.default_rng(seed), len(spacing)
    radius, depth, width = random.uniform(1.5, 2.5), random.uniform(0.3, 0.6), random.uniform(2, 4)
    along = np.linspace(0, length, 2001)
    angle = (along - length / 2) / bend
    line = np.stack([bend * np.sin(angle), bend * (1 - np.cos(angle)), 0 * angle][:axes], axis=1)
    line = line @ np.linalg.qr(random.normal(size=(axes, axes)))[0].T
    middle = length * random.uniform(0.35, 0.65)
    radii = radius * (1 - depth * np.exp(-((along - middle) ** 2) / (2 * width**2)))
    low = line.min(axis=0) - radius - 2 + random.uniform(0, 1, axes) * spacing
    shape = np.ceil((line.max(axis=0) + radius + 2 - low) / spacing).astype(int)
    voxels = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, axes) * np.array(spacing) + low
    apart, nearest = spatial.KDTree(line).query(voxels, distance_upper_bound=radius)
    nearest = np.minimum(nearest, len(line) - 1)
    mask = (apart <= radii[nearest]) & (nearest > 0) & (nearest < len(line) - 1)
    near = np.abs(along - middle) <= 10
    percent = 100 * (1 - radii.min() / radii[near].mean())
    return mask.reshape(shape), 2 * radii.min(), percent, (line[radii.argmin()] - low) / spacing


@pytest.mark.parametrize(("spacing", "count"), [((0.5, 0.5, 0.5), 4), ((0.4, 0.4, 0.8), 4), ((0.4, 0.4), 12)])
def test_the_least_diameter_of_a_tube_is_exact_to_a_fifth_of_a_voxel_on_average(spacing, count):
    apart, percents, lengths, places = [], [], [], []
    for seed in range(count):
        mask, least, percent, place = tube(seed, spacing)
        found = vessel_diameters.narrowing(mask, spacing)
        apart.append(abs(found.least_diameter - least) / min(spacing))
        percents.append(abs(found.percent - percent))
        lengths.append(abs(found.length - 40))
        places.append(np.linalg.norm((found.place - place) * spacing))
    assert np.mean(apart) < 0.2
    assert np.mean(percents) < 3
    assert np.max(lengths) < 2
    assert np.mean(places) < 1


def test_a_straight_tube_is_as_long_as_it_is_and_has_no_narrowing():
    mask = np.zeros((13, 13, 60), bool)
    across = np.hypot(*np.ogrid[-6:7, -6:7])
    mask[across <= 4.0, 4:54] = True
    found = vessel_diameters.narrowing(mask, (1.0, 1.0, 1.0))
    assert found.length == pytest.approx(50, abs=1)
    assert found.least_diameter == pytest.approx(2 * np.sqrt((across <= 4.0).sum() / np.pi), abs=0.2)
    assert found.percent == pytest.approx(0, abs=2.5)
    turned = vessel_diameters.narrowing(mask, np.diag([1.0, 1.0, 1.0]))
    assert_allclose(turned.place, found.place)


def test_a_tree_is_as_long_as_its_branches_and_the_narrowest_place_lies_in_the_thin_one():
    rows, columns = np.indices((120, 120))
    mask = (np.abs(rows - 60) <= 4) & (columns >= 10) & (columns < 110)
    mask |= (np.abs(columns - 50) <= 2) & (rows >= 60) & (rows < 110)
    found = vessel_diameters.narrowing(mask, (1.0, 1.0))
    assert found.length == pytest.approx(100 + 50, abs=4)
    assert found.least_diameter == pytest.approx(5, abs=0.3)
    assert found.place[0] > 66
    assert found.place[1] == pytest.approx(50, abs=1)


def test_pieces_are_measured_together_and_what_has_no_line_is_not():
    one = np.zeros((20, 20, 60), bool)
    one[4:7, 4:7, 5:55] = one[12:17, 12:17, 5:55] = True
    assert vessel_diameters.narrowing(one, (1, 1, 1)).length == pytest.approx(100, abs=2)
    for nothing in (np.zeros((5, 5), bool), np.eye(1, dtype=bool)):
        found = vessel_diameters.narrowing(nothing, (1, 1))
        assert np.isnan([found.length, found.least_diameter, found.percent, *found.place]).all()


def test_a_mask_of_one_axis_and_a_spacing_of_other_axes_are_refused():
    for mask, spacing in ((np.ones(5), (1.0,)), (np.ones((5, 5)), (1.0, 1.0, 1.0))):
        with pytest.raises(GeometryError, match="mm of each of its axes"):
            vessel_diameters.narrowing(mask, spacing)
