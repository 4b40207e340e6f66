"""Grids and images that hypothesis draws from, for every test of geometry and of round trips."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hilum.values import Geometry, Image

numbers = st.floats(-1, 1, allow_nan=False, width=32)


@st.composite
def rotations(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Any rotation or reflection of three axes; often one that only swaps and flips axes, as most files have."""
    if draw(st.booleans()):
        turned = np.eye(3)[list(draw(st.permutations(range(3))))]
        return turned * draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    quaternion = np.array(draw(st.tuples(numbers, numbers, numbers, numbers)))
    length = np.linalg.norm(quaternion)
    a, b, c, d = quaternion / length if length > 1e-2 else (1.0, 0.0, 0.0, 0.0)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return rotation * draw(st.sampled_from([-1.0, 1.0]))


@st.composite
def geometries(draw: st.DrawFn, *, sheared: bool | None = None, largest: int = 7) -> Geometry:
    """An oriented grid of three axes in mm: oblique, flipped and (if not told otherwise) sheared."""
    shape = draw(st.tuples(*[st.integers(1, largest)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.1, 10)] * 3))
    shear = np.eye(3)
    if sheared or (sheared is None and draw(st.booleans())):
        shear[1, 2] = draw(st.floats(0.05, 0.6))
        shear[0, 1] = draw(st.floats(-0.4, 0.4))
    affine = np.eye(4)
    affine[:3, :3] = draw(rotations()) @ shear @ np.diag(spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Geometry(shape, affine)


@st.composite
def unknown_geometries(draw: st.DrawFn) -> Geometry:
    """A grid without sides: with a voxel size in mm, or without."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    if draw(st.booleans()):
        return Geometry.of_spacing(shape, draw(st.tuples(*[st.floats(0.1, 10)] * 3)))
    return Geometry.of_pixels(shape)


@st.composite
def images(draw: st.DrawFn, grids: st.SearchStrategy[Geometry], dtypes: tuple[Any, ...] = ()) -> Image:
    """An image of any number type, with channels and frames, on one of these grids."""
    dtype = np.dtype(draw(st.sampled_from(dtypes or NUMBER_TYPES)))
    geometry = draw(grids)
    frames = draw(st.sampled_from([(), (), (2,), (3,)]))
    channels = draw(st.integers(1, 4))
    pixels = draw(arrays(dtype, (channels, *frames, *geometry.shape), elements=_elements(dtype), fill=st.just(1)))
    times = tuple(0.5 * n for n in range(frames[0])) if frames and draw(st.booleans()) else None
    return Image(pixels, geometry, times=times)


NUMBER_TYPES = ("b1", "u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f2", "f4", "f8")


def _elements(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(width=dtype.itemsize * 8)  # type: ignore[call-overload]
    bounds = np.iinfo(dtype)
    return st.integers(int(bounds.min), int(bounds.max))
