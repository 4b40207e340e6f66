"""What differs between scanners and sites beyond contrast and gamma: curves of intensity, speckle, colour.

Each takes samples, strength and generators as in `_augment_intensity`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hilum.lazy import torch
from hilum.transforms import _augment_intensity, random_draws

if TYPE_CHECKING:
    from torch import Tensor

    from hilum.transforms.intensity import ChannelScale

# Largest half side of the low frequencies that are exchanged, as a share of all: Yang and Soatto, arXiv:2004.05498.
LOW = 0.09
# Standard deviation of a grain of speckle, in voxels; largest turn of the hue.
GRAIN = 0.7
HUE = math.pi / 3
# Optical densities of haematoxylin, eosin and DAB in red, green and blue: Ruifrok and Johnston, Anal Quant Cytol Histol
# 2001. The most light of 8 bits.
DYES = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
WHITE = 255.0


def style(
    images: Tensor, strength: float, generators: Sequence[np.random.Generator], others: Tensor | None = None
) -> Tensor:
    """A random smooth curve of intensities, or low frequencies of another image; mean and deviation are kept.

    others: (images, channels, *spatial) whose amplitudes every second sample gets; None: curves alone
    """
    axes = _augment_intensity.spatial_axes(images)
    changed = torch.stack(
        [
            _with_amplitude(image, others[int(rng.integers(len(others)))], LOW * strength * rng.random())
            if others is not None and rng.random() < 0.5
            else _along_curve(image, strength, rng)
            for image, rng in zip(images, generators, strict=True)
        ]
    )
    # A normalised image of another scanner has the same mean and deviation.
    mean, deviation = (one.mean(dim=axes, keepdim=True) for one in (images, changed))
    spread = changed.std(dim=axes, keepdim=True).clamp(min=1e-6)
    return (changed - deviation) / spread * images.std(dim=axes, keepdim=True) + mean


def _along_curve(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """(channels, *spatial) of a cubic Bernstein polynomial of each channel's range, falling with half the strength.

    Zhou et al., Models Genesis, arXiv:1908.06912
    """
    axes = tuple(range(1, image.ndim))
    low, high = image.amin(dim=axes, keepdim=True), image.amax(dim=axes, keepdim=True)
    width = (high - low).clamp(min=1e-6)
    place = (image - low) / width
    first, second = (1 - strength) * np.array([1 / 3, 2 / 3]) + strength * rng.random(2)
    curve = 3 * first * place * (1 - place) ** 2 + 3 * second * place**2 * (1 - place) + place**3
    return cast("Tensor", (1 - curve if rng.random() < strength / 2 else curve) * width + low)


def _with_amplitude(image: Tensor, other: Tensor, share: float) -> Tensor:
    """The image with the amplitudes of another one at frequencies up to this share of all, along each axis."""
    axes = tuple(range(1, image.ndim))
    own, foreign = (torch.fft.fftn(one.float(), dim=axes) for one in (image, other))
    low = torch.ones((), dtype=torch.bool, device=image.device)
    for axis, size in enumerate(image.shape[1:]):
        near = torch.fft.fftfreq(size, device=image.device).abs() <= max(share, 1 / size)
        low = low & near.reshape(-1, *[1] * (image.ndim - 2 - axis))
    amplitude = torch.where(low, foreign.abs(), own.abs())
    return cast("Tensor", torch.fft.ifftn(torch.polar(amplitude, own.angle()), dim=axes).real.to(image.dtype))


def speckle(images: Tensor, strength: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """The signal above the channel's darkest value, times 1 + grainy noise of a deviation of at most `strength`."""
    low = images.amin(dim=_augment_intensity.spatial_axes(images), keepdim=True)
    white = random_draws.white_noise(images, generators)
    grains = _augment_intensity.gaussian_smooth(white, np.full(len(images), GRAIN))
    grains = grains / grains.std(dim=_augment_intensity.spatial_axes(images), keepdim=True).clamp(min=1e-6)
    factor = 1 + random_draws.uniform_per_sample(images, generators, 0, strength) * grains
    return low + (images - low) * factor.clamp(min=0)


def stain(
    images: Tensor,
    strength: float,
    generators: Sequence[np.random.Generator],
    scales: Sequence[ChannelScale] | None = None,
) -> Tensor:
    """Haematoxylin, eosin and DAB, each times 1 +- strength, and moved by up to strength in optical density.

    (samples, 3, *spatial) images: red, green, blue
    scales: from 8 bits to the intensities of each channel; without them a sample's own range is that of 8 bits
    Tellez et al., Med Image Anal 2019, doi:10.1016/j.media.2019.101544
    """
    if images.shape[1] != 3:  # no colours, which the plan refuses
        return images
    steps: list[Any] = [one.steps for one in scales or ()]
    if scales is None:
        axes = tuple(range(1, images.ndim))
        low, high = (end(dim=axes).reshape(-1, *[1] * (images.ndim - 2)) for end in (images.amin, images.amax))
        steps = [((low, (high - low).clamp(min=1e-6) / WHITE),)] * 3
    lights = torch.stack([_undo_steps(images[:, n], steps[n]) for n in range(3)], dim=-1)
    density = -torch.log((lights.clamp(0, WHITE) + 1) / (WHITE + 1))
    dyes = torch.tensor(DYES, dtype=images.dtype, device=images.device)
    dyes = dyes / dyes.norm(dim=1, keepdim=True)
    amounts = density @ torch.linalg.inv(dyes)
    numbers = np.stack([rng.uniform(-strength, strength, size=(2, 3)) for rng in generators])
    shape = (2, len(images), *[1] * (images.ndim - 2), 3)
    pair = torch.as_tensor(numbers, dtype=images.dtype, device=images.device).movedim(1, 0)
    factor, offset = pair.reshape(shape)
    changed = ((amounts * (1 + factor) + offset) @ dyes).neg().exp() * (WHITE + 1) - 1
    made = [_apply_steps(changed[..., n].clamp(0, WHITE), steps[n]) for n in range(3)]
    return torch.stack(made, dim=1).to(images.dtype)


def _undo_steps(values: Tensor, steps: Sequence[tuple[Any, Any]]) -> Tensor:
    for offset, divisor in reversed(steps):
        values = values * divisor + offset
    return values


def _apply_steps(values: Tensor, steps: Sequence[tuple[Any, Any]]) -> Tensor:
    for offset, divisor in steps:
        values = (values - offset) / divisor
    return values


def colour(images: Tensor, strength: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """Hue turned about the grey axis by up to `strength` times 60 degrees, saturation times 1 +- strength.

    (samples, 3, *spatial) images: red, green, blue; what is grey stays as it is
    """
    mean = images.mean(dim=1, keepdim=True)
    most = (strength * HUE, strength)
    angle, factor = (random_draws.uniform_per_sample(images, generators, -one, one) for one in most)
    apart = images - mean
    # Rotation about (1, 1, 1) / sqrt(3) of what is perpendicular to it: Rodrigues' formula.
    across = (apart.roll(1, dims=1) - apart.roll(-1, dims=1)) / math.sqrt(3)
    return mean + (1 + factor) * (angle.cos() * apart + angle.sin() * across)
