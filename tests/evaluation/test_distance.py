import warnings
from itertools import product

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.spatial.distance import cdist, directed_hausdorff

from hilum.errors import GeometryError
from hilum.evaluation import distance
from hilum.evaluation.distance import MaskSurface
from matrices import thinned

spacings = st.sampled_from([(1.0, 1.0, 1.0), (0.5, 0.7, 3.0), (2.0, 1.0, 0.25)])
small = hnp.arrays(bool, (4, 3, 5)).filter(lambda mask: mask.any())


def ball(radius: float, shape, spacing, off_centre: float = 0.13):
    """A ball (in 2D a disc) whose middle lies on no lattice point."""
    axes = [(np.arange(size) + 0.5 - size / 2) * step - off_centre for size, step in zip(shape, spacing, strict=True)]
    return sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) <= radius**2


def box(shape, start, stop):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))] = True
    return mask


def blobs(seed: int, shape=(40, 44, 36)):
    """Two alike smooth shapes."""
    random = np.random.default_rng(seed)
    field, change = gaussian_filter(random.normal(size=shape), 4), gaussian_filter(random.normal(size=shape), 3)
    return [each > 0.8 for each in (field / field.std() + 0.4 * change / change.std(), field / field.std())]


@given(small, spacings)
def test_the_area_vectors_of_a_closed_surface_are_no_longer_than_its_faces(mask, spacing):
    padded, faces = np.pad(mask, 1).astype(int), 0.0
    for axis, step in enumerate(spacing):
        faces += np.abs(np.diff(padded, axis=axis)).sum() * np.prod(spacing) / step
    area = MaskSurface.from_mask(mask, spacing).areas.sum()
    assert area <= faces + 1e-9
    assert area >= faces / np.sqrt(3) - 1e-9


def test_planes_along_the_axes_and_diagonals_have_their_own_area():
    axes = np.ogrid[:60, :60, :60]
    for normal in product((0, 1), repeat=3):
        if not any(normal):
            continue
        half = np.broadcast_to(sum(n * x for n, x in zip(normal, axes, strict=True)) <= 30 * sum(normal), (60, 60, 60))
        surface = MaskSurface.from_mask(np.ascontiguousarray(half), (1.0, 1.0, 1.0))
        along = normal.index(1)
        # What stands over 10 x 10 pixels of a face through which the plane is seen, without the image's borders.
        columns = np.delete(surface.corners, along, axis=1)
        inner = ((columns > 25) & (columns <= 35)).all(axis=1)
        middle = (surface.corners > 1).all(axis=1) & (surface.corners < 59).all(axis=1)
        assert surface.areas[inner & middle].sum() == pytest.approx(100 * np.sqrt(sum(normal)))


def test_a_box_has_the_area_of_its_faces_less_what_its_edges_round_off():
    spacing, size = (1.0, 0.5, 2.0), 40
    area = MaskSurface.from_mask(np.ones((size,) * 3, dtype=bool), spacing).areas.sum()
    sides = np.array(spacing) * size
    faces = 2 * (sides[0] * sides[1] + sides[1] * sides[2] + sides[0] * sides[2])
    assert faces * 0.97 < area < faces


@pytest.mark.parametrize(("spacing", "excess"), [((1.0, 1.0, 1.0), 0.08), ((0.5, 0.5, 2.0), 0.17), ((1.0, 1.0), 0.08)])
def test_the_surface_of_a_ball_is_nearly_its_own(spacing, excess):
    mask = ball(18.0, [int(50 / step) for step in spacing], spacing)
    true = 4 * np.pi * 18.0**2 if len(spacing) == 3 else 2 * np.pi * 18.0
    assert 1 <= MaskSurface.from_mask(mask, spacing).areas.sum() / true < 1 + excess


def test_a_diagonal_line_of_pixels_has_both_its_sides():
    assert MaskSurface.from_mask(np.eye(100, dtype=bool), (1.0, 1.0)).areas.sum() == pytest.approx(
        200 * np.sqrt(2), rel=0.01
    )


