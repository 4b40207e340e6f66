"""Outputs that are resampled when they are asked for, beside the same ones resampled at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.transforms import label_resampling, orient, resampling
from hilum.transforms.label_resampling import StretchedOutputs

sizes = st.tuples(*[st.integers(2, 9)] * 3)


def outputs(shape: tuple[int, ...], classes: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(classes, *shape)).astype(np.float32)


def stretched(scores: np.ndarray, shape: tuple[int, ...]) -> StretchedOutputs:
    pairs = list(zip(scores.shape[1:], shape, strict=True))
    return StretchedOutputs(
        scores,
        tuple(None if old == new else resampling.axis_taps(old, new) for old, new in pairs),
        label_resampling.axes_by_growth(pairs),
    )


def clear(dense: np.ndarray) -> np.ndarray:
    """Where the largest output is the largest by more than rounding."""
    second, first = np.sort(dense, axis=0)[-2:]
    return first - second > 1e-5


@given(sizes, sizes)
@settings(max_examples=40)
def test_what_is_made_late_is_what_would_have_been_made_at_once(old, new):
    scores = outputs(old)
    late = stretched(scores, new)
    assert late.shape == (4, *new)
    assert_allclose(np.asarray(late), resampling.resample(scores, new), atol=1e-5)


@given(sizes, sizes, st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3), st.data())
@settings(max_examples=60)
def test_a_part_turned_and_mirrored_is_the_same_part_of_what_is_made(old, new, axes, flips, data):
    late = stretched(outputs(old), new)
    cut = tuple(
        slice(low := data.draw(st.integers(0, size - 1)), data.draw(st.integers(low + 1, size))) for size in new
    )
    found = orient.undo_permute(late[(slice(None), *cut)], axes, flips)
    wanted = orient.undo_permute(np.asarray(late)[(slice(None), *cut)], axes, flips)
    assert found.shape == wanted.shape
    assert_allclose(np.asarray(found), wanted, atol=1e-5)
    assert_array_equal(found.largest()[clear(wanted)], wanted.argmax(axis=0)[clear(wanted)])


@given(sizes, sizes)
@settings(max_examples=40)
def test_the_largest_is_found_without_making_them(old, new):
    late = stretched(outputs(old), new)
    dense = np.asarray(late)
    assert_array_equal(
        label_resampling.winning_classes(late)[clear(dense)], label_resampling.winning_classes(dense)[clear(dense)]
    )


def test_inside_a_structure_nothing_is_summed(monkeypatch):
    scores = np.zeros((3, 8, 8, 8), np.float32)
    scores[1] = 1
    monkeypatch.setattr(np, "matmul", lambda *given, **named: pytest.fail("summed"))
    assert (stretched(scores, (20, 20, 20)).largest() == 1).all()


def test_weights_below_zero_are_not_trusted_with_what_neighbours_agree_on():
    scores = np.zeros((2, 4, 1, 1), np.float32)
    scores[0, :, 0, 0], scores[1, :, 0, 0] = [5, 1, 1, 5], [0, 0.9, 0.9, 0]
    cubic = StretchedOutputs(scores, (resampling.axis_taps(4, 8, "cubic"), None, None), (0, 1, 2))
    dense = np.asarray(cubic)
    assert (dense.argmax(axis=0) == 1).any()
    assert_array_equal(cubic.largest(), dense.argmax(axis=0))


def test_of_equals_the_first_wins():
    assert_array_equal(label_resampling.winning_classes(np.array([[1.0, 2], [1, 3], [1, 3]])), [0, 1])
    assert_array_equal(label_resampling.winning_classes(np.eye(3)[:, [2, 0, 1]]), [2, 0, 1])


def test_classes_stay_together_and_in_front():
    late = stretched(outputs((4, 4, 4)), (6, 6, 6))
    with pytest.raises(IndexError, match="by place alone"):
        late[slice(0, 1), slice(None)]
    with pytest.raises(ValueError, match="in front"):
        late.transpose(1, 0, 2, 3)
