from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

import real_data
from hilum.errors import GeometryError
from hilum.evaluation import centrelines
from simulated_vessels import vessel_net


def tube(shape: tuple[int, ...], width: int, first: int, last: int) -> np.ndarray:
    """Straight, along the first axis, in the middle of the others."""
    mask = np.zeros(shape, dtype=bool)
    mask[(slice(first, last), *(slice((size - width) // 2, (size + width) // 2) for size in shape[1:]))] = True
    return mask


def ring(shape: tuple[int, ...], radius: float, width: float) -> np.ndarray:
    """In the plane of the first two axes; in three axes a torus."""
    grid = np.indices(shape) - (np.array(shape).reshape(-1, *[1] * len(shape)) - 1) / 2
    from_ring = np.hypot(grid[0], grid[1]) - radius
    return np.sqrt(from_ring**2 + (grid[2:] ** 2).sum(axis=0)) <= width / 2


@pytest.mark.parametrize("shape", [(60, 21), (60, 21, 20)])
def test_a_tube_has_its_own_axis_as_centreline(shape):
    lines = centrelines.skeleton(tube(shape, 5, 10, 50))
    places = np.argwhere(lines)
    assert 36 <= len(places) <= 42
    middle = places[(places[:, 0] > 14) & (places[:, 0] < 45)]
    assert len(np.unique(middle[:, 0])) == len(middle)
    assert np.abs(middle[:, 1:] - (np.array(shape[1:]) - 1) / 2).max() <= 1.5


@pytest.mark.parametrize("shape", [(41, 41), (41, 41, 15)])
def test_a_ring_is_one_piece_with_one_loop_and_so_is_its_centreline(shape):
    mask = ring(shape, 14, 5)
    assert centrelines.betti_numbers(mask) == centrelines.betti_numbers(centrelines.skeleton(mask)) == (1, 1)
    assert np.count_nonzero(centrelines.skeleton(mask)) == pytest.approx(2 * np.pi * 14 * 0.9, rel=0.15)


def test_pieces_loops_and_cavities_are_told_apart():
    ball = np.zeros((9, 9, 9), dtype=bool)
    ball[2:7, 2:7, 2:7] = True
    hollow, pierced = ball.copy(), ball.copy()
    hollow[3:6, 3:6, 3:6] = False
    pierced[:, 4, 4] = False
    assert [centrelines.betti_numbers(mask) for mask in (ball, hollow, pierced)] == [(1, 0), (1, 0), (1, 1)]
    assert centrelines.betti_numbers(np.zeros((4, 4))) == (0, 0)
    touching = np.eye(4, dtype=bool)
    assert centrelines.betti_numbers(touching) == (1, 0)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(14, 15), (7, 8, 9)]))
def test_thinning_changes_neither_pieces_nor_loops_and_takes_nothing_from_a_centreline(seed, shape):
    mask = np.random.default_rng(seed).random(shape) < 0.45
    lines = centrelines.skeleton(mask)
    assert centrelines.betti_numbers(lines) == centrelines.betti_numbers(mask)
    assert not (lines & ~mask).any()
    assert np.array_equal(centrelines.skeleton(lines), lines)


def test_a_gap_costs_its_share_of_the_centreline_and_breaks_the_vessel_in_two():
    truth = tube((60, 21), 5, 10, 50)
    broken = truth.copy()
    broken[25:35] = False
    found = centrelines.compare_centrelines(broken, truth)
    assert found.recall == pytest.approx(0.75, abs=0.03)
    assert found.precision == 1
    assert found.dice == pytest.approx(2 * found.recall / (1 + found.recall))
    assert (found.components, found.loops) == (1, 0)


def test_a_vessel_contoured_too_thin_or_too_wide_follows_its_centreline():
    truth = tube((60, 21, 20), 5, 10, 50)
    for width in (3, 7):
        found = centrelines.compare_centrelines(tube((60, 21, 20), width, 10, 50), truth)
        assert min(found.recall, found.precision) > 0.9  # its ends may turn into a corner
        assert found.components == found.loops == 0


def test_a_loop_too_many_is_counted():
    truth, looped = tube((60, 41), 3, 5, 55), tube((60, 41), 3, 5, 55)
    looped[20:40, 18:30] = True
    looped[24:36, 22:26] = False
    assert centrelines.compare_centrelines(looped, truth).loops == 1


def test_nothing_to_follow_is_no_praise_and_missing_all_is_nothing():
    none, line = np.zeros((20, 20)), tube((20, 20), 3, 2, 18)
    assert np.isnan(centrelines.compare_centrelines(none, none).dice)
    assert centrelines.compare_centrelines(none, line).dice == centrelines.compare_centrelines(line, none).dice == 0
    with pytest.raises(GeometryError, match="own grid"):
        centrelines.compare_centrelines(none, line[1:])


@pytest.fixture(params=["simulated", pytest.param("chasedb1", marks=pytest.mark.corpus)])
def two_observers(request: pytest.FixtureRequest) -> list[np.ndarray]:
    """The vessels of one eye as two observers mark them."""
    if request.param == "simulated":
        # The second marks vessels wider, and misses those at the right. ITK loses a loop that the border cuts.
        second = vessel_net(6.0)[:400, :400]
        second[:, 330:] = False
        return [np.pad(vessel_net(3.0)[:400, :400], 2), np.pad(second, 2)]
    folder = real_data.CORPUS / "chasedb1"
    pictures = [np.asarray(PIL.Image.open(folder / f"Image_03L_{reader}HO.png")) for reader in ("1st", "2nd")]
    return [picture[200:600, 200:600] > 0 for picture in pictures]


def test_two_observers_of_vessels_agree_as_far_as_another_thinning_says(two_observers):
    first, second = two_observers
    theirs = [SimpleITK.GetArrayFromImage(SimpleITK.BinaryThinning(SimpleITK.GetImageFromArray(m.astype(np.uint8)))) > 0
              for m in (first, second)]  # fmt: skip
    found = centrelines.compare_centrelines(second, first)
    assert found.recall == pytest.approx((theirs[0] & second).sum() / theirs[0].sum(), abs=0.02)
    assert found.precision == pytest.approx((theirs[1] & first).sum() / theirs[1].sum(), abs=0.02)
    assert (
        centrelines.betti_numbers(theirs[0])
        == centrelines.betti_numbers(centrelines.skeleton(first))
        == centrelines.betti_numbers(first)
    )
