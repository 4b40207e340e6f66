from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.transforms import _augment_intensity
from known_generators import generators, known_generators, smooth

shapes = st.sampled_from([(9, 12), (6, 8, 7)])
seeds = st.integers(0, 200)
few = settings(max_examples=15)


@few
@given(shapes, seeds, st.floats(0, 1))
def test_contrast_spreads_intensities_about_the_mean_of_their_channel(shape, seed, share):
    image = smooth(shape, seed, channels=2)
    axes = tuple(range(2, image.ndim))
    mean = image.mean(dim=axes, keepdim=True)
    changed = _augment_intensity.contrast(image, 0.5, known_generators(share))
    assert_allclose(changed, (image - mean) * (0.5 + share) + mean, atol=1e-5)
    assert_allclose(changed.mean(dim=axes), image.mean(dim=axes), atol=1e-5)


@pytest.mark.parametrize(("share", "expected"), [(1, 0.5), (0.5, 0), (0, -0.5)])
def test_brightness_is_added(share, expected):
    image = smooth((9, 12), channels=2)
    assert_allclose(_augment_intensity.brightness(image, 0.5, known_generators(share)), image + expected, atol=1e-6)


@few
@given(shapes, seeds)
def test_gamma_keeps_the_range_and_the_order_of_every_channel(shape, seed):
    image = 40 + 10 * smooth(shape, seed, channels=2)
    changed = _augment_intensity.gamma(image, 1.0, generators(seed))
    axes = tuple(range(2, image.ndim))
    assert_allclose(changed.amin(dim=axes), image.amin(dim=axes), rtol=1e-4)
    assert_allclose(changed.amax(dim=axes), image.amax(dim=axes), rtol=1e-4)
    for old, new in zip(image[0], changed[0], strict=True):
        rising = new.flatten()[old.flatten().argsort()]
        assert (rising.diff() > -1e-4).all()


@pytest.mark.parametrize(("share", "exponent"), [(1.0, 2.0), (0.5, 1.0), (0.0, 0.5)])
def test_the_exponent_of_gamma_lies_between_one_over_one_more_and_one_more(share, exponent):
    image = smooth((9, 12), channels=2)
    low, high = image.amin(dim=(2, 3), keepdim=True), image.amax(dim=(2, 3), keepdim=True)
    expected = ((image - low) / (high - low)) ** exponent * (high - low) + low
    assert_allclose(_augment_intensity.gamma(image, 1.0, known_generators(share)), expected, atol=1e-5)


def test_gamma_leaves_an_even_image_alone():
    assert_allclose(_augment_intensity.gamma(torch.full((1, 1, 6, 6), 3.0), 1.0, generators(0)), 3)


def test_noise_has_the_deviation_that_was_sampled_and_differs_between_samples():
    flat = torch.zeros(3, 1, 128, 128)
    noisy = _augment_intensity.noise(flat, 0.5, generators(0, 3))
    expected = [np.random.default_rng((0, n)).uniform(0, 0.5) for n in range(3)]
    assert_allclose(noisy.flatten(1).std(dim=1), expected, rtol=0.03)
    assert_allclose(noisy.flatten(1).mean(dim=1), 0, atol=0.02)
    assert abs(np.corrcoef(noisy.flatten(1)) - np.eye(3)).max() < 0.03


@few
@given(shapes, seeds, st.lists(st.floats(0.3, 2.0), min_size=2, max_size=2))
def test_smoothing_is_that_of_scipy_with_a_width_for_each_sample(shape, seed, widths):
    image = smooth(shape, seed, channels=2, batch=2)
    ours = _augment_intensity.gaussian_smooth(image, np.array(widths))
    for n, width in enumerate(widths):
        axes = tuple(range(1, image.ndim - 1))
        theirs = scipy.ndimage.gaussian_filter(
            image[n].double().numpy(), width, mode="nearest", radius=int(np.ceil(3 * width)), axes=axes
        )
        assert_allclose(ours[n], theirs, atol=1e-5)


