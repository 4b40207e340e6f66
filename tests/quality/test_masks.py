from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.quality.references import masks
from hilum.values import slabs


@given(st.lists(st.integers(1, 7), min_size=2, max_size=3))
def test_a_box_is_as_thick_as_its_shortest_side(sides):
    contoured = np.zeros([side + 3 for side in sides], np.uint8)
    contoured[tuple(slice(1, side + 1) for side in sides)] = 4
    [(value, box)] = masks.measure_structures(contoured).items()
    assert value == 4
    assert box.thickness == min(sides)
    assert box.pieces == (np.prod(sides),)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_rod_is_as_long_as_its_sides_say_whatever_axis_it_lies_along(axis):
    sides = np.full(3, 2)
    sides[axis] = 30
    assert masks.measure_structures(np.ones(sides, np.uint8))[1].elongation == pytest.approx(15)
    assert masks.measure_structures(np.ones(np.delete(sides, axis - 1), np.uint8))[1].elongation == pytest.approx(15)


def test_a_ball_in_thick_slices_is_short_however_thin_it_is_in_voxels():
    grid = np.indices((41, 41, 5)) - np.reshape([20, 20, 2], (3, 1, 1, 1))
    ball = (grid[0] ** 2 + grid[1] ** 2 + (8 * grid[2]) ** 2 <= 18**2).astype(np.uint8)
    found = masks.measure_structures(ball)[1]
    assert found.thickness < 5
    assert found.elongation < 3


def test_rods_apart_are_each_as_long_as_one():
    contoured = np.zeros((40, 9), np.uint8)
    contoured[:, 1:3] = contoured[:, 5:7] = 1
    assert masks.measure_structures(contoured)[1].elongation == pytest.approx(20)


def test_a_box_at_the_edge_of_the_image_is_as_thick_as_one_in_the_middle():
    contoured = np.zeros((9, 9), np.uint8)
    contoured[:3, :] = 1
    assert masks.measure_structures(contoured)[1].thickness == 3


def test_pieces_that_touch_at_a_corner_are_one():
    assert masks.measure_structures(np.eye(4, dtype=np.uint8))[1].pieces == (4,)
    apart = np.zeros((5, 5), np.uint8)
    apart[0, 0] = apart[4, 4] = 1
    assert masks.measure_structures(apart)[1].pieces == (1, 1)


def on_slices(*numbers: int, along: int = 2) -> np.ndarray:
    """A cube of nine voxels a side, of which some slices are contoured."""
    contoured = np.zeros((9, 9, 9), np.uint8)
    np.moveaxis(contoured, along, 0)[list(numbers), 2:7, 2:7] = 4
    return contoured


@pytest.mark.parametrize(
    ("numbers", "empty"),
    [((1, 3, 5, 7), (2, 4, 6)), ((0, 3, 6), (1, 2, 4, 5)), ((2, 3, 5, 6), (4,)), ((1, 8), (2, 3, 4, 5, 6, 7))],
)
@pytest.mark.parametrize("axis", [0, 2])
def test_empty_slices_between_contoured_ones_are_found_along_any_axis(numbers, empty, axis):
    assert masks.measure_structures(on_slices(*numbers, along=axis))[4].apart == (axis, numbers, empty)


def test_a_structure_that_is_contoured_throughout_or_lies_in_pieces_has_no_empty_slices():
    assert masks.measure_structures(on_slices(2, 3, 4))[4].apart is None
    assert masks.measure_structures(on_slices(0, 1, 2, 6, 7, 8))[4].apart is None
    pieces = np.zeros((9, 9, 9), np.uint8)
    pieces[:3, :3, 2] = pieces[5:, 5:, 4] = 1
    assert masks.measure_structures(pieces)[1].apart is None
    assert masks.measure_structures(np.eye(4, dtype=np.uint8))[1].apart is None


def test_a_speck_is_tiny_beside_the_largest_piece_of_its_own_label():
    contoured = np.zeros((40, 40), np.uint8)
    contoured[:20, :20] = 1
    contoured[30, 30] = 1
    contoured[35, 5] = 2  # a structure of one pixel is no speck of another
    found = masks.measure_structures(contoured)
    assert found[1].specks == 1
    assert found[2].specks == 0


def test_two_pieces_of_like_size_are_no_specks():
    contoured = np.zeros((40, 40), np.uint8)
    contoured[:10, :10] = contoured[20:30, 20:30] = 1
    assert masks.measure_structures(contoured)[1].specks == 0


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_voxels_are_counted_alike_whatever_they_are_stored_as(kind):
    assert slabs.label_voxels(np.array([[0, 0, 2], [2, 2, 5]], kind)) == {0: 2, 2: 3, 5: 1}


def test_values_that_are_not_whole_are_kept_as_they_are():
    assert slabs.label_voxels(np.array([0.5, 1.0, 1.0])) == {0.5: 1, 1: 2}


def test_an_atlas_with_numbers_of_nine_digits_costs_no_more_than_others():
    """As the Allen atlas of the mouse."""
    labels = np.zeros((8, 8, 8), np.uint32)
    labels[1:3, 1:4, 1:5], labels[5:7, 5:7, 5:7] = 614454277, 7
    found, plain = (
        masks.measure_structures(labels),
        masks.measure_structures(np.where(labels > 7, 1, labels).astype(np.uint8)),
    )
    assert found == {7: plain[7], 614454277: plain[1]}
    assert masks.measure_structures(np.where(labels == 0, 7, labels))[7].runs  # a map without background too


def test_a_thin_closed_line_is_an_outline_and_a_wall_an_area_or_an_open_line_is_none():
    distance = np.hypot(*np.indices((80, 80)) - np.reshape([40, 40], (2, 1, 1)))
    line, wall, disc = abs(distance - 30) < 1, abs(distance - 24) < 6, distance < 30
    opened = line & (np.arange(80) > 20)
    assert [masks.is_outline(one) for one in (line, line[None], wall, disc, opened, np.zeros_like(line))] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert not masks.is_outline(np.stack([line] * 3))
