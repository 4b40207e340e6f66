"""Images painted from label maps, of any contrast: each label gets its own brightness and grain, as no scanner decides.

A network that learns from them meets no contrast that it has not seen. Billot et al., Med Image Anal 2023,
arXiv:2107.09559, for segmentation; Hoffmann et al., IEEE Trans Med Imaging 2022, arXiv:2004.10282, for registration.
Every draw is a function of a sample's generator, whatever else is in the batch.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from hilum.lazy import torch
from hilum.transforms import _augment_artefacts, _augment_intensity, random_draws, resampling
from hilum.values import Array, Floats, Setting

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Ge(0), Le(1)]
Strength = Annotated[float, Ge(0), Lt(math.inf)]
# Rounds in which the centres of the background's parts move to the middle of these.
ROUNDS = 2
# Control points per axis of the smooth numbers by which the background is parted where no image shows it.
POINTS = 5
# How much an image's intensities, or such numbers, both in deviations, count beside places in sides of the field.
BY_INTENSITY = 1.0
BY_CHANCE = 0.3
# The share of images with one long axis, as thick slices have; in as many all axes are coarse, and others stay fine.
COARSE = 1 / 3


@dataclass(frozen=True)
class PaintingRanges:
    """The ranges from which images are painted; intensities lie between 0 and 1.

    background:  parts of what no label marks, each as if it had a label
    intensities: whether these parts also go by the intensities of the image, where it has one
    darkest, brightest: between them lies the mean of each label
    deviation:   largest standard deviation within a label
    blur:        largest standard deviation, in voxels, of the Gaussian that mixes labels at their borders
    bias_field:  largest standard deviation of the logarithm of the sensitivity over the image
    gamma:       the exponent lies in [1 / (1 + gamma), 1 + gamma]
    thickness:   longest voxel, in mm (in voxels where the size is unknown), along one axis or all
    noise:       largest standard deviation of white noise after all this
    """

    background: Annotated[int, Ge(1)] = 6
    intensities: Annotated[bool, Setting(always=True)] = True
    darkest: Share = 0.0
    brightest: Share = 1.0
    deviation: Share = 35 / 255
    blur: Strength = 1.0
    bias_field: Strength = 0.6
    gamma: Strength = 0.4
    thickness: Annotated[float, Gt(0), Lt(math.inf)] = 9.0
    noise: Share = 0.05


@dataclass(frozen=True, eq=False)
class LabelPainter:
    """Paints the images of samples from the targets that training holds of them.

    shown: for each channel the label that each value of a target shows; one stands for all channels
    steps: length of a voxel per axis
    """

    ranges: PaintingRanges
    shown: Sequence[Sequence[int]]
    steps: Sequence[float]

    def __call__(self, images: Tensor, targets: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """(samples, channels, *spatial) painted in place of images of this shape; targets: (samples, *spatial)."""
        maps = [torch.as_tensor(table, device=targets.device)[targets.long()] for table in self.shown]
        labels = torch.stack(maps if len(maps) == images.shape[1] else maps[:1] * images.shape[1], dim=1)
        seen = images if self.ranges.intensities else None
        return paint_images(labels, generators, self.steps, self.ranges, seen)


def paint_images(
    labels: Tensor,
    generators: Sequence[np.random.Generator],
    steps: Sequence[float],
    ranges: PaintingRanges,
    images: Tensor | None = None,
) -> Tensor:
    """(samples, channels, *spatial) float32 images of mean 0 and deviation 1, each channel of another contrast.

    labels: (samples, channels, *spatial) whole numbers, 0 the background
    images: of the same shape, by whose intensities the background is parted too; None: by places alone
    """
    keys = [int(rng.integers(2**63)) for rng in generators]
    rngs = [random_draws.child_generator(key, channel) for key in keys for channel in range(labels.shape[1])]
    maps = labels.reshape(-1, *labels.shape[2:]).long()
    seen: list[Tensor | None] = [None] * len(maps) if images is None else list(images.reshape(maps.shape))
    scaled = np.asarray(steps) * maps.shape[1:]
    signals = [
        _paint_labels(_part_background(one, own, scaled, ranges.background, rng), ranges, rng)
        for one, own, rng in zip(maps, seen, rngs, strict=True)
    ]
    painted = torch.stack(signals)[:, None]
    painted = _augment_intensity.gaussian_blur(painted, ranges.blur, rngs)
    painted = _augment_artefacts.bias_field(painted, ranges.bias_field, rngs)
    painted = _augment_intensity.gamma(painted, ranges.gamma, rngs)
    painted = _augment_intensity.noise(_lengthen_voxels(painted, steps, ranges.thickness, rngs), ranges.noise, rngs)
    axes = _augment_intensity.spatial_axes(painted)
    middle = painted.mean(dim=axes, keepdim=True)
    deviation = painted.std(dim=axes, keepdim=True, correction=0)
    return ((painted - middle) / deviation.clamp(min=1e-6)).reshape(labels.shape)


def paint_case(labels: Array, steps: Sequence[float], ranges: PaintingRanges, *, case: str, draw: int = 0) -> Array:
    """(channels, *spatial) float32 image of a whole case, the same for the same case and draw.

    labels: (channels, *spatial) whole numbers, 0 the background
    """
    values, ranks = np.unique(labels, return_inverse=True)
    ranks = ranks.reshape(labels.shape) + (values[0] != 0)
    rng = random_draws.sample_generator(0, 0, zlib.crc32(case.encode()), draw)
    return np.asarray(paint_images(torch.as_tensor(ranks)[None], [rng], steps, ranges)[0].numpy())


def _part_background(
    labels: Tensor, image: Tensor | None, sides: Floats, parts: int, rng: np.random.Generator
) -> Tensor:
    """(*spatial) the map with the numbers 0 to `parts` - 1 where it was 0, and its labels above them.

    Parts are clusters of places, in sides of the field, and of intensities, or where nobody sees these of smooth random
    numbers, so that borders between them are no planes.
    """
    outside = labels == 0
    above = labels + parts - 1
    if parts == 1 or not bool(outside.any()):
        return above
    values, weight = (_smooth_numbers(labels, rng), BY_CHANCE) if image is None else (image.float(), BY_INTENSITY)
    values = (values - values.mean()) / values.std(correction=0).clamp(min=1e-6) * weight
    lines = [
        torch.linspace(-0.5, 0.5, size, device=labels.device) * float(side / sides.max())
        for size, side in zip(labels.shape, sides, strict=True)
    ]
    points = torch.stack([*torch.meshgrid(*lines, indexing="ij"), values])[:, outside]
    centres = points[:, torch.as_tensor(rng.integers(points.shape[1], size=parts), device=labels.device)]
    for _ in range(ROUNDS):
        nearest = _nearest_centres(points, centres)
        counts = torch.bincount(nearest, minlength=parts).clamp(min=1)
        sums = [torch.bincount(nearest, weights=row.double(), minlength=parts) / counts for row in points]
        centres = torch.stack(sums).to(points.dtype)
    above[outside] = _nearest_centres(points, centres)
    return above


def _nearest_centres(points: Tensor, centres: Tensor) -> Tensor:
    """(points,) the number of the nearest of (dimensions, centres) to each of (dimensions, points)."""
    distances = torch.stack([(points - one[:, None]).square().sum(dim=0) for one in centres.T])
    # The same numbers as of argmin, which takes four times as long across a short axis.
    nearest: Tensor = distances.min(dim=0).indices
    return nearest


def _smooth_numbers(labels: Tensor, rng: np.random.Generator) -> Tensor:
    numbers = torch.as_tensor(rng.normal(size=[1, *[POINTS] * labels.ndim]), dtype=torch.float32, device=labels.device)
    smooth: Tensor = resampling.resample(numbers, labels.shape, "cubic")
    return smooth[0]


def _paint_labels(labels: Tensor, ranges: PaintingRanges, rng: np.random.Generator) -> Tensor:
    """(*spatial) a mean for each label, and a deviation about it."""
    # As many numbers as there are labels, from a generator of its own: other labels of a batch change no draw.
    own = random_draws.child_generator(int(rng.integers(2**63)), 0)
    table = torch.as_tensor(own.random((int(labels.max()) + 1, 2)), dtype=torch.float32, device=labels.device)
    means = ranges.darkest + (ranges.brightest - ranges.darkest) * table[:, 0]
    grain = random_draws.white_noise(means.new_empty((1, *labels.shape)), [rng])[0]
    return means[labels] + (ranges.deviation * table[:, 1])[labels] * grain


def _lengthen_voxels(
    images: Tensor, steps: Sequence[float], longest: float, generators: Sequence[np.random.Generator]
) -> Tensor:
    """Voxels of up to this length along one axis, along all, or as they are, then read on the old grid again."""
    spatial = images.shape[2:]
    changed: list[Tensor] = []
    for image, rng in zip(images, generators, strict=True):
        chance = rng.random()
        axis = int(rng.integers(len(spatial)))
        length = rng.uniform(0, longest)
        coarse = [one == axis or chance > 1 - COARSE for one in range(len(spatial))]
        small = [
            max(1, round(size * min(1.0, step / max(length, step)))) if long and chance > COARSE else size
            for size, step, long in zip(spatial, steps, coarse, strict=True)
        ]
        changed.append(resampling.resample(resampling.resample(image, small), spatial))
    return torch.stack(changed)
