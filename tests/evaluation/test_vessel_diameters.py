from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hilum.errors import GeometryError
from hilum.evaluation import _vessel_lines, vessel_diameters
from hilum.evaluation._vessel_ways import Voxels
from simulated_tubes import draw_tube


@pytest.mark.parametrize(("axes", "mm"), [(3, 2), (2, 5)])
def test_a_tube_without_a_narrowing_gets_none_and_is_as_long_as_it_is(axes, mm):
    for seed in range(10):
        # A width has few voxels: wrong ones at the edges of a picture are dips as real ones are.
        tube = draw_tube(seed, narrowed=False, axes=axes, radius=(2.5, 5.0), rim=axes == 3)
        found = vessel_diameters.narrowing(tube.mask, tube.spacing)
        assert found.percent <= 4, (seed, tube.kind)
        assert found.length == pytest.approx(tube.length, abs=mm), (seed, tube.kind)


@pytest.mark.parametrize(("axes", "most_voxels", "most_percent"), [(3, 0.2, 3), (2, 0.5, 6)])
def test_a_narrowing_is_exact_to_a_fifth_of_a_voxel_on_average_in_volumes(axes, most_voxels, most_percent):
    diameters, percents, places = [], [], []
    for seed in range(10):
        tube = draw_tube(seed, narrowed=True, axes=axes, radius=(2.5, 5.0), rim=axes == 3)
        found = vessel_diameters.narrowing(tube.mask, tube.spacing)
        diameters.append(abs(found.least_diameter - tube.least_diameter) / min(tube.spacing))
        percents.append(abs(found.percent - tube.percent))
        places.append(np.linalg.norm((found.place - tube.place) * tube.spacing))
    assert np.mean(diameters) < most_voxels
    assert np.mean(percents) < most_percent
    assert np.mean(places) < 1.5


@pytest.mark.parametrize("spacing", [1.0, 0.5])
def test_a_thick_straight_tube_is_as_long_as_it_is_and_has_no_narrowing(spacing):
    count = round(6.5 / spacing)
    across = np.hypot(*np.ogrid[-count : count + 1, -count : count + 1]) * spacing
    mask = np.zeros((*across.shape, round(60 / spacing)), bool)
    mask[across <= 4.0, round(4 / spacing) : round(54 / spacing)] = True
    found = vessel_diameters.narrowing(mask, (spacing,) * 3)
    assert found.length == pytest.approx(50, abs=1)
    assert found.least_diameter == pytest.approx(8, abs=0.2)
    assert found.percent == pytest.approx(0, abs=1)
    turned = vessel_diameters.narrowing(mask, np.eye(3) * spacing)
    assert_allclose(turned.place, found.place)


def test_the_line_of_a_thick_bent_tube_does_not_zigzag():
    tube = draw_tube(2, narrowed=False, radius=(6.0, 6.0), rim=False)
    [axis] = tube.axes
    [line] = _vessel_lines.trace_lines(Voxels(np.argwhere(tube.mask), np.diag(tube.spacing)))
    inner = line.stations[line.first : line.last + 1]
    apart = np.linalg.norm(inner[:, None] - axis[None, ::10], axis=2).min(axis=1)
    assert apart.max() < 0.5 * max(tube.spacing)


def test_a_tapering_tube_has_no_narrowing_at_its_thin_end():
    along = np.arange(80)
    across = np.hypot(*np.ogrid[-9:10, -9:10])
    mask = across[:, :, None] <= np.linspace(8, 4, len(along))
    assert vessel_diameters.narrowing(mask, (1.0, 1.0, 1.0)).percent <= 2


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


def test_a_hole_of_a_rough_mask_does_not_hide_the_narrowing_around_it():
    tube = draw_tube(27, narrowed=True)
    place = tuple(np.rint(tube.place).astype(int))
    tube.mask[place] = False
    found = vessel_diameters.narrowing(tube.mask, tube.spacing)
    assert found.percent == pytest.approx(tube.percent, abs=8)


def test_a_narrowing_near_an_end_is_measured_against_the_tube_up_to_the_end():
    along = np.arange(40)
    across = np.hypot(*np.ogrid[-9:10, -9:10])
    narrow = np.cos(np.clip((along - 14) / 7, -1, 1) * np.pi / 2) ** 2
    mask = across[:, :, None] <= 6 * (1 - 0.4 * narrow)
    found = vessel_diameters.narrowing(mask, (1.0, 1.0, 1.0))
    assert found.percent == pytest.approx(40, abs=4)


def test_a_loop_is_as_long_as_it_is_up_to_a_diameter():
    apart = np.hypot(*(np.indices((61, 61)) - 30)) - 20
    found = vessel_diameters.narrowing(np.abs(apart) < 3.5, (1.0, 1.0))
    assert found.length == pytest.approx(2 * np.pi * 20, abs=7)
    assert found.percent == 0


def test_what_fills_its_image_or_is_no_longer_than_wide_has_no_narrowing():
    filled = vessel_diameters.narrowing(np.ones((5, 5, 60), bool), (1.0, 1.0, 1.0))
    assert filled.length == pytest.approx(60, abs=1)
    assert filled.percent == 0
    ball = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0) <= 8
    for mask in (ball, np.ones((30, 30), bool)):
        assert np.isnan(vessel_diameters.narrowing(mask, (1.0,) * mask.ndim).length)
