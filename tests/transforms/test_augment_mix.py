from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from drawn import generators, smooth
from isocenter.transforms.augment_intensity import cutmix, cutout, mixup, partners

shapes = st.sampled_from([(20, 24), (10, 12, 14)])
seeds = st.integers(0, 200)
few = settings(max_examples=15)


@few
@given(shapes, seeds, st.floats(0.1, 1.0))
def test_what_is_cut_out_is_a_box_no_larger_than_asked_for_filled_with_the_mean(shape, seed, share):
    image = smooth(shape, seed, channels=2)
    changed = cutout(image, share, generators(seed))
    covered = np.argwhere((changed != image)[0].any(dim=0).numpy())
    if len(covered):
        low, high = covered.min(axis=0), covered.max(axis=0) + 1
        assert (high - low <= np.ceil(share * np.array(shape)) + 1).all()
        box = (0, slice(None), *[slice(int(a), int(b)) for a, b in zip(low, high, strict=True)])
        mean = image.mean(dim=tuple(range(2, image.ndim)))[0]
        assert_allclose(changed[box].flatten(1), mean[:, None].expand(2, changed[box][0].numel()), atol=1e-6)


@few
@given(shapes, seeds, st.floats(0.2, 2))
def test_an_image_mixed_with_itself_is_itself(shape, seed, alpha):
    image = smooth(shape, seed, batch=3)
    for method in (mixup, cutmix):
        mixed, share = method(image, torch.arange(3), alpha, np.random.default_rng(seed))
        assert 0 <= share <= 1
        assert_allclose(mixed, image, atol=1e-5)


@few
@given(shapes, seeds)
def test_cutmix_gives_each_voxel_to_one_of_the_two_and_counts_them(shape, seed):
    image = torch.zeros(2, 1, *shape)
    image[1] = 1
    mixed, share = cutmix(image, torch.tensor([1, 0]), 1.0, np.random.default_rng(seed))
    assert set(mixed.unique().tolist()) <= {0.0, 1.0}
    assert mixed[0].mean() == pytest.approx(1 - share, abs=1e-5)
    assert mixed[1].mean() == pytest.approx(share, abs=1e-5)


def test_the_shares_of_mixup_follow_the_beta_distribution():
    image = torch.zeros(2, 1, 4, 4)
    shares = [mixup(image, torch.tensor([1, 0]), 0.4, np.random.default_rng(n))[1] for n in range(500)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)  # of Beta(a, a)


def test_partners_are_a_permutation_of_the_batch():
    order = partners(8, np.random.default_rng(0), torch.zeros(8, 1))
    assert_array_equal(order.sort().values, torch.arange(8))
