"""Changes of intensity for any kind of image: contrast, brightness, gamma, noise, sharpness, resolution, cutout.

Each takes the samples that it befalls, (samples, channels, *spatial), its strength, and a generator for each
sample. Images are normalised, so that 1 is about one standard deviation of an image. What is random lies between the
share `least` of the strength, and the strength. Mixup and CutMix mix the images of a whole batch in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.transforms import random_draws, resampling

if TYPE_CHECKING:
    from torch import Tensor

# A Gaussian kernel is cut off at this many standard deviations: 0.3 % of it lies beyond.
REACH = 3.0
# Standard deviation in voxels of the Gaussian whose difference from the image is added again to sharpen it.
FINE = 1.0
# Greys of an equalised image, and how many times their mean count the most frequent ones may count.
GREYS = 256
CLIP = 3.0


def spatial_axes(images: Tensor) -> tuple[int, ...]:
    """The axes of space."""
    return tuple(range(2, images.ndim))


def contrast(images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 0.0) -> Tensor:
    """Distances from the channel's mean times 1 +- strength."""
    mean = images.mean(dim=spatial_axes(images), keepdim=True)
    factors = 1 + strength * random_draws.two_sided_numbers(generators, least)
    return (images - mean) * random_draws.spread_per_sample(factors, images) + mean