def test_inside_and_outside_share_one_surface():
    areas, offsets = distance.surface_elements((1.0, 0.7, 2.0))
    assert_allclose(areas, areas[::-1])
    assert_allclose(offsets, offsets[::-1])
    assert areas[0] == areas[-1] == 0
    assert (areas[1:-1] > 0).all()


@given(small, small, spacings)
def test_distances_are_the_smallest_of_all_pairs(prediction, reference, spacing):
    found = distance.surface_distance(prediction, reference, spacing)
    here, there = found.prediction, found.reference
    pairs = cdist(here.places, there.places)
    distances, areas = np.concatenate([pairs.min(axis=1), pairs.min(axis=0)]), np.concatenate([here.areas, there.areas])
    assert found.assd == pytest.approx((distances * areas).sum() / areas.sum())
    for nearest, own in ((pairs.min(axis=1), here.areas), (pairs.min(axis=0), there.areas)):
        assert own[nearest <= found.hd95 + 1e-9].sum() >= 0.95 * own.sum() - 1e-9
    corners = cdist(here.corners, there.corners)
    near = np.concatenate([corners.min(axis=1), corners.min(axis=0)]) <= 1.0 + 1e-9
    assert found.nsd(1.0) == pytest.approx((near * areas).sum() / areas.sum())


@given(small, spacings)
def test_a_mask_lies_on_itself(mask, spacing):
    found = distance.surface_distance(mask, mask, spacing)
    assert (found.hd95, found.assd, found.nsd(0.0)) == (0.0, 0.0, 1.0)


@given(small, small, spacings, st.permutations(range(3)))
def test_the_figures_know_neither_sides_nor_the_order_of_axes(prediction, reference, spacing, order):
    one = distance.surface_distance(prediction, reference, spacing)
    turned = [np.flip(mask.transpose(order), axis=1) for mask in (reference, prediction)]
    other = distance.surface_distance(*turned, [spacing[axis] for axis in order])
    assert (other.assd, other.nsd(1.0)) == pytest.approx((one.assd, one.nsd(1.0)))
    assert other.hd95 == pytest.approx(one.hd95)


@given(small, small, st.sampled_from([0.1, 3.0]))
def test_all_distances_grow_with_the_spacing(prediction, reference, factor):
    one, other = (
        distance.surface_distance(prediction, reference, (scale, 2 * scale, scale)) for scale in (1.0, factor)
    )
    assert (other.hd95, other.assd) == pytest.approx((factor * one.hd95, factor * one.assd))
    assert other.nsd(1.5 * factor) == pytest.approx(one.nsd(1.5))


@given(small, small)
def test_the_empty_space_around_does_not_matter_but_to_the_worst_value(prediction, reference):
    one, other = (
        distance.surface_distance(np.pad(prediction, around), np.pad(reference, around))
        for around in (0, ((1, 3), (0, 2), (4, 0)))
    )
    assert (one.hd95, one.assd, one.nsd(1.0)) == pytest.approx((other.hd95, other.assd, other.nsd(1.0)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.1, 2.5)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plate_moved_by_three_voxels_lies_three_voxels_away(spacing, axis):
    shape = [60, 60, 60]
    start, stop = [10, 10, 10], [50, 50, 50]
    start[axis], stop[axis] = 20, 30
    plate = box(shape, start, stop)
    found = distance.surface_distance(np.roll(plate, 3, axis=axis), plate, spacing)
    gap = 3 * spacing[axis]
    assert found.hd95 == pytest.approx(gap)
    assert found.nsd(gap) > 0.999
    # Both large faces are `gap` away; of the four sides that go along, seven tenths lie on the other plate's.
    sides = np.delete(np.array(spacing) * 40, axis)
    along = 2 * sides.sum() * 10 * spacing[axis]
    assert found.nsd(0.0) == pytest.approx(0.7 * along / (along + 2 * sides.prod()), abs=0.05)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 2.0), (1.0, 1.0, 3.0), (1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("gap", [3.0, 6.0])
def test_balls_in_each_other_lie_as_far_apart_as_their_radii(spacing, gap):
    shape = [int(60 / step) for step in spacing]
    found = distance.surface_distance(ball(18.0 + gap, shape, spacing), ball(18.0, shape, spacing), spacing)
    coarse = max(spacing)
    assert found.assd == pytest.approx(gap, abs=0.15 * coarse)
    assert gap - 0.1 * coarse <= found.hd95 <= gap + 0.6 * coarse
    assert found.nsd(gap + 0.75 * coarse) > 0.97
    assert found.nsd(gap - 0.9 * coarse) < 0.4


def test_under_a_tilted_gantry_planes_lie_as_far_apart_as_in_the_patient():
    # Slices 2 mm apart along the normal, each shifted by 1.5 mm along the second axis.
    tilted = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.5], [0.0, 0.0, 2.0]])
    plate = box((120, 120, 20), (0, 0, 5), (120, 120, 7))
    found = distance.surface_distance(np.roll(plate, 3, axis=2), plate, tilted)
    # The planes are 6 mm apart; index for index they are 7.5 mm apart, along the tilt.
    assert found.hd95 == pytest.approx(6.0, abs=0.05)  # what little runs along the tilt adds a trifle


