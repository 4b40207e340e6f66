from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.errors import PlanError
from hilum.transforms import _augment_style, random_draws
from hilum.transforms.augment import Augmentation
from hilum.transforms.augment_following import LabelMap, NumberMap
from known_generators import generators, known_generators, smooth

shapes = st.sampled_from([(9, 12), (6, 8, 7)])
seeds = st.integers(0, 200)
few = settings(max_examples=12)
PASTING = Augmentation(rotation=0, scale=0, contrast=0, brightness=0, gamma=0, noise=0, paste=1.0)


@few
@given(shapes, seeds)
def test_a_style_keeps_mean_and_deviation_of_each_channel_and_none_of_it_changes_nothing(shape, seed):
    image, axes = 3 + smooth(shape, seed, channels=2), tuple(range(2, 2 + len(shape)))
    changed = _augment_style.style(image, 0.9, generators(seed), 2 * smooth(shape, seed + 1, channels=2))
    assert_allclose(changed.mean(dim=axes), image.mean(dim=axes), atol=1e-4)
    assert_allclose(changed.std(dim=axes), image.std(dim=axes), rtol=1e-3)
    assert_allclose(_augment_style.style(image, 0.0, generators(seed)), image, atol=1e-4)


def test_the_extreme_curve_is_a_falling_cube_of_the_range():
    image = torch.linspace(0, 1, 12).reshape(1, 1, 3, 4)
    changed = _augment_style.style(image, 1.0, known_generators(1.0))
    expected = 1 - image**3
    expected = (expected - expected.mean()) / expected.std() * image.std() + image.mean()
    assert_allclose(changed, expected, atol=1e-5)


@few
@given(shapes, seeds)
def test_low_frequencies_get_the_amplitude_of_the_other_image_and_high_ones_keep_theirs(shape, seed):
    image, other = (smooth(shape, seed + n, channels=2)[0] for n in (0, 1))
    axes = tuple(range(1, image.ndim))
    changed, own, foreign = (
        np.fft.fftn(one.numpy(), axes=axes) for one in (_augment_style._with_amplitude(image, other, 0.2), image, other)
    )
    frequencies = np.meshgrid(*(np.abs(np.fft.fftfreq(size)) for size in shape), indexing="ij")
    low = np.max(frequencies, axis=0) <= 0.2
    assert_allclose(np.abs(changed)[:, low], np.abs(foreign)[:, low], atol=1e-3)
    assert_allclose(np.abs(changed)[:, ~low], np.abs(own)[:, ~low], atol=1e-3)
    assert_allclose(_augment_style._with_amplitude(image, image, 0.2), image, atol=1e-4)


def test_speckle_grows_with_the_signal_and_leaves_the_darkest_voxels_as_they_are():
    image = torch.cat([torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64), torch.full((1, 1, 64, 64), 3.0)], dim=2)
    changed = _augment_style.speckle(image, 0.2, generators(0))
    dark, grey, bright = ((changed - image)[0, 0, 64 * n : 64 * (n + 1)] for n in range(3))
    assert not dark.any()
    assert bright.std() / grey.std() == pytest.approx(3, rel=0.1)
    neighbours = np.corrcoef(bright[:, 1:].flatten(), bright[:, :-1].flatten())[0, 1]
    assert neighbours > 0.3  # grains, not single voxels


@given(st.floats(0, 1), st.floats(0.1, 1), st.integers(0, 200))
def test_colours_turn_and_fade_as_the_hue_says_and_greys_stay(share, strength, seed):
    colours = torch.from_numpy(np.random.default_rng(seed).uniform(size=(1, 3, 4, 4)).astype(np.float32))
    changed = _augment_style.colour(colours, strength, known_generators(share))
    assert_allclose(changed.mean(dim=1), colours.mean(dim=1), atol=1e-5)
    apart, before = (one - one.mean(dim=1, keepdim=True) for one in (changed, colours))
    factor = 1 + strength * (2 * share - 1)
    assert_allclose(apart.norm(dim=1), factor * before.norm(dim=1), atol=1e-4)
    grey = torch.full((1, 3, 4, 4), 0.4)
    assert_allclose(_augment_style.colour(grey, strength, known_generators(share)), grey, atol=1e-6)


def test_a_third_of_a_whole_turn_of_the_hue_brings_red_to_green():
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    turned = red
    for _ in range(2):  # 60 degrees each; the factor of saturation is taken out again
        turned = _augment_style.colour(turned, 1.0, known_generators(1.0))
        turned = turned.mean(dim=1, keepdim=True) + (turned - turned.mean(dim=1, keepdim=True)) / 2
    hue = colorsys.rgb_to_hsv(*turned.flatten().tolist())[0]
    assert hue == pytest.approx(1 / 3, abs=1e-5)


def test_a_structure_comes_with_its_mask_and_all_else_stays():
    images = torch.stack([torch.zeros(1, 12, 12), torch.ones(1, 12, 12)])
    labels = torch.zeros(2, 12, 12, dtype=torch.uint8)
    labels[1, 4:8, 4:8] = 2
    draws = [random_draws.sample_generator(n, 0, 0) for n in range(2)]
    changed, moved, _ = PASTING(images, labels, draws, (1.0, 1.0))
    assert torch.equal(moved[0], labels[1])
    came = changed[0, 0] == 1
    assert came[4:8, 4:8].all() and int(came.sum()) in {(4 + 2 * margin) ** 2 for margin in range(4)}
    assert torch.equal(changed[1], images[1])  # its partner has none
    moving, changing = PASTING.parts
    assert (moving.paste, changing.paste) == (0, 0)


def test_nothing_is_pasted_without_a_mask():
    images, numbers = torch.zeros(2, 1, 4, 4), NumberMap(torch.zeros(2, 1, 4, 4), (0,))
    draws = [random_draws.sample_generator(n, 0, 0) for n in range(2)]
    with pytest.raises(PlanError, match="pasted with its mask"):
        PASTING.augment_with_target(images, numbers, draws, (1.0, 1.0))
    assert PASTING.augment_with_target(images[:1], LabelMap(images[:1, 0]), draws[:1], (1.0, 1.0))[0] is not None
