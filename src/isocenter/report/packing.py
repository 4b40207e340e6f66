"""Voxels as short text that a browser unpacks: fewest bits that hold the values, gzip, base64."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isocenter.values import Array

CODES = 65_536  # values that 16 bits tell apart


@dataclass(frozen=True)
class Packed:
    """Codes as text, and how a value comes back: code * slope + intercept.

    data:      base64 of gzip of little-endian codes in C order
    bits:      8 or 16
    missing:   the code of what is no number; None where all are numbers
    exact:     whether every value comes back as it was, else to within half a slope
    low, high: the smallest and the largest value
    """

    data: str
    bits: int
    slope: float
    intercept: float
    missing: int | None
    exact: bool
    low: float
    high: float


def pack(values: Array) -> Packed:
    """Any numbers as codes of 8 or 16 bits: whole numbers exactly where they fit, others in equal steps."""
    finite = np.isfinite(values)
    is_whole = bool(finite.all())
    known = values.ravel() if is_whole else values[finite]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    spare = 0 if is_whole else 1  # one code for what is no number
    exact = low == high or (high - low < CODES - spare and bool(np.array_equal(known, np.rint(known))))
    slope = 1.0 if exact else (high - low) / (CODES - 1 - spare)
    codes = np.rint((known.astype(np.float64) - low) / slope)
    if is_whole:
        return _packed(codes.reshape(values.shape), slope, None, exact, low, high)
    every = np.full(values.shape, round((high - low) / slope) + 1.0)
    every[finite] = codes
    return _packed(every, slope, round((high - low) / slope) + 1, exact, low, high)


def text_of(codes: Array) -> str:
    """Base64 of gzip of the bytes in C order; the same for the same voxels."""
    return base64.b64encode(gzip.compress(np.ascontiguousarray(codes).tobytes(), 6, mtime=0)).decode("ascii")


def code_type(largest: int) -> np.dtype:
    """The little-endian type of fewest bits that holds the code."""
    return np.dtype("<u1" if largest < 256 else "<u2")


def thinning(shape: Sequence[int], steps: Sequence[float], limit: int) -> tuple[int, ...]:
    """Every how many-th voxel to keep per axis so that at most `limit` are left, the finest axes first."""
    every = [1] * len(shape)
    while np.prod([-(-size // step) for size, step in zip(shape, every, strict=True)]) > max(1, limit):
        thick = [axis for axis, size in enumerate(shape) if size > every[axis]]
        finest = min(steps[axis] * every[axis] for axis in thick)
        for axis in thick:  # axes that are alike stay alike
            every[axis] += steps[axis] * every[axis] < 1.1 * finest
    return tuple(every)


def _packed(codes: Array, slope: float, missing: int | None, exact: bool, low: float, high: float) -> Packed:
    kind = code_type(max(round((high - low) / slope), missing or 0))
    return Packed(text_of(codes.astype(kind)), 8 * kind.itemsize, slope, low, missing, exact, low, high)
