"""What changes over the frames of a clip."""

from __future__ import annotations

import numpy as np
import pytest

from isocenter.runtime import measurements, size_changes
from isocenter.values import Geometry, Image, Label

VENTRICLE = (Label(1, "ventricle"),)


def ball(radius: float) -> tuple[np.ndarray, Image]:
    away = np.sqrt(sum((grid - 15.5) ** 2 for grid in np.indices((32, 32, 32))))
    return (away < radius).astype(np.uint8), Image(away[None], Geometry((32, 32, 32), np.eye(4)))


def test_a_ball_whose_radius_falls_to_0_8_ejects_half_its_volume():
    frames = [measurements(*(ball(r)[0], VENTRICLE, ball(r)[1])) for r in (15.0, 13.5, 12.0, 13.5)]
    [row] = size_changes(frames)
    assert row["label"] == "ventricle"
    assert row["largest_volume_ml"] == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.02)
    assert row["ejection_fraction_percent"] == pytest.approx(100 * (1 - 0.8**3), abs=1)


def test_of_areas_it_is_the_fractional_area_change_and_of_nothing_it_is_not_known():
    flat = Image(np.zeros((1, 8, 8)), Geometry.of_spacing((8, 8), (1, 1)))
    half = np.zeros((8, 8), np.uint8)
    half[:4] = 1
    [row] = size_changes([measurements(mask, VENTRICLE, flat) for mask in (half, half // 2)])
    assert row["fractional_area_change_percent"] == 100
    [nothing] = size_changes([measurements(0 * half, VENTRICLE, flat)] * 2)
    assert np.isnan(nothing["fractional_area_change_percent"])
