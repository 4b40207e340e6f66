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
