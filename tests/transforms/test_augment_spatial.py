from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import hilum
import real_data
from hilum.transforms import augment_spatial, label_resampling
from hilum.transforms.augment import Augmentation
from hilum.transforms.augment_spatial import POINTS
from known_generators import smooth
from simulated_vessels import vessel_net

shapes = st.sampled_from([(9, 12), (6, 8, 7)])
seeds = st.integers(0, 200)


def grid_of(
    image: torch.Tensor, linear: np.ndarray, shift: tuple[float, ...] = (), spacing: tuple[float, ...] = ()
) -> torch.Tensor:
    """Of one sample."""
    ndim = image.ndim - 2
    sizes = np.array(image.shape[2:]) * np.array(spacing or (1.0,) * ndim)
    return augment_spatial.sampling_grid(linear[None], np.array([shift or (0.0,) * ndim]), sizes, image)


@given(shapes, seeds)
@settings(max_examples=10)
def test_the_grid_of_no_change_reads_the_image_itself(shape, seed):
    image, labels = smooth(shape, seed, channels=2), torch.arange(math.prod(shape)).reshape(1, *shape)
    grid = grid_of(image, np.eye(len(shape)), spacing=tuple(np.arange(len(shape)) + 0.7))
    assert_allclose(augment_spatial.sample_intensities(image, grid), image, atol=1e-5)
    assert_array_equal(augment_spatial.sample_labels(labels, grid), labels)


def test_a_quarter_turn_through_the_grid_is_that_of_the_array():
    image = smooth((9, 9))
    for sign in (1, -1):
        grid = grid_of(image, augment_spatial.rotation_matrix(np.deg2rad([90.0 * sign, 0, 0]), 2))
        assert_allclose(
            augment_spatial.sample_intensities(image, grid)[0],
            np.rot90(image[0].numpy(), -sign, axes=(1, 2)),
            atol=1e-5,
        )


@pytest.mark.parametrize(("angle", "plane"), [(0, (0, 1)), (1, (2, 0)), (2, (1, 2))])
def test_a_quarter_turn_of_a_volume_takes_a_known_voxel_to_a_known_place(angle, plane):
    image, labels = torch.zeros(1, 1, 7, 7, 7), torch.zeros(1, 7, 7, 7, dtype=torch.long)
    place = np.array([1, 2, 4])
    image[0, 0, *place], labels[0, *place] = 1, 5
    angles = np.zeros(3)
    angles[angle] = np.pi / 2
    grid = grid_of(image, augment_spatial.rotation_matrix(angles, 3))
    there = place.copy()
    # At (a, b) about the middle stands what stood at (-b, a): a voxel goes to (b, -a).
    a, b = place[list(plane)] - 3
    there[list(plane)] = np.array([b, -a]) + 3
    assert augment_spatial.sample_intensities(image, grid)[0, 0, *there].item() == pytest.approx(1, abs=1e-5)
    assert np.argwhere(augment_spatial.sample_labels(labels, grid)[0].numpy() == 5).tolist() == [there.tolist()]


def test_a_quarter_turn_is_one_in_mm_where_voxels_are_no_squares():
    """20 x 10 voxels of 1 x 2 mm cover a square: turned in mm, rows and columns change places."""
    rows, columns = (np.arange(20) + 0.5) * 1.0 - 10, (np.arange(10) + 0.5) * 2.0 - 10
    y, x = np.meshgrid(rows, columns, indexing="ij")
    plane = torch.from_numpy((3 * y + 0.5 * x).astype(np.float32))[None, None]
    turn = augment_spatial.sample_intensities(
        plane, grid_of(plane, augment_spatial.rotation_matrix(np.array([np.pi / 2, 0, 0]), 2), spacing=(1.0, 2.0))
    )[0, 0]
    inner = (slice(1, -1), slice(1, -1))  # beyond the outermost voxel centres the edge goes on
    # At (y, x) stands what stood at (-x, y).
    assert_allclose(turn[inner], (-3 * x + 0.5 * y)[inner], atol=1e-3)


