from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.transforms import orient
from strategies import geometries

turns = st.tuples(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))


@given(geometries(), turns)
def test_a_moved_voxel_stays_at_its_place_in_the_world(geometry, turn):
    axes, flips = turn
    places = np.moveaxis(
        geometry.to_world(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)), -1, 0
    )
    moved, grid = orient.permute_axes(places, axes, flips), geometry.permute(axes, flips)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    assert moved.shape[1:] == grid.shape
    assert_allclose(np.moveaxis(moved, 0, -1), grid.to_world(index), atol=1e-9)


@given(st.tuples(*[st.integers(1, 5)] * 4), turns)
def test_unpermuted_takes_every_permutation_back(shape, turn):
    axes, flips = turn
    array = np.arange(np.prod(shape)).reshape(shape)
    assert_array_equal(orient.undo_permute(orient.permute_axes(array, axes, flips), axes, flips), array)
    assert np.shares_memory(orient.permute_axes(array, axes, flips), array)


def test_transposing_comes_before_flipping():
    assert_array_equal(orient.permute_axes(np.array([[[1, 2], [3, 4]]]), (1, 0), (True, False))[0], [[2, 4], [1, 3]])


@given(st.tuples(*[st.integers(1, 6)] * 2), st.data())
def test_content_is_the_smallest_region_with_every_true_voxel(shape, data):
    mask = np.zeros(shape, bool)
    points = data.draw(st.lists(st.tuples(*[st.integers(0, size - 1) for size in shape]), min_size=1, max_size=4))
    for point in points:
        mask[point] = True
    region = orient.content_region(mask)
    assert mask[region].sum() == mask.sum()
    for axis in range(mask.ndim):
        inside = mask[region].any(axis=1 - axis)
        assert inside[0]
        assert inside[-1]


def test_content_takes_a_margin_as_far_as_the_array_goes_and_the_whole_array_where_nothing_is_true():
    mask = np.zeros((10, 10), bool)
    mask[1, 5] = True
    assert orient.content_region(mask, margin=2) == (slice(0, 4), slice(3, 8))
    assert orient.content_region(np.zeros((3, 4), bool)) == (slice(0, 3), slice(0, 4))


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=2, max_size=3))
def test_padding_brings_a_shape_to_at_least_the_smallest_with_the_image_in_the_middle(pairs):
    shape, smallest = zip(*pairs, strict=True)
    for size, least, (before, after) in zip(shape, smallest, orient.padding_to_size(shape, smallest), strict=True):
        assert size + before + after == max(size, least)
        assert 0 <= after - before <= 1
