from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.transforms import label_resampling, resampling
from hilum.transforms.resampling import Taps
from matrices import rarely

shapes = st.one_of(*[st.tuples(*[st.integers(1, 9)] * n) for n in (2, 3)])
seeds = st.integers(0, 99)


@st.composite
def two_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    old = draw(shapes)
    return old, draw(st.tuples(*[st.integers(1, 12)] * len(old)))


def ellipsoids(shape: tuple[int, ...], classes: int, seed: int) -> np.ndarray:
    """A label map of as many structures, some of which touch or hide others."""
    rng, labels = np.random.default_rng(seed), np.zeros(shape, np.uint8)
    grid = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij", sparse=True)
    for label in range(1, classes + 1):
        centre, radius = rng.uniform(-0.6, 0.6, len(shape)), rng.uniform(0.1, 0.4, len(shape))
        labels[sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radius, strict=True)) < 1] = label
    return labels


@given(two_shapes(), seeds)
def test_labels_are_those_with_the_largest_share_in_the_resampled_one_hot_volume(both, seed):
    old, new = both
    values = np.array([0, 3, 200], np.uint8)
    labels = np.random.default_rng(seed).choice(values, size=old)
    shares = (labels == values.reshape(-1, *[1] * len(old))).astype(np.float64)
    for axis, (before, after) in enumerate(zip(old, new, strict=True), start=1):
        shares = resampling.resample_axis(shares, axis, resampling.axis_taps(before, after, widening=0.5))
    chosen = label_resampling.resample_labels(labels, new)
    assert chosen.dtype == labels.dtype
    assert chosen.shape == new
    picked = np.take_along_axis(shares, np.searchsorted(values, chosen)[None], axis=0)[0]
    assert_allclose(picked, shares.max(axis=0), atol=1e-4)  # of equals either may have been taken


@given(shapes, seeds)
def test_labels_on_the_same_grid_stay_what_they_are(shape, seed):
    labels = np.random.default_rng(seed).integers(0, 5, shape)
    assert_array_equal(label_resampling.resample_labels(labels, shape), labels)


@given(st.tuples(*[st.integers(1, 6)] * 3), seeds)
def test_labels_taken_up_by_an_odd_factor_and_back_are_the_same(shape, seed):
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    up = label_resampling.resample_labels(labels, [3 * size for size in shape])
    assert_array_equal(up[1::3, 1::3, 1::3], labels)


@given(two_shapes(), seeds)
def test_what_the_labels_are_called_changes_nothing(both, seed):
    """Whatever their type and their span, in order: a table of votes, or labels numbered first."""
    old, new = both
    numbers = np.random.default_rng(seed).integers(0, 4, old)
    plain = label_resampling.resample_labels(numbers.astype(np.uint8), new)
    for names in (np.array([-100, -1, 5, 100], np.int8), np.array([0, 7, 70_000, 2**31], np.int64)):
        assert_array_equal(label_resampling.resample_labels(names[numbers], new), names[plain])
    one = np.array([False, True])[np.minimum(numbers, 1)]
    assert_array_equal(
        label_resampling.resample_labels(one, new),
        label_resampling.resample_labels(one.astype(np.uint8), new).astype(bool),
    )


def test_of_labels_with_equal_shares_the_highest_wins_so_that_half_a_structure_stays_one():
    assert_array_equal(label_resampling.resample_labels(np.array([[7, 2]]), (1, 1)), [[7]])
    assert_array_equal(label_resampling.resample_labels(np.array([[0, 3], [3, 0]]), (1, 1)), [[3]])
    assert_array_equal(label_resampling.resample_labels(np.array([[0, 0, 1]]), (1, 1)), [[0]])
    plate = np.zeros((8, 8, 8), np.uint8)
    plate[:, :, 4] = 1
    assert label_resampling.resample_labels(plate, (4, 4, 4)).sum() == 16


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([0.5, 1.0]))
def test_linear_weights_are_never_negative_so_that_what_all_neighbours_agree_on_wins(old, new, widening):
    assert resampling.axis_taps(old, new, widening=widening).weight.min() >= 0


