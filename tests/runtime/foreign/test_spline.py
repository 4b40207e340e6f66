from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from foreign_folders import resampled as by_scipy
from hilum.runtime.preprocessing import nnunet_preprocessing, restore
from hilum.runtime.preprocessing.nnunet_preprocessing import NNUNetResampling
from hilum.runtime.preprocessing.protocol import GridTrace
from hilum.values import Geometry

SHAPES = st.tuples(*[st.integers(2, 9)] * 3)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(max_examples=25)
@given(SHAPES, SHAPES, st.sampled_from([0, 1, 3]), st.sampled_from([None, 0, 1, 2]))
def test_axis_by_axis_is_what_scipy_does_at_once(old, new, order, far):
    image = noise(old)
    expected = by_scipy(image, new, order, far)
    assert_allclose(
        nnunet_preprocessing.resample_intensities(image, new, NNUNetResampling(order), far), expected, atol=2e-5
    )


@settings(max_examples=15)
@given(SHAPES, SHAPES, st.sampled_from([None, 0, 2]))
def test_row_by_row_is_the_same_as_all_at_once(old, new, far):
    how, image = NNUNetResampling(1), noise((2, *old))
    parts = [
        ((slice(n, n + 1), *(slice(0, size) for size in old[1:])), {"mask": image[:, n : n + 1]}) for n in range(old[0])
    ]
    back, whole = tuple(how.steps(old, new, far)), tuple(slice(0, size) for size in new)
    axes = (2, 0, 1)  # the walk follows the source's last axis, here the first of the grid
    source = Geometry(tuple(new[axes.index(axis)] for axis in range(3)), np.eye(4))
    trace = GridTrace(source, None, axes, (False,) * 3, whole, old, ((0, 0),) * 3, (1.0,) * 3, back)
    found = list(restore.restore_regions(parts, trace))
    assert [part[2].start for part, _ in found] == [0, *(part[2].stop for part, _ in found)][:-1]
    joint = np.concatenate([arrays["mask"] for _, arrays in found], axis=3)
    expected = np.stack([by_scipy(channel, new, 1, far) for channel in image])
    assert_allclose(joint.transpose(0, 3, 1, 2), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("current", "new", "apart", "axis"),
    [
        ((1, 1, 1), (1, 1, 1), None, None),
        ((5, 1, 1), (1, 1, 1), None, 0),
        ((1, 1, 1), (1, 1, 4), None, 2),
        ((3, 1, 1), (1, 1, 1), None, None),
        ((0.2, 1.2, 1.2), (1, 1, 1), None, None),
        ((5, 1, 1), (1, 1, 1), False, None),
        ((1.5, 1, 1), (1, 1, 1), True, 0),
        ((1, 1, 1), (1, 1, 1), True, None),
    ],
)
def test_slices_lie_far_apart_where_one_axis_has_steps_of_more_than_three_times_the_shortest(current, new, apart, axis):
    assert NNUNetResampling(apart=apart).far_axis(current, new) == axis


def test_a_label_goes_where_it_has_half_of_a_voxel_and_the_higher_of_two_wins():
    labels = np.array([1, 1, 2, 2], dtype=np.int32)[None, None]
    assert_array_equal(
        nnunet_preprocessing.resample_label_map(labels, (1, 1, 2), NNUNetResampling(1), None).ravel(), [1, 2]
    )
    # The middle of three lies halfway between 1 and 2.
    assert_array_equal(
        nnunet_preprocessing.resample_label_map(labels, (1, 1, 3), NNUNetResampling(1), None).ravel(), [1, 2, 2]
    )


def test_labels_by_share_go_to_the_largest():
    labels = np.array([0, 0, 0, 3, 3], dtype=np.int32)[None, None]
    found = nnunet_preprocessing.resample_label_map(
        labels, (1, 1, 10), NNUNetResampling(1, by_share=True), None
    ).ravel()
    assert_array_equal(found, [0] * 6 + [3] * 4)


def test_an_image_that_has_the_shape_is_not_touched():
    image = noise((3, 4, 5))
    assert nnunet_preprocessing.resample_intensities(image, (3, 4, 5), NNUNetResampling(3), None) is image
