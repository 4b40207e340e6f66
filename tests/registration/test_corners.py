"""Corners that were filled, and images whose corners only look so."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.registration import _pyramid

SHAPE = (40, 44, 24)


def filled(inside: np.ndarray, level: float = 0.0, *, is_ct: bool = False) -> np.ndarray:
    """Which voxels count as filled, of noise with a constant outside."""
    values = np.where(inside, np.random.default_rng(0).normal(100, 5, inside.shape), level).astype(np.float32)
    return _pyramid.filled_corners(values, np.ones(inside.shape, bool), is_ct=is_ct)


def box(degrees: float, sides: tuple[float, ...], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    places = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(len(shape))
    turn[:2, :2] = [[cosine, -sine], [sine, cosine]]
    return (np.abs(places @ turn) <= np.array(sides)).all(axis=-1)


def ellipsoid(radii: tuple[float, ...], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    places = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    return ((places / np.array(radii)) ** 2).sum(axis=-1) <= 1


@pytest.mark.parametrize(
    "inside",
    [
        box(20, (14, 16, 30)),
        box(45, (20, 22, 30)),  # cut by the image's own sides
        box(10, (16, 18, 10)),
        box(20, (14, 16), (40, 44)),
    ],
)
def test_corners_around_a_turned_box_are_filled_with_one_voxel_of_its_edge(inside):
    found = filled(inside)
    assert found[~inside].all()
    assert 0 < found[inside].mean() < 0.35


@pytest.mark.parametrize(
    "inside",
    [
        ellipsoid((17, 19, 11)),
        ellipsoid((17, 19, 40)),
        ellipsoid((17, 19), (40, 44)),
        box(0, (14, 16, 8)),
        box(20, (14, 16, 30)) & ~ellipsoid((5, 30, 30)),
        np.zeros(SHAPE, bool),
    ],
)
def test_air_around_a_head_and_padding_along_the_axes_are_not_taken_for_filled_corners(inside):
    assert not filled(inside).any()


def test_of_ct_a_constant_below_the_lowest_air_is_beyond_the_field_and_air_is_air():
    field = ellipsoid((19, 19, 90))
    assert filled(field, -3024.0, is_ct=True)[~field].all()
    assert not filled(field, -1024.0, is_ct=True).any()
