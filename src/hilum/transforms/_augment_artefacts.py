"""Artefacts of scanners: noise of a low dose and metal in CT; an uneven field, motion, ghosts and spikes in MR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from hilum.lazy import torch
from hilum.transforms import _augment_intensity, augment_spatial, random_draws, resampling

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
    white = random_draws.white_noise(images, generators)
    spectrum = torch.fft.rfft2(white, dim=(2, 3)) * _power(images)
    grains = torch.fft.irfft2(spectrum, s=tuple(images.shape[2:4]), dim=(2, 3))
    deviation = random_draws.uniform_per_sample(images, generators, least * strength, strength)
    return cast("Tensor", images + deviation * _thickness(images).sqrt() * grains)


def metal(images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 0.3) -> Tensor:
    """A ball as bright as the image gets, with bright and dark streaks of up to `strength` deviations in its slices.

    Streaks follow the rays through the metal, so they are the same in opposite directions and weaken with distance.
    De Man, IEEE Trans Nucl Sci 1999, doi:10.1109/23.775600
    """
    space = _augment_intensity.spatial_axes(images)
    low, high = images.amin(dim=space, keepdim=True), images.amax(dim=space, keepdim=True)
    lines, balls = zip(*(_streaks(image, rng) for image, rng in zip(images, generators, strict=True)), strict=True)
    streaks = torch.stack(lines) * images.std(dim=space, keepdim=True)
    inside = torch.stack(balls)
    dimmed = images + random_draws.uniform_per_sample(images, generators, least * strength, strength) * streaks
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
    return cast("Tensor", root.reshape(*root.shape, *[1] * (images.ndim - 4)))


def _thickness(images: Tensor) -> Tensor:
    """(samples, channels, *spatial) smooth share of matter, of mean 1 over the image."""
    space = _augment_intensity.spatial_axes(images)
    spatial = images.shape[2:]
    flat = (images - images.amin(dim=space, keepdim=True)).reshape(-1, *spatial)
    small = resampling.resample(flat, [min(COARSE, size) for size in spatial])
    coarse = resampling.resample(small, spatial).reshape(images.shape)
    return cast("Tensor", coarse.clamp(min=0) / coarse.mean(dim=space, keepdim=True).clamp(min=1e-6))


def _streaks(image: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(1, *spatial) streaks of one sample, about -1 to 1 at the metal, and where the metal is."""
    spatial = image.shape[1:]
    radius = rng.uniform(*RADIUS) * min(spatial[:2]) + 0.5
    centre = [rng.uniform(0.2, 0.8) * size for size in spatial]
    offsets = []
    for axis, (size, middle) in enumerate(zip(spatial, centre, strict=True)):
        line = torch.arange(size, dtype=image.dtype, device=image.device) + 0.5 - middle
        offsets.append(line.reshape([-1 if other == axis else 1 for other in range(len(spatial))]))
    distance = (offsets[0] ** 2 + offsets[1] ** 2).sqrt()
    angle = torch.atan2(offsets[0], offsets[1])
    fan = torch.zeros_like(angle)
    for wave in 2 * np.arange(1, STREAKS + 1):
        fan = fan + rng.normal() * torch.cos(float(wave) * angle + rng.uniform(0, 2 * np.pi))
    streaks = fan / np.sqrt(STREAKS) * (radius / distance.clamp(min=radius))
    square = distance**2 + sum(offset**2 for offset in offsets[2:])
    slices = torch.exp(-sum((offset**2 for offset in offsets[2:]), torch.zeros(())) / (2 * radius**2))
    volume = torch.broadcast_to(streaks * slices, spatial)
    return volume[None], torch.broadcast_to(square <= radius**2, spatial)[None]


# Of the polynomial of a bias field: coils reach far, so that their sensitivity has no fine detail.
DEGREE = 3
# A patient holds this many positions at the most while one image is taken.
MOST_POSITIONS = 4
# Every how many lines of k-space a ghost comes back: 2 is the Nyquist ghost, more come from pulse and breath.
GHOST_PERIODS = (2, 6)
MOST_SPIKES = 3


def bias_field(
    images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 1 / 3
) -> Tensor:
    """The signal times exp of a random polynomial, whose standard deviation over the image is at most `strength`.

    The mean of the factor is 1. Van Leemput, IEEE Trans Med Imaging 1999, doi:10.1109/42.811270; measured fields vary
    by 10 to 30 %: Sled, IEEE Trans Med Imaging 1998, doi:10.1109/42.668698
    """
    orders = np.indices([DEGREE + 1] * (images.ndim - 2)).sum(axis=0)
    allowed = (orders > 0) & (orders <= DEGREE)
    # The higher terms peak in the corners, where a coil does not reach: they weigh less.
    weight = allowed / np.maximum(orders, 1) ** 2
    weights = np.stack([rng.uniform(-1, 1, weight.shape) * weight for rng in generators])
    field = torch.as_tensor(weights, dtype=images.dtype, device=images.device)
    for size in images.shape[2:]:
        # Legendre polynomials do not lean on each other, so that no coefficient hides another.
        basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, size), DEGREE)
        # Takes up the first axis of coefficients and puts the axis of voxels last: after all, they are in order.
        field = torch.tensordot(field, torch.as_tensor(basis, dtype=field.dtype, device=field.device), ([1], [1]))
    field = field[:, None] / field.flatten(1).std(dim=1).clamp(min=1e-6).reshape(-1, *[1] * (images.ndim - 1))
    factor = torch.exp(random_draws.uniform_per_sample(images, generators, least * strength, strength) * field)
    low = signal_floor(images)
    return (images - low) * (factor / factor.mean(dim=_augment_intensity.spatial_axes(images), keepdim=True)) + low