def test_a_scale_of_a_half_more_reads_from_one_and_a_half_as_far():
    ramp = torch.linspace(-1, 1, 41)[None, None, :, None].expand(1, 1, 41, 9).contiguous()
    scaled = augment_spatial.sample_intensities(ramp, grid_of(ramp, 1.5 * np.eye(2)))[0, 0, :, 4]
    assert_allclose(scaled, (1.5 * torch.linspace(-1, 1, 41)).clamp(-1, 1), atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 12), (4, 8, 12)])
def test_a_shift_by_a_quarter_of_the_patch_is_that_of_the_array(shape):
    image, ndim = smooth(shape), len(shape)
    shifted = augment_spatial.sample_intensities(image, grid_of(image, np.eye(ndim), (0.25,) * ndim))[0]
    by = [size // 4 for size in shape]
    there = tuple(slice(0, size - move) for size, move in zip(shape, by, strict=True))
    here = tuple(slice(move, None) for move in by)
    assert_allclose(shifted[:, *there], image[0][:, *here], atol=1e-5)


def test_the_image_goes_on_beyond_its_edge_and_the_label_does_not():
    image, labels = torch.full((1, 1, 8, 6), 5.0), torch.ones(1, 8, 6, dtype=torch.long)
    grid = grid_of(image, np.eye(2), (0.5, 0.5))
    assert_allclose(augment_spatial.sample_intensities(image, grid), 5)
    background = augment_spatial.sample_labels(labels, grid)
    assert background[0, :4, :3].all()
    assert not background[0, 4:].any()
    assert not background[0, :, 3:].any()


@pytest.mark.parametrize("shape", [(24, 30), (15, 20, 25)])
def test_a_bend_moves_by_the_share_of_its_control_points_along_its_own_axis(shape):
    image, ndim = smooth(shape), len(shape)
    still = grid_of(image, np.eye(ndim))
    for axis in range(ndim):
        points = np.zeros((1, ndim, *[POINTS] * ndim))
        points[0, axis] = 0.1  # everywhere alike: a shift
        moved = augment_spatial.bend_grid(still, points) - still
        assert_allclose(moved[..., ndim - 1 - axis], 0.2, atol=1e-5)
        assert_allclose(np.delete(moved.numpy(), ndim - 1 - axis, axis=-1), 0, atol=1e-6)


@given(st.sampled_from([(32, 40), (16, 18, 20)]), st.sampled_from([0.02, 0.05, 0.3]), seeds)
@settings(max_examples=15)
def test_a_bend_never_folds_however_strong_it_is(shape, strength, seed):
    image, ndim = torch.zeros(1, 1, *shape), len(shape)
    still = grid_of(image, np.eye(ndim))
    points = augment_spatial.weaken_folds(
        np.random.default_rng(seed).normal(scale=strength, size=(ndim, *[POINTS] * ndim))
    )
    grid = augment_spatial.bend_grid(still, points[None])[0].double().numpy()
    jacobian = np.stack([np.stack(np.gradient(grid[..., axis]), axis=-1) for axis in reversed(range(ndim))], axis=-2)
    assert np.linalg.det(jacobian * np.array(shape) / 2).min() > 0.05  # 1 where nothing is bent


def test_a_weak_bend_is_left_as_it_was_sampled():
    points = np.random.default_rng(0).normal(scale=0.005, size=(2, POINTS, POINTS))
    assert_array_equal(augment_spatial.weaken_folds(points), points)
    assert_array_equal(augment_spatial.weaken_folds(np.zeros_like(points)), 0)


@given(st.sampled_from([(5, 6), (3, 4, 5)]), seeds)
@settings(max_examples=10)
def test_samples_are_mirrored_each_along_its_own_axes(shape, seed):
    image, ndim = smooth(shape, seed, channels=2, batch=4), len(shape)
    chosen = np.random.default_rng(seed).random((4, ndim)) < 0.5
    result = augment_spatial.flip_samples(image, chosen)
    for n in range(4):
        axes = [int(axis) + 1 for axis in np.flatnonzero(chosen[n])]
        assert_array_equal(result[n], image[n].flip(axes) if axes else image[n])
    assert_array_equal(augment_spatial.flip_samples(result, chosen), image)


def test_four_quarter_turns_are_none():
    image = smooth((6, 6, 4), batch=4)
    turns, once = np.arange(4), image
    for _ in range(4):
        once = augment_spatial.turn_samples(once, turns, 3)
    assert_array_equal(once, image)
    assert_array_equal(augment_spatial.turn_samples(image, turns, 3)[3], image[3].rot90(3, (1, 2)))


def test_values_that_the_permutation_does_not_know_stay():
    labels = torch.tensor([[[0, 1, 2, 255]], [[0, 1, 2, 255]]], dtype=torch.uint8)
    swapped = augment_spatial.permute_sides(labels, torch.tensor([True, False]), (0, 2, 1))
    assert swapped.dtype == torch.uint8
    assert_array_equal(swapped, [[[0, 2, 1, 255]], [[0, 1, 2, 255]]])
    ignored = augment_spatial.permute_sides(torch.tensor([[-1, 1]]), torch.tensor([True]), (0, 2, 1))
    assert_array_equal(ignored, [[-1, 2]])


def test_only_slices_more_than_three_times_as_far_apart_are_thick_and_no_picture_has_any():
    assert_array_equal(augment_spatial.thick_axes(np.array([1.0, 3.0, 3.1])), [False, False, True])
    assert_array_equal(augment_spatial.thick_axes(np.array([1.0, 9.0])), [False, False])
    assert_array_equal(augment_spatial.out_of_plane_turns(np.array([False, False, True])), [False, True, True])
    assert_array_equal(augment_spatial.out_of_plane_turns(np.array([True, False, False])), [True, True, False])
    assert not augment_spatial.out_of_plane_turns(np.array([False, False])).any()


@given(st.sampled_from([(12, 15), (8, 9, 7)]), seeds)
@settings(max_examples=20)
def test_labels_are_what_the_one_hot_volume_read_linearly_would_give(shape, seed):
    """Wherever one label has clearly the largest share; beyond the edge there is background."""
    rng, ndim = np.random.default_rng(seed), len(shape)
    values = torch.tensor([0, 2, 3, 200], dtype=torch.uint8)
    labels = values[torch.from_numpy(rng.integers(0, 4, (2, *[(size + 1) // 2 for size in shape])))]
    for axis, size in enumerate(shape, start=1):
        labels = labels.repeat_interleave(2, axis).narrow(axis, 0, size)
    maps = np.stack(
        [augment_spatial.rotation_matrix(rng.uniform(-0.5, 0.5, 3), ndim) * rng.uniform(0.8, 1.3) for _ in range(2)]
    )
    grid = augment_spatial.sampling_grid(maps, rng.uniform(-0.2, 0.2, (2, ndim)), np.array(shape, dtype=float), labels)
    one_hot = (labels[:, None] == values.reshape(-1, *[1] * ndim)).float()
    shares = torch.nn.functional.grid_sample(one_hot, grid, padding_mode="zeros", align_corners=False)
    shares[:, 0] += 1 - shares.sum(dim=1)  # what lies beyond the edge
    best, second = shares.topk(2, dim=1).values.unbind(1)
    clear = best - second > 1e-4
    assert clear.float().mean() > 0.5
    moved = augment_spatial.sample_labels(labels, grid)
    assert moved.dtype == labels.dtype
    assert_array_equal(moved[clear], values[shares.argmax(dim=1)][clear])


@pytest.fixture(params=["simulated", pytest.param("chasedb1", marks=pytest.mark.corpus)])
def vessels(request: pytest.FixtureRequest) -> np.ndarray:
    """(480, 480) true where a vessel lies."""
    if request.param == "simulated":
        return vessel_net()
    contoured = hilum.read(real_data.CORPUS / "chasedb1" / "Image_01L_1stHO.png").data.squeeze()
    return contoured[240:720, 240:720] > 0


def test_vessels_turned_on_a_coarse_grid_are_closer_to_the_truth_than_their_nearest_voxels(vessels: np.ndarray):
    """The truth are the vessels turned on their own grid, which is three times as fine."""
    fine, sizes = vessels.astype(np.uint8), (160, 160)
    coarse = label_resampling.resample_labels(fine, sizes)
    ours, theirs = [], []
    for degrees, scale in ((4, 1.0), (11, 1.05), (-9, 0.95)):
        linear = augment_spatial.rotation_matrix(np.deg2rad([degrees, 0, 0]), 2) * scale
        there, here = (torch.from_numpy(one)[None] for one in (fine, coarse))
        truth = label_resampling.resample_labels(
            augment_spatial.sample_labels(there, grid_of(there[:, None], linear))[0].numpy(), sizes
        )
        grid = grid_of(here[:, None], linear)
        nearest = torch.nn.functional.grid_sample(here[:, None].float(), grid, mode="nearest", align_corners=False)
        ours.append(dice(augment_spatial.sample_labels(here, grid)[0].numpy(), truth))
        theirs.append(dice(nearest[0, 0].numpy(), truth))
    assert np.mean(ours) > 0.9
    assert np.mean(ours) > np.mean(theirs) + 0.008


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * ((one > 0) & (other > 0)).sum() / ((one > 0).sum() + (other > 0).sum()))


def turn_and_back(labels: np.ndarray, degrees: float) -> float:
    """Dice of a label map with itself after a turn and its inverse."""
    there = torch.from_numpy(labels)[None]
    for angle in (degrees, -degrees):
        there = augment_spatial.sample_labels(
            there, grid_of(there[:, None], augment_spatial.rotation_matrix(np.deg2rad([angle, 0, 0]), 2))
        )
    back = there[0].numpy()
    return dice(back, labels)


def test_a_line_of_two_pixels_survives_a_turn_and_its_inverse():
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[31:33, 8:56] = 1
    assert min(turn_and_back(labels, degrees) for degrees in (5.0, 17.0, 33.0)) > 0.95


def test_a_series_is_shifted_and_stretched_with_its_labels_and_never_turned():
    """Read linearly in between, as NumPy would; a label moves as the samples under it do."""
    places = np.arange(64.0)
    series = torch.as_tensor(np.sin(places / 5))[None, None].float()
    marked = (torch.arange(64) // 16 == 1).long()[None]
    grid = augment_spatial.sampling_grid(np.array([[[0.5]]]), np.array([[0.125]]), np.array([64.0]), series)
    wanted = (places - 31.5) / 2 + 31.5 + 8
    assert_allclose(
        augment_spatial.sample_intensities(series, grid)[0, 0].numpy(),
        np.interp(wanted, places, series[0, 0].numpy()),
        atol=1e-5,
    )
    assert augment_spatial.sample_labels(marked, grid)[0].tolist() == [
        int(16 <= place < 32) for place in np.rint(wanted)
    ]
    assert augment_spatial.rotation_matrix(np.ones(3), 1).tolist() == [[1.0]]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_shear_moves_one_axis_along_the_others_by_no_more_than_asked_and_keeps_every_area(ndim):
    none, moved = np.zeros(ndim, bool), set()
    for seed in range(30):
        made = augment_spatial.shear_matrix(0.3, none, np.random.default_rng(seed))
        assert np.linalg.det(made) == pytest.approx(1)
        off = made - np.eye(ndim)
        assert np.abs(off).max() <= 0.3
        assert np.count_nonzero(off.any(axis=1)) <= 1
        moved |= set(np.flatnonzero(off.any(axis=1)).tolist())
    assert moved == (set(range(ndim)) if ndim > 1 else set())


def test_a_shear_leaves_thick_slices_in_their_planes():
    still = np.array([False, False, True])
    for seed in range(20):
        made = augment_spatial.shear_matrix(0.3, still, np.random.default_rng(seed))
        assert (made[2] == [0, 0, 1]).all()
        assert (made[:, 2] == [0, 0, 1]).all()


def test_a_sheared_label_lies_where_the_sheared_image_shows_it():
    images = torch.zeros(1, 1, 40, 40)
    images[..., 12:28, 10:30] = 1
    change = Augmentation(rotation=0, scale=0, shear=0.4, contrast=0, brightness=0, gamma=0, noise=0, probability=1)
    moved, labels, _ = change(images, images[:, 0].long(), [np.random.default_rng(1)], (1.0, 1.0))
    assert ((moved[:, 0] > 0.5) == (labels > 0)).float().mean() > 0.99
    assert (moved != images).any()
    assert moved.sum().item() == pytest.approx(images.sum().item(), rel=0.02)
