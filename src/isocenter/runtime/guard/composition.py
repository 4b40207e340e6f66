"""How an image is composed: how fine it is along each axis, and where it is bright."""

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
# Of the variance, what differences have at least: a logarithm needs some.
LEAST = 1e-4


class Composition(NamedTuple):
    """Numbers of an image that no network has a say in.

    Both are in standard deviations of the image, so that one with more light or contrast has the same. So has one that
    is mirrored: a model may look at mirrored windows too.

    texture: (axes * lags,) logarithms of the mean squared difference between voxels at each lag (a variogram): its mean
             over the axes, and how far the first axis lies above each other one
    layout:  (blocks,) means of the blocks of a coarse grid, of those that mirror each other one
    """

    texture: Floats
    layout: Floats


def composition(window: NDArray[np.float32]) -> Composition:
    """The composition of a window, (channels, *patch), the mean over its channels."""
    each = [_standard(channel) for channel in window]
    lags = np.mean([_variogram(channel) for channel in each], axis=0)
    texture = np.concatenate([lags.mean(axis=0), (lags[0] - lags[1:]).ravel()])
    return Composition(texture, np.mean([_blocks(channel) for channel in each], axis=0))


def mean_composition(windows: list[Composition]) -> Composition:
    """That of an image of several windows, at least one."""
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
