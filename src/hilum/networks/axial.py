"""Gated axial attention in one, two or three dimensions: each voxel attends to its line along one axis after another.

Valanarasu et al., Medical Transformer, MICCAI 2021, arXiv:2102.10662; attention along axes as in Wang et al.,
Axial-DeepLab, arXiv:2003.07853. Different from the papers: maps are normalised within each image instead of over the
batch, and logits of the attention are divided by the root of the keys' length (arXiv:1706.03762) instead of normalised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hilum.networks import common_layers
from hilum.networks.common_layers import AVERAGE_POOL, CONVOLUTION, INSTANCE_NORM, LINEAR
from hilum.networks.network_family import OWN, Family, Sized, SizeValue, Strides
from hilum.networks.transformer_blocks import AttendedGroups

PAPER = "arXiv:2102.10662"
# Initial gates of the positions of queries, keys and values, and of the values: the authors' code.
GATES = (0.1, 0.1, 0.1, 1.0)
# Voxels an axis of images whose positions are learnt, where the settings have no `patch`.
USUAL = 64
STAGES = 5
# Stages with attention of the global branch where there is a local one (section 2.3).
SHALLOW = 2
# Pairs of voxels on the finest grid with attention; a choice, with no paper behind it.
MOST_PAIRS = {"cpu": 2**20, "gpu": 2**23}


class AxialAttention(nn.Module):
    """(batch, maps, *spatial) to the same: multi-head attention of each voxel to its line along one axis.

    y_i = sum_j softmax_j(q_i k_j + a q_i r_ij + b k_j s_ij) (d v_j + c t_ij), where r, s and t are learnt for the
    offset i - j and the gates a, b, c, d are learnt numbers; section 2.2. For lines of another length the parameters of
    offsets are interpolated.
    length: voxels of a line whose offsets are learnt
    gated:  without gates all of them are 1, as in arXiv:2003.07853
    """

    def __init__(self, ndim: int, maps: int, heads: int, axis: int, length: int, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.axis = axis
        width = maps // heads
        self.kept: list[AttendedGroups] | None = None  # a list gets the attention of every pass
        self.qkv = CONVOLUTION[ndim](maps, 3 * maps, 1, bias=False)
        self.positions = nn.Parameter(torch.empty(3, width, 2 * length - 1))
        nn.init.normal_(self.positions, std=width**-0.5)
        self.gates = nn.Parameter(torch.tensor(GATES)) if gated else None

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        lines = self.qkv(images).movedim(2 + self.axis, images.ndim - 1)
        others = [int(n) for n in lines.shape[2:-1]]
        count = int(lines.shape[-1])
        # (batch, heads, maps of a head, lines, voxels of a line) each
        queries, keys, values = lines.reshape(-1, 3, self.heads, self.head_channels, math.prod(others), count).unbind(1)
        of_queries, of_keys, of_values = common_layers.offsets_to_pairs(self.positions, 2, count).unbind(0)
        first, second, third, fourth = (1.0, 1.0, 1.0, 1.0) if self.gates is None else self.gates.unbind()
        logits = torch.einsum("bhcli,bhclj->bhlij", queries, keys)
        logits = logits + first * torch.einsum("bhcli,cij->bhlij", queries, of_queries)
        logits = logits + second * torch.einsum("bhclj,cij->bhlij", keys, of_keys)
        shares = (logits * self.head_channels**-0.5).softmax(dim=-1)
        if self.kept is not None:
            grid = common_layers.spatial_sizes(images)
            places = torch.arange(1, 1 + math.prod(grid), device=images.device).reshape(grid).movedim(self.axis, -1)
            self.kept.append(AttendedGroups(grid, places.reshape(-1, count), shares.mean(dim=1)))
        taken = third * torch.einsum("bhlij,cij->bhcli", shares, of_values)
        taken = taken + fourth * torch.einsum("bhlij,bhclj->bhcli", shares, values)
        taken = taken.reshape(-1, self.heads * self.head_channels, *others, count)
        return taken.movedim(images.ndim - 1, 2 + self.axis)

    @property
    def head_channels(self) -> int:
        """Channels of one head."""
        return int(self.positions.shape[1])


class AxialBlock(nn.Module):
    """A bottleneck with attention along each axis in turn instead of a convolution, and a shortcut."""

    def __init__(
        self,
        ndim: int,
        inside: int,
        outside: int,
        stride: Sequence[int],
        heads: int,
        lengths: Sequence[int],
        gated: bool,
    ) -> None:
        super().__init__()
        self.pool: nn.Module = AVERAGE_POOL[ndim](tuple(stride)) if max(stride) > 1 else nn.Identity()
        convolution = CONVOLUTION[ndim]
        normalisation = INSTANCE_NORM[ndim]
        middle = outside // 2
        self.body = nn.Sequential(
            convolution(inside, middle, 1, bias=False),
            normalisation(middle, affine=True),
            nn.ReLU(),
            *(AxialAttention(ndim, middle, heads, axis, n, gated) for axis, n in enumerate(lengths)),
            normalisation(middle, affine=True),
            nn.ReLU(),
            convolution(middle, outside, 1, bias=False),
            normalisation(outside, affine=True),
        )
        self.shortcut: nn.Module = convolution(inside, outside, 1, bias=False) if inside != outside else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        images = self.pool(images)
        return cast("Tensor", (self.shortcut(images) + self.body(images)).relu())


class AxialBranch(nn.Module):
    """An encoder of convolutions and then of attention, and a decoder with additive skip connections."""

    def __init__(
        self,
        channels: int,
        ndim: int,
        strides: Sequence[Sequence[int]],
        patch: Sequence[int],
        width: int,
        heads: int,
        blocks: int,
        convolved: int,
        gated: bool,
        dense: bool,
    ) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(len(strides))]
        self.deepest = widths[-1]
        self.encoder = nn.ModuleList()
        lengths = list(patch)
        for stage, stride in enumerate(strides):
            lengths = [-(-n // step) for n, step in zip(lengths, stride, strict=True)]
            inside, outside = channels if stage == 0 else widths[stage - 1], widths[stage]
            if stage < convolved:
                parts: list[nn.Module] = [_convolution(ndim, inside, outside, stride)]
                parts += [_convolution(ndim, outside, outside, 1)]
            else:
                settings = (heads, lengths, gated)
                parts = [AxialBlock(ndim, inside, outside, stride, *settings)]
                parts += [AxialBlock(ndim, outside, outside, [1] * ndim, *settings) for _ in range(blocks - 1)]
            self.encoder.append(nn.Sequential(*parts))
        finer = list(zip(widths[:0:-1], widths[-2::-1], strict=True)) if dense else []
        self.up = nn.ModuleList(CONVOLUTION[ndim](below, here, 1) for below, here in finer)
        self.decoder = nn.ModuleList(_convolution(ndim, here, here, 1) for _, here in finer)

    def encode(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each stage, finest first."""
        return common_layers.stage_maps(self.encoder, images)

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """(batch, width, *grid) on the finest grid."""
        images = features[-1]
        for up, layer, skip in zip(self.up, self.decoder, features[-2::-1], strict=True):
            finer = interpolate(
                up(images), size=common_layers.spatial_sizes(skip), mode=LINEAR[skip.ndim - 2], align_corners=False
            )
            images = layer(finer + skip)
        return images


class AxialUNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    strides:   one entry a stage and axis; the first stage has stride 1
    patch:     (*spatial) of images whose positions are learnt; for images of another size these are interpolated
    width:     maps of the first stage; doubled by each
    heads:     of the attention, which share half of a stage's maps
    blocks:    of attention, in each stage that has it
    convolved: number of convolutional stages, the first ones: attention on a fine grid of a volume takes much memory
    gated:     whether learnt gates weigh the positions
    local:     parts an axis of the local branch, which processes each part separately; the global branch is then
               shallow, and the maps of both are added. 1 for no local branch; 4 in the paper (section 2.3)
    context:   number of covariates, which scale and shift the maps of the coarsest grid (arXiv:1709.07871)
    Images of any size are padded, by their last voxels, to whole cells of the coarsest grid.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        strides: Sequence[Sequence[int]],
        patch: Sequence[int] | None = None,
        width: int = 16,
        heads: int = 4,
        blocks: int = 1,
        convolved: int = 1,
        gated: bool = True,
        local: int = 1,
        context: int = 0,
    ) -> None:
        super().__init__()
        cells = common_layers.cell_size(strides, spatial_dims)
        patch = [USUAL] * spatial_dims if patch is None else list(patch)
        _refuse(spatial_dims, len(strides), patch, width, heads, blocks, convolved, local)
        settings = (width, heads, blocks, convolved, gated, bool(dense))
        shallow = strides[: convolved + SHALLOW] if local > 1 else strides
        self.local = local
        self.multiple = [local * n for n in cells]
        self.multiple[-1] *= 2 if local > 1 else 1  # a part of one cell has no variance to normalise by
        self.whole = AxialBranch(channels, spatial_dims, shallow, patch, *settings)
        part = [-(-n // local) for n in patch]
        self.parts = AxialBranch(channels, spatial_dims, strides, part, *settings) if local > 1 else None
        deepest = self.whole.deepest + (0 if self.parts is None else self.parts.deepest)
        self.context = context
        if context:
            self.modulation = nn.Linear(context, 2 * self.whole.deepest)
        convolution = CONVOLUTION[spatial_dims]
        self.dense = nn.ModuleDict({name: convolution(width, count, 1) for name, count in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(deepest, count) for name, count in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates)."""
        size = common_layers.spatial_sizes(images)
        images = common_layers.pad_to_cells(images, self.multiple)
        features = self.whole.encode(images)
        if self.context:
            scale, shift = self.modulation(context)[(..., *[None] * len(size))].chunk(2, dim=1)
            features[-1] = (features[-1] * (1 + scale) + shift).relu()
        of_parts = [] if self.parts is None else self.parts.encode(split_parts(images, self.local))
        deepest = [features[-1], *(join_parts(maps, self.local) for maps in of_parts[-1:])]
        pooled = torch.cat([maps.flatten(2).mean(dim=2) for maps in deepest], dim=1)
        outputs = {name: layer(pooled) for name, layer in self.vectors.items()}
        if self.dense:
            maps = self.whole.decode(features)
            if self.parts is not None:
                maps = maps + join_parts(self.parts.decode(of_parts), self.local)
            outputs |= {
                name: layer(common_layers.crop_to_images(maps, size, common_layers.spatial_sizes(images)))
                for name, layer in self.dense.items()
            }
        return outputs


def split_parts(images: Tensor, parts: int) -> Tensor:
    """(batch, channels, *spatial) to (batch * parts^n, channels, *spatial / parts)."""
    spatial = common_layers.spatial_sizes(images)
    channels = int(images.shape[1])
    split = images.reshape(-1, channels, *(n for size in spatial for n in (parts, size // parts)))
    axes = range(len(spatial))
    ordered = split.permute(0, *(2 + 2 * axis for axis in axes), 1, *(3 + 2 * axis for axis in axes))
    return ordered.reshape(-1, channels, *(size // parts for size in spatial))


def join_parts(parts: Tensor, count: int) -> Tensor:
    """The parts of `split_parts` as whole maps again."""
    spatial = common_layers.spatial_sizes(parts)
    channels = int(parts.shape[1])
    ndim = parts.ndim - 2
    split = parts.reshape(-1, *[count] * ndim, channels, *spatial)
    ordered = split.permute(0, ndim + 1, *(at for axis in range(ndim) for at in (1 + axis, ndim + 2 + axis)))
    return ordered.reshape(-1, channels, *(count * size for size in spatial))


def _convolution(ndim: int, inside: int, outside: int, stride: Any) -> nn.Sequential:
    step = stride if isinstance(stride, int) else tuple(stride)
    convolution = CONVOLUTION[ndim](inside, outside, 3, step, 1, bias=False)
    return nn.Sequential(convolution, INSTANCE_NORM[ndim](outside, affine=True), nn.ReLU())


def _refuse(
    ndim: int, stages: int, patch: Sequence[int], width: int, heads: int, blocks: int, convolved: int, local: int
) -> None:
    """ValueError for settings that make no network."""
    if len(patch) != ndim or min(patch) < 1:
        raise ValueError(f"patch needs {ndim} sizes from 1, not {patch}")
    if not 1 <= convolved < stages:
        raise ValueError(
            f"convolved {convolved}: the first of {stages} stages are convolutional, and at least one has attention"
        )
    if heads < 1 or width < 1 or width % heads:
        raise ValueError(f"{heads} heads cannot share a width of {width} evenly")
    if blocks < 1 or local < 1:
        raise ValueError(f"blocks {blocks} and local {local} are numbers from 1")


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Attention from the finest grid with few enough pairs of voxels; half the width on a processor."""
    slow = device == "cpu"
    stages = common_layers.first_stages(strides, STAGES)
    convolved = 1
    most = MOST_PAIRS["cpu" if slow else "gpu"]
    while convolved < len(stages) - 1 and _pairs(patch, stages[: convolved + 1]) > most:
        convolved += 1
    size: dict[str, SizeValue] = {
        "strides": stages,
        "patch": list(patch),
        "width": 16 if slow else 32,
        "convolved": convolved,
    }
    first = f", the first {convolved} of them convolutional" if convolved > 1 else ""
    return size, f"patch {tuple(patch)}: {len(stages)} stages{first}; width for the {device}", PAPER


def _pairs(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> int:
    """Pairs of voxels on lines along the longest axis, on the grid after these strides."""
    steps = common_layers.cell_size(strides, len(patch))
    grid = [-(-n // step) for n, step in zip(patch, steps, strict=True)]
    return math.prod(grid) * max(grid)


AXIAL = Family(
    build=AxialUNet,
    size_for=size_for,
    paper=PAPER,
    takes_context=(OWN,),
    features="whole.encoder.-1",
    attention="whole.encoder",
    blocks=("AxialBlock",),
)
