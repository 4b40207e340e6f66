from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from isocenter.transforms import Augmentation, generator

STILL = Augmentation(rotation=0, scale=0, shift=0, contrast=0, brightness=0, gamma=0, noise=0)
# No change of intensity: what is left moves voxels only.
MOVING = Augmentation(
    rotation=30, scale=0.3, shift=0.1, elastic=0.02, probability=1, contrast=0, brightness=0, gamma=0, noise=0
)
EVERYTHING = Augmentation(rotation=20, scale=0.2, shift=0.1, elastic=0.02, flips=(0, 1), probability=0.5)
shapes = st.sampled_from([(9, 12), (6, 8, 7)])
seeds = st.integers(0, 200)


class Drawn:
    """In place of a generator: every number it gives is the one wanted, so that the change is known."""

    def __init__(self, number: float = 1.0, chance: float = 0.0) -> None:
        self.number, self.chance = number, chance

    def uniform(self, low: float, high: float, size: object = None) -> object:
        return self.number if size is None else np.full(size, self.number)

    def random(self, size: object = None) -> object:
        return self.chance if size is None else np.full(size, self.chance)

    def normal(self, scale: float, size: object) -> object:
        return np.zeros(size)


def image_of(shape: tuple[int, ...], seed: int = 0, channels: int = 1, batch: int = 1) -> torch.Tensor:
    """Smooth, so that reading between voxels is close to the truth."""
    noise = np.random.default_rng(seed).normal(size=(batch, channels, *shape))
    return torch.from_numpy(scipy.ndimage.gaussian_filter(noise, (0, 0, *[1.5] * len(shape))).astype(np.float32))


def changed(
    augmentation: Augmentation, image: torch.Tensor, steps: tuple[float, ...], number: float = 1.0
) -> np.ndarray:
    return augmentation(image, None, [Drawn(number)], steps)[0][0].numpy()  # type: ignore[list-item]


@given(shapes, seeds)
def test_with_everything_off_image_and_label_stay_what_they_are(shape, seed):
    image, labels = image_of(shape, seed, 2), torch.arange(math.prod(shape)).reshape(1, *shape)
    same, still, _ = STILL(image, labels, [generator(seed, 0, 0)], [1.0] * len(shape))
    assert_allclose(same, image, atol=1e-6)
    assert_array_equal(still, labels)
    never = Augmentation(probability=0)(image, labels, [generator(seed, 0, 0)], [1.0] * len(shape))
    assert_allclose(never[0], image, atol=1e-6)
    assert_array_equal(never[1], labels)


@pytest.mark.parametrize("shape", [(7, 10), (5, 6, 8)])
def test_a_flip_is_that_of_the_array(shape):
    image = image_of(shape)
    labels = torch.arange(math.prod(shape)).reshape(1, *shape)
    for axis in range(len(shape)):
        flipping = Augmentation(rotation=0, scale=0, shift=0, flips=(axis,), contrast=0, brightness=0, gamma=0, noise=0)
        flipped, moved, _ = flipping(image, labels, [Drawn()], [1.0] * len(shape))  # type: ignore[list-item]
        assert_allclose(flipped, image.flip(axis + 2), atol=1e-5)
        assert_array_equal(moved, labels.flip(axis + 1))


def test_a_quarter_turn_is_that_of_the_array():
    image = image_of((9, 9))
    turning = Augmentation(rotation=90, scale=0, shift=0, probability=1, contrast=0, brightness=0, gamma=0, noise=0)
    for number in (1.0, -1.0):
        assert_allclose(
            changed(turning, image, (1, 1), number), np.rot90(image[0].numpy(), -number, axes=(1, 2)), atol=1e-5
        )


def test_a_quarter_turn_is_one_in_mm_where_voxels_are_no_squares():
    """20 x 10 voxels of 1 x 2 mm cover a square: turned in mm, rows and columns change places."""
    rows, columns = (np.arange(20) + 0.5) * 1.0 - 10, (np.arange(10) + 0.5) * 2.0 - 10
    y, x = np.meshgrid(rows, columns, indexing="ij")
    plane = torch.from_numpy((3 * y + 0.5 * x).astype(np.float32))[None, None]
    turning = Augmentation(rotation=90, scale=0, shift=0, probability=1, contrast=0, brightness=0, gamma=0, noise=0)
    turned = changed(turning, plane, (1.0, 2.0))[0]
    inner = (slice(1, -1), slice(1, -1))  # beyond the outermost voxel centres the edge goes on
    # At (y, x) stands what stood at (-x, y).
    assert_allclose(turned[inner], (-3 * x + 0.5 * y)[inner], atol=1e-3)


