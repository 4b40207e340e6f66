"""The laws of a grid: whatever is done to it, a voxel that stays keeps its place in the patient."""

from __future__ import annotations

import pickle
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import GeometryError
from hilum.values import Geometry, Image
from hilum.values.grid_geometry import DIRECTION_TOLERANCE, GRID_TOLERANCE
from strategies import geometries

TILTED = np.array([[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
indices = st.tuples(*[st.floats(-50, 50)] * 3)


def voxels_of(geometry: Geometry) -> np.ndarray:
    """(voxels, 3) the index of every voxel."""
    return np.stack(np.indices(geometry.shape), axis=-1).reshape(-1, geometry.ndim)


def places(geometry: Geometry) -> np.ndarray:
    """(*shape, 3) where every voxel lies: an "image" whose values are its own positions."""
    return geometry.to_world(np.stack(np.indices(geometry.shape), axis=-1))


# -- index and world -------------------------------------------------------------------------------------------------


@given(geometries(), indices)
def test_world_to_index_is_the_inverse_of_index_to_world(geometry: Geometry, index: tuple[float, ...]) -> None:
    assert_allclose(geometry.to_index(geometry.to_world(index)), index, atol=1e-8)


@given(geometries(), indices)
def test_a_step_of_one_voxel_is_one_spacing_in_the_world(geometry: Geometry, index: tuple[float, ...]) -> None:
    steps = geometry.to_world(index + np.eye(3)) - geometry.to_world(index)
    assert_allclose(np.linalg.norm(steps, axis=1), geometry.spacing, rtol=1e-6)


@given(geometries())
def test_many_points_are_moved_as_each_of_them(geometry: Geometry) -> None:
    world = places(geometry)
    assert world.shape == (*geometry.shape, 3)
    assert_allclose(world[tuple(n - 1 for n in geometry.shape)], geometry.to_world(np.array(geometry.shape) - 1))
    assert_allclose(geometry.to_index(world), np.stack(np.indices(geometry.shape), axis=-1), atol=1e-8)


@given(geometries())
def test_index_to_world_agrees_with_nibabel(geometry: Geometry) -> None:
    index = voxels_of(geometry)
    assert_allclose(geometry.to_world(index), nibabel.affines.apply_affine(geometry.affine, index), atol=1e-9)
    assert_allclose(geometry.spacing, nibabel.affines.voxel_sizes(geometry.affine))


@given(geometries())
def test_the_corners_are_the_outermost_voxels(geometry: Geometry) -> None:
    world = places(geometry).reshape(-1, 3)
    assert len(geometry.corners) == 8
    # A linear map takes its extremes over a box at the corners.
    assert_allclose(geometry.corners.min(axis=0), world.min(axis=0), atol=1e-9)
    assert_allclose(geometry.corners.max(axis=0), world.max(axis=0), atol=1e-9)


# -- orientation -----------------------------------------------------------------------------------------------------


@given(geometries(sheared=False))
def test_the_orientation_agrees_with_nibabel(geometry: Geometry) -> None:
    cosines = np.sort(np.abs(geometry.affine[:3, :3] / np.array(geometry.steps)).ravel())
    assume(not geometry.is_oblique or np.diff(cosines).min() > 1e-6)  # between axes equally close either is right
    assert geometry.orientation == "".join(nibabel.aff2axcodes(geometry.affine))


@pytest.mark.parametrize(
    ("affine", "orientation"),
    [
        (np.eye(4), "RAS"),
        (np.diag([-1, -1, 1, 1]), "LPS"),
        (np.array([[0, 0, -2, 0], [1, 0, 0, 0], [0, -3, 0, 0], [0, 0, 0, 1]]), "AIL"),
        (np.array([[0.9, -0.3, 0, 0], [0.3, 0.9, 0, 0], [0, 0, -2, 0], [0, 0, 0, 1]]), "RAI"),
    ],
)
def test_the_orientation_names_the_side_to_which_each_axis_grows(affine: np.ndarray, orientation: str) -> None:
    assert Geometry((2, 3, 4), affine).orientation == orientation


@given(geometries())
def test_the_canonical_grid_is_canonical_and_holds_the_same_voxels(geometry: Geometry) -> None:
    axes, flips = geometry.to_canonical
    assert sorted(axes) == [0, 1, 2]
    moved = np.flip(places(geometry).transpose(*axes, 3), [axis for axis, flip in enumerate(flips) if flip])
    assert_allclose(places(geometry.canonical), moved, atol=1e-8)
    assert geometry.canonical.orientation == "RAS"
    assert geometry.canonical.to_canonical == ((0, 1, 2), (False, False, False))


def test_without_sides_nothing_is_turned() -> None:
    geometry = Geometry((2, 3, 4), np.diag([-1, 1, 1, 1]), oriented=False)
    assert geometry.orientation is None
    assert geometry.canonical.equals(geometry)


# -- shear and obliqueness -------------------------------------------------------------------------------------------


def test_a_tilted_gantry_is_kept_as_a_shear() -> None:
    assert Geometry((8, 8, 8), TILTED).is_sheared
    assert_array_equal(Geometry((8, 8, 8), TILTED).affine, TILTED)


@given(geometries(sheared=True))
def test_a_shear_stays_one_through_every_move(geometry: Geometry) -> None:
    assert geometry.is_sheared
    assert geometry.pad((1, 2, 3), (3, 2, 1)).is_sheared
    assert geometry.canonical.is_sheared
    assert geometry.reshape((5, 6, 7)).is_sheared


@given(geometries(sheared=False))
def test_a_rotation_is_no_shear(geometry: Geometry) -> None:
    assert not geometry.is_sheared


def test_rounding_is_no_shear_and_no_obliqueness() -> None:
    nearly = np.eye(4)
    nearly[0, 1] = 0.5 * DIRECTION_TOLERANCE
    assert not Geometry((2, 2, 2), nearly).is_sheared
    nearly[0, 1] = 2 * DIRECTION_TOLERANCE
    assert Geometry((2, 2, 2), nearly).is_sheared


def test_only_a_turned_grid_is_oblique() -> None:
    angle = np.deg2rad(10)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert Geometry((2, 2, 2), turned).is_oblique
    assert not Geometry((2, 2, 2), np.diag([-3, 2, 5, 1])).is_oblique


# -- moves keep places -----------------------------------------------------------------------------------------------


@given(geometries(), st.data())
def test_a_crop_keeps_every_voxel_in_its_place(geometry: Geometry, data: st.DataObject) -> None:
    region = []
    for size in geometry.shape:
        start = data.draw(st.integers(0, size - 1))
        region.append(slice(start, data.draw(st.integers(start + 1, size))))
    assert_allclose(places(geometry.crop(region)), places(geometry)[tuple(region)], atol=1e-8)


@given(geometries(), st.tuples(*[st.integers(0, 4)] * 3), st.tuples(*[st.integers(0, 4)] * 3))
def test_padding_keeps_every_voxel_in_its_place_and_a_crop_undoes_it(
    geometry: Geometry, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    padded = geometry.pad(before, after)
    inner = tuple(slice(low, low + size) for low, size in zip(before, geometry.shape, strict=True))
    assert_allclose(places(padded)[inner], places(geometry), atol=1e-8)
    assert padded.crop(inner).equals(geometry, 1e-8)
    assert padded.pad([-n for n in before], [-n for n in after]).equals(geometry, 1e-8)


@given(geometries(), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_turning_axes_round_keeps_every_voxel_in_its_place(
    geometry: Geometry, axes: list[int], flips: tuple[bool, ...]
) -> None:
    moved = np.flip(places(geometry).transpose(*axes, 3), [axis for axis, flip in enumerate(flips) if flip])
    assert_allclose(places(geometry.permute(axes, flips)), moved, atol=1e-8)


def edges(geometry: Geometry) -> np.ndarray:
    """(2, 3) the outer edge of the first and of the last voxel."""
    return geometry.to_world([[-0.5] * 3, [n - 0.5 for n in geometry.shape]])


@given(geometries(), st.tuples(*[st.integers(1, 9)] * 3))
def test_another_number_of_voxels_covers_the_same_field_of_view(geometry: Geometry, shape: tuple[int, ...]) -> None:
    assert_allclose(edges(geometry.reshape(shape)), edges(geometry), atol=1e-8)
    assert geometry.reshape(shape).shape == shape
    assert geometry.reshape(shape).reshape(geometry.shape).equals(geometry, 1e-8)


@given(geometries(), st.tuples(*[st.floats(0.3, 8)] * 3))
def test_another_spacing_covers_the_same_field_of_view(geometry: Geometry, spacing: tuple[float, ...]) -> None:
    resampled = geometry.resample(spacing)
    assert_allclose(edges(resampled), edges(geometry), atol=1e-8)
    for size, asked, found, was in zip(resampled.shape, spacing, resampled.steps, geometry.steps, strict=True):
        # Nearest to what was asked: half a voxel more or less would be as far.
        assert abs(found / asked - 1) <= 0.5 / max(1, size - 0.5) + 1e-9 or size == 1
        assert asked != was or found == pytest.approx(was)


@given(geometries())
def test_the_same_spacing_changes_nothing(geometry: Geometry) -> None:
    assert geometry.resample(geometry.steps).equals(geometry, 1e-8)


def test_half_the_spacing_puts_two_voxels_where_one_was() -> None:
    fine = Geometry((2, 2, 2), np.diag([2, 2, 2, 1.0])).resample((1, 1, 1))
    assert fine.shape == (4, 4, 4)
    assert_allclose(fine.to_world((0, 0, 0)), (-0.5, -0.5, -0.5))
    assert_allclose(fine.to_world((3, 3, 3)), (2.5, 2.5, 2.5))


@given(geometries())
def test_moves_keep_what_is_known_about_the_grid(geometry: Geometry) -> None:
    named = Geometry(geometry.shape, geometry.affine, frame_of_reference="1.2.3")
    for moved in (named.pad((1, 1, 1), (1, 1, 1)), named.canonical, named.reshape((2, 2, 2))):
        assert moved.frame_of_reference == "1.2.3" and moved.physical and moved.oriented
    unknown = Geometry.of_pixels(geometry.shape)
    for moved in (unknown.pad((1, 1, 1), (1, 1, 1)), unknown.canonical, unknown.reshape((2, 2, 2))):
        assert not moved.physical and not moved.oriented


# -- equality --------------------------------------------------------------------------------------------------------


@given(geometries())
def test_a_grid_equals_itself_and_its_copy(geometry: Geometry) -> None:
    assert geometry.equals(geometry)
    assert pickle.loads(pickle.dumps(geometry)).equals(geometry, 0)  # noqa: S301


@given(geometries(), st.integers(0, 2), st.sampled_from([-1, 1]))
def test_grids_are_equal_up_to_the_tolerance_and_no_further(geometry: Geometry, axis: int, sign: int) -> None:
    for part, equal in ((0.9, True), (1.1, False)):
        affine = geometry.affine.copy()
        affine[axis, 3] += sign * part * min(GRID_TOLERANCE * min(geometry.steps), 0.5)
        assert geometry.equals(Geometry(geometry.shape, affine)) == equal


def test_a_small_turn_is_judged_at_the_far_corner() -> None:
    turned = np.eye(4)
    turned[0, 1] = 5e-4  # 99 voxels on it is 0.05 of one
    assert Geometry((90, 90, 1), np.eye(4)).equals(Geometry((90, 90, 1), turned))
    assert not Geometry((110, 110, 1), np.eye(4)).equals(Geometry((110, 110, 1), turned))


def test_unlike_shapes_frames_of_reference_and_knowledge_are_unlike_grids() -> None:
    one = Geometry((2, 2, 2), np.eye(4), frame_of_reference="1.2.3")
    assert not one.equals(Geometry((2, 2, 3), np.eye(4)))
    assert not one.equals(Geometry((2, 2, 2), np.eye(4), frame_of_reference="1.2.4"))
    assert one.equals(Geometry((2, 2, 2), np.eye(4)))  # one that is not stated contradicts nothing
    assert not one.equals(Geometry.of_spacing((2, 2, 2), (1, 1, 1)))
    assert not Geometry.of_spacing((2, 2, 2), (1, 1, 1)).equals(Geometry.of_pixels((2, 2, 2)))


# -- what cannot be --------------------------------------------------------------------------------------------------


def test_how_two_grids_differ_is_said_in_words() -> None:
    grid = Geometry((4, 5, 6), np.diag([1.0, 1.0, 2.0, 1.0]))
    moved = replace(grid, affine=grid.affine + np.array([[0.0, 0, 0, 10], [0] * 4, [0] * 4, [0] * 4]))
    assert grid.difference(grid) == ""
    assert grid.difference(moved) == "the first is shifted by 10 mm to L"
    assert moved.difference(grid) == "the first is shifted by 10 mm to R"
    assert grid.difference(grid.crop((slice(2), slice(5), slice(6)))) == "4 x 5 x 6 and 2 x 5 x 6 voxels"
    assert grid.difference(grid.resample((1, 1, 1))) == (
        "4 x 5 x 6 and 4 x 5 x 12 voxels, voxels of 1 x 1 x 2 mm and 1 x 1 x 1 mm"
    )
    assert grid.difference(replace(grid, oriented=False)) == "the sides of the patient known of the first only"
    assert grid.difference(grid.permute((0, 1, 2), (True, False, False))) == "axes to RAS and LAS"
    here, there = replace(grid, frame_of_reference="1.2"), replace(grid, frame_of_reference="1.3")
    assert here.difference(there) == "different frames of reference"


def test_a_shift_is_said_along_axes_of_the_header_where_sides_are_unknown() -> None:
    grid = Geometry((4, 5, 6), np.diag([1.0, 1.0, 2.0, 1.0]), oriented=False)
    affine = np.array(grid.affine)
    affine[:3, 3] = 7.5, 0, -2
    moved = replace(grid, affine=affine)
    assert moved.difference(grid) == "the first is shifted by +7.5 mm along x and -2 mm along z"
    assert "copy that of the image" in moved.remedy_on(grid)


def test_slices_that_lack_are_counted_and_the_axis_is_named_where_all_else_is_equal() -> None:
    grid = Geometry((4, 5, 6), np.diag([1.0, 1.0, 2.0, 1.0]))
    short, smaller = grid.crop((slice(4), slice(5), slice(3))), grid.crop((slice(3), slice(5), slice(3)))
    assert short.difference(grid) == "4 x 5 x 3 and 4 x 5 x 6 voxels, the first lacks 3 slices along the third axis"
    assert "as background" in short.remedy_on(grid)
    late = grid.crop((slice(4), slice(5), slice(3, 6)))  # it lacks those before its own: another origin
    for other, on in ((smaller, grid), (late, grid), (grid, short)):
        assert "lacks" not in other.difference(on)
        assert other.remedy_on(on).startswith("Resample")


def test_how_far_a_grid_lies_off_is_said_where_it_is_more_than_the_rounding_of_headers() -> None:
    grid = Geometry((4, 5, 6), np.diag([2.0, 2.0, 4.0, 1.0]))

    def moved(mm: float) -> Geometry:
        affine = grid.affine.copy()
        affine[1, 3] += mm
        return replace(grid, affine=affine)

    assert grid.deviation(moved(5e-4)) == "" and grid.equals(moved(5e-4))
    assert grid.deviation(moved(0.08)) == "corners up to 0.08 mm apart" and grid.equals(moved(0.08))
    assert grid.deviation(moved(0.12)) == "" and not grid.equals(moved(0.12))
    thick = Geometry((4, 4, 4), np.diag([30.0, 30.0, 30.0, 1.0]))
    assert thick.tolerance == 0.5 and grid.tolerance == pytest.approx(0.1)


@given(geometries(), geometries())
def test_what_differs_has_words_and_what_does_not_has_none(one: Geometry, other: Geometry) -> None:
    assert bool(one.difference(other)) != one.equals(other)
    assert one.difference(one) == ""


def test_slices_that_all_lie_in_one_plane_are_refused() -> None:
    with pytest.raises(GeometryError, match="header"):
        Geometry((8, 8, 8), np.diag([1, 1, 0, 1]))


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((2, 2, 2), np.eye(3)),
        ((2, 2), np.eye(4)),
        ((2, 0, 2), np.eye(4)),
        ((), np.eye(1)),
        ((2, 2, 2), np.full((4, 4), np.nan)),
        ((2, 2, 2), np.diag([1, np.inf, 1, 1])),
        ((2, 2, 2), np.diag([1, 1, 1, 2])),
        ((2, 2, 2), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    ],
)
def test_a_grid_that_cannot_exist_is_refused(shape: tuple[int, ...], affine: np.ndarray) -> None:
    with pytest.raises(GeometryError):
        Geometry(shape, affine)


def test_a_frame_of_reference_needs_a_size() -> None:
    with pytest.raises(GeometryError, match="without a voxel size"):
        Geometry((2, 2), np.eye(3), frame_of_reference="1.2.3", physical=False)


@pytest.mark.parametrize("region", [(slice(2, 2), slice(0, 1), slice(0, 1)), (slice(3, 1), slice(0, 1), slice(0, 1))])
def test_a_crop_to_nothing_is_refused(region: tuple[slice, ...]) -> None:
    with pytest.raises(GeometryError):
        Geometry((4, 4, 4), np.eye(4)).crop(region)


def test_a_crop_that_would_leave_voxels_out_is_refused() -> None:
    with pytest.raises(GeometryError, match="step"):
        Geometry((4, 4, 4), np.eye(4)).crop((slice(0, 4, 2), slice(0, 4), slice(0, 4)))


@pytest.mark.parametrize("axes", [(0, 0, 1), (0, 1), (0, 1, 3)])
def test_axes_that_are_no_permutation_are_refused(axes: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError):
        Geometry((4, 4, 4), np.eye(4)).permute(axes, (False,) * len(axes))


@pytest.mark.parametrize("spacing", [(0.0, 1, 1), (-1.0, 1, 1), (np.nan, 1, 1)])
def test_a_spacing_that_is_none_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError):
        Geometry((4, 4, 4), np.eye(4)).resample(spacing)


def test_tiny_voxels_are_a_grid_too() -> None:
    nm = Geometry((2, 2, 2), np.diag([1e-6, 1e-6, 1e-6, 1]))
    assert_allclose(nm.to_index(nm.to_world((1, 1, 1))), 1)
    anisotropic = Geometry((2, 2, 2), np.diag([1e-4, 1e-4, 1e3, 1]))
    assert_allclose(anisotropic.spacing, (1e-4, 1e-4, 1e3))


# -- values ----------------------------------------------------------------------------------------------------------


def test_nobody_can_move_a_grid_afterwards() -> None:
    affine = np.eye(4)
    geometry = Geometry((2, 2, 2), affine)
    affine[0, 3] = 5
    assert geometry.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 3] = 5


def test_unpickled_grids_cannot_be_moved_either() -> None:
    geometry = pickle.loads(pickle.dumps(Geometry((2, 2, 2), np.eye(4))))  # noqa: S301
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 3] = 5


def test_a_picture_counts_pixels() -> None:
    picture = Geometry.of_pixels((10, 20))
    assert (picture.spacing, picture.orientation, picture.steps) == (None, None, (1.0, 1.0))
    assert picture.resample((2, 2)).shape == (5, 10)
    assert "size in mm unknown" in repr(picture)


def test_a_grid_says_what_it_is() -> None:
    assert repr(Geometry((2, 3, 4), np.diag([1, 2, 3, 1]))) == "Geometry(2 x 3 x 4 voxels of 1 x 2 x 3 mm, RAS)"
    assert "orientation unknown" in repr(Geometry.of_spacing((2, 2, 2), (1, 1, 1)))


def test_a_tilted_gantry_makes_a_voxel_no_larger_than_what_lies_between_its_slices():
    tilted = Geometry((4, 4, 4), [[0.5, 0, 0, 0], [0, 0.5, 2, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    assert tilted.voxel_volume == pytest.approx(0.5 * 0.5 * 5)
    assert tilted.voxel_volume < np.prod(tilted.spacing)
    assert Geometry.of_pixels((4, 4)).voxel_volume is None
    assert Geometry.of_spacing((4, 4), (0.5, 2)).voxel_volume == pytest.approx(1)


# -- one grid with its axes in another order -------------------------------------------------------------------------


@given(geometries(), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_a_grid_is_brought_onto_the_same_grid_in_any_order_of_its_axes(geometry, axes, flips) -> None:
    assume(geometry.ndim == 3 and geometry.oriented)
    other = geometry.permute(axes, flips)
    image = Image(places(geometry)[..., 0][None], geometry)
    brought = image.on_axes_of(other)
    assert brought.geometry.equals(other)
    assert_allclose(brought.data[0], places(other)[..., 0], atol=1e-6)


@given(geometries(), st.integers(0, 2))
def test_a_grid_that_lies_elsewhere_is_not_brought_onto_another(geometry, axis) -> None:
    assume(geometry.ndim == 3 and geometry.oriented and geometry.shape[axis] > 1)
    affine = geometry.affine.copy()
    affine[:3, 3] += 0.3 * affine[:3, axis] / np.linalg.norm(affine[:3, axis])
    shifted = Geometry(geometry.shape, affine, geometry.frame_of_reference, geometry.physical)
    image = Image(np.zeros((1, *geometry.shape)), geometry)
    assert image.on_axes_of(shifted) is image