def test_smoothing_by_nothing_changes_nothing():
    image = smooth((9, 12), batch=2)
    assert_allclose(_augment_intensity.gaussian_smooth(image, np.array([0.0, 0.0])), image)


@few
@given(shapes, seeds)
def test_blur_takes_detail_away_and_leaves_an_even_image_alone(shape, seed):
    image = smooth(shape, seed)
    assert _augment_intensity.gaussian_blur(image, 2.0, generators(seed)).std() < image.std()
    assert_allclose(_augment_intensity.gaussian_blur(torch.full_like(image, 4.0), 2.0, generators(seed)), 4, rtol=1e-5)


def test_low_resolution_takes_a_pattern_finer_than_its_voxels_away_and_keeps_a_coarse_one():
    """Voxels twice as long cannot hold a wave of 2.5 old voxels; one of 16 they can."""
    index = np.arange(80)
    fine, coarse = np.cos(2 * np.pi * index / 2.5), np.cos(2 * np.pi * index / 16)
    for wave, kept in ((fine, (0.0, 0.25)), (coarse, (0.85, 1.05))):
        image = torch.from_numpy(np.add.outer(wave, wave).astype(np.float32))[None, None]
        changed = _augment_intensity.low_resolution(image, 1.0, known_generators(1.0))
        share = (changed[..., 10:-10, 10:-10].std() / image[..., 10:-10, 10:-10].std()).item()
        assert kept[0] <= share <= kept[1]


@few
@given(shapes, seeds)
def test_low_resolution_keeps_an_even_image_and_the_mean(shape, seed):
    flat = torch.full((1, 2, *shape), 3.0)
    assert_allclose(_augment_intensity.low_resolution(flat, 2.0, generators(seed)), 3, rtol=1e-5)
    image = smooth(shape, seed)
    assert abs(_augment_intensity.low_resolution(image, 1.0, generators(seed)).mean() - image.mean()) < 0.25


large_shapes = st.sampled_from([(20, 24), (10, 12, 14)])


@few
@given(large_shapes, seeds, st.floats(0.1, 1.0))
def test_what_is_cut_out_is_a_box_no_larger_than_asked_for_filled_with_the_mean(shape, seed, share):
    image = smooth(shape, seed, channels=2)
    changed = _augment_intensity.cutout(image, share, generators(seed))
    covered = np.argwhere((changed != image)[0].any(dim=0).numpy())
    if len(covered):
        low, high = covered.min(axis=0), covered.max(axis=0) + 1
        assert (high - low <= np.ceil(share * np.array(shape)) + 1).all()
        box = (0, slice(None), *[slice(int(a), int(b)) for a, b in zip(low, high, strict=True)])
        mean = image.mean(dim=tuple(range(2, image.ndim)))[0]
        assert_allclose(changed[box].flatten(1), mean[:, None].expand(2, changed[box][0].numel()), atol=1e-6)


@few
@given(large_shapes, seeds, st.floats(0.2, 2))
def test_an_image_mixed_with_itself_is_itself(shape, seed, alpha):
    image = smooth(shape, seed, batch=3)
    for method in (_augment_intensity.mixup, _augment_intensity.cutmix):
        mixed, share = method(image, torch.arange(3), alpha, np.random.default_rng(seed))
        assert 0 <= share <= 1
        assert_allclose(mixed, image, atol=1e-5)


@few
@given(large_shapes, seeds)
def test_cutmix_gives_each_voxel_to_one_of_the_two_and_counts_them(shape, seed):
    image = torch.zeros(2, 1, *shape)
    image[1] = 1
    mixed, share = _augment_intensity.cutmix(image, torch.tensor([1, 0]), 1.0, np.random.default_rng(seed))
    assert set(mixed.unique().tolist()) <= {0.0, 1.0}
    assert mixed[0].mean() == pytest.approx(1 - share, abs=1e-5)
    assert mixed[1].mean() == pytest.approx(share, abs=1e-5)


