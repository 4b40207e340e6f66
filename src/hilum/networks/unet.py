"""U-Net in one, two or three dimensions.

Ronneberger et al., MICCAI 2015, arXiv:1505.04597, with residual blocks (He et al., CVPR 2016) in the encoder as in
the residual-encoder U-Net of Isensee et al., MICCAI 2024, arXiv:2404.09556, and deep supervision (Lee et al.,
arXiv:1409.5185) as in nnU-Net. Convolutions can be depthwise separable (MobileNets, arXiv:1704.04861) or grouped
(ResNeXt, arXiv:1611.05431), and blocks can have gates for maps and voxels (arXiv:1709.01507, arXiv:1807.06521).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hilum.networks import common_layers
from hilum.networks.common_layers import CONVOLUTION, DROPOUT, INSTANCE_NORM, LINEAR, TRANSPOSED
from hilum.networks.context_fusion import ContextFusion
from hilum.networks.network_family import Family, Sized, Strides

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

PAPER = "arXiv:1505.04597"
ACTIVATION: Mapping[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "gelu": nn.GELU,
}
# Patches of fewer voxels hold whole structures, for which no use of coarser outputs has been shown.
SMALL_PATCH = 64**3
GROUPS = 8  # of maps, in `grouped_unet`; half of the narrowest stage's maps on a processor


class UNetConvolutions(NamedTuple):
    """The convolutions and gates of a network's blocks; settings of a U-Net."""

    separable: bool = False
    groups: int = 1
    attention: str | None = None

    def check(self) -> None:
        """ValueError for settings that make no convolution."""
        if self.groups < 1 or (self.separable and self.groups > 1):
            raise ValueError(f"groups {self.groups} is not from 1, or more than 1 with separable convolutions")

    def convolution(
        self, ndim: int, inside: int, outside: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> nn.Module:
        """A plain convolution, or one within each map or group of maps and a pointwise one."""
        layer_of = CONVOLUTION[ndim]
        pad = tuple(k // 2 for k in kernel)
        paths = inside if self.separable else math.gcd(self.groups, inside)
        if paths == 1:
            layer: nn.Module = layer_of(inside, outside, tuple(kernel), tuple(stride), pad, bias=False)
            return layer
        apart = layer_of(inside, inside, tuple(kernel), tuple(stride), pad, groups=paths, bias=False)
        return nn.Sequential(apart, layer_of(inside, outside, 1, bias=False))


WHOLE = UNetConvolutions()


# What modulates maps before the last activation of a stage, where a shift still has an effect.
Shaped = Callable[[Tensor], Tensor]


class UNetBlock(nn.Module):
    """Two convolutions, with a shortcut where residual; the first convolution takes the stride.

    how:   kind of both convolutions
    entry: kind of the first one, where it differs
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
        how: UNetConvolutions = WHOLE,
        entry: UNetConvolutions | None = None,
    ) -> None:
        super().__init__()
        convolution = CONVOLUTION[ndim]
        normalisation = INSTANCE_NORM[ndim]
        self.first = (entry or how).convolution(ndim, inside, outside, kernel, stride)
        self.first_norm = normalisation(outside, affine=True)
        self.second = how.convolution(ndim, outside, outside, kernel, [1] * ndim)
        self.second_norm = normalisation(outside, affine=True)
        self.shortcut: nn.Module | None = nn.Identity() if residual else None
        if residual and (inside != outside or max(stride) > 1):
            self.shortcut = convolution(inside, outside, tuple(stride), tuple(stride), bias=False)
        self.dropout: nn.Module = DROPOUT[ndim](dropout) if dropout else nn.Identity()
        self.activation = ACTIVATION[activation]()
        self.attention = common_layers.build_gate(how.attention, ndim, outside)

    def forward(self, images: Tensor, shaped: Shaped | None = None) -> Tensor:
        """Return the block's maps; shaped: is applied before the last activation."""
        inner = self.dropout(self.activation(self.first_norm(self.first(images))))
        inner = self.second_norm(self.second(inner))
        inner = inner if self.shortcut is None else inner + self.shortcut(images)
        inner = self.activation(inner if shaped is None else shaped(inner))
        # After the activation: instance-normalised maps have the same mean in all images, which carries no information.
        return cast("Tensor", inner if self.attention is None else self.attention(inner))


class SingleConvolution(nn.Module):
    """One convolution, normalised and activated: a stage of a light decoder."""

    def __init__(
        self,
        ndim: int,
        inside: int,
        outside: int,
        kernel: Sequence[int],
        activation: str,
        how: UNetConvolutions = WHOLE,
    ) -> None:
        super().__init__()
        self.first = how.convolution(ndim, inside, outside, kernel, [1] * ndim)
        self.first_norm = INSTANCE_NORM[ndim](outside, affine=True)
        self.activation = ACTIVATION[activation]()

    def forward(self, images: Tensor, shaped: Shaped | None = None) -> Tensor:
        """Return the stage's maps; shaped: is applied before the activation."""
        inner = self.first_norm(self.first(images))
        return cast("Tensor", self.activation(inner if shaped is None else shaped(inner)))


class UNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    dense, vectors:   heads by name with their number of channels
    strides:          one entry a stage and axis; the first stage has stride 1. The input's size per axis must be a
                      multiple of the product of its strides
    width:            feature maps of the first stage; doubled by each stage up to `widest`
    kernels:          one entry a stage and axis, odd; without them 3, and 1 across axes whose voxels are still long
    blocks:           of two convolutions, in each stage of the encoder and in each of the decoder; one number or one
                      a stage (the decoder's last stage is the coarsest but one)
    light_decoder:    one convolution a stage of the decoder instead of blocks, as in nnU-Net's residual-encoder
                      networks; about a quarter fewer operations
    residual:         shortcuts of blocks
    dropout:          of whole feature maps between the two convolutions of a block
    deep_supervision: how many coarser outputs `head@1` (half the resolution), `head@2`, ... each dense head has in
                      training
    context:          number of covariates
    fusion:           settings of `ContextFusion`: covariates scale and shift the maps of every stage (film), or the
                      voxels of the coarsest maps attend to them (attention)
    separable:        depthwise separable convolutions; the one of the image is plain
    groups:           likewise convolutions in groups, at most so many, as far as they divide the maps
    attention:        gates after each block: "se" for its maps, "cbam" for its maps and then its voxels
    halved:           the decoder ends on half the grid, and dense outputs are interpolated: for what is smooth
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
        fusion: FusionSettings | None = None,
        separable: bool = False,
        groups: int = 1,
        attention: str | None = None,
        halved: bool = False,
    ) -> None:
        super().__init__()
        how = UNetConvolutions(separable, groups, attention)
        how.check()
        common_layers.check_stages(strides, spatial_dims, deep_supervision)
        if activation not in ACTIVATION:
            raise ValueError(f"there is no activation {activation!r}, only {', '.join(ACTIVATION)}")
        stages = len(strides)
        self.last = int(halved and stages > 1)
        widths = [min(width * 2**stage, widest) for stage in range(stages)]
        shapes = kernels_for(strides) if kernels is None else check_kernels(kernels, stages, spatial_dims)
        down = common_layers.numbers_per_stage(blocks, stages, "blocks")
        up = common_layers.numbers_per_stage(decoder_blocks, stages - 1, "decoder_blocks")

        block = partial(UNetBlock, spatial_dims, residual=residual, dropout=dropout, activation=activation, how=how)
        inputs = [channels, *widths[:-1]]
        # The first convolution is plain: an image has few channels, and a depthwise one has a single filter for each.
        self.encoder = nn.ModuleList(
            _stage(block, down[n], inputs[n], widths[n], shapes[n], strides[n], None if n else WHOLE)
            for n in range(stages)
        )
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for stage in range(stages - 1, self.last, -1):
            outside = widths[stage - 1]
            stride = tuple(strides[stage])
            shape = shapes[stage - 1]
            self.up.append(TRANSPOSED[spatial_dims](widths[stage], outside, stride, stride, bias=False))
            if light_decoder:
                self.decoder.append(SingleConvolution(spatial_dims, 2 * outside, outside, shape, activation, how))
            else:
                self.decoder.append(_stage(block, up[stage - 1], 2 * outside, outside, shape, [1] * spatial_dims))
        convolution = CONVOLUTION[spatial_dims]
        self.dense = nn.ModuleDict({name: convolution(widths[self.last], n, 1) for name, n in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(widths[-1], n) for name, n in vectors.items()})
        self.coarse = common_layers.coarse_heads(spatial_dims, widths, dense, deep_supervision)
        options: FusionSettings = {"method": "film", **(fusion or {})}
        self.telling = ContextFusion(context, _places(widths, options["method"]), **options)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates)."""
        features = []
        covariates = self.telling(context)
        size = images.shape[2:]
        for stage, block in enumerate(self.encoder):
            images = run_stage(block, images, self._shaping(covariates, stage))
            features.append(images)
        outputs = {}
        for name, layer in self.vectors.items():
            outputs[name] = layer(images.flatten(2).mean(dim=2))
        decoded = []
        steps = zip(self.up, self.decoder, features[self.last : -1][::-1], strict=True)
        for stage, (up, block, skip) in enumerate(steps, start=len(features)):
            images = run_stage(block, torch.cat([up(images), skip], dim=1), self._shaping(covariates, stage))
            decoded.append(images)
        for name, layer in self.dense.items():
            outputs[name] = layer(images)
            if self.last:
                outputs[name] = interpolate(outputs[name], size, mode=LINEAR[len(size)])
        decoded += [images] * self.last  # the finest grid has no maps of its own: level 1 is half as fine as it
        if self.training:
            outputs |= common_layers.coarse_outputs(self.coarse, decoded)
        return {**outputs, **self.telling.penalties(images)}

    def _shaping(self, covariates: Tensor | None, stage: int) -> Shaped | None:
        return None if covariates is None else partial(self.telling.modulate, covariates=covariates, place=stage)


def _stage(
    block: Callable[..., nn.Module],
    count: int,
    inside: int,
    outside: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    entry: UNetConvolutions | None = None,
) -> nn.Module:
    """A stage of so many blocks, of which the first takes the stride; entry: kind of its first convolution."""
    blocks = [block(inside, outside, kernel, stride, entry=entry)]
    blocks += [block(outside, outside, kernel, [1] * len(kernel)) for _ in range(count - 1)]
    return blocks[0] if count == 1 else nn.Sequential(*blocks)


def run_stage(stage: nn.Module, images: Tensor, shaped: Shaped | None) -> Tensor:
    """The maps after a stage; shaped: is applied before the last activation."""
    *blocks, last = stage if isinstance(stage, nn.Sequential) else [stage]
    for block in blocks:
        images = block(images)
    maps: Tensor = last(images, shaped)
    return maps


def _places(widths: Sequence[int], method: str) -> dict[int, int]:
    """{place: maps} that covariates modulate: each stage with film, the coarsest with attention."""
    every = dict(enumerate([*widths, *widths[-2::-1]]))
    return every if method == "film" else {len(widths) - 1: widths[-1]}


def kernels_for(strides: Sequence[Sequence[int]]) -> list[list[int]]:
    """Kernels of each stage: 3 an axis, but 1 along axes that are not reduced yet because of their long voxels."""
    kernels = [[1 if s == 1 and max(stride) > 1 else 3 for s in stride] for stride in strides]
    kernels[0] = [3 if any(stride[axis] > 1 for stride in strides[1:2]) else 1 for axis in range(len(strides[0]))]
    kernels[0] = kernels[0] if max(kernels[0]) == 3 else [3] * len(strides[0])
    return kernels


def check_kernels(kernels: Sequence[Sequence[int]], stages: int, axes: int) -> Sequence[Sequence[int]]:
    """Return the kernels; ValueError where they are not odd, or not one a stage and axis."""
    if len(kernels) != stages or any(len(kernel) != axes or any(k % 2 != 1 for k in kernel) for kernel in kernels):
        raise ValueError(f"kernels need {axes} odd numbers for each of {stages} stages, not {kernels}")
    return kernels


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A width for the device, and deep supervision for large patches."""
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


# Without "concatenate": instance normalisation would remove maps that have the same value everywhere.
UNET = Family(UNet, size_for, PAPER, takes_context=("film", "attention"), features="encoder.-1", search_order=1)
CBAM_UNET = UNET.variant(
    "arXiv:1807.06521", {"attention": "cbam"}, "the maps of each block are weighed, then its voxels"
)
GROUPED_UNET = UNET.variant(
    "arXiv:1611.05431", {"groups": GROUPS}, f"each convolution in {GROUPS} groups, then one across"
)
SE_UNET = UNET.variant("arXiv:1709.01507", {"attention": "se"}, "the maps of each block are weighed")
SEPARABLE_UNET = UNET.variant(
    "arXiv:1704.04861", {"separable": True}, "each convolution is one of each map, then one across"
)
VOXELMORPH = UNET.variant(
    "arXiv:1809.05231", {"halved": True}, "displacements are smooth: the decoder ends on half the grid"
)
