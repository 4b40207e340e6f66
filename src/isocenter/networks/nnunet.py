"""nnU-Net's U-Nets, plain and with a residual encoder, with the names that their parameters have there: weights fit.

Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z, and MICCAI 2024, arXiv:2404.09556; residual
blocks as in He et al., CVPR 2019, arXiv:1812.01187. The layers, and their names, are those of PlainConvUNet and
ResidualEncoderUNet in the package dynamic_network_architectures. This file needs torch alone, so that a copy of it
travels with a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from isocenter.networks.family import Family

PAPER = "doi:10.1038/s41592-020-01008-z"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMALISATION: dict[tuple[str, int], Any] = {
    ("instance", 1): nn.InstanceNorm1d,
    ("batch", 1): nn.BatchNorm1d,
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}
DROPOUT: dict[int, Any] = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
POOL: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
# Feature maps of the first stage, and the most of any, by number of axes, as nnU-Net plans them.
NARROWEST, WIDEST = 32, {1: 512, 2: 512, 3: 320}
# Residual blocks of the encoder's first stages; every further one has as many as the last of these.
BLOCKS = (1, 3, 4, 6)


class Layers:
    """How every layer of a network is made.

    norm:        "instance" or "batch", or None for none; `norm_options` are its own (eps, affine)
    activation:  "leaky_relu" or "relu"; `slope` is the leaky one's
    norm_last:   whether the normalisation comes after the activation
    dropout:     of whole feature maps, after the convolution; it does nothing in prediction
    """

    def __init__(
        self,
        axes: int,
        bias: bool = True,
        norm: str | None = "instance",
        norm_options: Mapping[str, Any] | None = None,
        activation: str = "leaky_relu",
        slope: float = 0.01,
        norm_last: bool = False,
        dropout: float = 0.0,
    ) -> None:
        if axes not in CONVOLUTION or activation not in ("leaky_relu", "relu"):
            raise ValueError(f"there is no such layer: {axes} axes, {activation}")
        if norm is not None and (norm, axes) not in NORMALISATION:
            raise ValueError(f"there is no normalisation {norm!r}, only instance and batch")
        self.axes, self.bias, self.norm, self.norm_last, self.dropout = axes, bias, norm, norm_last, dropout
        self.norm_options = {"eps": 1e-5, "affine": True} if norm_options is None else dict(norm_options)
        self._activation, self._slope = activation, slope

    def normalisation(self, features: int) -> nn.Module:
        """A normalisation of so many feature maps."""
        made: nn.Module = NORMALISATION[str(self.norm), self.axes](features, **self.norm_options)
        return made

    def activation(self) -> nn.Module:
        """The activation of every layer."""
        return nn.ReLU(inplace=True) if self._activation == "relu" else nn.LeakyReLU(self._slope, inplace=True)


class Layer(nn.Module):
    """A convolution, then normalisation and activation as far as the network has them."""

    def __init__(
        self,
        layers: Layers,
        inside: int,
        outside: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        bias: bool | None = None,
        active: bool = True,
        dropout: bool = True,
    ) -> None:
        super().__init__()
        pad = tuple((k - 1) // 2 for k in kernel)
        bias = layers.bias if bias is None else bias
        self.conv = CONVOLUTION[layers.axes](inside, outside, tuple(kernel), tuple(stride), pad, bias=bias)
        self.dropout = DROPOUT[layers.axes](layers.dropout) if layers.dropout and dropout else None
        self.norm = None if layers.norm is None else layers.normalisation(outside)
        self.nonlin = layers.activation() if active else None
        self.norm_last = layers.norm_last and active

    def forward(self, images: Tensor) -> Tensor:
        """Return the layer's maps, reduced by its stride."""
        images = self.conv(images)
        after = (self.nonlin, self.norm) if self.norm_last else (self.norm, self.nonlin)
        for step in (self.dropout, *after):
            images = images if step is None else step(images)
        return images