def test_the_shares_of_mixup_follow_the_beta_distribution():
    image = torch.zeros(2, 1, 4, 4)
    shares = [
        _augment_intensity.mixup(image, torch.tensor([1, 0]), 0.4, np.random.default_rng(n))[1] for n in range(500)
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)  # of Beta(a, a)


def test_partners_are_a_permutation_of_the_batch():
    order = _augment_intensity.mixing_partners(8, np.random.default_rng(0), torch.zeros(8, 1))
    assert_array_equal(order.sort().values, torch.arange(8))


@few
@given(shapes, seeds)
def test_sharpening_is_an_unsharp_mask_as_scipy_computes_it(shape, seed):
    image = smooth(shape, seed, channels=2)
    changed = _augment_intensity.sharpen(image, 2.0, known_generators(0.5))
    sigma = (0, 0, *[1.0] * len(shape))
    blurred = scipy.ndimage.gaussian_filter(image.numpy(), sigma, mode="nearest", truncate=3.0)
    assert_allclose(changed, image + (image - blurred), atol=1e-4)
    flat = torch.full((1, 2, *shape), 3.0)
    assert_allclose(_augment_intensity.sharpen(flat, 2.0, known_generators(1.0)), flat, atol=1e-5)


@few
@given(shapes, seeds)
def test_equalising_keeps_the_range_and_the_order_of_every_channel_and_none_of_it_changes_nothing(shape, seed):
    image = 40 + 10 * smooth(shape, seed, channels=2)
    changed = _augment_intensity.equalise(image, 1.0, known_generators(1.0))
    axes = tuple(range(2, image.ndim))
    assert_allclose(changed.amax(dim=axes), image.amax(dim=axes), rtol=1e-5)
    assert_allclose(changed.amin(dim=axes), image.amin(dim=axes), rtol=1e-5)
    for before, after in zip(image.flatten(2)[0], changed.flatten(2)[0], strict=True):
        assert (after[before.argsort()].diff() >= -1e-4).all()
    assert torch.equal(_augment_intensity.equalise(image, 1.0, known_generators(0.0)), image)


def test_all_greys_of_an_equalised_image_are_about_equally_frequent_and_a_plain_background_stays_plain():
    greys = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 200, 200)).astype(np.float32))
    changed = _augment_intensity.equalise(greys, 1.0, known_generators(1.0))[0, 0]
    unit = (changed - changed.min()) / (changed.max() - changed.min())
    counts = torch.histc(unit, 10, 0, 1) / unit.numel()
    assert counts.std() < 0.06  # 0.12 before: greys that are more frequent than three times the mean stay so
    plain = torch.zeros(1, 1, 100, 100)
    plain[..., 40:60, 40:60] = torch.rand(20, 20)
    spread = _augment_intensity.equalise(plain, 1.0, known_generators(1.0))
    assert spread[0, 0, 0, 0] < 0.05
    assert torch.isfinite(_augment_intensity.equalise(torch.ones(1, 1, 8, 8), 1.0, known_generators(1.0))).all()


def test_each_sample_is_equalised_by_its_own_greys():
    images = torch.cat([smooth((9, 12), 0), 5 * smooth((9, 12), 1)])
    together = _augment_intensity.equalise(images, 1.0, [*known_generators(1.0), *known_generators(1.0)])
    assert_allclose(together[1:], _augment_intensity.equalise(images[1:], 1.0, known_generators(1.0)), atol=1e-5)


def test_as_many_boxes_are_cut_out_as_asked_for_and_the_first_is_the_same():
    image = smooth((64, 64))
    one, three = (_augment_intensity.cutout(image, 0.2, generators(3), count) for count in (1, 3))
    covered = [scipy.ndimage.label(((changed != image)[0, 0]).numpy())[1] for changed in (one, three)]
    assert covered[0] == 1
    assert 1 < covered[1] <= 3
    assert ((one == image) | (three != image)).all()
