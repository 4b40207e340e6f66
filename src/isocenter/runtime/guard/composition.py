"""The composition of an image: its texture, its bright places, its contrast, and its symmetry."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Voxels between which differences are taken; blocks along each axis.
LAGS, BLOCKS = (1, 2, 4, 8, 16), 8
# Lines of an axis that are looked at, about.
MOST_LINES = 2**12
# Of the variance, what differences have at least, and of a deviation what shares and distances have: a logarithm needs
# some.
LEAST, LEAST_SHARE, LEAST_DISTANCE = 1e-4, 0.01, 0.05
# Voxels of which contrast is computed, about, and the shares of them below its quantiles.
MOST_VOXELS, QUANTILES = 2**13, (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
# Of the range, what lies as near its end as this is at the end; of a deviation, neighbours as near are alike.
END, FLAT = 0.02, 0.01


class Composition(NamedTuple):
    """Numbers of an image that no network has a say in.

    All are in standard deviations of the image, so that one with more light or contrast has the same. So has one that
    is mirrored: a model may look at mirrored windows too.

    texture: (axes * lags,) logarithms of the mean squared difference between voxels at each lag (a variogram): its mean
             over the axes, and how far the first axis lies above each other one
    layout:  (blocks,) means of the blocks of a coarse grid, of those that mirror each other one
    contrast: (10,) how much further dark voxels lie apart than bright ones, at three depths, and the outer ones than
             the middle; skewness and kurtosis; the shares at the lowest and at the highest values and in flat places;
             and how steady slopes are; all as logarithms
    symmetry: (axes * 2,) along each axis, by the means of blocks across it, logarithms of how far its two sides lie
             apart, and of how far their middle lies from their ends
    """

    texture: Floats
    layout: Floats
    contrast: Floats
    symmetry: Floats


def composition(window: NDArray[np.float32]) -> Composition:
    """The composition of a window, (channels, *patch), the mean over its channels."""
    each = [_standard(channel) for channel in window]
    lags = np.mean([_variogram(channel) for channel in each], axis=0)
    texture = np.concatenate([lags.mean(axis=0), (lags[0] - lags[1:]).ravel()])
    others = (np.mean([measure(channel) for channel in each], axis=0) for measure in (_blocks, _contrast, _symmetry))
    return Composition(texture, *others)


def mean_composition(windows: list[Composition]) -> Composition:
    """The composition of an image of several windows, at least one."""
    return Composition(*(np.mean(each, axis=0) for each in zip(*windows, strict=True)))


def _standard(channel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The channel with mean 0 and deviation 1; voxels that are absent have the mean."""
    known = np.isfinite(channel)
    if not known.any():
        return np.zeros_like(channel)
    mean, deviation = channel[known].mean(dtype=np.float64), channel[known].std(dtype=np.float64)
    scale = np.float32(deviation) if deviation > 0 else np.float32(1)
    return np.asarray(np.where(known, (channel - np.float32(mean)) / scale, np.float32(0)))


def _variogram(values: NDArray[np.float32]) -> Floats:
    """(axes, lags); beyond the length of an axis no difference is known, and none counts."""
    rows = np.zeros((values.ndim, len(LAGS)))
    for axis in range(values.ndim):
        lines = _lines(values, axis)
        for place, lag in enumerate(LAGS):
            if lag < len(lines):
                rows[axis, place] = np.mean(np.square(lines[lag:] - lines[:-lag]))
    return np.asarray(np.log(LEAST + rows))


def _lines(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """(size, ...) along an axis, of the other axes as many places as are enough."""
    others = math.prod(values.shape) // values.shape[axis]
    step = max(1, math.ceil((others / MOST_LINES) ** (1 / max(1, values.ndim - 1))))
    steps = tuple(slice(None) if one == axis else slice(None, None, step) for one in range(values.ndim))
    return np.moveaxis(values[steps], axis, 0)


def _contrast(values: NDArray[np.float32]) -> Floats:
    """(10,) as in `Composition`."""
    # An odd step: an even one would see a few columns alone.
    some = values.ravel()[:: 1 + 2 * (values.size // MOST_VOXELS // 2)].astype(np.float64)
    lowest, low, lower, middle, upper, high, highest = np.quantile(some, QUANTILES)
    pairs = ((middle - lowest, highest - middle), (middle - low, high - middle), (middle - lower, upper - middle))
    ratios = [_ratio(*pair) for pair in (*pairs, (highest - lowest, upper - lower))]
    skewness, kurtosis = float(np.mean(some * some * some)), float(np.mean(np.square(some * some)))
    ends = END * float(np.ptp(some))
    shares = [float(np.mean(some <= some.min() + ends)), float(np.mean(some >= some.max() - ends))]
    steps = [np.abs(np.diff(_lines(values, axis), axis=0)) for axis in range(values.ndim) if values.shape[axis] > 1]
    shares.append(float(np.mean([np.mean(one < FLAT) for one in steps])) if steps else 1.0)
    steady = np.mean([_ratio(one.mean(), np.sqrt(np.mean(np.square(one)))) for one in steps]) if steps else 0.0
    moments = [math.copysign(math.log1p(abs(skewness)), skewness), math.log(0.1 + kurtosis)]
    return np.array([*ratios, *moments, *np.log(LEAST_SHARE + np.array(shares)), steady])


def _ratio(one: float, other: float) -> float:
    """The logarithm of the ratio of two distances, which may be 0."""
    return math.log((LEAST_DISTANCE + float(one)) / (LEAST_DISTANCE + float(other)))


def _symmetry(values: NDArray[np.float32]) -> Floats:
    """(axes * 2,) as in `Composition`."""
    rows = []
    for axis, size in enumerate(values.shape):
        means = _shares(size) @ values.mean(axis=tuple(one for one in range(values.ndim) if one != axis))
        parts = (means - means[::-1]) / 2, (means + means[::-1]) / 2
        rows += [math.log(LEAST_DISTANCE + float(np.sqrt(np.mean(np.square(part))))) for part in parts]
    return np.array(rows)


def _blocks(values: NDArray[Any]) -> Floats:
    """The mean of each block, of those that mirror each other one."""
    means = values
    for axis, size in enumerate(values.shape):
        means = np.moveaxis(np.tensordot(_shares(size), means, axes=(1, axis)), 0, axis)
    for axis in range(means.ndim):
        means = np.take((means + np.flip(means, axis)) / 2, range(BLOCKS // 2), axis=axis)
    return np.asarray(means, dtype=np.float64).ravel()


def _shares(size: int) -> NDArray[np.float32]:
    """(blocks, size) what each voxel of an axis has of each block: equally long ones, whose bounds may cut a voxel."""
    length, starts = size / BLOCKS, np.arange(BLOCKS)[:, None] * (size / BLOCKS)
    ends = np.minimum(np.arange(size) + 1, starts + length)
    return (np.maximum(ends - np.maximum(np.arange(size), starts), 0) / length).astype(np.float32)
