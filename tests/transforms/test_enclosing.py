from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.errors import GeometryError
from hilum.transforms import label_maps
from hilum.values import Geometry, Image


def label_map(values: np.ndarray) -> Image:
    return Image(values[None], Geometry.of_pixels(values.shape), modality="SEG")


@st.composite
def apart(draw) -> tuple[tuple[int, ...], np.ndarray]:
    """A shape of two or three axes, and (n, 2 * axes) boxes of which no two touch: one in each cell of 6 voxels."""
    axes = draw(st.sampled_from((2, 3)))
    cells = draw(st.lists(st.tuples(*[st.integers(0, 2)] * axes), max_size=5, unique=True))
    low = np.array([[6 * n + draw(st.integers(0, 2)) for n in cell] for cell in cells]).reshape(-1, axes)
    size = np.array([[draw(st.integers(1, 3)) for _ in cell] for cell in cells]).reshape(-1, axes)
    return (18,) * axes, np.concatenate([low, low + size], axis=1)


@given(apart())
def test_boxes_that_are_filled_come_back_as_they_were(shape_and_boxes):
    shape, boxes = shape_and_boxes
    mask, numbers = np.zeros(shape, np.uint8), np.zeros(shape, np.int64)
    for n, corners in enumerate(boxes):
        inside = tuple(slice(*ends) for ends in corners.reshape(2, -1).T)
        mask[inside], numbers[inside] = 1 + n % 2, 10**6 + n
    found = label_maps.boxes_of_pieces(label_map(mask), {"odd": (1,), "even": (2,)}, "a")
    by_name = {name: sorted(map(tuple, found.of_class(name).corners.tolist())) for name in ("odd", "even")}
    assert by_name == {"odd": sorted(map(tuple, boxes[::2])), "even": sorted(map(tuple, boxes[1::2]))}
    counted = label_maps.boxes_of_objects(label_map(numbers), "cell", "a")
    assert_array_equal(counted.corners, boxes)
    assert set(counted.names) <= {"cell"}


def test_voxels_that_touch_at_a_corner_are_one_piece():
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = 7
    assert_array_equal(
        label_maps.boxes_of_pieces(label_map(mask), {"a": (7,)}, "a").corners, [[0, 0, 0, 2, 2, 2], [3, 3, 3, 4, 4, 4]]
    )


def test_a_structure_of_several_values_is_one():
    mask = np.array([[1, 2, 0, 2]], np.uint8)
    found = label_maps.boxes_of_pieces(label_map(mask), {"whole": (1, 2), "core": (2,)}, "a")
    assert found.names == ("whole", "whole", "core", "core")
    assert_array_equal(found.corners, [[0, 0, 1, 2], [0, 3, 1, 4], [0, 1, 1, 2], [0, 3, 1, 4]])


def test_a_speck_beside_a_large_piece_has_no_box_and_that_is_said():
    mask = np.zeros((40, 40), np.uint8)
    mask[:20, :20] = 1  # 400 voxels, of which a hundredth is 4
    mask[30, 30:33] = 1
    mask[38, 30:34] = 1
    found = label_maps.boxes_of_pieces(label_map(mask), {"a": (1,)}, "a")
    assert_array_equal(found.corners, [[0, 0, 20, 20], [38, 30, 39, 34]])
    assert ["specks" in note for note in found.notes] == [True]


def test_an_object_in_two_pieces_has_one_box_and_an_empty_map_none():
    numbers = np.array([[5, 0, 5], [0, 0, 9]], np.uint16)
    assert_array_equal(label_maps.boxes_of_objects(label_map(numbers), "a", "a").corners, [[0, 0, 1, 3], [1, 2, 2, 3]])
    assert label_maps.boxes_of_objects(label_map(numbers * 0), "a", "a").corners.shape == (0, 4)


def test_a_series_and_a_clip_have_no_boxes():
    with pytest.raises(GeometryError, match="two or three axes"):
        label_maps.boxes_of_objects(label_map(np.ones(5, np.uint8)), "a", "a")
    clip = Image(np.ones((1, 2, 4, 4), np.uint8), Geometry.of_pixels((4, 4)), times=(0.0, 1.0))
    with pytest.raises(GeometryError, match="one an image"):
        label_maps.boxes_of_pieces(clip, {"a": (1,)}, "a")
