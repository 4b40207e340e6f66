from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from hilum.report import slice_viewer
from hilum.values import BoundingBoxes, Geometry, Label

CELL = Label(3, "cell", (255, 0, 0))


def drawn(*corners: list[float], names: tuple[str, ...] = ("cell",), shape: tuple[int, ...] = (6, 7)) -> np.ndarray:
    return slice_viewer.box_edges(
        BoundingBoxes(np.array(corners), names), Geometry.of_pixels(shape), (CELL,), "boxes"
    ).data[0]


def test_a_box_is_the_outermost_of_its_pixels():
    expected = np.zeros((6, 7), int)
    expected[1:5, 2:6] = 3
    expected[2:4, 3:5] = 0
    assert_array_equal(drawn([1, 2, 5, 6]), expected)


def test_what_reaches_beyond_the_image_is_drawn_inside_it():
    assert drawn([-2, 4, 3, 9])[0, 4] == 3
    assert not drawn([-3, -3, -1, -1]).any()


def test_a_box_within_another_leaves_both_to_be_seen():
    both = drawn([0, 0, 6, 7], [2, 2, 4, 5], names=("cell", "other"))
    assert set(np.unique(both)) == {0, 3, 4}
    assert (both[0] == 3).all()


def test_a_class_that_nobody_named_gets_a_value_of_its_own():
    boxes = BoundingBoxes(np.array([[0.0, 0, 2, 2]]), ("other",))
    made = slice_viewer.box_edges(boxes, Geometry.of_pixels((4, 4)), (CELL,), "boxes")
    assert [(label.value, label.name) for label in made.labels] == [(3, "cell"), (4, "other")]
