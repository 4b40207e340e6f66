"""Layers by the number of axes, and the combinations of layers that several families share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: dict[int, Any] = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
DROPOUT: dict[int, Any] = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
AVERAGE_POOL: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOL: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
# Linear interpolation, as torch names it.
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def convolved(
    ndim: int,
    inside: int,
    outside: int,
    kernel: int,
    stride: int | Sequence[int] = 1,
    *,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: Callable[..., nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """A convolution that keeps the grid but for its stride, batch normalisation and an activation."""
    apart = (dilation,) * ndim if isinstance(dilation, int) else tuple(dilation)
    step = (stride,) * ndim if isinstance(stride, int) else tuple(stride)
    pad = tuple(kernel // 2 * n for n in apart)
    layer = CONVOLUTION[ndim](inside, outside, kernel, step, pad, apart, groups, bias=False)
    return nn.Sequential(layer, BATCH_NORM[ndim](outside), activation(inplace=True))


class OverlappingPool(nn.Module):
    """The maximum of three voxels an axis, at every second voxel; along a shorter axis, of all its voxels."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of half the size, rounded up."""
        kernel = [min(3, int(n)) for n in maps.shape[2:]]
        return MAX_POOL[maps.ndim - 2](kernel, 2, ceil_mode=True)(maps)


def in_cells(maps: Tensor, cells: int) -> Tensor:
    """The mean over each of `cells` parts an axis: torch's adaptive pooling, which ONNX lacks for uneven parts."""
    for axis in range(2, maps.ndim):
        n = int(maps.shape[axis])
        edges = [(i * n // cells, -(-(i + 1) * n // cells)) for i in range(cells)]
        maps = torch.stack([maps.narrow(axis, low, high - low).mean(dim=axis) for low, high in edges], dim=axis)
    return maps


def after_each(stages: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
    """The maps after each stage of an encoder, finest first."""
    features = []
    for stage in stages:
        images = stage(images)
        features.append(images)
    return features


def with_covariates(features: Tensor, covariates: Tensor | None) -> Tensor:
    """(batch, features) and (batch, covariates) joined; the features alone without covariates."""
    return features if covariates is None else torch.cat([features, covariates], dim=1)


def stochastic_depth(change: Tensor, left_out: float, training: bool) -> Tensor:
    """The change that a block adds: in training nothing for a share of samples, and more for the others.

    The mean over samples stays the same. Huang et al., ECCV 2016, arXiv:1603.09382.
    """
    if not training or left_out == 0:
        return change
    mask = torch.empty_like(change[(slice(None), *[slice(1)] * (change.ndim - 1))]).bernoulli_(1 - left_out)
    return change * mask / (1 - left_out)


def for_pairs(table: Tensor, axis: int, count: int) -> Tensor:
    """(..., 2 old - 1, ...) by offset to (..., count, count, ...): at (i, j) the entry of the offset i - j.

    table: of the offsets between `old` places along this axis, the most negative first
    count: places along the axis, of a grid of any size
    """
    read = stretched(table, axis, count)
    places = torch.arange(count, device=table.device)
    offsets = places[:, None] - places[None, :] + count - 1
    return read.index_select(axis, offsets.flatten()).unflatten(axis, (count, count))


def stretched(table: Tensor, axis: int, count: int) -> Tensor:
    """(..., 2 old - 1, ...) to (..., 2 count - 1, ...) by linear interpolation; the same tensor for the same size.

    Both grids span the same image: the largest offset stays the largest, and 0 stays 0. Dai et al., arXiv:2106.04803,
    section 2.1, enlarge their tables likewise.
    """
    farthest = int(table.shape[axis]) // 2
    if count == farthest + 1:
        return table
    offsets = torch.arange(1 - count, count, device=table.device, dtype=torch.float32)
    places = (offsets * (farthest / max(count - 1, 1)) + farthest).clamp(0, 2 * farthest)
    below = places.floor()
    share = (places - below).to(table.dtype).reshape(-1, *[1] * (table.ndim - 1 - axis % table.ndim))
    above = (below + 1).clamp(max=2 * farthest)
    return table.index_select(axis, below.long()) * (1 - share) + table.index_select(axis, above.long()) * share


def slices_with_neighbours(images: Tensor, axis: int, neighbours: int) -> Tensor:
    """(batch, channels, *spatial) to (batch * slices, channels * (2 * neighbours + 1), *plane), slice by slice.

    axis:       along which the volume is cut
    neighbours: slices on each side; the outermost slice replaces missing ones. Channels come neighbour by neighbour,
                in the order of the slices
    Roth et al., MICCAI 2014, arXiv:1406.2639, give views of a volume to a network for pictures as channels (2.5D).
    """
    slices = images.movedim(axis + 2, 1)  # (batch, slices, channels, *plane)
    count = slices.shape[1]
    first, last = slices[:, :1], slices[:, -1:]
    padded = torch.cat([first] * neighbours + [slices] + [last] * neighbours, dim=1)
    near = torch.cat([padded[:, n : n + count] for n in range(2 * neighbours + 1)], dim=2)
    return near.flatten(0, 1)


def check_slices(axis: int, neighbours: int) -> None:
    """ValueError for an axis that no volume has, or fewer than 0 neighbours."""
    if axis not in (0, 1, 2) or neighbours < 0:
        raise ValueError(f"axis {axis} is not 0, 1 or 2, or neighbours {neighbours} is negative")