def motion(
    images: Tensor, strength: float, generators: Sequence[np.random.Generator], steps: Sequence[float] | None = None
) -> Tensor:
    """Lines of k-space taken while the patient lies otherwise: turned by up to `strength` degrees, moved by voxels.

    steps: length of a voxel per axis, in whose unit patients then move; None: voxels are cubes
    The middle of k-space, which says where things are, belongs to the position of the label. Shaw, MIDL 2019,
    https://proceedings.mlr.press/v102/shaw19a.html
    """
    low = signal_floor(images)
    pairs = zip(images - low, generators, strict=True)
    return torch.stack([_move_during_scan(signal, strength, rng, steps) for signal, rng in pairs]) + low


def ghosting(images: Tensor, strength: float, generators: Sequence[np.random.Generator], least: float = 0.0) -> Tensor:
    """Every n-th line of k-space along one axis weaker by up to `strength` (1: missing), but for the middle one.

    Weak lines at a period come back as copies of the image, one nth of the field apart.
    """
    low = signal_floor(images)
    changed = []
    for signal, rng in zip(images - low, generators, strict=True):
        axis = int(rng.integers(signal.ndim - 1)) + 1
        longest = max(GHOST_PERIODS[0], min(GHOST_PERIODS[1], signal.shape[axis] // 2))
        period = int(rng.integers(GHOST_PERIODS[0], longest + 1))
        spectrum = torch.fft.rfft(signal, dim=axis)
        lines = torch.arange(spectrum.shape[axis], device=signal.device)
        weak = (lines % period == 0) & (lines > 0)
        weight = torch.where(weak, 1 - rng.uniform(least * strength, strength), 1.0)
        spectrum = spectrum * weight.reshape([-1 if other == axis else 1 for other in range(signal.ndim)])
        changed.append(torch.fft.irfft(spectrum, n=signal.shape[axis], dim=axis).abs())
    return torch.stack(changed) + low


def spikes(images: Tensor, strength: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """A few points of k-space far too bright: stripes all over the image of up to `strength` of its deviations.

    A point of k-space is a plane wave in the image, which is added here. The herringbone of Heiland, Clin
    Neuroradiol 2008;18:25-36
    """
    pairs = zip(images, generators, strict=True)
    waves = torch.stack([rng.uniform(0, strength) * _stripes(image, rng) for image, rng in pairs])
    return images + waves * images.std(dim=_augment_intensity.spatial_axes(images), keepdim=True)


def signal_floor(images: Tensor) -> Tensor:
    """(samples, channels, 1...) where there is no signal."""
    return images.amin(dim=_augment_intensity.spatial_axes(images), keepdim=True)


def _move_during_scan(
    signal: Tensor, strength: float, rng: np.random.Generator, steps: Sequence[float] | None
) -> Tensor:
    """(channels, *spatial) signal of one sample, its k-space put together from several positions."""
    ndim = signal.ndim - 1
    axis = int(rng.integers(ndim)) + 1
    changes = np.sort(rng.uniform(size=int(rng.integers(1, MOST_POSITIONS))))
    count = len(changes) + 1
    angles = rng.uniform(-1, 1, (count, 3)) * strength
    shifts = rng.uniform(-1, 1, (count, ndim)) * strength
    still = int(np.searchsorted(changes, 0.5))
    angles[still] = 0
    shifts[still] = 0
    maps = np.stack([augment_spatial.rotation_matrix(np.deg2rad(angle), ndim) for angle in angles])
    sizes = np.multiply(signal.shape[1:], 1.0 if steps is None else steps)
    positions = augment_spatial.sample_intensities(
        signal.expand(count, *signal.shape), augment_spatial.sampling_grid(maps, shifts / sizes, sizes, signal)
    )
    positions[still] = signal
    # Lines differ along one axis only, so that a transform along that axis is enough.
    spectra = torch.fft.fft(positions, dim=axis + 1)
    size = signal.shape[axis]
    taken = np.searchsorted(changes, (np.fft.fftfreq(size) + 0.5))
    whose = torch.as_tensor(taken, device=signal.device)
    spectrum = torch.zeros_like(spectra[0])
    for n in range(count):
        mine = (whose == n).reshape([-1 if other == axis else 1 for other in range(signal.ndim)])
        spectrum = torch.where(mine, spectra[n], spectrum)
    return cast("Tensor", torch.fft.ifft(spectrum, dim=axis).abs())


def _stripes(image: Tensor, rng: np.random.Generator) -> Tensor:
    """(1, *spatial) one to three plane waves of amplitude 1 together, each at least 2 voxels and at most 8 long."""
    spatial = image.shape[1:]
    count = int(rng.integers(1, MOST_SPIKES + 1))
    waves = torch.zeros((1, *spatial), dtype=image.dtype, device=image.device)
    for _ in range(count):
        direction = rng.normal(size=len(spatial))
        frequency = rng.uniform(0.125, 0.5) * direction / np.linalg.norm(direction)
        phase = torch.full((1, *spatial), rng.uniform(0, 2 * np.pi), dtype=image.dtype, device=image.device)
        for axis, (size, cycles) in enumerate(zip(spatial, frequency, strict=True), start=1):
            ramp = 2 * np.pi * cycles * torch.arange(size, dtype=image.dtype, device=image.device)
            phase = phase + ramp.reshape([-1 if other == axis else 1 for other in range(image.ndim)])
        waves += torch.cos(phase) / count
    return waves
