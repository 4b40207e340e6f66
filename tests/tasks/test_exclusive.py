from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

from hilum.belief import certainties
from hilum.tasks.segmentation import mask_postprocessing
from hilum.tasks.segmentation.mask_postprocessing import Tidying
from hilum.tasks.shared import averages

OUTPUTS = arrays(np.float32, (2, 3, 4), elements=st.floats(-200, 200, width=32))


@settings(max_examples=30)
@given(OUTPUTS)
def test_the_softmax_is_that_of_scipy(outputs):
    assert_allclose(certainties.softmax(outputs, 1), special.softmax(outputs, axis=1), atol=1e-6)


@settings(max_examples=30)
@given(OUTPUTS, OUTPUTS)
def test_the_mean_of_outputs_is_an_output_of_the_mean_probability(first, second):
    mean = (special.softmax(first, axis=1) + special.softmax(second, axis=1)) / 2
    assert_allclose(certainties.softmax(averages.log_mean([first, second]), 1), mean, atol=1e-5)


def test_half_precision_is_not_summed_in_half_precision():
    outputs = np.zeros((1, 5000), np.float16)
    assert_allclose(certainties.softmax(outputs, 1).sum(), 1.0, rtol=1e-5)


def pieces() -> np.ndarray:
    """Label 1: a ring of 8 with a hole, and a speck of 1; label 2: two specks of 2 and 3."""
    mask = np.zeros((9, 9), np.uint8)
    mask[0:3, 0:3] = 1
    mask[1, 1] = 0
    mask[8, 8] = 1
    mask[0, 5:7] = 2
    mask[4, 5:8] = 2
    return mask


def test_without_rules_nothing_is_touched_and_the_input_never_is():
    mask = pieces()
    assert mask_postprocessing.apply_rules(mask, {1: Tidying()}) is mask
    mask_postprocessing.apply_rules(mask, {1: Tidying(largest=True, holes=True)})
    assert_array_equal(mask, pieces())


def test_the_largest_piece_of_one_label_stays_and_the_other_label_is_left_alone():
    expected = pieces()
    expected[8, 8] = 0
    assert_array_equal(mask_postprocessing.apply_rules(pieces(), {1: Tidying(largest=True)}), expected)


def test_pieces_below_the_smallest_volume_go_by_their_volume_in_the_unit():
    gone = pieces()
    gone[0, 5:7] = 0
    assert_array_equal(mask_postprocessing.apply_rules(pieces(), {2: Tidying(smallest=1.0)}, voxel=0.4), gone)
    assert_array_equal(mask_postprocessing.apply_rules(pieces(), {2: Tidying(smallest=0.8)}, voxel=0.4), pieces())


def test_an_enclosed_hole_is_filled_where_it_is_background():
    filled = pieces()
    filled[1, 1] = 1
    assert_array_equal(mask_postprocessing.apply_rules(pieces(), {1: Tidying(holes=True)}), filled)
    other = pieces()
    other[1, 1] = 2
    assert_array_equal(mask_postprocessing.apply_rules(other, {1: Tidying(holes=True)}), other)


def test_pieces_that_touch_at_a_corner_are_one():
    mask = np.eye(4, dtype=np.uint8)
    assert_array_equal(mask_postprocessing.apply_rules(mask, {1: Tidying(largest=True)}), mask)


def test_the_hole_of_a_piece_that_goes_is_not_filled():
    mask = pieces()
    mask[5:9, 0:5] = 1
    mask[6, 1] = 0
    tidy = mask_postprocessing.apply_rules(mask, {1: Tidying(largest=True, holes=True)})
    assert tidy[6, 1] == 1
    assert not tidy[0:3, 0:3].any()
