"""What a network gets of a measurement, and measurements that are made of clean images to teach it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from hilum.errors import DatasetError
from hilum.lazy import torch
from hilum.transforms import random_draws
from hilum.transforms.corruptions import REMAKE
from hilum.transforms.operators import iterative_solvers, operator_kinds
from hilum.transforms.operators.linear_operator import LinearOperator
from hilum.transforms.operators.ray_sums import RaySums
from hilum.values import Acquisition, Array, Floats, Geometry, Image, StatedSettings

# Network channels of every measurement: the plain inverse, to which the network adds what it says, and the adjoint.
PLAIN = "plain inverse"
ADJOINT = "adjoint"
ADJOINT_IMAGINARY = "adjoint imaginary"
MASK = "mask"
# The percentile of the plain inverse that is brought to 1, and how noise of a simulated scan is stated.
BRIGHT = 99.0
# Sides are multiples of it, so that no part of a network pads what the operator knows.
MULTIPLE = 4
# Of a simulated phase: radians at the corner, as a scanner's field and coils make it. Of coils: their width, in fields.
PHASE = 2.0
COIL_WIDTH = 1.2


@dataclass(frozen=True)
class ScanSettings:
    """A simulated scan; fields as the task has them.

    noise: standard deviation of each measured component, in parts of the 99th percentile: of the image, and of CT of
           the largest integral
    """

    operator: str = "cartesian"
    acceleration: float = 4.0
    centre: float = 0.08
    mask: str = "random"
    coils: int = 1
    views: int = 60
    noise: float = 0.01

    @classmethod
    def from_task(cls, settings: StatedSettings) -> ScanSettings:
        """Those of a task's settings that are stated."""
        return cls(**{name: settings[name] for name in cls.__dataclass_fields__ if settings.get(name) is not None})


