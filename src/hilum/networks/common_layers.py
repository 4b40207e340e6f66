"""Layers by the number of axes, and what several families share: attention gates, coarser outputs, whole cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
# Groups of maps that are normalised together: as many as De et al. take for private training (arXiv:2204.13650), or as
# divide the maps.
GROUPS = 16
# By the name of a setting: (axes, maps) to a normalisation; "group" (arXiv:1803.08494) looks at one image.
NORMALISATION: dict[str, Callable[[int, int], nn.Module]] = {
    "batch": lambda ndim, maps: BATCH_NORM[ndim](maps),
    "group": lambda _, maps: nn.GroupNorm(math.gcd(GROUPS, maps), maps),
}
INSTANCE_NORM: dict[int, Any] = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
DROPOUT: dict[int, Any] = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
AVERAGE_POOL: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOL: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
# Linear interpolation, as torch names it.
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def normed_convolution(
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
        return cast("Tensor", MAX_POOL[maps.ndim - 2](kernel, 2, ceil_mode=True)(maps))


def pool_cells(maps: Tensor, cells: int) -> Tensor:
    """The mean over each of `cells` parts an axis: torch's adaptive pooling, which ONNX lacks for uneven parts."""
    for axis in range(2, maps.ndim):
        n = int(maps.shape[axis])
        edges = [(i * n // cells, -(-(i + 1) * n // cells)) for i in range(cells)]
        maps = torch.stack([maps.narrow(axis, low, high - low).mean(dim=axis) for low, high in edges], dim=axis)
    return maps


def stage_maps(stages: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
    """The maps after each stage of an encoder, finest first."""
    features = []
    for stage in stages:
        images = stage(images)
        features.append(images)
    return features


def join_covariates(features: Tensor, covariates: Tensor | None) -> Tensor:
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


def offsets_to_pairs(table: Tensor, axis: int, count: int) -> Tensor:
    """(..., 2 old - 1, ...) by offset to (..., count, count, ...): at (i, j) the entry of the offset i - j.

    table: of the offsets between `old` places along this axis, the most negative first
    count: places along the axis, of a grid of any size
    """
    read = stretch_table(table, axis, count)
    places = torch.arange(count, device=table.device)
    offsets = places[:, None] - places[None, :] + count - 1
    return cast("Tensor", read.index_select(axis, offsets.flatten()).unflatten(axis, (count, count)))


def stretch_table(table: Tensor, axis: int, count: int) -> Tensor:
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


# Attention gates of a block: squeeze and excitation over maps, and CBAM over maps and voxels.
#
# Hu et al., CVPR 2018, arXiv:1709.01507; Woo et al., ECCV 2018, arXiv:1807.06521.

REDUCTION = 16  # reduction ratio r of both papers: maps for each of the hidden layer
NARROWEST = 4  # hidden layers of fewer features may be 0 for all images
LOOK = 7  # voxels an axis of CBAM's spatial convolution


def build_gate(kind: str | None, ndim: int, maps: int) -> nn.Module | None:
    """The gate of this kind: "se" for maps, "cbam" for maps and then voxels, or none. Raises ValueError for another."""
    if kind not in (None, "se", "cbam"):
        raise ValueError(f"attention {kind!r} is none of se, cbam and null")
    if kind is None:
        return None
    return Excitation(maps, hidden_features(maps)) if kind == "se" else BlockAttention(ndim, maps)


class Excitation(nn.Module):
    """Squeeze and excitation: each map is multiplied by a weight that follows from the means of all maps."""

    def __init__(self, maps: int, squeezed: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.weigh = nn.Sequential(*_narrow(maps, squeezed, activation), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        weights: Tensor = self.weigh(images.flatten(2).mean(dim=2))
        return images * weights.reshape(*weights.shape, *[1] * (images.ndim - 2))


class BlockAttention(nn.Module):
    """CBAM: weights of maps from their means and maxima, then weights of voxels from those over the maps."""

    def __init__(self, ndim: int, maps: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(*_narrow(maps, hidden_features(maps)))
        self.voxels = CONVOLUTION[ndim](2, 1, LOOK, padding=LOOK // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        flat = images.flatten(2)
        weights = torch.sigmoid(self.maps(flat.mean(dim=2)) + self.maps(flat.amax(dim=2)))
        images = images * weights.reshape(*weights.shape, *[1] * (images.ndim - 2))
        extremes = torch.cat([images.mean(dim=1, keepdim=True), images.amax(dim=1, keepdim=True)], dim=1)
        return images * torch.sigmoid(self.voxels(extremes))


def hidden_features(maps: int) -> int:
    """The hidden features of the layer that weighs so many maps."""
    return max(maps // REDUCTION, NARROWEST)


def _narrow(maps: int, hidden: int, activation: nn.Module | None = None) -> list[nn.Module]:
    return [nn.Linear(maps, hidden), activation or nn.ReLU(), nn.Linear(hidden, maps)]


# Coarser outputs of a U-Net that also learn (deep supervision), and the check of its stages.
#
# Lee et al., AISTATS 2015, arXiv:1409.5185, as in nnU-Net.


def check_stages(strides: Sequence[Sequence[int]], axes: int, levels: int) -> None:
    """ValueError where these are no stages of so many axes, or too few for so many coarser outputs."""
    if not strides or max(strides[0]) > 1 or any(len(stride) != axes for stride in strides):
        raise ValueError(f"strides need {axes} numbers a stage, and 1 in the first, not {strides}")
    if not 0 <= levels <= max(0, len(strides) - 2):
        raise ValueError(f"{len(strides)} stages have no {levels} coarser outputs (deep_supervision)")


def numbers_per_stage(count: int | Sequence[int], stages: int, name: str) -> list[int]:
    """One number for each stage; ValueError for another number of them."""
    counts = [count] * stages if isinstance(count, int) else list(count)
    if len(counts) != stages or min(counts, default=1) < 1:
        raise ValueError(f"{name} is one number from 1 or one for each of {stages} stages, not {count}")
    return counts


def coarse_heads(axes: int, widths: Sequence[int], dense: Mapping[str, int], levels: int) -> nn.ModuleDict:
    """`head@1` (half the resolution), `head@2`, ... of each dense head: 1 x 1 convolutions of a stage's maps.

    widths: feature maps of each stage, finest first
    """
    return nn.ModuleDict(
        {
            f"{name}@{level}": CONVOLUTION[axes](widths[level], count, 1)
            for name, count in dense.items()
            for level in range(1, levels + 1)
        }
    )


def coarse_outputs(heads: nn.ModuleDict, decoded: Sequence[Tensor]) -> dict[str, Tensor]:
    """The outputs of `coarse_heads` for the maps of the decoder, coarsest first."""
    return {name: layer(decoded[-1 - int(name.rpartition("@")[2])]) for name, layer in heads.items()}


# Images of any size in whole cells of a network's coarsest grid, and outputs cut back to them.


def spatial_sizes(images: Tensor) -> list[int]:
    """Voxels per axis as plain numbers, which an export keeps as constants."""
    return [int(n) for n in images.shape[2:]]


def cells_per_axis(images: Tensor, multiple: Sequence[int]) -> list[int]:
    """Whole cells along each axis that hold the images, at least two in all."""
    counts = [-(-n // step) for n, step in zip(spatial_sizes(images), multiple, strict=True)]
    return counts if max(counts) > 1 else [*counts[:-1], 2]


def pad_to_cells(images: Tensor, multiple: Sequence[int]) -> Tensor:
    """Images padded by their last voxels to whole cells, at least two in all."""
    sides = zip(cells_per_axis(images, multiple), multiple, spatial_sizes(images), strict=True)
    beyond = [count * step - n for count, step, n in sides]
    if max(beyond) == 0:
        return images
    return pad(images, [end for n in reversed(beyond) for end in (0, n)], mode="replicate")


def crop_to_images(maps: Tensor, size: Sequence[int], filled_size: Sequence[int]) -> Tensor:
    """Maps of padded images, on their grid or a coarser one, cropped to the images."""
    for axis, (n, padded) in enumerate(zip(size, filled_size, strict=True), start=2):
        maps = maps.narrow(axis, 0, -(-n * int(maps.shape[axis]) // padded))
    return maps


def cell_size(strides: Sequence[Sequence[int]], axes: int) -> list[int]:
    """Voxels per axis of a cell of the last stage.

    strides: one entry a stage and axis; the first stage has stride 1
    Raises ValueError for other strides, and for fewer than two stages.
    """
    if len(strides) < 2 or max(strides[0]) > 1 or any(len(stride) != axes for stride in strides):
        raise ValueError(f"strides need two stages, {axes} numbers in each, and 1 in the first, not {strides}")
    return [math.prod(along) for along in zip(*strides, strict=True)]


def first_stages(strides: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """The first stages of a plan, at least two: images are halved once where it has only one."""
    axes = len(strides[0])
    stages = [list(stride) for stride in strides[:most]]
    return stages if len(stages) > 1 else [[1] * axes, [2] * axes]
