from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hilum.errors import GeometryError
from hilum.values import BoundingBoxes, bounding_boxes

TWO = BoundingBoxes(np.array([[0, 1, 2, 5], [3, 3, 4, 4]]), ("cell", "clump"))


def test_lengths_and_centres_are_those_of_half_open_edges():
    assert_array_equal(TWO.lengths, [[2, 4], [1, 1]])
    assert_array_equal(TWO.centres, [[1, 3], [3.5, 3.5]])


def test_the_corners_are_a_copy_that_nobody_can_change():
    given = np.array([[0.0, 0, 1, 1]])
    boxes = BoundingBoxes(given, ("a",))
    given[0, 0] = 9
    assert boxes.low[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        boxes.corners[0, 0] = 9


def test_some_of_the_boxes_keep_what_belongs_to_them():
    scored = BoundingBoxes(TWO.corners, TWO.names, np.array([0.2, 0.9]), np.array([False, True]), ("odd",))
    second = scored.of_class("clump")
    assert (second.names, second.scores.tolist(), second.ignored.tolist()) == (("clump",), [0.9], [True])
    assert second.notes == ("odd",)
    assert scored.at(np.array([1, 0])).names == ("clump", "cell")


def test_no_box_is_a_list_of_none():
    none = BoundingBoxes.none(3, scored=True)
    assert (len(none), none.axes, none.scores.shape, none.ignored.shape) == (0, 3, (0,), (0,))


def test_boxes_cross_processes():
    back = pickle.loads(pickle.dumps(TWO))  # noqa: S301 - our own
    assert_array_equal(back.corners, TWO.corners)
    assert back.names == TWO.names


@pytest.mark.parametrize(
    ("corners", "problem"),
    [
        ([[0, 0, 0, 3]], "box 1 has no extent"),
        ([[0, 0, 1, 1], [2, 2, 1, 3]], "box 2 has no extent"),
        ([[0, 0, np.nan, 3]], "box 1 has no extent"),
        ([[0, 0, 0, 1, 1]], "shape"),
        ([[0, 1]], "shape"),
    ],
)
def test_what_is_no_box_is_refused(corners, problem):
    with pytest.raises(GeometryError, match=problem):
        BoundingBoxes(np.array(corners), ("a",) * len(corners))


def test_a_score_for_each_box_or_for_none():
    with pytest.raises(GeometryError, match="score"):
        BoundingBoxes(TWO.corners, TWO.names, np.array([0.5]))


def test_tables_have_x_first_and_pictures_have_their_rows_first():
    assert bounding_boxes.corner_columns(2) == ("y0", "x0", "y1", "x1")
    assert bounding_boxes.table_columns(2) == ("x0", "y0", "x1", "y1")
    assert bounding_boxes.corner_columns(3) == bounding_boxes.table_columns(3) == ("x0", "y0", "z0", "x1", "y1", "z1")