@given(seeds, st.floats(5, 60))
def test_a_rotation_of_a_picture_changes_no_distance(seed, degrees):
    index = np.stack(np.meshgrid(np.arange(12), np.arange(15), indexing="ij"))
    steps = np.array([2.0, 0.8])
    places = ((index - np.array([5.5, 7]).reshape(2, 1, 1)) * steps.reshape(2, 1, 1)).astype(np.float32)
    turning = Augmentation(
        rotation=degrees, scale=0, shift=0, probability=1, contrast=0, brightness=0, gamma=0, noise=0
    )
    read, *_ = turning(torch.from_numpy(places)[None], None, [generator(seed, 0, 0)], steps.tolist())
    middle = (slice(5, 7), slice(6, 9))
    old, new = read[0].numpy()[:, *middle].reshape(2, -1), places[:, *middle].reshape(2, -1)
    assert_allclose(np.linalg.norm(old, axis=0), np.linalg.norm(new, axis=0), atol=1e-3)


@given(seeds)
def test_a_rotation_of_an_anisotropic_volume_keeps_distances_in_mm(seed):
    """Reading coordinates instead of intensities: the map from new to old places is a rotation in mm."""
    shape, steps = (8, 10, 12), np.array([3.0, 1.0, 0.5])
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    places = ((index - (np.array(shape) - 1).reshape(3, 1, 1, 1) / 2) * steps.reshape(3, 1, 1, 1)).astype(np.float32)
    turning = Augmentation(rotation=20, scale=0, shift=0, probability=1, contrast=0, brightness=0, gamma=0, noise=0)
    read, *_ = turning(torch.from_numpy(places)[None], None, [generator(seed, 0, 0)], steps.tolist())
    middle = (slice(3, 5), slice(4, 6), slice(5, 7))
    old, new = read[0].numpy()[:, *middle].reshape(3, -1), places[:, *middle].reshape(3, -1)
    matrix = np.linalg.lstsq(new.T, old.T, rcond=None)[0].T
    assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-3)
    assert np.linalg.det(matrix) > 0.99
    assert_allclose(matrix @ new, old, atol=1e-3)


def test_a_scale_of_a_half_more_reads_from_one_and_a_half_as_far():
    ramp = torch.linspace(-1, 1, 41)[None, None, :, None].expand(1, 1, 41, 9).contiguous()
    scaling = Augmentation(rotation=0, scale=0.5, shift=0, probability=1, contrast=0, brightness=0, gamma=0, noise=0)
    scaled = changed(scaling, ramp, (1, 1))[0, :, 4]
    assert_allclose(scaled, (1.5 * torch.linspace(-1, 1, 41)).clamp(-1, 1), atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 12), (4, 8, 12)])
def test_a_shift_by_a_quarter_of_the_patch_is_that_of_the_array(shape):
    image = image_of(shape)
    shifting = Augmentation(rotation=0, scale=0, shift=0.25, probability=1, contrast=0, brightness=0, gamma=0, noise=0)
    shifted = changed(shifting, image, (1.0,) * len(shape))
    by = [size // 4 for size in shape]
    there = tuple(slice(0, size - move) for size, move in zip(shape, by, strict=True))
    here = tuple(slice(move, None) for move in by)
    assert_allclose(shifted[:, *there], image[0].numpy()[:, *here], atol=1e-5)


@given(st.sampled_from([((24, 20), (1.0, 1.5)), ((12, 16, 14), (2.0, 1.0, 1.5))]), seeds)
def test_a_structure_stays_under_its_label(grid, seed):
    shape, steps = grid
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    middle = np.array([size * 0.45 for size in shape]).reshape(-1, *[1] * len(shape))
    blob = (np.sqrt((((index - middle) / (np.array(shape).reshape(middle.shape) / 4)) ** 2).sum(axis=0)) < 1).astype(
        np.float32
    )
    image = torch.from_numpy(blob)[None, None]
    moved, labels, _ = MOVING(image, torch.from_numpy(blob)[None].long(), [generator(seed, 0, 0)], steps)
    under = labels[0].bool()
    assert under.any()
    # The label is that of the nearest voxel; of an image's voxel the nearest has at least this share.
    share = 0.5 ** len(shape) - 1e-3
    assert moved[0, 0][under].min() > share
    assert moved[0, 0][~under].max() < 1 - share


@given(shapes, seeds)
def test_a_moved_label_is_one_of_those_that_were_there_and_outside_is_background(shape, seed):
    labels = torch.from_numpy(np.random.default_rng(seed).choice([3, 7, 200], size=(1, *shape)).astype(np.uint8))
    _, moved, _ = MOVING(image_of(shape), labels, [generator(seed, 0, 0)], [1.0] * len(shape))
    assert moved.dtype == labels.dtype
    assert set(moved.unique().tolist()) <= {0, 3, 7, 200}


@given(shapes, seeds, st.integers(0, 3))
def test_a_sample_is_changed_alike_alone_and_in_any_batch(shape, seed, place):
    images = image_of(shape, seed, channels=2, batch=4)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (4, *shape)))
    steps = [1.0 + axis for axis in range(len(shape))]
    batch, moved, _ = EVERYTHING(images, labels, [generator(seed, 0, n) for n in range(4)], steps)
    one = slice(place, place + 1)
    alone, alone_moved, _ = EVERYTHING(images[one], labels[one], [generator(seed, 0, place)], steps)
    assert_allclose(batch[one], alone, atol=2e-5)
    assert (moved[one] != alone_moved).float().mean() < 0.02  # a voxel halfway between two may fall to either side