def brightness(images: Tensor, strength: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """Up to `strength` standard deviations more or less."""
    return images + random_draws.uniform_per_sample(images, generators, -strength, strength)


def gamma(images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 0.0) -> Tensor:
    """An exponent in [1 / (1 + strength), 1 + strength] on each channel's own range, which stays what it is."""
    low, high = images.amin(dim=spatial_axes(images), keepdim=True), images.amax(dim=spatial_axes(images), keepdim=True)
    width = (high - low).clamp(min=1e-6)
    exponents = (1 + strength) ** random_draws.two_sided_numbers(generators, least)
    exponent = random_draws.spread_per_sample(exponents, images)
    return ((images - low) / width).clamp(0, 1) ** exponent * width + low


def noise(images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 0.0) -> Tensor:
    """White Gaussian noise of a standard deviation of at most `strength`."""
    deviation = random_draws.uniform_per_sample(images, generators, least * strength, strength)
    return images + deviation * random_draws.white_noise(images, generators)


def gaussian_blur(images: Tensor, strength: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """A Gaussian with a standard deviation of at most `strength` voxels, and a third of it at least."""
    return gaussian_smooth(images, random_draws.uniform_numbers(generators, strength / 3, strength))


def gaussian_smooth(images: Tensor, deviations: NDArray[np.float64]) -> Tensor:
    """Each sample convolved with a Gaussian of its own standard deviation in voxels; the edge goes on.

    deviations: (samples,), or (samples, axes)
    Axis after axis as a sum of shifted images, so that every sample may have its own kernel in one pass.
    """
    widths = np.broadcast_to(deviations.reshape(len(images), -1), (len(images), images.ndim - 2))
    for axis, width in zip(spatial_axes(images), widths.T, strict=True):
        images = _smoothed_along(images, axis, width)
    return images


def _smoothed_along(images: Tensor, axis: int, deviations: NDArray[np.float64]) -> Tensor:
    deviations = np.maximum(deviations, 1e-3)[:, None]
    reach = int(np.ceil(REACH * deviations.max()))
    distance = np.arange(-reach, reach + 1)
    # Each kernel ends at its own reach: a sample must not depend on who else is in the batch.
    weight = np.exp(-0.5 * (distance / deviations) ** 2) * (abs(distance) <= np.ceil(REACH * deviations))
    weight /= weight.sum(axis=1, keepdims=True)
    factors = [random_draws.spread_per_sample(column, images) for column in weight.T]
    size = images.shape[axis]
    places = torch.arange(-reach, size + reach, device=images.device).clamp(0, size - 1)
    wide = images.index_select(axis, places)
    images = factors[0] * wide.narrow(axis, 0, size)
    for start, factor in enumerate(factors[1:], start=1):
        images.addcmul_(factor, wide.narrow(axis, start, size))
    return images


def low_resolution(
    images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 0.0
) -> Tensor:
    """Voxels up to 1 + strength times as long along some of the axes, then read on the old grid again.

    Thick slices and small matrices; nnU-Net simulates them likewise, doi:10.1038/s41592-020-01008-z
    """
    spatial = images.shape[2:]
    ndim = images.ndim - 2
    changed = []
    for image, rng in zip(images, generators, strict=True):
        factor = 1 + rng.uniform(least * strength, strength)
        coarse = rng.random(ndim) < 0.5
        factors = np.where(coarse | ~coarse.any(), factor, 1.0)
        small = [max(1, round(size / by)) for size, by in zip(spatial, factors, strict=True)]
        changed.append(resampling.resample(resampling.resample(image, small), spatial, "cubic"))
    return torch.stack(changed)


def sharpen(images: Tensor, strength: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """Up to `strength` times what a narrow Gaussian takes away, added: an unsharp mask."""
    fine = images - gaussian_smooth(images, np.full(len(images), FINE))
    return images + random_draws.uniform_per_sample(images, generators, 0, strength) * fine


def equalise(images: Tensor, strength: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """Mixed with up to this share of the image in which all greys are about equally frequent, in each channel's range.

    Contrast is limited as in Zuiderveld, Graphics Gems IV 1994, but over the whole image: frequent greys count no more
    than three times the mean, so that a plain background stays plain.
    """
    rows = images.flatten(2).flatten(0, 1)
    low = rows.amin(dim=1, keepdim=True)
    width = (rows.amax(dim=1, keepdim=True) - low).clamp(min=1e-6)
    greys = (rows - low) / width * (GREYS - 1)
    lower = greys.long().clamp(0, GREYS - 2)
    first = GREYS * torch.arange(len(rows), device=images.device)[:, None]
    counts = torch.bincount((lower + first).flatten(), minlength=GREYS * len(rows)).reshape(len(rows), GREYS)
    shares = counts.to(images.dtype).clamp(max=CLIP * rows.shape[1] / GREYS)
    reached = torch.nn.functional.pad(shares.cumsum(dim=1), (1, 0))
    below, above = reached.gather(1, lower), reached.gather(1, lower + 1)
    equal = (below + (greys - lower) * (above - below)) / reached[:, -1:] * width + low
    share = random_draws.uniform_per_sample(images, generators, 0, strength)
    return images + share * (equal.reshape(images.shape) - images)


def cutout(images: Tensor, strength: float, generators: Sequence[np.random.Generator], count: int = 1) -> Tensor:
    """Boxes with sides of up to `strength` of the image's, filled with the mean; what they cover keeps its label.

    DeVries and Taylor, arXiv:1708.04552
    """
    spatial = images.shape[2:]
    changed = images.clone()
    mean = images.mean(dim=spatial_axes(images))
    for n, rng in enumerate(generators):
        for _ in range(count):
            covered = changed[n][(slice(None), *_box(spatial, rng.uniform(0, strength), rng))]
            covered[...] = mean[n].reshape(-1, *[1] * len(spatial))
    return changed


def mixup(images: Tensor, partner: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Every image and its partner laid over each other, with the share that stays its own.

    The share is sampled from Beta(alpha, alpha). Zhang, ICLR 2018, arXiv:1710.09412
    """
    share = float(rng.beta(alpha, alpha))
    return share * images + (1 - share) * images[partner], share


def cutmix(images: Tensor, partner: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """A box of every image replaced by its partner's, with the share of voxels that stays its own.

    Yun, ICCV 2019, arXiv:1905.04899
    """
    spatial = images.shape[2:]
    box = _box(spatial, (1 - float(rng.beta(alpha, alpha))) ** (1 / len(spatial)), rng)
    changed = images.clone()
    inside = (slice(None), slice(None), *box)
    changed[inside] = images[partner][inside]
    replaced = np.prod([part.stop - part.start for part in box]) / np.prod(spatial)
    return changed, float(1 - replaced)


def mixing_partners(count: int, rng: np.random.Generator, images: Tensor) -> Tensor:
    """(batch,) whom each is mixed with."""
    return torch.as_tensor(rng.permutation(count), device=images.device)


def _box(spatial: Sequence[int], side: float, rng: np.random.Generator) -> tuple[slice, ...]:
    """A box with its centre anywhere in the image, cut off at its edge; `side` is a share of the image's."""
    box = []
    for size in spatial:
        half = side * size / 2
        centre = rng.uniform(0, size)
        box.append(slice(round(max(0.0, centre - half)), round(min(float(size), centre + half))))
    return tuple(box)