@dataclass(frozen=True)
class SimulatedScan:
    """The way from a clean image to a network's channels of its measurement, the same each time.

    case:  what the draws belong to
    finer: by which factor the clean image is finer than the grid of the answer, along each axis
    """

    settings: ScanSettings
    case: str
    finer: int = 1

    def __call__(self, image: Image, original: Image | None = None) -> Image:
        """(channels, *shape) of an image (1, *fine shape), scaled as that of `original` would be."""
        channels, factor = self.measure(image.data[0])
        if original is not None:
            other = self.measure(original.data[0])[1]
            channels[: 3 if len(channels) > 2 else 2] *= other / factor
        names = channel_names(self.settings.operator, self.settings.coils)
        facts = {**image.facts, REMAKE: replace(self, finer=1)}
        grid = image.geometry.reshape(tuple(channels.shape[1:]))
        return replace(image, pixels=channels, geometry=grid, channels=names, facts=facts, padding=None)

    def measure(self, clean: Array) -> tuple[Floats, float]:
        """The channels of (*fine shape), and the factor by which intensities were multiplied."""
        rng = random_draws.sample_generator(0, 0, zlib.crc32(self.case.encode()), 3)
        values = np.asarray(clean, np.float32)
        shape = tuple(size // self.finer for size in values.shape)
        if any(size % MULTIPLE for size in shape):
            problem = f"its measured image has {shape} pixels, and a network halves them twice"
            raise DatasetError(problem, self.case, f"Crop images to multiples of {MULTIPLE * self.finer}")
        if self.settings.operator == "cartesian":
            operator, measured = self._sample_kspace(values, rng)
        else:
            operator, measured = self._sum_rays(values, shape, rng)
        return network_channels(operator, measured)

    def _sample_kspace(self, clean: Floats, rng: np.random.Generator) -> tuple[LinearOperator, Array]:
        row, column = np.meshgrid(*(np.linspace(-1, 1, size) for size in clean.shape), indexing="ij")
        slopes = rng.uniform(-1, 1, 3)
        phase = np.exp(1j * PHASE / 3 * (slopes[0] * row + slopes[1] * column + slopes[2] * row * column))
        maps = None
        if self.settings.coils > 1:
            turns = 2 * np.pi * (np.arange(self.settings.coils) / self.settings.coils + rng.uniform())
            apart = (row - np.cos(turns)[:, None, None]) ** 2 + (column - np.sin(turns)[:, None, None]) ** 2
            maps = np.exp(-apart / COIL_WIDTH**2 / 2 + 1j * turns[:, None, None])
            maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
        mask = np.broadcast_to(sampled_columns(clean.shape[1], self.settings, rng), clean.shape)
        operator = operator_kinds.operator(Acquisition("cartesian", clean.shape, mask=mask, sensitivities=maps))
        deviation = self.settings.noise * float(np.percentile(clean, BRIGHT))
        noise = rng.normal(0, deviation, (2, *operator.codomain))
        measured = operator.forward((clean * phase).astype(np.complex64)) + (noise[0] + 1j * noise[1]) * mask
        return operator, measured.astype(np.complex64)

    def _sum_rays(
        self, clean: Floats, shape: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[LinearOperator, Array]:
        scanner, operator = (
            _parallel_operator(self.settings.views, one, step)
            for one, step in ((clean.shape, 1 / self.finer), (shape, 1.0))
        )
        sums = scanner.forward(clean)
        noisy = sums + rng.normal(0, self.settings.noise * float(np.abs(sums).max()), sums.shape)
        return operator, noisy.astype(np.float32)


@cache  # of all cases of a training, and slow to make
def _parallel_operator(views: int, shape: tuple[int, ...], step: float) -> RaySums:
    """Views of half a turn of a grid in pixels of the answer, with bins of one of these."""
    rows, columns = shape
    bins = int(np.ceil(np.hypot(rows, columns) * step)) | 1
    angles = tuple((np.arange(views) * 180 / views).tolist())
    return RaySums(Acquisition("parallel", (rows, columns), (step, step), angles, bins, 1.0))


def sampled_columns(size: int, settings: ScanSettings, rng: np.random.Generator) -> Array:
    """(size,) 1 where a column of k-space is sampled: the centre, and others at random or evenly spaced."""
    wanted = max(2, round(size / settings.acceleration))
    lines = max(2, round(settings.centre * size))
    columns = np.zeros(size, np.uint8)
    first = size // 2 - lines // 2
    columns[first : first + lines] = 1
    free = np.flatnonzero(columns == 0)
    more = min(max(wanted - lines, 0), len(free))
    if settings.mask == "random":
        columns[rng.choice(free, more, replace=False)] = 1
    elif more:
        columns[free[(np.arange(more) * len(free) / more + rng.uniform(0, len(free) / more)).astype(int)]] = 1
    return columns


def channel_names(kind: str, coils: int) -> tuple[str, ...]:
    """The channels of a measurement as a network gets them."""
    if kind != "cartesian":
        return PLAIN, ADJOINT
    maps = [f"coil {one + 1} {part}" for one in range(coils if coils > 1 else 0) for part in ("real", "imaginary")]
    return PLAIN, ADJOINT, ADJOINT_IMAGINARY, MASK, *maps


def count_coils(scan: Acquisition) -> int:
    """The coils of one slice's scan, whose sensitivities are known."""
    return 1 if scan.sensitivities is None else len(scan.sensitivities)


def network_image(scan: Acquisition, channels: Floats) -> Image:
    """What `network_channels` has made of one slice, as an image on the grid of its scan."""
    names = channel_names(scan.kind, count_coils(scan))
    return Image(channels, Geometry.of_spacing(scan.shape, scan.spacing), channels=names)


def network_channels(operator: LinearOperator, measured: Array) -> tuple[Floats, float]:
    """(channels, *shape) of a measurement (*codomain), and the factor by which intensities were multiplied.

    One factor for plain inverse and adjoint, else the operator would not hold; mask and sensitivities have none.
    The adjoint is that of an operator whose largest gain is 1.
    """
    scan = operator.acquisition
    plain = operator.plain_inverse(measured)
    adjoint = operator.adjoint(measured)
    factor = 1 / max(float(np.percentile(np.abs(plain), BRIGHT)), float(np.finfo(np.float32).tiny))
    if not operator.is_complex:
        gain = iterative_solvers.largest_eigenvalue(operator, torch.zeros(1))
        return np.stack([plain * factor, adjoint * factor / gain]).astype(np.float32), factor
    mask = np.ones(scan.shape) if scan.mask is None else scan.mask
    maps = () if scan.sensitivities is None else scan.sensitivities
    parts = [part for one in maps for part in (one.real, one.imag)]
    intensities = [np.abs(plain) * factor, adjoint.real * factor, adjoint.imag * factor]
    return np.stack([*intensities, mask, *parts]).astype(np.float32), factor
