from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.transforms import label_maps


def readings(*rows: list[int]) -> list[np.ndarray]:
    return [np.array([row], np.uint8) for row in rows]


def test_votes_are_counted_label_by_label():
    maps = readings([0, 1, 2, 1], [0, 1, 1, 2], [1, 1, 2, 0])
    assert [count.tolist()[0] for count in label_maps.count_votes(maps, 2)] == [
        [2, 0, 0, 1],
        [1, 3, 1, 1],
        [0, 0, 2, 1],
    ]


def test_most_decide_of_equals_the_highest_label_and_who_says_nothing_has_no_vote():
    maps = readings([0, 1, 3, 3, 0], [0, 1, 3, 0, 1], [1, 2, 3, 0, 2])  # 3 of two labels says nothing
    assert label_maps.majority_vote(maps, 2).tolist() == [[0, 1, 3, 0, 2]]


@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), st.integers(1, 5))
def test_readers_who_agree_are_followed(row, count):
    for consensus in (label_maps.majority_vote, label_maps.staple):
        assert_array_equal(consensus(readings(*[row] * count), 2), [row])


def expected(maps: list[np.ndarray], rounds: int = 200) -> np.ndarray:
    """(voxels,) probability of the structure: equations 14, 18 and 19 of Warfield et al., written as they stand."""
    votes = np.array([one.ravel() for one in maps], dtype=float)
    prior = votes.mean()
    p, q = np.full(len(votes), 0.99999), np.full(len(votes), 0.99999)
    for _ in range(rounds):
        a = prior * np.prod(np.where(votes > 0, p[:, None], 1 - p[:, None]), axis=0)
        b = (1 - prior) * np.prod(np.where(votes > 0, 1 - q[:, None], q[:, None]), axis=0)
        w = a / (a + b)
        p, q = (votes * w).sum(axis=1) / w.sum(), ((1 - votes) * (1 - w)).sum(axis=1) / (1 - w).sum()
    return w


@pytest.fixture
def readers() -> list[np.ndarray]:
    """Two who are nearly right and three who are alike in being wrong about a part."""
    truth = np.zeros((24, 24), np.uint8)
    truth[6:18, 6:18] = 1
    rng = np.random.default_rng(0)
    return [np.where(rng.random(truth.shape) < rate, 1 - truth, truth) for rate in (0.02, 0.03, 0.25, 0.3, 0.35)]


def test_staple_is_what_its_equations_give(readers):
    found = label_maps.staple(readers, 1)
    assert_array_equal(found.ravel(), expected(readers) > 0.5)
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.STAPLE([SimpleITK.GetImageFromArray(one) for one in readers], 1.0))
    assert (found == (theirs > 0.5)).mean() > 0.99


def test_staple_trusts_the_good_readers_more_than_a_majority_does(readers):
    truth = np.zeros((24, 24), np.uint8)
    truth[6:18, 6:18] = 1
    assert (label_maps.staple(readers, 1) != truth).sum() < (label_maps.majority_vote(readers, 1) != truth).sum()


def test_where_a_reader_says_nothing_the_others_decide(readers):
    readers[0] = readers[0].copy()
    readers[0][:3] = 2
    assert_array_equal(label_maps.staple(readers, 1)[:3], label_maps.majority_vote(readers, 1)[:3])


def test_nothing_contoured_is_nothing():
    assert not label_maps.staple(readings([0, 0], [0, 0]), 1).any()