@pytest.mark.parametrize(
    "steps", [np.diag([0.7, 1.1, 2.5]), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.8], [0.0, 0.0, 2.0]])]
)
def test_the_area_of_a_box_is_that_of_its_faces_whatever_their_angle(steps):
    found = MaskSurface.from_mask(box((30, 30, 30), (5, 5, 5), (25, 25, 25)), steps)
    i, j, k = (20 * steps).T
    faces = 2 * sum(np.linalg.norm(np.cross(*pair)) for pair in ((i, j), (j, k), (k, i)))
    # An edge's elements stand for its faces' vectors together, whose sum is shorter: the share of the edges is small.
    assert found.areas.sum() == pytest.approx(faces, rel=0.05)


@given(small, small, spacings)
def test_steps_at_right_angles_are_a_spacing(prediction, reference, spacing):
    one, other = (distance.surface_distance(prediction, reference, given) for given in (spacing, np.diag(spacing)))
    assert (one.hd95, one.assd, one.nsd(1.0), one.worst) == (other.hd95, other.assd, other.nsd(1.0), other.worst)


def test_the_larger_of_both_directions_counts():
    large, spot = box((60, 60), (5, 5), (55, 55)), box((60, 60), (5, 5), (10, 10))
    found = distance.surface_distance(large, spot)
    swapped = distance.surface_distance(spot, large)
    assert found.hd95 == swapped.hd95 > 40  # the spot lies along the large border, which lies far from the spot


def test_a_twentieth_of_the_surface_does_not_decide():
    disc = ball(20.0, (80, 80), (1.0, 1.0))
    speck = disc | box((80, 80), (0, 0), (1, 1))
    assert distance.surface_distance(speck, disc).hd95 == 0
    assert distance.surface_distance(speck, disc).assd > 0


def test_the_largest_distance_is_that_of_scipy_between_the_elements_and_a_speck_decides_it():
    disc, other = ball(20.0, (80, 80), (1.0, 1.0)), ball(17.0, (80, 80), (1.0, 1.0))
    found = distance.surface_distance(disc, other)
    places = found.prediction.places, found.reference.places
    expected = max(directed_hausdorff(*pair)[0] for pair in (places, places[::-1]))
    assert found.hd == pytest.approx(expected)
    assert found.hd >= found.hd95
    assert distance.surface_distance(disc | box((80, 80), (0, 0), (1, 1)), disc).hd > 30


def test_a_missing_structure_gets_the_diagonal_of_the_image():
    mask = box((30, 40), (5, 5), (9, 9))
    for found in (distance.surface_distance(mask, mask & False), distance.surface_distance(mask & False, mask)):
        assert (found.hd95, found.assd, found.nsd(100.0), found.unit) == (50.0, 50.0, 0.0, "pixels")
    found = distance.surface_distance(mask, mask & False, (2.0, 2.0))
    assert (found.hd95, found.unit) == (100.0, "mm")


