"""Cartesian MR: the centred Fourier transform of an image as each coil sees it, where k-space was sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from hilum.errors import FormatError
from hilum.lazy import torch
from hilum.transforms.operators.linear_operator import LinearOperator
from hilum.values import Acquisition, Array

if TYPE_CHECKING:
    from torch import Tensor

PLANE = (-2, -1)
# Lines of a fully sampled centre without which coils cannot be told from the image.
FEWEST_LINES = 4
# Of the strongest place of a coil's sum of squares: below it there is air, without any sensitivity to see.
AIR = 1e-6


class Cartesian(LinearOperator):
    """`fftshift(fft2(ifftshift(image), norm="ortho"))` of one coil or several, times the mask.

    Pruessmann et al., Magn Reson Med 1999, doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S
    """

    def __init__(self, acquisition: Acquisition) -> None:
        maps = acquisition.sensitivities
        coils = () if maps is None else (len(maps),)
        super().__init__(acquisition, (*coils, *acquisition.shape), is_complex=True)
        self._mask = np.ones(acquisition.shape) if acquisition.mask is None else np.asarray(acquisition.mask)
        self._maps = maps

    def measure(self, images: Tensor) -> Tensor:
        """(batch, rows, columns) to (batch, [coils,] rows, columns)."""
        seen = images if self._maps is None else images[:, None] * _like(self._maps, images)
        return fourier_transform(seen) * _like(self._mask, images).real

    def transpose(self, measured: Tensor) -> Tensor:
        """Every coil's image, by its sensitivity, summed."""
        images = inverse_transform(measured * _like(self._mask, measured).real)
        return images if self._maps is None else (images * _like(self._maps, images).conj()).sum(dim=1)

    def invert(self, measured: Tensor) -> Tensor:
        """The image whose k-space is 0 where it was not sampled; of several coils divided by their sensitivity."""
        images = self.transpose(measured)
        if self._maps is None:
            return images
        power = _like((np.abs(self._maps) ** 2).sum(axis=0), images)
        return images / power.real.clamp(min=AIR * float(power.real.max()))


def estimate_sensitivities(kspace: Array, mask: Array | None, where: str) -> Array:
    """(coils, rows, columns) of k-space of this shape: its fully sampled centre, smooth, over the root of all squares.

    Raises FormatError where the centre is not sampled.
    McKenzie et al., Magn Reson Med 2002, doi:10.1002/mrm.10087
    """
    shape = kspace.shape[1:]
    full = np.ones(shape) if mask is None else mask
    lines = [_centre_lines(full, axis) for axis in (0, 1)]
    if min(lines) < FEWEST_LINES:
        remedy = "Give the array sensitivities, or sample the centre"
        raise FormatError(f"samples fewer than {FEWEST_LINES} lines of its centre, and has no maps", where, remedy)
    windows = [_window(size, width) for size, width in zip(shape, lines, strict=True)]
    smooth = inverse_transform(torch.as_tensor(kspace * windows[0][:, None] * windows[1])).numpy()
    power = np.sqrt((np.abs(smooth) ** 2).sum(axis=0))
    return cast("Array", smooth / np.maximum(power, np.sqrt(AIR) * power.max()))


def _centre_lines(mask: Array, axis: int) -> int:
    """How many lines about the middle along an axis are sampled as far as any line is."""
    filled = np.asarray(mask).sum(axis=1 - axis) >= np.asarray(mask).sum(axis=1 - axis).max()
    middle = len(filled) // 2
    gaps = np.flatnonzero(~filled)
    return len(filled) if not len(gaps) else 2 * int(np.abs(gaps - middle).min()) - 1


def _window(size: int, width: int) -> Array:
    """(size,) falls from 1 in the middle to 0 at the edge of `width` lines."""
    apart = np.abs(np.arange(size) - size // 2) / (width / 2)
    return np.where(apart < 1, np.cos(np.pi / 2 * np.minimum(apart, 1)) ** 2, 0)


def fourier_transform(images: Tensor) -> Tensor:
    """K-space of (..., rows, columns), its centre in the middle; unitary."""
    return cast(
        "Tensor", torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(images, dim=PLANE), norm="ortho"), dim=PLANE)
    )


def inverse_transform(kspace: Tensor) -> Tensor:
    """Images of (..., rows, columns) of k-space."""
    return cast(
        "Tensor", torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=PLANE), norm="ortho"), dim=PLANE)
    )


def _like(array: Array, values: Tensor) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array)).to(values)
