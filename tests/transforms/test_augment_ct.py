from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.transforms import _augment_artefacts
from known_generators import generators

shapes = st.sampled_from([(48, 48), (40, 48, 9)])
seeds = st.integers(0, 200)
few = settings(max_examples=12)


def slab(shape: tuple[int, ...]) -> torch.Tensor:
    """Water in air: a cylinder through all slices, 0 within and -2 around it."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape[:2]], indexing="ij")
    disc = np.where(np.hypot(y, x) < 0.7, 0.0, -2.0).astype(np.float32)
    return torch.from_numpy(disc).reshape(1, 1, *shape[:2], *[1] * (len(shape) - 2)).expand(1, 1, *shape).clone()


@pytest.mark.parametrize("shape", [(128, 128), (96, 100, 8)])
def test_noise_of_a_low_dose_has_the_deviation_asked_for_where_the_body_is_even(shape):
    image = torch.ones(1, 1, *shape)
    image[0, 0, 0] = 0  # a row of air: thickness is measured from there
    noisy = _augment_artefacts.dose_noise(image, 0.4, noise_generators())
    assert (noisy - image)[0, 0, 30:].std().item() == pytest.approx(0.4, rel=0.05)
    assert abs((noisy - image).mean()) < 0.01


def noise_generators() -> list[np.random.Generator]:
    """The deviation is the largest, the noise any."""

    class Largest:
        def uniform(self, low: float, high: float) -> float:
            return high

        def integers(self, high: int) -> int:
            return 12345

    return [Largest()]  # type: ignore[list-item]


def test_its_grain_follows_the_ramp_of_the_reconstruction():
    """Power grows in proportion to the frequency, and falls with the kernel: nothing at 0, most in the middle."""
    image = torch.ones(1, 1, 256, 256)
    grain = (_augment_artefacts.dose_noise(image + torch.eye(256) * 1e-3, 1.0, noise_generators()) - image)[
        0, 0
    ].numpy()
    power = np.abs(np.fft.fft2(grain)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    rings = [power[abs(frequency - f) < 0.01].mean() for f in (0.02, 0.05, 0.1, 0.21, 0.45)]
    assert rings[0] < rings[1] < rings[2] < rings[3] > rings[4]
    assert rings[2] / rings[1] == pytest.approx(2 * np.exp(-(0.1**2 - 0.05**2) / 0.09), rel=0.15)


def test_it_is_stronger_in_the_body_than_beside_it():
    image = slab((64, 64))
    difference = _augment_artefacts.dose_noise(image, 0.5, noise_generators()) - image
    assert difference[0, 0, 24:40, 24:40].std() > 1.5 * difference[0, 0, :6, :6].std()


@few
@given(shapes, seeds)
def test_metal_is_as_bright_as_the_image_gets_and_nothing_leaves_its_range(shape, seed):
    image = slab(shape)
    image[0, 0, 20, 20] = 1.0
    changed = _augment_artefacts.metal(image, 2.0, generators(seed))
    assert changed.amax() == 1
    assert (changed == 1).sum() > 1
    assert changed.amin() >= image.amin()


def test_streaks_are_the_same_in_opposite_directions_and_weaken_with_distance():
    rows = np.linspace(-1, 1, 101)
    image = torch.from_numpy(np.add.outer(rows, rows).astype(np.float32) * 1e-3)[None, None]
    image[0, 0, 0, 0], image[0, 0, -1, -1] = -50, 50  # a wide range, so that nothing is cut off
    changed = _augment_artefacts.metal(image, 1.0, centred())
    streaks = ((changed - image) / image.std())[0, 0].numpy()
    inside = changed[0, 0].numpy() == 50
    assert inside[50, 50]
    away = np.where(inside, 0, streaks)
    away[0, 0] = away[-1, -1] = 0
    assert_allclose(away, away[::-1, ::-1], atol=1e-3)
    distance = np.hypot(*np.meshgrid(np.arange(101) - 50, np.arange(101) - 50))
    near, far = (np.sqrt((away[abs(distance - r) < 2] ** 2).mean()) for r in (10, 40))
    assert near / far == pytest.approx(4, rel=0.2)


def centred() -> list[np.random.Generator]:
    """Metal in the middle, with any streaks."""
    source = np.random.default_rng(3)

    class Middle:
        def uniform(self, low: float, high: float) -> float:
            return (low + high) / 2 if high < 1 else float(source.uniform(low, high))

        def normal(self) -> float:
            return float(source.normal())

    return [Middle()]  # type: ignore[list-item]


def test_streaks_stay_in_the_slices_of_the_metal():
    image = slab((40, 40, 21))
    image[0, 0, 20, 20] = 4.0
    difference = (_augment_artefacts.metal(image, 1.0, generators(5)) - image)[0, 0]
    by_slice = difference.abs().mean(dim=(0, 1))
    assert by_slice.max() > 20 * by_slice.min()