@given(shapes, seeds)
def test_the_same_generator_gives_the_same_change_and_another_gives_another(shape, seed):
    image, labels = image_of(shape, seed), torch.zeros(1, *shape, dtype=torch.long)
    always = Augmentation(probability=1)
    first, again, other = (
        always(image, labels, [generator(seed, epoch, 0)], [1.0] * len(shape))[0] for epoch in (0, 0, 1)
    )
    assert_array_equal(first, again)
    assert abs(first - other).max() > 1e-3


def test_the_source_is_not_changed():
    image, labels = image_of((9, 12)), torch.ones(1, 9, 12, dtype=torch.long)
    before = image.clone()
    Augmentation(probability=1)(image, labels, [generator(0, 0, 0)], (1.0, 1.0))
    assert_array_equal(image, before)
    assert labels.all()


def test_intensity_changes_are_those_that_the_settings_name():
    image = image_of((9, 12), channels=2)
    off = {"rotation": 0.0, "scale": 0.0, "contrast": 0.0, "brightness": 0.0, "gamma": 0.0, "noise": 0.0}
    still = {"probability": 1.0}
    mean = image.mean(dim=(2, 3), keepdim=True)
    contrast = Augmentation(**{**off, **still, "contrast": 0.5})
    assert_allclose(changed(contrast, image, (1, 1)), ((image - mean) * 1.5 + mean)[0], atol=1e-5)
    brightness = Augmentation(**{**off, **still, "brightness": 0.5})
    assert_allclose(changed(brightness, image, (1, 1)), image[0] + 0.5, atol=1e-5)
    gamma = Augmentation(**{**off, **still, "gamma": 1.0})
    low, high = image.amin(dim=(2, 3), keepdim=True), image.amax(dim=(2, 3), keepdim=True)
    for number, exponent in ((1.0, 2.0), (-1.0, 0.5)):
        expected = ((image - low) / (high - low)) ** exponent * (high - low) + low
        assert_allclose(changed(gamma, image, (1, 1), number), expected[0], atol=1e-4)


def test_the_image_goes_on_beyond_its_edge_and_the_label_does_not():
    image, labels = torch.full((1, 1, 8, 6), 5.0), torch.ones(1, 8, 6, dtype=torch.long)
    shifting = Augmentation(rotation=0, scale=0, shift=0.5, probability=1, contrast=0, brightness=0, gamma=0, noise=0)
    moved, background, _ = shifting(image, labels, [Drawn()], (1.0, 1.0))  # type: ignore[list-item]
    assert_allclose(moved, 5)
    assert background[0, :4, :3].all()
    assert not background[0, 4:].any()
    assert not background[0, :, 3:].any()


def test_noise_has_at_most_the_deviation_asked_for_and_differs_between_samples():
    flat = torch.zeros(2, 1, 64, 64)
    noisy, *_ = Augmentation(rotation=0, scale=0, contrast=0, brightness=0, gamma=0, noise=0.5, probability=1)(
        flat, None, [generator(0, 0, n) for n in range(2)], (1.0, 1.0)
    )
    assert 0 < noisy.std() < 0.55
    assert abs(np.corrcoef(noisy.reshape(2, -1))[0, 1]) < 0.05


def test_half_of_many_samples_are_flipped_and_the_share_of_turned_ones_is_the_probability():
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    flipping = Augmentation(rotation=0, scale=0, flips=(1,), contrast=0, brightness=0, gamma=0, noise=0)
    flipped = sum(flipping(image, None, [generator(0, 0, n)], (1, 1))[0][0, 0, 0, 0].item() > 1 for n in range(200))
    assert 75 < flipped < 125
    turning = Augmentation(rotation=45, scale=0, contrast=0, brightness=0, gamma=0, noise=0, probability=0.3)
    turned = sum(not torch.equal(turning(image, None, [generator(0, 0, n)], (1, 1))[0], image) for n in range(200))
    assert 35 < turned < 85