def test_two_empty_masks_are_not_measured():
    found = distance.surface_distance(np.zeros((5, 5, 5)), np.zeros((5, 5, 5)), (1, 1, 1))
    assert np.isnan([found.hd95, found.assd, found.nsd(1.0)]).all()


def test_what_touches_the_border_of_the_image_ends_there():
    whole, less = np.ones((10, 10), dtype=bool), box((10, 10), (0, 0), (10, 8))
    assert distance.surface_distance(whole, less).hd95 == pytest.approx(2)


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 25), (40, 30, 1)])
def test_what_borders_on_unknown_voxels_is_no_surface(shape):
    rest = shape[2:]
    bar = box(shape, (0, 10, *[0] * len(rest)), (40, 12, *rest))
    known = np.broadcast_to((np.arange(40) < 25).reshape(-1, *[1] * len(shape[1:])), shape)
    moved = np.roll(bar, 4, axis=1)
    whole, cut = distance.surface_distance(moved, bar), distance.surface_distance(moved, bar, known=known)
    assert cut.reference.corners[:, 0].max() == 24
    assert cut.reference.voxels[:, 0].max() == 24.5
    inside = whole.reference.corners[:, 0] < 25
    assert_allclose(cut.reference.areas, whole.reference.areas[inside])
    assert_allclose(cut.reference.places, whole.reference.places[inside])
    # The end of one, beyond which nothing is known, says nothing of how far the other's end lies.
    shorter = moved & (np.arange(40) < 25).reshape(known.shape[:1] + (1,) * (len(shape) - 1))
    assert distance.surface_distance(shorter, bar, known=known).hd95 == cut.hd95


def test_a_structure_with_nothing_known_around_it_has_no_surface():
    reference, band = box((20, 20), (8, 8), (12, 12)), box((20, 20), (7, 7), (13, 13))
    known = ~band | reference
    same, more = (distance.surface_distance(made, reference, known=known) for made in (reference, reference | ~band))
    for found in (same, more):
        assert np.isnan([found.hd95, found.hd95_points, found.assd, found.nsd(1.0)]).all()
    assert distance.surface_distance(reference & False, reference, known=known).nsd(1.0) == 0.0
    everywhere = distance.surface_distance(np.roll(reference, 1), reference, known=np.ones_like(reference))
    assert everywhere.assd == distance.surface_distance(np.roll(reference, 1), reference).assd


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_a_volume_of_a_single_slice_is_measured_as_the_picture_that_it_is(axis, tilt):
    spacing = (0.5, 0.8)
    large, small_one = (ball(radius, (60, 40), spacing) for radius in (12.0, 8.0))
    picture = distance.surface_distance(large, small_one, spacing)
    steps = np.diag(np.insert(spacing, axis, 5.0))
    steps[axis - 1, axis] = tilt * 5.0  # the next slice would lie aside, which says nothing of this one
    volume = distance.surface_distance(np.expand_dims(large, axis), np.expand_dims(small_one, axis), steps)
    assert picture.nsd(1.0) < 0.01
    for figure in ("hd95", "hd95_points", "assd", "worst"):
        assert_allclose(getattr(volume, figure), getattr(picture, figure), rtol=1e-9)
    assert volume.nsd(1.0) == picture.nsd(1.0)
    assert volume.unit == "mm"
    assert distance.surface_distance(np.expand_dims(large, axis), np.expand_dims(small_one, axis)).unit == "voxels"


def test_masks_of_two_grids_and_spacings_of_other_axes_are_refused():
    with pytest.raises(GeometryError, match="own grid"):
        distance.surface_distance(np.ones((3, 4)), np.ones((4, 3)))
    with pytest.raises(GeometryError, match="spacing"):
        distance.surface_distance(np.ones((3, 4)), np.ones((3, 4)), (1, 1, 1))
    with pytest.raises(GeometryError, match="without channels"):
        distance.surface_distance(np.ones((1, 3, 4, 5)), np.ones((1, 3, 4, 5)))


