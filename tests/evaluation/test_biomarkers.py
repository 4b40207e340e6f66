from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import real_data
from hilum.errors import UsageError
from hilum.evaluation import biomarkers


def ellipse(long: float, short: float, turn: float, step: float = 0.5) -> np.ndarray:
    grid = (np.indices((160, 160)) - 80.0) * step
    along = grid[0] * np.cos(turn) + grid[1] * np.sin(turn)
    across = grid[1] * np.cos(turn) - grid[0] * np.sin(turn)
    return (2 * along / long) ** 2 + (2 * across / short) ** 2 <= 1


@settings(max_examples=15, deadline=None)
@given(st.floats(20, 60), st.floats(0.3, 0.95), st.floats(0, np.pi))
def test_of_an_ellipse_the_axes_are_its_own_within_a_voxel(long, ratio, turn):
    found = biomarkers.plane_diameters(ellipse(long, ratio * long, turn), (0.5, 0.5))
    assert found.long == pytest.approx(long, abs=0.75)
    # A long axis that is off by a voxel is turned a little, the more the rounder the ellipse is.
    assert found.short == pytest.approx(ratio * long, abs=1.5)


def test_a_row_of_voxels_is_as_many_spacings_long_and_one_thick():
    row = np.zeros((5, 9), dtype=bool)
    row[2, 1:8] = True
    found = biomarkers.plane_diameters(row, (3.0, 2.0))
    assert found.long == pytest.approx(14)
    assert found.short == pytest.approx(3)


def test_two_lesions_of_a_plane_are_not_one_from_end_to_end():
    apart = np.zeros((40, 40), dtype=bool)
    apart[2:8, 2:8] = apart[30:34, 30:34] = True
    single = apart.copy()
    single[30:] = False
    assert biomarkers.plane_diameters(apart, (1.0, 1.0)) == biomarkers.plane_diameters(single, (1.0, 1.0))
    assert biomarkers.plane_diameters(np.zeros((4, 4)), (1.0, 1.0)) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.6))
def test_among_many_pieces_the_longest_is_found_as_by_looking_at_each(seed, share):
    mask, steps = np.random.default_rng(seed).random((18, 22)) < share, np.array([[0.5, 0.1], [0.0, 0.8]])
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    each = [biomarkers.plane_diameters(pieces == n, steps).long for n in range(1, count + 1)]
    assert biomarkers.plane_diameters(mask, steps).long == pytest.approx(max(each))
    assert biomarkers.plane_diameters(mask, steps, over=max(each)) is None
    assert biomarkers.plane_diameters(mask, steps, over=0.99 * max(each)) == biomarkers.plane_diameters(mask, steps)


def test_the_peak_is_the_mean_of_the_best_sphere_of_one_ml():
    rng = np.random.default_rng(0)
    values, mask = rng.gamma(2, 2, (16, 14, 10)), np.zeros((16, 14, 10), dtype=bool)
    mask[4:12, 3:9, 2:8] = True
    spacing = np.array([2.0, 3.0, 4.0])
    expected = []
    for place in np.argwhere(mask):
        away = np.linalg.norm((np.argwhere(np.ones_like(mask)) - place) * spacing, axis=1)
        expected.append(values.ravel()[away <= (750 / np.pi) ** (1 / 3)].mean())
    assert biomarkers.suv_peak(values, mask, spacing) == pytest.approx(max(expected))
    assert np.isnan(biomarkers.suv_peak(values, np.zeros_like(mask), spacing))


def test_a_beat_throws_out_what_systole_lacks():
    assert biomarkers.ejection_fraction(120, 48) == pytest.approx(60)
    for volumes in ((48, 120), (0, 0), (10, -1)):
        with pytest.raises(UsageError, match="larger volume first"):
            biomarkers.ejection_fraction(*volumes)


def test_repeatability_is_that_of_the_differences():
    first, second = np.array([10.0, 12, 9, 15]), np.array([11.0, 12, 7, 16])
    found = biomarkers.repeatability(first, second, unit="ml")
    # differences 1, 0, -2, 1: half their squares' mean is 6 / 8
    assert found.deviation.value == pytest.approx(np.sqrt(6 / 8))
    assert found.coefficient.value == pytest.approx(2.77 * np.sqrt(6 / 8), rel=1e-3)
    assert found.coefficient.unit == "ml"
    assert found.coefficient.patients == 4
    percent = biomarkers.repeatability(first, second, relative=True)
    apart = 100 * (second - first) / ((first + second) / 2)
    assert percent.deviation.value == pytest.approx(np.sqrt((apart**2).mean() / 2))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    people = rng.normal(50, 10, (400, 12, 1))
    measured = people + rng.normal(0, 2.0, (400, 12, 2))
    found = [biomarkers.repeatability(*one.T).deviation for one in measured]
    held = np.mean([one.low <= 2.0 <= one.high for one in found])
    assert 0.92 <= held <= 0.98


def test_a_change_is_told_from_what_repeating_alone_does():
    known = biomarkers.repeatability([10.0, 12, 9, 15], [11.0, 12, 7, 16], unit="ml")
    assert [known.change(20, after).verdict for after in (22, 23, 17)] == [
        "within repeatability",
        "increase",
        "decrease",
    ]
    assert "within the repeatability coefficient of 2.4 ml" in str(known.change(20, 22))
    relative = biomarkers.repeatability([10.0, 12, 9, 15], [11.0, 12, 7, 16], relative=True)
    assert relative.change(100, 200).value == pytest.approx(100 * 100 / 150)


@pytest.mark.parametrize(("first", "second"), [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([], []), ([1.0, np.nan], [1, 2])])
def test_too_few_or_unpaired_measurements_are_refused(first, second):
    with pytest.raises(UsageError, match="two measurements each"):
        biomarkers.repeatability(first, second)


@pytest.mark.parametrize(
    ("folder", "every", "count"),
    [(real_data.SHIPPED, 1, 32), pytest.param(real_data.CORPUS, 12, 44, marks=pytest.mark.corpus)],
)
def test_of_left_ventricles_the_axes_are_those_of_an_ellipse_of_nearly_their_area(folder: Path, every: int, count: int):
    """They are outlined as polygons and not wholly round: the ellipse is a little larger, and never much."""
    ratios = []
    for path in sorted((folder / "mri/cardiac_sunnybrook/masks").glob("*.png"))[::every]:
        mask = np.asarray(PIL.Image.open(path)) > 0
        found = biomarkers.plane_diameters(mask, (1.0, 1.0))
        ratios.append(np.pi / 4 * found.long * found.short / mask.sum())
    assert len(ratios) == count
    assert 1 < np.median(ratios) < 1.1
    assert 0.97 < min(ratios) <= max(ratios) < 1.2
