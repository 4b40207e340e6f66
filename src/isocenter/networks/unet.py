"""U-Net in one, two or three dimensions, and one that goes through a volume slice by slice.

Ronneberger et al., MICCAI 2015, arXiv:1505.04597, with residual blocks (He et al., CVPR 2016) in the encoder as in
the residual-encoder U-Net of Isensee et al., MICCAI 2024, arXiv:2404.09556, and deep supervision (Lee et al.,
arXiv:1409.5185) as in nnU-Net. Blocks can take their convolutions apart (MobileNets, arXiv:1704.04861; ResNeXt,
arXiv:1611.05431), and weigh their maps and voxels (arXiv:1709.01507, arXiv:1807.06521). This file needs torch, and
`gates`, `slices` and `telling` beside it, so that copies travel with a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isocenter.networks.context_fusion import ContextFusion
from isocenter.networks.family import Family
from isocenter.networks.gates import gate

PAPER = "arXiv:1505.04597"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMALISATION: dict[int, Any] = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
DROPOUT: dict[int, Any] = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
ACTIVATION: dict[str, Any] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "gelu": nn.GELU,
}
# Patches of fewer voxels hold a structure whole: that coarser outputs help there has not been shown.
SMALL_PATCH = 64**3
GROUPS = 8  # of maps, in `grouped_unet`: half of the narrowest stage's on a processor


class Convolving(NamedTuple):
    """How the blocks of a network convolve: settings of a U-Net, where they are told."""

    separable: bool = False
    groups: int = 1
    attention: str | None = None

    def check(self) -> None:
        """ValueError for what cannot be."""
        if self.groups < 1 or (self.separable and self.groups > 1):
            raise ValueError(f"groups {self.groups} is not from 1, or beside separable, which has one a map")

    def convolution(
        self, ndim: int, inside: int, outside: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> nn.Module:
        """Whole, or within each map or group of maps, and then across all maps of each voxel."""
        whole, pad = CONVOLUTION[ndim], tuple(k // 2 for k in kernel)
        paths = inside if self.separable else math.gcd(self.groups, inside)
        if paths == 1:
            made: nn.Module = whole(inside, outside, tuple(kernel), tuple(stride), pad, bias=False)
            return made
        apart = whole(inside, inside, tuple(kernel), tuple(stride), pad, groups=paths, bias=False)
        return nn.Sequential(apart, whole(inside, outside, 1, bias=False))


WHOLE = Convolving()


# What is done to maps before the last activation of a stage, where a shift still tells.
Shaped = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """Two convolutions, beside a shortcut where residual; the first convolution takes the stride.

    how, entry: how both convolve, and the first where it does otherwise
    """

    def __init__(
        self,
        ndim: int,
        inside: int,
        outside: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        residual: bool = True,
        dropout: float = 0.0,
        activation: str = "leaky_relu",
        how: Convolving = WHOLE,
        entry: Convolving | None = None,
    ) -> None:
        super().__init__()
        convolution, normalisation = CONVOLUTION[ndim], NORMALISATION[ndim]
        self.first = (entry or how).convolution(ndim, inside, outside, kernel, stride)
        self.first_norm = normalisation(outside, affine=True)
        self.second = how.convolution(ndim, outside, outside, kernel, [1] * ndim)
        self.second_norm = normalisation(outside, affine=True)
        self.shortcut: nn.Module | None = nn.Identity() if residual else None
        if residual and (inside != outside or max(stride) > 1):
            self.shortcut = convolution(inside, outside, tuple(stride), tuple(stride), bias=False)
        self.dropout: nn.Module = DROPOUT[ndim](dropout) if dropout else nn.Identity()
        self.activation = ACTIVATION[activation]()
        self.attention = gate(how.attention, ndim, outside)

    def forward(self, images: Tensor, shaped: Shaped | None = None) -> Tensor:
        """Return the block's maps; shaped: applied before the last activation."""
        inner = self.dropout(self.activation(self.first_norm(self.first(images))))
        inner = self.second_norm(self.second(inner))
        inner = inner if self.shortcut is None else inner + self.shortcut(images)
        inner = self.activation(inner if shaped is None else shaped(inner))
        # Behind the activation: what instance normalisation leaves has the same mean in all images, and tells nothing.
        return inner if self.attention is None else self.attention(inner)


class Single(nn.Module):
    """One convolution, normalised and activated: a stage of a light decoder."""

    def __init__(
        self, ndim: int, inside: int, outside: int, kernel: Sequence[int], activation: str, how: Convolving = WHOLE
    ) -> None:
        super().__init__()
        self.first = how.convolution(ndim, inside, outside, kernel, [1] * ndim)
        self.first_norm = NORMALISATION[ndim](outside, affine=True)
        self.activation = ACTIVATION[activation]()

    def forward(self, images: Tensor, shaped: Shaped | None = None) -> Tensor:
        """Return the stage's maps; shaped: applied before the activation."""
        inner = self.first_norm(self.first(images))
        return self.activation(inner if shaped is None else shaped(inner))


class UNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    dense, vectors:   heads by name with their number of channels
    strides:          one entry a stage and axis; the first stage has stride 1. The input's size per axis must be a
                      multiple of the product of its strides
    width:            feature maps of the first stage; doubled by each stage up to `widest`
    kernels:          one entry a stage and axis, odd; without them 3, and 1 across axes whose voxels are still long
    blocks:           of two convolutions, in each stage of the encoder and in each of the decoder; one number or one
                      a stage (the decoder's last stage is the coarsest but one)
    light_decoder:    one convolution a stage of the decoder in place of blocks, as in nnU-Net's residual-encoder
                      networks; about a quarter less work
    residual:         each block beside a shortcut
    dropout:          of whole feature maps between the two convolutions of a block
    deep_supervision: how many coarser outputs `head@1` (half the resolution), `head@2`, ... there are beside each
                      dense head while training
    context:          numbers beside each image
    fusion:           how they are used (`ContextFusion`): the maps of every stage are scaled and shifted (film), or
                      each place of the coarsest asks for them (attention)
    separable:        each convolution within each map, then across all maps of each voxel; that of the image is whole
    groups:           likewise within as many groups of maps as divide them, at the most so many
    attention:        "se" weighs the maps that a block gives, "cbam" its maps and then its voxels
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        strides: Sequence[Sequence[int]],
        width: int = 24,
        widest: int = 256,
        kernels: Sequence[Sequence[int]] | None = None,
        blocks: int | Sequence[int] = 1,
        decoder_blocks: int | Sequence[int] = 1,
        light_decoder: bool = False,
        residual: bool = True,
        dropout: float = 0.0,
        activation: str = "leaky_relu",
        deep_supervision: int = 0,
        context: int = 0,
        fusion: Mapping[str, Any] | None = None,
        separable: bool = False,
        groups: int = 1,
        attention: str | None = None,
    ) -> None:
        super().__init__()
        how = Convolving(separable, groups, attention)
        how.check()
        check_stages(strides, spatial_dims, deep_supervision)
        if activation not in ACTIVATION:
            raise ValueError(f"there is no activation {activation!r}, only {', '.join(ACTIVATION)}")
        stages = len(strides)
        widths = [min(width * 2**stage, widest) for stage in range(stages)]
        shapes = kernels_for(strides) if kernels is None else checked(kernels, stages, spatial_dims)
        down, up = _each(blocks, stages, "blocks"), _each(decoder_blocks, stages - 1, "decoder_blocks")

        options: dict[str, Any] = {"residual": residual, "dropout": dropout, "activation": activation, "how": how}
        block = partial(Block, spatial_dims, **options)
        inputs = [channels, *widths[:-1]]
        # What sees the image, of few channels, is whole: one filter of each would be all that is seen of them.
        self.encoder = nn.ModuleList(
            _stage(block, down[n], inputs[n], widths[n], shapes[n], strides[n], None if n else WHOLE)
            for n in range(stages)
        )
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for stage in range(stages - 1, 0, -1):
            outside, stride, shape = widths[stage - 1], tuple(strides[stage]), shapes[stage - 1]
            self.up.append(TRANSPOSED[spatial_dims](widths[stage], outside, stride, stride, bias=False))
            if light_decoder:
                self.decoder.append(Single(spatial_dims, 2 * outside, outside, shape, activation, how))
            else:
                self.decoder.append(_stage(block, up[stage - 1], 2 * outside, outside, shape, [1] * spatial_dims))
        convolution = CONVOLUTION[spatial_dims]
        self.dense = nn.ModuleDict({name: convolution(widths[0], n, 1) for name, n in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(widths[-1], n) for name, n in vectors.items()})
        coarse = {
            f"{name}@{level}": convolution(widths[level], n, 1)
            for name, n in dense.items()
            for level in range(1, deep_supervision + 1)
        }
        self.coarse = nn.ModuleDict(coarse)
        options = {"method": "film", **(fusion or {})}
        self.telling = ContextFusion(context, _places(widths, options["method"]), **options)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        features, said = [], self.telling(context)
        for stage, block in enumerate(self.encoder):
            images = _through(block, images, self._shaping(said, stage))
            features.append(images)
        outputs = {}
        for name, layer in self.vectors.items():
            outputs[name] = layer(images.flatten(2).mean(dim=2))
        decoded = []
        steps = zip(self.up, self.decoder, features[-2::-1], strict=True)
        for stage, (up, block, skip) in enumerate(steps, start=len(features)):
            images = _through(block, torch.cat([up(images), skip], dim=1), self._shaping(said, stage))
            decoded.append(images)
        for name, layer in self.dense.items():
            outputs[name] = layer(images)
        if self.training:
            for name, layer in self.coarse.items():
                outputs[name] = layer(decoded[-1 - int(name.rpartition("@")[2])])
        return {**outputs, **self.telling.added(images)}

    def _shaping(self, covariates: Tensor | None, stage: int) -> Shaped | None:
        return None if covariates is None else partial(self.telling.shaped, covariates=covariates, place=stage)