@given(st.integers(1, 8), st.integers(2, 5))
def test_going_down_only_the_voxels_within_a_new_one_are_asked(new, ratio):
    labels = np.repeat(np.arange(new), ratio)  # each new voxel is of one label
    assert_array_equal(label_resampling.resample_labels(labels, (new,)), np.arange(new))


def test_a_structure_that_is_one_new_voxel_thin_is_kept():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[4:6, 6:8, 2:4] = 1
    assert label_resampling.resample_labels(labels, (6, 6, 6)).sum() == 1


@given(two_shapes(), st.integers(1, 5), seeds)
def test_the_largest_score_is_found_without_the_resampled_scores(both, classes, seed):
    old, new = both
    scores = np.random.default_rng(seed).normal(size=(classes, *old)).astype(np.float32)
    dense = resampling.resample(scores, new)
    chosen = label_resampling.resample_largest(scores, new)
    picked = np.take_along_axis(dense, chosen[None].astype(int), axis=0)[0]
    assert_allclose(picked, dense.max(axis=0), atol=1e-5)


@given(two_shapes(), seeds, st.data())
def test_the_largest_score_is_the_same_slab_by_slab(both, seed, data):
    old, new = both
    scores = np.random.default_rng(seed).normal(size=(3, *old)).astype(np.float32)
    steps = [resampling.axis_taps(a, b) for a, b in zip(old, new, strict=True)]
    cut, parts = data.draw(st.integers(0, new[0])), []
    for rows in (slice(0, cut), slice(cut, new[0])):
        if rows.start < rows.stop:
            part = steps[0].part(rows)
            low, high = part.index.min(), part.index.max() + 1
            parts.append(
                label_resampling.largest_on_slab(scores[:, low:high], [Taps(part.index - low, part.weight), *steps[1:]])
            )
    assert_array_equal(np.concatenate(parts), label_resampling.resample_largest(scores, new))


@pytest.mark.parametrize("new", [(40, 36, 30), (18, 17, 21), (50, 14, 26)])
def test_a_grid_larger_than_one_slab_is_the_grid_in_one_piece(new, monkeypatch):
    labels = ellipsoids((27, 25, 28), 6, seed=1)
    scores = (labels[None] == np.arange(7)[:, None, None, None]) + np.float32(0)
    whole = label_resampling.resample_labels(labels, new), label_resampling.resample_largest(scores, new)
    monkeypatch.setattr(sys.modules["hilum.transforms.resampling"], "SLAB_VOXELS", 1500)
    for name, value in (("SUMMED", 300), ("SCORES_SUMMED", 700)):
        monkeypatch.setattr(f"hilum.transforms.label_resampling.{name}", value)
    assert_array_equal(label_resampling.resample_labels(labels, new), whole[0])
    assert_array_equal(label_resampling.resample_largest(scores, new), whole[1])


@pytest.mark.parametrize("factors", [rarely(((2, 2, 1.7),)), rarely(((0.55, 0.6, 0.7),)), (1.8, 0.6, 1)])
def test_the_labels_are_those_of_scipy_and_of_torch(factors):
    """As nnU-Net has it: a class at a time, linear, and the larger share. Down to half the size."""
    labels = ellipsoids((60, 56, 40), 8, seed=2)
    new = tuple(round(size * factor) for size, factor in zip(labels.shape, factors, strict=True))
    hot = (labels[None] == np.arange(9)[:, None, None, None]).astype(np.float32)
    exact = [count / size for count, size in zip(new, labels.shape, strict=True)]
    zoomed = [scipy.ndimage.zoom(one, exact, order=1, mode="nearest", grid_mode=True) for one in hot]
    tensor = torch.nn.functional.interpolate(torch.from_numpy(hot)[None], new, mode="trilinear")[0]
    chosen = label_resampling.resample_labels(labels, new)
    second, first = np.sort(zoomed, axis=0)[-2:]
    clear = first - second > 1e-3  # of equals each takes another
    assert clear.mean() > 0.99
    for other in (np.argmax(zoomed, axis=0), tensor.argmax(dim=0).numpy()):
        assert_array_equal(chosen[clear], other[clear])
