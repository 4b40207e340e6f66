"""What of an image no network has a say in, and how far its numbers lie from those of training cases."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hilum.runtime.guard import image_observation
from hilum.runtime.guard.case_distances import Correlated, Ranges, Reference


@pytest.mark.parametrize("shape", [(64,), (40, 30), (20, 24, 7)])
def test_the_composition_of_an_image_is_that_of_its_mirror_image_in_other_light(shape):
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(2, *shape)).cumsum(axis=1).astype(np.float32)
    own = image_observation.window_composition(pixels)
    for axis in range(1, len(shape) + 1):
        other = image_observation.window_composition(5 * np.flip(pixels, axis) - 300)
        assert_allclose(other.layout, own.layout, atol=1e-3)
        assert_allclose(other.texture, own.texture, atol=0.05)  # of long axes some lines are looked at
        assert_allclose(other.contrast, own.contrast, atol=0.05)
        assert_allclose(other.symmetry, own.symmetry, atol=1e-3)
    assert len(own.texture) == 5 * len(shape)
    exchanged = image_observation.window_composition(np.swapaxes(pixels, 1, -1))
    assert len(shape) == 1 or abs(exchanged.texture - own.texture).max() > 1


def test_the_composition_of_what_is_empty_or_absent_is_known():
    absent = np.full((1, 16, 16), np.nan, np.float32)
    for one in (
        image_observation.window_composition(absent),
        image_observation.window_composition(np.ones((1, 16, 16), np.float32)),
    ):
        assert np.isfinite(one.texture).all() and (one.layout == 0).all()
    half = np.concatenate([absent, np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)])
    assert all(np.isfinite(numbers).all() for numbers in image_observation.window_composition(half))


def test_contrast_tells_dark_on_bright_from_bright_on_dark():
    rng = np.random.default_rng(0)
    own = image_observation.window_composition(rng.gamma(1.0, size=(1, 32, 32)).astype(np.float32)).contrast
    inverted = image_observation.window_composition(-rng.gamma(1.0, size=(1, 32, 32)).astype(np.float32)).contrast
    assert (own[:3] < -0.3).all() and own[4] > 0.5
    assert_allclose(inverted[[0, 1, 2, 3, 4, 6, 7]], own[[0, 1, 2, 3, 4, 7, 6]] * [-1, -1, -1, 1, -1, 1, 1], atol=0.5)


def test_contrast_counts_flat_places_and_how_steady_slopes_are():
    slope = np.tile(np.linspace(0, 1, 32), (1, 32, 1))
    edge = (slope > 0.5).astype(np.float32)
    (*_, flat, steady), (*_, flat_of_edge, steady_of_edge) = (
        image_observation.window_composition(one.astype(np.float32)).contrast for one in (slope, edge)
    )
    assert_allclose(flat, np.log(0.01 + 0.5))  # along one axis nothing changes
    assert_allclose(flat_of_edge, np.log(0.01 + (1 + 30 / 31) / 2))
    assert steady > -1e-4 > steady_of_edge


def test_half_of_an_even_picture_has_unlike_sides():
    ramp = 16 - np.abs(np.arange(32) - 15.5)
    pixels = (ramp[:, None] + ramp).astype(np.float32)[None]
    whole, half = (image_observation.window_composition(one).symmetry.reshape(2, 2) for one in (pixels, pixels[:, :16]))
    assert_allclose(whole[:, 0], np.log(0.05), atol=1e-4)  # its sides are one
    assert half[0, 0] > -0.7 and half[1, 0] == pytest.approx(np.log(0.05), abs=1e-4)


def test_numbers_that_go_with_each_other_are_odd_where_they_do_not():
    rng = np.random.default_rng(0)
    first = rng.normal(size=2000)
    rows = np.column_stack([first, first + 0.5 * rng.normal(size=2000), np.zeros(2000)])
    known = Correlated.from_rows(rows)
    along, against = (known.mahalanobis(np.array([2.0, other, 0.0])) for other in (2.0, -2.0))
    assert_allclose(along, 2.0, rtol=0.1) and against > 3 * along
    assert known.mahalanobis(np.array([0.0, 0.0, 0.05])) < 3  # what never differed may differ a little
    few = Correlated.from_rows(rng.normal(size=(6, 10)))
    assert np.isfinite(few.mahalanobis(rng.normal(size=10)))


def test_of_numbers_the_furthest_from_its_middle_counts_in_spreads():
    ranges = Ranges.from_rows(np.column_stack([np.linspace(-1, 1, 101), np.zeros(101)]))
    assert_allclose(ranges.furthest(np.array([0.0, 0.3])), 3.0)  # what never differed may differ by a tenth
    assert_allclose(ranges.furthest(np.array([2.0, 0.0])), 2 / (np.sqrt(np.pi / 2) * 0.505), rtol=1e-2)


def test_a_distance_counts_what_lies_beside_the_principal_axes():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(0, 3, 200), rng.normal(0, 1, 200), np.zeros(200)])
    reference = Reference.from_rows(rows)
    assert_allclose(reference.mahalanobis(np.array([6.0, 0.0, 0.0])), 2.0, rtol=0.2)
    assert reference.mahalanobis(np.array([0.0, 0.0, 1.0])) > 100  # no training case differs there
    assert reference.neighbour(rows[0]) < 1 < reference.neighbour(np.array([0.0, 0.0, 20.0]))
