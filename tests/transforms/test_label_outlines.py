"""Outlines of label maps: filled again they are the pieces, holes and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import ndimage

from hilum.transforms import label_outlines


def pieces_of(mask, rows=3):
    strips = (mask[start : start + rows] for start in range(0, len(mask), rows))
    corners = label_outlines.find_corners(strips, mask.shape[1], [1])
    return [piece for one in corners.values() for piece in label_outlines.trace_pieces(one)]


def filled(ring, shape):
    """Pixels with an odd number of upright edges on their left."""
    crossed = np.zeros((shape[0], shape[1] + 1), bool)
    for (row, column), (end, _) in zip(ring[1::2], np.roll(ring, -1, axis=0)[1::2], strict=True):
        crossed[min(row, end) : max(row, end), column] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :-1]


@given(st.integers(0, 2**32), st.floats(0.2, 0.8))
def test_rings_of_each_piece_filled_again_are_the_piece(seed, share):
    mask = (np.random.default_rng(seed).random((11, 13)) < share).astype(np.uint8)
    numbered, count = ndimage.label(mask)
    pieces = pieces_of(mask)
    assert len(pieces) == count
    for outer, *holes in pieces:
        whole = filled(outer, mask.shape)
        for hole in holes:
            inner = filled(hole, mask.shape)
            assert not (inner & ~whole).any()
            whole &= ~inner
        number = numbered[whole].max()
        assert_array_equal(whole, numbered == number)


def test_a_square_has_four_corners_and_a_frame_one_hole():
    mask = np.zeros((6, 6), np.uint8)
    mask[1:4, 2:5] = 1
    [[ring]] = pieces_of(mask)
    assert ring.tolist() == [[1, 2], [1, 5], [4, 5], [4, 2]]
    mask[2, 3] = 0
    [[outer, hole]] = pieces_of(mask)
    assert outer.tolist() == ring.tolist()
    assert hole.tolist() == [[2, 3], [2, 4], [3, 4], [3, 3]]


def test_a_label_of_too_many_corners_has_no_outlines(monkeypatch):
    monkeypatch.setattr(label_outlines, "MOST_CORNERS", 3)
    assert label_outlines.find_corners([np.ones((2, 2), np.uint8)], 2, [1]) == {1: None}


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_the_height_of_strips_changes_nothing(rows):
    mask = (np.random.default_rng(1).random((20, 9)) < 0.6).astype(np.uint8)
    assert [[ring.tolist() for ring in one] for one in pieces_of(mask, rows)] == [
        [ring.tolist() for ring in one] for one in pieces_of(mask, 7)
    ]
