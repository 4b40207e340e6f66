"""Planes become one affine: exact, sheared where the gantry was tilted, refused where no grid fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.errors import GeometryError
from hilum.files.dicom import slice_geometry
from hilum.files.dicom.slice_geometry import Plane

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def stack_at(*depths: float, drift: float = 0.0) -> list[Plane]:
    return [Plane((0.0, drift * n, depth), AXIAL, (1.0, 1.0)) for n, depth in enumerate(depths)]


def test_an_axial_plane_looks_from_the_feet() -> None:
    # Spacing is (between rows, between columns): columns are 3 mm apart, rows 2.
    affine = slice_geometry.affine_of_slices(Plane((-10.0, -20.0, 30.0), AXIAL, (2.0, 3.0)), np.array([0.0, 0.0, 5.0]))
    assert_allclose(affine, [[-3, 0, 0, 10], [0, -2, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]])


def test_a_normal_is_the_side_from_which_the_picture_is_not_mirrored() -> None:
    assert_allclose(Plane((0.0, 0.0, 0.0), AXIAL, (1.0, 1.0)).normal, [0, 0, 1])
    assert_allclose(Plane((0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (1.0, 1.0)).normal, [-1, 0, 0])


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 0), (1, 0, 0, 0.1, 0.99, 0)]
)
def test_directions_that_are_no_directions_are_refused(orientation: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match=r"ImageOrientationPatient \(0020,0037\)"):
        slice_geometry.check_plane((0, 0, 0), orientation, (1, 1), "here")


@given(st.integers(2, 30), st.floats(0.01, 20), st.floats(-2, 2))
def test_even_slices_step_from_the_first_to_the_last(count: int, gap: float, drift: float) -> None:
    planes = stack_at(*(gap * n for n in range(count)), drift=drift * gap)
    found = slice_geometry.stack_planes(planes, [str(n) for n in range(count)], "here")
    assert_allclose(found.step, [0, drift * gap, gap])
    assert found.indices == tuple(range(count)) and found.missing == ()


@given(st.lists(st.booleans(), min_size=3, max_size=12))
def test_missing_slices_are_found_where_most_gaps_are_single_steps(present: list[bool]) -> None:
    places = [0, 1, 2, *(n + 3 for n, there in enumerate(present) if there)]
    planes = stack_at(*(2.0 * n for n in places))
    gaps = np.diff(places)
    if places[-1] == len(places) - 1:
        assert slice_geometry.stack_planes(planes, [""] * len(places), "here").missing == ()
        return
    with pytest.raises(GeometryError):
        slice_geometry.stack_planes(planes, [""] * len(places), "here")
    fillable = 2 * np.count_nonzero(gaps == 1) >= len(gaps) and (gaps - 1).sum() <= len(places)
    if fillable:
        found = slice_geometry.stack_planes(planes, [""] * len(places), "here", fill_missing=True)
        assert found.missing == tuple(sorted(set(range(places[-1] + 1)) - set(places)))
        assert_allclose(found.step, [0, 0, 2])


# The step is half of the whole, so the slice between lies half of the difference of the gaps off the grid.
@pytest.mark.parametrize(("depths", "even"), [((0, 1, 2.09), True), ((0, 1, 2.12), False), ((0, 1, 1.88), False)])
def test_slices_are_even_within_a_twentieth_of_the_step(depths: tuple[float, ...], even: bool) -> None:
    if even:
        found = slice_geometry.stack_planes(stack_at(*depths), ["a", "b", "c"], "here")
        assert found.missing == () and "0.045 mm off the even grid" in found.notes[0]
    else:
        with pytest.raises(GeometryError, match="not evenly spaced"):
            slice_geometry.stack_planes(stack_at(*depths), ["a", "b", "c"], "here")


@given(st.floats(0.75, 5), st.floats(-300, 300), st.integers(3, 60), st.integers(-180, 180))
def test_positions_with_one_decimal_are_even_however_they_are_rounded(
    gap: float, start: float, count: int, degrees: int
) -> None:
    along = np.array([0.0, np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])
    row_and_column = (1.0, 0.0, 0.0, *np.cross(along, [1.0, 0.0, 0.0]).tolist())
    places = [np.round(start + gap * n * along, 1) for n in range(count)]
    planes = [Plane(tuple(place.tolist()), row_and_column, (1.0, 1.0), (0.1, 0.1, 0.1)) for place in places]
    found = slice_geometry.stack_planes(planes, [str(n) for n in range(count)], "here")
    assert found.missing == ()
    assert_allclose(found.step, (places[-1] - places[0]) / (count - 1), atol=1e-9)
    if gap < 1:  # by more than a twentieth of the step; without the digits nobody could say that it is rounding
        exact = [Plane(plane.position, plane.orientation, plane.spacing) for plane in planes]
        off = np.linalg.norm(places - (places[0] + np.outer(np.arange(count), found.step)), axis=1).max()
        if off > 0.06 * gap:
            with pytest.raises(GeometryError):
                slice_geometry.stack_planes(exact, [str(n) for n in range(count)], "here")


@given(st.integers(1, 30), st.integers(3, 30))
def test_a_missing_slice_is_no_rounding_however_coarse_the_digits(before: int, after: int) -> None:
    depths = [2.5 * n for n in range(before + after) if n != before]
    planes = [Plane((0.0, 0.0, depth), AXIAL, (1.0, 1.0), (1.0, 1.0, 1.0)) for depth in depths]
    with pytest.raises(GeometryError, match="slice is missing"):
        slice_geometry.stack_planes(planes, [""] * len(depths), "here")


def test_a_stack_that_bends_is_refused_by_the_slices_between_which_it_does() -> None:
    bent = [*stack_at(0, 1, 2), Plane((0.5, 0.0, 3.0), AXIAL, (1.0, 1.0))]
    with pytest.raises(GeometryError, match="between c and d"):
        slice_geometry.stack_planes(bent, list("abcd"), "here")
    # Each step is nearly straight, all together lead far off: no affine is right for them.
    curved = [Plane((0.004 * (n - 20) ** 2 / 2, 0.0, float(n)), AXIAL, (1.0, 1.0)) for n in range(41)]
    with pytest.raises(GeometryError, match="straight line"):
        slice_geometry.stack_planes(curved, [str(n) for n in range(41)], "here")