def monai_figures(prediction, reference, spacing, tolerances):
    """HD, HD95, ASSD, NSD by MONAI."""
    from monai import metrics

    pair = [torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nsd = [metrics.compute_surface_dice(*pair, [t], spacing=spacing, use_subvoxels=True).item() for t in tolerances]
        hd95 = metrics.compute_hausdorff_distance(*pair, percentile=95, spacing=spacing).item()
        hd = metrics.compute_hausdorff_distance(*pair, spacing=spacing).item()
        return hd, hd95, metrics.compute_average_surface_distance(*pair, symmetric=True, spacing=spacing).item(), nsd


def assert_like_monai(prediction, reference, spacing):
    tolerances = (0.5, 1.0, 2.0)
    found = distance.surface_distance(prediction, reference, spacing)
    hd, hd95, assd, nsd = monai_figures(prediction, reference, spacing, tolerances)
    # The same definition; only the area of a single element differs, as marching cubes cut off corners: 0.003 on
    # smooth shapes, more on rough ones.
    assert_allclose([found.nsd(tolerance) for tolerance in tolerances], nsd, atol=0.03)
    # MONAI measures between centres of border voxels, each counting the same: up to one voxel off.
    assert found.hd == pytest.approx(hd, abs=max(spacing))
    assert found.hd95 == pytest.approx(hd95, abs=max(spacing))
    assert found.hd95_points == pytest.approx(hd95, abs=1e-4)
    assert found.assd == pytest.approx(assd, abs=0.5 * max(spacing))


@pytest.mark.parametrize("spacing", thinned(1, [(1.0, 1.0, 1.0), (0.7, 0.7, 2.0)], one_value=True))
def test_smooth_shapes_have_nearly_the_figures_of_monai(spacing):
    for seed in range(2):
        assert_like_monai(*blobs(seed), spacing)


def test_a_hippocampus_has_nearly_the_figures_of_monai(data):
    path = sorted((data / "hippocampus" / "labels").glob("*.nii.gz"))[0]
    image = nibabel.load(path)
    reference = np.asarray(image.dataobj) == 1
    spacing = tuple(float(step) for step in image.header.get_zooms())
    shifted = np.roll(reference, 1, axis=0) | binary_dilation(reference, iterations=1) & (
        np.indices(reference.shape)[1] % 9 < 4
    )
    assert_like_monai(shifted, reference, spacing)


@settings(max_examples=3)
@given(st.integers(0, 100))
@pytest.mark.whole
def test_coarse_voxels_give_the_distances_of_fine_ones(seed):
    random = np.random.default_rng(seed)
    shape = (100, 100, 100)
    field, change = gaussian_filter(random.normal(size=shape), 12), gaussian_filter(random.normal(size=shape), 9)
    fine = [each > 0.5 for each in (field / field.std() + 0.4 * change / change.std(), field / field.std())]
    coarse = [np.ascontiguousarray(mask[1::4, 1::4, 1::4]) for mask in fine]
    if not (coarse[0].any() and coarse[1].any()):
        return
    true, found = distance.surface_distance(*fine, (0.25,) * 3), distance.surface_distance(*coarse, (1.0,) * 3)
    assert found.assd == pytest.approx(true.assd, abs=0.15)
    assert found.hd95 == pytest.approx(true.hd95, abs=0.8)


def test_the_ends_of_a_stretch_of_a_series_are_its_surface():
    """Two stretches of a series sampled every 0.01 s: one end agrees, the other lies 3 samples apart."""
    reference, prediction = np.zeros(50, bool), np.zeros(50, bool)
    reference[10:20], prediction[10:23] = True, True
    found = distance.surface_distance(prediction, reference, (0.01,))
    assert found.assd == pytest.approx(0.015)
    assert found.hd95 == pytest.approx(0.03)
    assert (found.nsd(0.01), found.nsd(0.03)) == (0.5, 1.0)
