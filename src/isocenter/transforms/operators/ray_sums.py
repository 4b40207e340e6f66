"""Integrals along rays in one plane: parallel, as a fan, and of emission.

Each pixel throws a shadow on the detector, a triangle about the ray through its middle: what Joseph's sampling of rays
by linear interpolation amounts to. Its middle is rounded to a fine part of a bin, so that a view is two steps: pixels
are added into fine parts, and these, weighted by the triangle, into bins. The transpose takes the steps back, with the
same numbers, and is exact for that reason, at the cost of one look-up a pixel and view.
Joseph, IEEE Trans Med Imaging 1982, doi:10.1109/TMI.1982.4307572; Long et al., IEEE Trans Med Imaging 2010,
doi:10.1109/TMI.2010.2050898
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from isocenter.errors import UsageError
from isocenter.lazy import torch
from isocenter.transforms.operators import linear_operator
from isocenter.transforms.operators.linear_operator import LinearOperator
from isocenter.values import Acquisition, Floats

if TYPE_CHECKING:
    from torch import Tensor

# Pixels times views at once: what fits into a processor's cache.
AT_ONCE = 2**18
# Fine parts of half a shadow, and the fewest of a bin: an error of position that no detector notices.
PARTS, FEWEST = 24, 16
# Widths of shadows that a view of a fan tells apart, where pixels near the source throw wider ones.
WIDTHS = 12


class RaySums(LinearOperator):
    """Integrals (value times mm) along the rays of every view; of emission those that no matter on the line absorbs."""

    def __init__(self, acquisition: Acquisition) -> None:
        super().__init__(acquisition, (len(acquisition.angles_deg), acquisition.bins), is_complex=False)
        scan, angles = acquisition, np.deg2rad(acquisition.angles_deg)
        self._across = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._x, self._y = (grid_positions(*one) for one in zip(scan.shape, scan.spacing, strict=True))
        self._widths = self._find_widths()
        self._margin = math.ceil(max(1.0, self._widths.max())) + 1
        self._parts = max(FEWEST, math.ceil(PARTS / self._widths.min()))
        self._lengths = self._find_lengths()
        self._arriving = np.ones(self.codomain)
        if scan.attenuation is not None:
            self._arriving = np.exp(-self.forward(np.asarray(scan.attenuation, np.float64)))

    def measure(self, images: Tensor) -> Tensor:
        """(batch, *shape) to (batch, views, bins)."""
        return linear_operator.apply_linear(images, self._sum_rays, self._spread_rays)

    def transpose(self, measured: Tensor) -> Tensor:
        """(batch, views, bins) to (batch, *shape)."""
        return linear_operator.apply_linear(measured, self._spread_rays, self._sum_rays)

    @property
    def has_plain_inverse(self) -> bool:
        """Not of a fan that did not go round once."""
        return not self._reach or angular_shares(np.deg2rad(self.acquisition.angles_deg), 2 * np.pi)[1]

    def invert(self, measured: Tensor) -> Tensor:
        """Filtered backprojection of (batch, views, bins); of a fan that went round once.

        Raises UsageError for a fan that did not. Kak and Slaney 1988, chapter 3, doi:10.1137/1.9780898719277
        """
        scan = self.acquisition
        angles, spacing, weights = np.deg2rad(scan.angles_deg), scan.bin_mm, np.ones(scan.bins)
        shares, _ = angular_shares(angles, 2 * np.pi if self._reach else np.pi)
        if self._reach:
            if not self.has_plain_inverse:
                remedy = "Reconstruct with cg or tv"
                raise UsageError("is a fan that does not go round once, which fbp needs", scan.where, remedy)
            spacing *= scan.source_mm / self._reach
            weights = scan.source_mm / np.hypot(scan.source_mm, grid_positions(scan.bins, spacing))
            shares = shares / 2
        sums = measured / torch.as_tensor(self._arriving).to(measured) * torch.as_tensor(weights).to(measured)
        size = 2 * scan.bins
        response = torch.fft.rfft(torch.as_tensor(ramp_filter(size, spacing)).to(measured))
        filtered = torch.fft.irfft(torch.fft.rfft(sums, size) * response, size)[..., : scan.bins]
        return self.interpolate(filtered * torch.as_tensor(shares * spacing).to(measured)[:, None])

    def interpolate(self, profiles: Tensor) -> Tensor:
        """(batch, *shape): each pixel's sum of profiles (batch, views, bins), linear between two bins.

        Of a fan each profile counts by the square of how much nearer than the middle a pixel lies to the source.
        """
        return self._look_up(profiles, np.ones_like(self._widths), lambda share, near: near**2)

    @property
    def _reach(self) -> float:
        """mm from the source to the detector; 0 where rays are parallel."""
        return self.acquisition.source_mm + self.acquisition.detector_mm

    @property
    def _cells(self) -> int:
        """Bins with those beyond both ends, into which fall pixels that the detector does not see."""
        return self.acquisition.bins + 2 * self._margin

    @property
    def _table_size(self) -> int:
        """Fine parts of a view, for each width of shadows."""
        return self._cells * self._parts * self._widths.shape[1]

    def _find_widths(self) -> Floats:
        """(views, widths) half of a shadow, in bins, from the narrowest to the widest of a view."""
        scan, steps = self.acquisition, np.abs(self._across) * self.acquisition.spacing
        if not self._reach:
            return steps.max(axis=1, keepdims=True) / scan.bin_mm
        coarse = (torch.linspace(axis[0], axis[-1], 33, dtype=torch.float64) for axis in (self._x, self._y))
        widths = self._see_in_fan(torch.as_tensor(self._across), *coarse)[2].flatten(1).numpy()
        return np.geomspace(widths.min(axis=1), widths.max(axis=1), WIDTHS, axis=1)

    def _see_in_fan(self, across: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(views, x, y) each: mm along the detector, mm from the source, half of a pixel's shadow in bins.

        The shadow is that of a step along x or y, whichever moves it farther.
        """
        cosine, sine = across.T[:, :, None, None]
        lateral = x[:, None] * cosine + y * sine
        depth = self.acquisition.source_mm - x[:, None] * sine + y * cosine
        by_x, by_y = (cosine * depth + lateral * sine).abs(), (sine * depth - lateral * cosine).abs()
        step = torch.maximum(by_x * self.acquisition.spacing[0], by_y * self.acquisition.spacing[1])
        return lateral * self._reach / depth, depth, step * self._reach / depth**2 / self.acquisition.bin_mm

    def _find_lengths(self) -> Floats:
        """(views, bins) mm of a ray between two rows of pixels, along the axis that it crosses less steeply."""
        scan, (cosine, sine) = self.acquisition, self._across.T[:, :, None]
        bins, reach = grid_positions(scan.bins, scan.bin_mm), self._reach
        a, b = (reach * cosine + bins * sine, reach * sine - bins * cosine) if reach else (cosine, sine)
        lengths = np.hypot(a, b) / np.maximum(abs(a) * scan.spacing[0], abs(b) * scan.spacing[1])
        return np.broadcast_to(lengths * math.prod(scan.spacing), self.codomain)

    def _view_slices(self) -> Iterator[slice]:
        step = max(1, AT_ONCE // math.prod(self.domain))
        yield from (slice(start, start + step) for start in range(0, self.codomain[0], step))

    def _place_pixels(self, views: slice, values: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """(views, pixels) each: place in the table of fine parts; share of what it finds there; nearness to the source.

        Positions are of single precision whatever the values are, so that both directions round alike.
        """
        scan, widths = self.acquisition, self._widths[views]
        across, x, y = (_on_device(one, values.device) for one in (self._across[views], self._x, self._y))
        scale, origin = self._parts / scan.bin_mm, ((scan.bins - 1) / 2 + self._margin) * self._parts + 0.5
        last = self._cells * self._parts - 1
        start = torch.arange(len(widths), device=values.device)[:, None] * self._table_size
        if not self._reach:
            by_x, by_y = (across * scale).T[:, :, None]
            place = (x * by_x)[:, :, None] + (y * by_y + origin)[:, None]
            return place.clamp_(0, last).long().flatten(1) + start, 1.0, 1.0
        seen, depth, width = (one.flatten(1) for one in self._see_in_fan(across, x, y))
        narrowest, widest = _on_device(widths[:, [0, -1]], values.device).T[:, :, None]
        growth = ((widest / narrowest).log() / (WIDTHS - 1)).clamp(min=1e-9)
        level = ((width / narrowest).log() / growth).round().clamp(0, WIDTHS - 1)
        share = width / (narrowest * (level * growth).exp())
        place = (seen * scale + origin).clamp(0, last).long() + level.long() * (last + 1) + start
        return place, share.to(values), (scan.source_mm / depth).to(values)

    def _sum_rays(self, images: Tensor) -> Tensor:
        pixels, sums = images.flatten(1), []
        for views in self._view_slices():
            place, share, _ = self._place_pixels(views, images)
            table = images.new_zeros(len(images), self._table_size * len(place))
            shares = (pixels[:, None] * share).expand(-1, len(place), -1)
            table.index_add_(1, place.flatten(), shares.flatten(1))
            sums.append(self._to_bins(table, self._widths[views]))
        return torch.cat(sums, dim=1) * self._weights(images)

    def _spread_rays(self, sums: Tensor) -> Tensor:
        return self._look_up(sums * self._weights(sums), self._widths, lambda share, near: share)

    def _look_up(self, sums: Tensor, widths: Floats, factor: Callable[..., Tensor | float]) -> Tensor:
        """(batch, *shape) sums over views (batch, views, bins) at each pixel, by triangles of these widths."""
        image = sums.new_zeros(len(sums), math.prod(self.domain))
        for views in self._view_slices():
            place, share, near = self._place_pixels(views, sums)
            table = self._to_parts(sums[:, views], widths[views])
            seen = torch.index_select(table, 1, place.flatten()).reshape(len(image), *place.shape)
            image += (seen * factor(share, near)).sum(dim=1)
        return image.reshape(-1, *self.domain)

    def _weights(self, values: Tensor) -> Tensor:
        """(views, bins) factors of the sums over pixels."""
        return torch.as_tensor(self._lengths * self._arriving).to(values)

    def _triangles(self, widths: Floats, values: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """For each bin that a shadow can reach: where bins lie among cells, and (views, widths, parts) weights."""
        inside = np.arange(self._parts) / self._parts
        bins, most = self.acquisition.bins, math.ceil(widths.max())
        for offset in range(-most, most):
            weights = np.maximum(0, 1 - np.abs(offset + inside) / widths[:, :, None])
            yield slice(self._margin + offset, self._margin + offset + bins), torch.as_tensor(weights).to(values)

    def _to_bins(self, table: Tensor, widths: Floats) -> Tensor:
        """(batch, views, bins) of a table (batch, views * widths * cells * parts)."""
        cells = table.reshape(len(table), *widths.shape, self._cells, self._parts)
        bins = table.new_zeros(len(table), len(widths), self.acquisition.bins)
        for where, weights in self._triangles(widths, table):
            bins += torch.einsum("bvwki,vwi->bvk", cells[..., where, :], weights)
        return bins

    def _to_parts(self, sums: Tensor, widths: Floats) -> Tensor:
        """The transpose of `_to_bins`."""
        cells = sums.new_zeros(len(sums), *widths.shape, self._cells, self._parts)
        for where, weights in self._triangles(widths, sums):
            cells[..., where, :] += torch.einsum("bvk,vwi->bvwki", sums, weights)
        return cells.flatten(1)


def ramp_filter(size: int, spacing: float) -> Floats:
    """(size,) the ramp by its values in space, which keep the mean of an image, for a circular convolution."""
    place = np.minimum(np.arange(size), size - np.arange(size))
    values = np.zeros(size)
    values[place % 2 == 1] = -1 / (np.pi * place[place % 2 == 1] * spacing) ** 2
    values[0] = 1 / (2 * spacing) ** 2
    return values


def angular_shares(angles: Floats, period: float) -> tuple[Floats, bool]:
    """(views,) radians that each view stands for, and whether there is no gap in the period.

    A view stands for half of the way to both of its neighbours; a gap that nobody measured belongs to none.
    """
    order = np.argsort(angles % period)
    gaps = np.diff((angles % period)[order], append=(angles % period)[order[0]] + period)
    usual = 3 * period / len(angles)
    shares = np.empty(len(angles))
    shares[order] = (np.minimum(gaps, usual) + np.minimum(np.roll(gaps, 1), usual)) / 2
    return shares, bool(gaps.max() <= usual + 1e-9)


def grid_positions(size: int, step: float) -> Floats:
    """(size,) mm from the middle."""
    return (np.arange(size) - (size - 1) / 2) * step


def _on_device(array: Floats, device: torch.device) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)