class Stage(nn.Module):
    """Several layers, the first of which takes the stride."""

    def __init__(
        self, layers: Layers, count: int, inside: int, outside: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        one = [1] * layers.axes
        self.convs = nn.Sequential(
            *(
                Layer(layers, inside if n == 0 else outside, outside, kernel, stride if n == 0 else one)
                for n in range(count)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the stage's maps, reduced by its stride."""
        return self.convs(images)


class Encoder(nn.Module):
    """One output a stage, finest first."""

    def __init__(
        self,
        layers: Layers,
        channels: int,
        features: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        convolutions: Sequence[int],
    ) -> None:
        super().__init__()
        inputs = [channels, *features[:-1]]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(Stage(layers, convolutions[n], inputs[n], features[n], kernels[n], strides[n]))
                for n in range(len(features))
            )
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of each stage, finest first."""
        found = []
        for stage in self.stages:
            images = stage(images)
            found.append(images)
        return found


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is averaged where there is a stride and projected where it widens."""

    def __init__(self, layers: Layers, inside: int, outside: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        one = [1] * layers.axes
        self.conv1 = Layer(layers, inside, outside, kernel, stride)
        self.conv2 = Layer(layers, outside, outside, kernel, one, active=False, dropout=False)
        self.nonlin2 = layers.activation()
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(POOL[layers.axes](tuple(stride), tuple(stride)))
        if inside != outside:
            shortcut.append(Layer(layers, inside, outside, one, one, bias=False, active=False, dropout=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        return self.nonlin2(self.conv2(self.conv1(images)) + self.skip(images))


class Blocks(nn.Module):
    """The blocks of a stage, the first of which takes the stride."""

    def __init__(
        self, layers: Layers, count: int, inside: int, outside: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        one = [1] * layers.axes
        self.blocks = nn.Sequential(
            Block(layers, inside, outside, kernel, stride),
            *(Block(layers, outside, outside, kernel, one) for _ in range(count - 1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the stage's maps, reduced by its stride."""
        return self.blocks(images)


class ResidualEncoder(nn.Module):
    """One output a stage, finest first; the stem goes before the first."""

    def __init__(
        self,
        layers: Layers,
        channels: int,
        features: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        blocks: Sequence[int],
    ) -> None:
        super().__init__()
        self.stem = Stage(layers, 1, channels, features[0], kernels[0], [1] * layers.axes)
        inputs = [features[0], *features[:-1]]
        self.stages = nn.Sequential(
            *(Blocks(layers, blocks[n], inputs[n], features[n], kernels[n], strides[n]) for n in range(len(features)))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of each stage, finest first."""
        images, found = self.stem(images), []
        for stage in self.stages:
            images = stage(images)
            found.append(images)
        return found


class Decoder(nn.Module):
    """From the encoder's outputs to one map of outputs a resolution, coarsest first."""

    def __init__(
        self,
        layers: Layers,
        outputs: int,
        features: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        convolutions: Sequence[int],
    ) -> None:
        super().__init__()
        axes, one = layers.axes, [1] * layers.axes
        self.stages, self.transpconvs, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for place, stage in enumerate(range(len(features) - 1, 0, -1)):
            below, here, stride = features[stage], features[stage - 1], tuple(strides[stage])
            self.transpconvs.append(TRANSPOSED[axes](below, here, stride, stride, bias=layers.bias))
            self.stages.append(Stage(layers, convolutions[place], 2 * here, here, kernels[stage - 1], one))
            self.seg_layers.append(CONVOLUTION[axes](here, outputs, 1))

    def forward(self, features: list[Tensor], coarser: int) -> list[Tensor]:
        """The finest outputs first, then as many coarser ones as are asked for."""
        images, found = features[-1], []
        for place, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            images = stage(torch.cat([up(images), features[-2 - place]], dim=1))
            if place >= len(self.stages) - 1 - coarser:
                found.append(self.seg_layers[place](images))
        return found[::-1]


class PlannedUNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, outputs, *spatial)}; its kinds differ in the encoder alone.

    features, kernels, strides, repeats: one entry a stage of the encoder, finest first; repeats: of what it repeats
    decoder_convolutions: one a stage of the decoder, coarsest first
    slicewise: a network of two axes goes through a volume (batch, channels, slices, *plane), each slice on its own
    coarser:   how many outputs `head@1` (half the resolution), `head@2`, ... there are beside it while training
    """

    encoder_of: ClassVar[Callable[..., nn.Module]]

    def __init__(
        self,
        channels: int,
        outputs: int,
        layers: Layers,
        *,
        features: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        repeats: Sequence[int],
        decoder_convolutions: Sequence[int],
        head: str,
        slicewise: bool,
        coarser: int,
    ) -> None:
        super().__init__()
        check_stages(layers.axes, features, kernels, strides, repeats, decoder_convolutions)
        self.head, self.slicewise, self.coarser = head, slicewise, coarser
        self.encoder = self.encoder_of(layers, channels, features, kernels, strides, repeats)
        self.decoder = Decoder(layers, outputs, features, kernels, strides, decoder_convolutions)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        slices = images.shape[2]
        if self.slicewise:
            images = images.movedim(2, 1).flatten(0, 1)
        outputs = self.decoder(self.encoder(images), self.coarser if self.training else 0)
        if self.slicewise:
            outputs = [one.unflatten(0, (-1, slices)).movedim(1, 2) for one in outputs]
        names = [self.head, *(f"{self.head}@{level}" for level in range(1, len(outputs)))]
        return dict(zip(names, outputs, strict=True))


class PlainConvUNet(PlannedUNet):
    """Plain convolutions on both sides."""

    encoder_of = Encoder


class ResidualEncoderUNet(PlannedUNet):
    """Residual blocks in the encoder, plain convolutions in the decoder."""

    encoder_of = ResidualEncoder


def check_stages(
    axes: int,
    features: Sequence[int],
    kernels: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    encoder: Sequence[int],
    decoder: Sequence[int],
) -> None:
    """ValueError where the numbers of the stages do not fit together."""
    stages = len(features)
    if stages < 2 or {len(kernels), len(strides), len(encoder), len(decoder) + 1} != {stages}:
        raise ValueError(f"{stages} stages need as many kernels, strides and blocks, and one less in the decoder")
    if any(len(one) != axes for one in (*kernels, *strides)):
        raise ValueError(f"kernels and strides need {axes} numbers a stage")


def parts(spatial_dims: int, dense: Mapping[str, int], size: Mapping[str, Any]) -> tuple[int, Layers, dict[str, Any]]:
    """(outputs, layers, the other arguments of a network) of a family's settings."""
    if len(dense) != 1:
        raise ValueError("it has one map of outputs and nothing else")
    own = dict(size)
    slicewise = bool(own.pop("slicewise", False))
    if slicewise and spatial_dims != 3:
        raise ValueError("only a volume has slices")
    [(head, outputs)] = dense.items()
    names = ("bias", "norm", "norm_options", "activation", "slope", "norm_last", "dropout")
    layers = Layers(2 if slicewise else spatial_dims, **{name: own.pop(name) for name in names if name in own})
    coarser = int(own.pop("deep_supervision", 0))
    return outputs, layers, {**own, "head": head, "slicewise": slicewise, "coarser": coarser}


def build_plain(
    channels: int, spatial_dims: int, dense: Mapping[str, int], convolutions: Sequence[int] = (), **size: Any
) -> PlainConvUNet:
    """convolutions: of each stage of the encoder."""
    outputs, layers, more = parts(spatial_dims, dense, size)
    return PlainConvUNet(channels, outputs, layers, repeats=convolutions, **more)


def build_residual(
    channels: int, spatial_dims: int, dense: Mapping[str, int], blocks: Sequence[int] = (), **size: Any
) -> ResidualEncoderUNet:
    """blocks: of each stage of the encoder."""
    outputs, layers, more = parts(spatial_dims, dense, size)
    return ResidualEncoderUNet(channels, outputs, layers, repeats=blocks, **more)


def size_for_plain(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """Stages as nnU-Net plans them; the reason and its source."""
    size = stages_for(strides) | {"convolutions": [2] * len(strides), "decoder_convolutions": [2] * (len(strides) - 1)}
    because = (
        f"patch {tuple(patch)}: two convolutions a stage, {size['features'][0]} to {size['features'][-1]} features"
    )
    return size, because, PAPER


def size_for_residual(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """Stages as nnU-Net plans them; the reason and its source."""
    blocks = [BLOCKS[min(stage, len(BLOCKS) - 1)] for stage in range(len(strides))]
    size = stages_for(strides) | {"blocks": blocks, "decoder_convolutions": [1] * (len(strides) - 1)}
    because = f"patch {tuple(patch)}: {', '.join(map(str, blocks))} blocks in the stages of the encoder"
    return size, because, RESIDUAL_ENCODER_UNET.paper


def stages_for(strides: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Features, kernels and strides of the encoder, and how many coarser outputs learn too."""
    axes = len(strides[0])
    reduced = [
        [math.prod(by) for by in zip(*strides[1 : n + 2], strict=True)] or [1] * axes for n in range(len(strides))
    ]
    return {
        "features": [min(NARROWEST * 2**stage, WIDEST[axes]) for stage in range(len(strides))],
        # No convolution across an axis whose voxels are still long: one that is not yet halved while another is.
        "kernels": [[1 if one == 1 and max(by) > 1 else 3 for one in by] for by in reduced],
        "strides": [list(stride) for stride in strides],
        "deep_supervision": max(0, len(strides) - 3),
    }


PLAIN_CONV_UNET = Family(build_plain, size_for_plain, PAPER, answers=frozenset({"dense"}))
RESIDUAL_ENCODER_UNET = Family(
    build_residual, size_for_residual, "arXiv:2404.09556", answers=frozenset({"dense"}), search_order=3
)
