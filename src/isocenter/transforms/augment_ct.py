"""Artefacts of computed tomography: noise of a low dose, and metal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from isocenter.lazy import torch
from isocenter.transforms.augment_intensity import axes
from isocenter.transforms.draws import per_sample, uniform, white_noise
from isocenter.transforms.resampling import resample

if TYPE_CHECKING:
    from torch import Tensor

# Cycles a voxel at which a soft reconstruction kernel has fallen to 1/e.
KERNEL = 0.3
# Coarse voxels per axis on which the thickness of the body is judged.
COARSE = 5
# A piece of metal: its radius as a share of the shorter side of the slice, from a clip to a hip.
RADIUS = (0.015, 0.06)
# Streaks leave a piece of metal in up to this many pairs of directions.
STREAKS = 12


def dose_noise(
    images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 0.0
) -> Tensor:
    """Noise of a low dose, of a standard deviation of at most `strength`: grainy, and stronger where the body is thick.

    Filtered back-projection lets the noise of the rays through in proportion to frequency, up to the kernel's end,
    in the plane of the first two axes; fewer photons come through a thick body. Riederer, Pelc and Chesler,
    Phys Med Biol 1978;23:446-454
    """
    white = white_noise(images, generators)
    spectrum = torch.fft.rfft2(white, dim=(2, 3)) * _power(images)
    grains = torch.fft.irfft2(spectrum, s=tuple(images.shape[2:4]), dim=(2, 3))
    return (
        images
        + per_sample(uniform(generators, least * strength, strength), images) * _thickness(images).sqrt() * grains
    )


def metal(images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 0.3) -> Tensor:
    """A ball as bright as the image gets, with bright and dark streaks of up to `strength` deviations in its slices.

    Streaks follow the rays through the metal, so they are the same in opposite directions and weaken with distance.
    De Man, IEEE Trans Nucl Sci 1999, doi:10.1109/23.775600
    """
    low, high = images.amin(dim=axes(images), keepdim=True), images.amax(dim=axes(images), keepdim=True)
    drawn = [_streaks(image, rng) for image, rng in zip(images, generators, strict=True)]
    streaks = torch.stack([one for one, _ in drawn]) * images.std(dim=axes(images), keepdim=True)
    inside = torch.stack([ball for _, ball in drawn])
    dimmed = images + per_sample(uniform(generators, least * strength, strength), images) * streaks
    # A window that ends where the image does cuts streaks off there too.
    return torch.where(inside, high, dimmed.clamp(low, high))


def _power(images: Tensor) -> Tensor:
    """(rows, columns / 2 + 1[, 1]) square root of the noise power spectrum, for noise of variance 1."""
    rows, columns = images.shape[2:4]
    across = torch.fft.fftfreq(rows, device=images.device)[:, None]
    along = torch.fft.fftfreq(columns, device=images.device)[None, :]
    frequency = (across**2 + along**2).sqrt()
    power = frequency * torch.exp(-((frequency / KERNEL) ** 2))
    root = (power / power.mean()).sqrt()[:, : columns // 2 + 1]
    return root.reshape(*root.shape, *[1] * (images.ndim - 4))


def _thickness(images: Tensor) -> Tensor:
    """(samples, channels, *spatial) smooth share of matter, of mean 1 over the image."""
    low = images.amin(dim=axes(images), keepdim=True)
    spatial = images.shape[2:]
    flat = (images - low).reshape(-1, *spatial)
    coarse = resample(resample(flat, [min(COARSE, size) for size in spatial]), spatial).reshape(images.shape)
    return coarse.clamp(min=0) / coarse.mean(dim=axes(images), keepdim=True).clamp(min=1e-6)


def _streaks(image: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(1, *spatial) streaks of one sample, about -1 to 1 at the metal, and where the metal is."""
    spatial = image.shape[1:]
    radius = rng.uniform(*RADIUS) * min(spatial[:2]) + 0.5
    centre = [rng.uniform(0.2, 0.8) * size for size in spatial]
    offsets = []
    for axis, (size, place) in enumerate(zip(spatial, centre, strict=True)):
        line = torch.arange(size, dtype=image.dtype, device=image.device) + 0.5 - place
        offsets.append(line.reshape([-1 if other == axis else 1 for other in range(len(spatial))]))
    distance = (offsets[0] ** 2 + offsets[1] ** 2).sqrt()
    angle = torch.atan2(offsets[0], offsets[1])
    fan = torch.zeros_like(angle)
    for wave in 2 * np.arange(1, STREAKS + 1):
        fan = fan + rng.normal() * torch.cos(float(wave) * angle + rng.uniform(0, 2 * np.pi))
    streaks = fan / np.sqrt(STREAKS) * (radius / distance.clamp(min=radius))
    square = distance**2 + sum(offset**2 for offset in offsets[2:])
    slices = torch.exp(-sum((offset**2 for offset in offsets[2:]), torch.zeros(())) / (2 * radius**2))
    whole = torch.broadcast_to(streaks * slices, spatial)
    return whole[None], torch.broadcast_to(square <= radius**2, spatial)[None]
