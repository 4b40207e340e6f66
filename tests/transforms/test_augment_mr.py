from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.transforms import _augment_artefacts
from known_generators import KnownGenerator, generators, smooth

shapes = st.sampled_from([(32, 40), (14, 20, 16)])
seeds = st.integers(0, 200)
few = settings(max_examples=12)


def anatomy(shape: tuple[int, ...]) -> torch.Tensor:
    """A bright box in the dark, as a magnitude image has it: 0 where there is no signal."""
    image = torch.zeros(1, 1, *shape)
    image[(0, 0, *[slice(size // 4, 3 * size // 4) for size in shape])] = 2.0
    return image


@few
@given(shapes, seeds, st.floats(-3, 3))
def test_a_bias_field_is_a_smooth_factor_of_mean_one_on_the_signal(shape, seed, lowest):
    """Of an even image with one dark voxel the factor can be read off; where no signal is there is none after it."""
    image = torch.full((1, 1, *shape), lowest + 2)
    dark = (0, 0, *[0] * len(shape))
    image[dark] = lowest
    changed = _augment_artefacts.bias_field(image, 0.3, generators(seed))
    assert changed[dark] == pytest.approx(lowest, abs=1e-6)
    factor = ((changed - lowest) / 2)[0, 0].numpy().astype(float)
    assert factor.ravel()[1:].mean() == pytest.approx(1, abs=0.02)
    logarithm = np.log(factor.ravel()[1:])
    assert 0.09 < logarithm.std() < 0.31
    # A polynomial of degree 3: its fourth differences along any axis are nothing.
    inner = np.log(factor[tuple(slice(1, None) for _ in shape)])
    for axis in range(len(shape)):
        assert abs(np.diff(inner, 4, axis=axis)).max() < 1e-4


def test_all_channels_of_a_sample_see_the_same_field():
    image = torch.ones(1, 2, 16, 16)
    image[:, :, 0, 0] = 0
    changed = _augment_artefacts.bias_field(image, 0.3, generators(3))
    assert_allclose(changed[0, 0], changed[0, 1])


@few
@given(shapes, seeds, st.floats(-3, 3))
def test_motion_keeps_the_energy_and_at_least_the_mean_and_does_not_move_the_anatomy(shape, seed, lowest):
    image = anatomy(shape) + lowest
    moved = _augment_artefacts.motion(image, 3.0, generators(seed))
    energy = ((moved - lowest) ** 2).sum() / ((image - lowest) ** 2).sum()
    assert 0.9 < energy < 1.01  # lines of k-space change places, each with about its energy
    # The middle of k-space keeps the mean; the magnitude adds what would be negative between the ghosts.
    assert (moved.mean() - image.mean()) / (image.mean() - lowest) > -1e-4
    # The middle of k-space belongs to the position of the label: the centre of gravity stays.
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    before, after = (
        (index * (one[0, 0].numpy() - lowest)[..., None]).reshape(-1, len(shape)).sum(axis=0) / (one - lowest).sum()
        for one in (image, moved)
    )
    assert_allclose(after, before, atol=2)


def test_a_patient_who_moves_by_nothing_leaves_the_image_alone():
    image = smooth((20, 24), channels=2)
    assert_allclose(_augment_artefacts.motion(image, 0.0, generators(1)), image, atol=1e-5)


def test_motion_shifts_the_lines_that_came_later_in_phase_only():
    """Only the outer lines belong to the other position: what a low-pass shows is the same, what is fine is not."""
    image, rng = smooth((64, 64), seed=2), generators(4)
    difference = (_augment_artefacts.motion(image, 3.0, rng) - image)[0, 0]
    assert difference.abs().max() > 0.05
    assert abs(difference.mean()) < 0.1


@pytest.mark.parametrize("axis", [0, 1])
def test_a_ghost_lies_one_period_of_the_field_away(axis):
    """A point and every second line weaker by all: two points of half the signal, half a field apart."""
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 3, 5] = 1

    class Halved(KnownGenerator):
        def integers(self, low: int, high: int | None = None) -> int:
            return axis if high is None else low

    ghosts = _augment_artefacts.ghosting(image, 1.0, [Halved()])[0, 0]  # type: ignore[list-item]
    place = [3, 5]
    ghost = place.copy()
    ghost[axis] = (ghost[axis] + 8) % 16
    # The middle line is kept, which is one sixteenth of a point's signal, spread over the axis.
    assert ghosts[tuple(place)] == pytest.approx(0.5 + 1 / 16, abs=1e-5)
    assert ghosts[tuple(ghost)] == pytest.approx(0.5 - 1 / 16, abs=1e-5)
    assert ghosts.sum() < 1 + 1.0  # the rest is the even share of the middle line


@few
@given(shapes, seeds)
def test_ghosts_keep_the_mean_signal_where_nothing_turns_negative(shape, seed):
    image = anatomy(shape) + 5
    image[(0, 0, *[0] * len(shape))] = 0
    changed = _augment_artefacts.ghosting(image, 0.5, generators(seed))
    assert changed.mean() == pytest.approx(image.mean().item(), rel=0.02)


@few
@given(shapes, seeds)
def test_spikes_are_few_plane_waves(shape, seed):
    """In k-space, what was added is a handful of bright points."""
    image = smooth(shape, seed)
    added = (_augment_artefacts.spikes(image, 1.0, generators(seed)) - image)[0, 0]
    assert added.abs().max() <= image.std() + 1e-4
    # Windowed, a wave that fits not wholly into the field stays together.
    window = np.ones(())
    for size in shape:
        window = np.multiply.outer(window, np.hanning(size))
    spectrum = np.abs(np.fft.fftn(added.numpy() * window)) ** 2
    brightest = np.sort(spectrum.ravel())[::-1]
    assert brightest[: 6 * 5 ** len(shape)].sum() > 0.95 * brightest.sum()
    assert added.std() > 0
