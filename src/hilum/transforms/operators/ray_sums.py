"""Integrals along parallel rays in one plane.

Each pixel throws a shadow on the detector, a triangle about the ray through its middle: what Joseph's sampling of rays
by linear interpolation amounts to. Its middle is rounded to a fine part of a bin, so that a view is two steps: pixels
are added into fine parts, and these, weighted by the triangle, into bins. The transpose takes the steps back, with the
same numbers, and is exact for that reason, at the cost of one look-up a pixel and view.
Joseph, IEEE Trans Med Imaging 1982, doi:10.1109/TMI.1982.4307572; Long et al., IEEE Trans Med Imaging 2010,
doi:10.1109/TMI.2010.2050898
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import numpy as np

from hilum.lazy import torch
from hilum.transforms.operators import linear_operator
from hilum.transforms.operators.linear_operator import LinearOperator
from hilum.values import Acquisition, Floats

if TYPE_CHECKING:
    from torch import Tensor

# Pixels times views at once: what fits into a processor's cache.
AT_ONCE = 2**18
# Fine parts of half a shadow, and the fewest of a bin: an error of position that no detector notices.
PARTS = 128
FEWEST = 16


class RaySums(LinearOperator):
    """Integrals (value times mm) along the rays of every view."""

    def __init__(self, acquisition: Acquisition) -> None:
        super().__init__(acquisition, (len(acquisition.angles_deg), acquisition.bins), is_complex=False)
        scan = acquisition
        angles = np.deg2rad(acquisition.angles_deg)
        self._across = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._positions = [grid_positions(*one) for one in zip(scan.shape, scan.spacing, strict=True)]
        # Half of a shadow: of the step, along the first or the second axis, that moves a pixel farther.
        steps = (np.abs(self._across) * scan.spacing).max(axis=1)
        self._widths = steps / scan.bin_mm
        # mm of a ray between two rows of pixels, along the axis that it crosses less steeply.
        self._lengths = math.prod(scan.spacing) / steps
        self._margin = math.ceil(max(1.0, self._widths.max())) + 1
        self._parts = max(FEWEST, math.ceil(PARTS / self._widths.min()))

    def measure(self, images: Tensor) -> Tensor:
        """(batch, *shape) to (batch, views, bins)."""
        return linear_operator.apply_linear(images, self._sum_rays, self._spread_rays)

    def transpose(self, measured: Tensor) -> Tensor:
        """(batch, views, bins) to (batch, *shape)."""
        return linear_operator.apply_linear(measured, self._spread_rays, self._sum_rays)

    def invert(self, measured: Tensor) -> Tensor:
        """Filtered backprojection, linear between two bins.

        Kak and Slaney 1988, chapter 3, doi:10.1137/1.9780898719277
        """
        bins = self.acquisition.bins
        spacing = self.acquisition.bin_mm
        response = torch.fft.rfft(torch.as_tensor(ramp_filter(2 * bins, spacing)).to(measured))
        filtered = torch.fft.irfft(torch.fft.rfft(measured, 2 * bins) * response, 2 * bins)[..., :bins]
        shares = angular_shares(np.deg2rad(self.acquisition.angles_deg)) * spacing
        return self._look_up(filtered * torch.as_tensor(shares).to(measured)[:, None], np.ones_like(self._widths))

    @property
    def _cells(self) -> int:
        """Bins with those beyond both ends, into which fall pixels that the detector does not see."""
        return cast(int, self.acquisition.bins + 2 * self._margin)

    def _view_slices(self) -> Iterator[slice]:
        step = max(1, AT_ONCE // math.prod(self.domain))
        yield from (slice(start, start + step) for start in range(0, self.codomain[0], step))

    def _place_pixels(self, views: slice, device: torch.device) -> Tensor:
        """(views, pixels) places in the table of fine parts.

        Positions are of single precision whatever the values are, so that both directions round alike.
        """
        scan = self.acquisition
        parts = self._parts
        across, x, y = (
            torch.as_tensor(one, dtype=torch.float32, device=device)
            for one in (self._across[views] * parts / scan.bin_mm, *self._positions)
        )
        by_x, by_y = across.T[:, :, None]
        origin = ((scan.bins - 1) / 2 + self._margin) * parts + 0.5
        place = (x * by_x)[:, :, None] + (y * by_y + origin)[:, None]
        starts = torch.arange(len(across), device=device)[:, None] * self._cells * parts
        return cast("Tensor", place.clamp_(0, self._cells * parts - 1).long().flatten(1) + starts)

    def _sum_rays(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        sums = []
        for views in self._view_slices():
            place = self._place_pixels(views, images.device)
            table = images.new_zeros(len(images), len(place) * self._cells * self._parts)
            table.index_add_(1, place.flatten(), pixels[:, None].expand(-1, len(place), -1).flatten(1))
            cells = table.reshape(len(images), len(place), self._cells, self._parts)
            triangles = self._triangles(self._widths[views], images)
            parts = [torch.einsum("bvki,vi->bvk", cells[..., at, :], weights) for at, weights in triangles]
            sums.append(torch.stack(parts).sum(dim=0))
        return torch.cat(sums, dim=1) * torch.as_tensor(self._lengths).to(images)[:, None]

    def _spread_rays(self, sums: Tensor) -> Tensor:
        return self._look_up(sums * torch.as_tensor(self._lengths).to(sums)[:, None], self._widths)

    def _look_up(self, sums: Tensor, widths: Floats) -> Tensor:
        """(batch, *shape) sums over views (batch, views, bins) at each pixel, by triangles of these widths."""
        image = sums.new_zeros(len(sums), math.prod(self.domain))
        for views in self._view_slices():
            place = self._place_pixels(views, sums.device)
            cells = sums.new_zeros(len(sums), len(place), self._cells, self._parts)
            for at, weights in self._triangles(widths[views], sums):
                cells[..., at, :] += torch.einsum("bvk,vi->bvki", sums[:, views], weights)
            seen = torch.index_select(cells.flatten(1), 1, place.flatten())
            image += seen.reshape(len(image), *place.shape).sum(dim=1)
        return image.reshape(-1, *self.domain)

    def _triangles(self, widths: Floats, values: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """For each bin that a shadow can reach: where bins lie among cells, and (views, parts) weights."""
        inside = np.arange(self._parts) / self._parts
        bins = self.acquisition.bins
        most = math.ceil(widths.max())
        for offset in range(-most, most):
            weights = np.maximum(0, 1 - np.abs(offset + inside) / widths[:, None])
            yield slice(self._margin + offset, self._margin + offset + bins), torch.as_tensor(weights).to(values)


def ramp_filter(size: int, spacing: float) -> Floats:
    """(size,) the ramp by its values in space, which keep the mean of an image, for a circular convolution."""
    place = np.minimum(np.arange(size), size - np.arange(size))
    values = np.zeros(size)
    values[place % 2 == 1] = -1 / (np.pi * place[place % 2 == 1] * spacing) ** 2
    values[0] = 1 / (2 * spacing) ** 2
    return values


def angular_gaps(angles: Floats) -> Floats:
    """(views,) radians from each view to the next one in half a turn, in the order of directions; of one view all.

    Views of one direction, as of a second turn, have none between them.
    """
    directions = np.sort(angles % np.pi)
    return np.diff(directions, append=directions[0] + np.pi)


def angular_shares(angles: Floats) -> Floats:
    """(views,) radians of half a turn that each view stands for: half of the way to both of its neighbours.

    A gap that nobody measured belongs to none.
    """
    order = np.argsort(angles % np.pi)
    usual = 3 * np.pi / len(angles)
    gaps = angular_gaps(angles)
    shares = np.empty(len(angles))
    shares[order] = (np.minimum(gaps, usual) + np.minimum(np.roll(gaps, 1), usual)) / 2
    return shares


def grid_positions(size: int, step: float) -> Floats:
    """(size,) mm from the middle."""
    return (np.arange(size) - (size - 1) / 2) * step