def _stage(
    block: Callable[..., nn.Module],
    count: int,
    inside: int,
    outside: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    entry: Convolving | None = None,
) -> nn.Module:
    """So many blocks, of which the first takes the stride; entry: how its first convolution convolves."""
    made = [block(inside, outside, kernel, stride, entry=entry)]
    made += [block(outside, outside, kernel, [1] * len(kernel)) for _ in range(count - 1)]
    return made[0] if count == 1 else nn.Sequential(*made)


def _through(stage: nn.Module, images: Tensor, shaped: Shaped | None) -> Tensor:
    """Through the blocks of a stage, the last of which is told."""
    *blocks, last = stage if isinstance(stage, nn.Sequential) else [stage]
    for block in blocks:
        images = block(images)
    found: Tensor = last(images, shaped)
    return found


def _places(widths: Sequence[int], method: str) -> dict[int, int]:
    """{place: maps}: the stages of the encoder, then those of the decoder; only the coarsest where places ask."""
    every = dict(enumerate([*widths, *widths[-2::-1]]))
    return every if method == "film" else {len(widths) - 1: widths[-1]}


def check_stages(strides: Sequence[Sequence[int]], axes: int, deep_supervision: int) -> None:
    """ValueError where these are no stages of so many axes, or too few for so many coarser outputs."""
    if not strides or max(strides[0]) > 1 or any(len(stride) != axes for stride in strides):
        raise ValueError(f"strides need {axes} numbers a stage, and 1 in the first, not {strides}")
    if not 0 <= deep_supervision <= max(0, len(strides) - 2):
        raise ValueError(f"{len(strides)} stages have no {deep_supervision} coarser outputs (deep_supervision)")


def kernels_for(strides: Sequence[Sequence[int]]) -> list[list[int]]:
    """Where a stage does not yet reduce an axis, its voxels are long there: no convolution across it either."""
    kernels = [[1 if s == 1 and max(stride) > 1 else 3 for s in stride] for stride in strides]
    kernels[0] = [3 if any(stride[axis] > 1 for stride in strides[1:2]) else 1 for axis in range(len(strides[0]))]
    kernels[0] = kernels[0] if max(kernels[0]) == 3 else [3] * len(strides[0])
    return kernels


def checked(kernels: Sequence[Sequence[int]], stages: int, axes: int) -> Sequence[Sequence[int]]:
    """Return the kernels; ValueError where they are not odd, or not one a stage and axis."""
    if len(kernels) != stages or any(len(kernel) != axes or any(k % 2 != 1 for k in kernel) for kernel in kernels):
        raise ValueError(f"kernels need {axes} odd numbers for each of {stages} stages, not {kernels}")
    return kernels


def _each(count: int | Sequence[int], stages: int, name: str) -> list[int]:
    counts = [count] * stages if isinstance(count, int) else list(count)
    if len(counts) != stages or min(counts, default=1) < 1:
        raise ValueError(f"{name} is one number from 1 or one for each of {stages} stages, not {count}")
    return counts


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A width that the device goes through quickly, reduced by `strides`; the reason and its source."""
    slow = device == "cpu"
    voxels = math.prod(patch)
    # As nnU-Net: an output at each resolution but the two lowest, which show no structure any more.
    coarse = 0 if slow and voxels <= SMALL_PATCH else max(0, len(strides) - 3)
    size = {
        "width": 16 if slow else 32,
        "widest": 128 if slow else 320,
        "strides": [list(one) for one in strides],
        "deep_supervision": coarse,
    }
    supervised = f"{coarse} coarser outputs learn too" if coarse else f"no coarser outputs for {voxels} voxels"
    because = f"patch {tuple(patch)}: axes are halved while at least 4 voxels are left; width for the {device}"
    return size, f"{because}; {supervised}", "doi:10.1038/s41592-020-01008-z"


# What is the same everywhere beside the maps, instance normalisation would take out: nothing is concatenated.
UNET = Family(UNet, size_for, PAPER, takes_context=("film", "attention"), search_order=1)
CBAM_UNET = replace(
    UNET,
    paper="arXiv:1807.06521",
    preset={"attention": "cbam"},
    preset_reason="the maps of each block are weighed, then its voxels",
    search_order=0,
)
GROUPED_UNET = replace(
    UNET,
    paper="arXiv:1611.05431",
    preset={"groups": GROUPS},
    preset_reason=f"each convolution in {GROUPS} groups, then one across",
    search_order=0,
)
SE_UNET = replace(
    UNET,
    paper="arXiv:1709.01507",
    preset={"attention": "se"},
    preset_reason="the maps of each block are weighed",
    search_order=0,
)
SEPARABLE_UNET = replace(
    UNET,
    paper="arXiv:1704.04861",
    preset={"separable": True},
    preset_reason="each convolution is one of each map, then one across",
    search_order=0,
)
