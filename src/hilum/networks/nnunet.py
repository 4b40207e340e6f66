"""nnU-Net's U-Nets, plain and with a residual encoder, under the names that its own weights have.

Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z, and MICCAI 2024, arXiv:2404.09556; residual
blocks as in He et al., CVPR 2019, arXiv:1812.01187. The layers, and their names, are those of PlainConvUNet and
ResidualEncoderUNet in the package dynamic_network_architectures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from hilum.networks import common_layers
from hilum.networks.common_layers import AVERAGE_POOL, BATCH_NORM, CONVOLUTION, DROPOUT, INSTANCE_NORM, TRANSPOSED
from hilum.networks.network_family import Family, Sized, SizeValue, Strides

PAPER = "doi:10.1038/s41592-020-01008-z"
NORMALISATION = {"instance": INSTANCE_NORM, "batch": BATCH_NORM}
# Feature maps of the first stage, and the most of any, by number of axes, as nnU-Net plans them.
NARROWEST = 32
WIDEST = {1: 512, 2: 512, 3: 320}
# Residual blocks of the encoder's first stages; every further stage has as many as the last of these.
BLOCKS = (1, 3, 4, 6)


class Layers:
    """The settings of every layer of a network, and the layers made by them.

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
        norm_options: Mapping[str, float | bool] | None = None,
        activation: str = "leaky_relu",
        slope: float = 0.01,
        norm_last: bool = False,
        dropout: float = 0.0,
    ) -> None:
        if axes not in CONVOLUTION or activation not in ("leaky_relu", "relu"):
            raise ValueError(f"there is no such layer: {axes} axes, {activation}")
        if norm is not None and norm not in NORMALISATION:
            raise ValueError(f"there is no normalisation {norm!r}, only instance and batch")
        self.axes = axes
        self.bias = bias
        self.norm = norm
        self.norm_last = norm_last
        self.dropout = dropout
        self.norm_options = {"eps": 1e-5, "affine": True} if norm_options is None else dict(norm_options)
        self._activation = activation
        self._slope = slope

    def normalisation(self, features: int) -> nn.Module:
        """A normalisation of so many feature maps."""
        layer: nn.Module = NORMALISATION[str(self.norm)][self.axes](features, **self.norm_options)
        return layer

    def activation(self) -> nn.Module:
        """The activation of every layer."""
        return nn.ReLU(inplace=True) if self._activation == "relu" else nn.LeakyReLU(self._slope, inplace=True)


class EncoderStages(NamedTuple):
    """One entry a stage of the encoder, finest first: feature maps, and kernels and strides of one number an axis.

    repeats: convolutions of each stage of the encoder, or residual blocks
    """

    features: Sequence[int]
    kernels: Sequence[Sequence[int]]
    strides: Sequence[Sequence[int]]
    repeats: Sequence[int]

    def check(self, axes: int, decoder: Sequence[int]) -> None:
        """ValueError where the numbers of the stages do not fit together; decoder: its convolutions a stage."""
        count = len(self.features)
        if count < 2 or {*map(len, self[1:]), len(decoder) + 1} != {count}:
            raise ValueError(f"{count} stages need as many kernels, strides and blocks, and one less in the decoder")
        if any(len(numbers) != axes for numbers in (*self.kernels, *self.strides)):
            raise ValueError(f"kernels and strides need {axes} numbers a stage")


class PlannedLayer(nn.Module):
    """A convolution, then normalisation and activation as far as the network has them."""

    plural: ClassVar = "convs"

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


class PlannedBlock(nn.Module):
    """Two convolutions and a shortcut, which is averaged where there is a stride and projected where it widens."""

    plural: ClassVar = "blocks"

    def __init__(self, layers: Layers, inside: int, outside: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        ones = [1] * layers.axes
        self.conv1 = PlannedLayer(layers, inside, outside, kernel, stride)
        self.conv2 = PlannedLayer(layers, outside, outside, kernel, ones, active=False, dropout=False)
        self.nonlin2 = layers.activation()
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(AVERAGE_POOL[layers.axes](tuple(stride), tuple(stride)))
        if inside != outside:
            shortcut.append(PlannedLayer(layers, inside, outside, ones, ones, bias=False, active=False, dropout=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        return cast("Tensor", self.nonlin2(self.conv2(self.conv1(images)) + self.skip(images)))


class Stage(nn.Module):
    """Several layers, or several residual blocks, the first of which takes the stride."""

    def __init__(
        self,
        kind: type[PlannedLayer | PlannedBlock],
        layers: Layers,
        count: int,
        inside: int,
        outside: int,
        kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        super().__init__()
        parts = [kind(layers, inside, outside, kernel, stride)]
        parts += [kind(layers, outside, outside, kernel, [1] * layers.axes) for _ in range(count - 1)]
        self.add_module(kind.plural, nn.Sequential(*parts))

    def forward(self, images: Tensor) -> Tensor:
        """Return the stage's maps, reduced by its stride."""
        for part in self.children():
            images = part(images)
        return images


def encoder_stages(
    kind: type[PlannedLayer | PlannedBlock], layers: Layers, inside: int, stages: EncoderStages
) -> list[Stage]:
    """The stages of an encoder whose first stage gets so many maps."""
    inputs = [inside, *stages.features[:-1]]
    columns = zip(stages.repeats, inputs, stages.features, stages.kernels, stages.strides, strict=True)
    return [Stage(kind, layers, *settings) for settings in columns]


class PlainEncoder(nn.Module):
    """(batch, channels, *spatial) to the maps of each stage, by plain convolutions."""

    def __init__(self, layers: Layers, channels: int, stages: EncoderStages) -> None:
        super().__init__()
        self.stages = nn.Sequential(*map(nn.Sequential, encoder_stages(PlannedLayer, layers, channels, stages)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of each stage, finest first."""
        return common_layers.stage_maps(self.stages, images)


class ResidualEncoder(nn.Module):
    """(batch, channels, *spatial) to the maps of each stage, by a stem and residual blocks."""

    def __init__(self, layers: Layers, channels: int, stages: EncoderStages) -> None:
        super().__init__()
        width = stages.features[0]
        self.stem = Stage(PlannedLayer, layers, 1, channels, width, stages.kernels[0], [1] * layers.axes)
        self.stages = nn.Sequential(*encoder_stages(PlannedBlock, layers, width, stages))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of each stage, finest first."""
        return common_layers.stage_maps(self.stages, self.stem(images))


class PlannedDecoder(nn.Module):
    """The encoder's maps to one map of outputs a resolution.

    convolutions: of each stage, coarsest first
    """

    def __init__(self, layers: Layers, outputs: int, stages: EncoderStages, convolutions: Sequence[int]) -> None:
        super().__init__()
        axes = layers.axes
        features = stages.features
        kernels = stages.kernels
        self.stages = nn.ModuleList()
        self.transpconvs = nn.ModuleList()
        self.seg_layers = nn.ModuleList()
        for count, stage in zip(convolutions, range(len(features) - 1, 0, -1), strict=True):
            below = features[stage]
            here = features[stage - 1]
            stride = tuple(stages.strides[stage])
            self.transpconvs.append(TRANSPOSED[axes](below, here, stride, stride, bias=layers.bias))
            self.stages.append(Stage(PlannedLayer, layers, count, 2 * here, here, kernels[stage - 1], [1] * axes))
            self.seg_layers.append(CONVOLUTION[axes](here, outputs, 1))

    def forward(self, features: list[Tensor], coarser: int) -> list[Tensor]:
        """Return the finest outputs first, then as many coarser ones as are asked for."""
        images = features[-1]
        outputs = []
        for number, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            images = stage(torch.cat([up(images), features[-2 - number]], dim=1))
            if number >= len(self.stages) - 1 - coarser:
                outputs.append(self.seg_layers[number](images))
        return outputs[::-1]


class PlannedUNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, outputs, *spatial)}; its two kinds differ in the encoder.

    decoder_convolutions: one entry a stage of the decoder, coarsest first
    slicewise: a network of two axes for volumes, (batch, channels, slices, *plane): it segments each slice by itself
    coarser:   how many further outputs `head@1` (half the resolution), `head@2`, ... there are in training
    """

    encoder_of: ClassVar[Callable[..., nn.Module]]

    def __init__(
        self,
        channels: int,
        outputs: int,
        layers: Layers,
        stages: EncoderStages,
        *,
        decoder_convolutions: Sequence[int],
        head: str,
        slicewise: bool,
        coarser: int,
    ) -> None:
        super().__init__()
        stages.check(layers.axes, decoder_convolutions)
        self.head = head
        self.slicewise = slicewise
        self.coarser = coarser
        self.encoder = self.encoder_of(layers, channels, stages)
        self.decoder = PlannedDecoder(layers, outputs, stages, decoder_convolutions)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, outputs, *spatial)}, in training with the coarser outputs; `context` is not used."""
        slices = images.shape[2]
        if self.slicewise:
            images = images.movedim(2, 1).flatten(0, 1)
        outputs = self.decoder(self.encoder(images), self.coarser if self.training else 0)
        if self.slicewise:
            outputs = [maps.unflatten(0, (-1, slices)).movedim(1, 2) for maps in outputs]
        names = [self.head, *(f"{self.head}@{level}" for level in range(1, len(outputs)))]
        return dict(zip(names, outputs, strict=True))


class PlainConvUNet(PlannedUNet):
    """Plain convolutions on both sides."""

    encoder_of = PlainEncoder


class ResidualEncoderUNet(PlannedUNet):
    """Residual blocks in the encoder, plain convolutions in the decoder."""

    encoder_of = ResidualEncoder


def build_planned(
    kind: type[PlannedUNet],
    channels: int,
    axes: int,
    dense: Mapping[str, int],
    repeats: Sequence[int],
    size: Mapping[str, Any],
) -> PlannedUNet:
    """A network of a family's settings; ValueError where they do not fit together."""
    if len(dense) != 1:
        raise ValueError("it has one map of outputs and nothing else")
    settings = dict(size)
    slicewise = bool(settings.pop("slicewise", False))
    if slicewise and axes != 3:
        raise ValueError("only a volume has slices")
    [(head, outputs)] = dense.items()
    names = ("bias", "norm", "norm_options", "activation", "slope", "norm_last", "dropout")
    layers = Layers(2 if slicewise else axes, **{name: settings.pop(name) for name in names if name in settings})
    lists = {name: settings.pop(name) for name in ("features", "kernels", "strides") if name in settings}
    stages = EncoderStages(**lists, repeats=repeats)
    coarser = int(settings.pop("deep_supervision", 0))
    return kind(channels, outputs, layers, stages, head=head, slicewise=slicewise, coarser=coarser, **settings)


def build_plain(
    channels: int, spatial_dims: int, dense: Mapping[str, int], convolutions: Sequence[int] = (), **size: Any
) -> PlannedUNet:
    """A plain U-Net; convolutions: of each stage of the encoder."""
    return build_planned(PlainConvUNet, channels, spatial_dims, dense, convolutions, size)


def build_residual(
    channels: int, spatial_dims: int, dense: Mapping[str, int], blocks: Sequence[int] = (), **size: Any
) -> PlannedUNet:
    """A U-Net with a residual encoder; blocks: of each of its stages."""
    return build_planned(ResidualEncoderUNet, channels, spatial_dims, dense, blocks, size)


def size_for_plain(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Stages as nnU-Net plans them, of two convolutions each."""
    size = planned_stages(strides) | {
        "convolutions": [2] * len(strides),
        "decoder_convolutions": [2] * (len(strides) - 1),
    }
    widths = cast("Sequence[int]", size["features"])
    features = f"{widths[0]} to {widths[-1]} features"
    return size, f"patch {tuple(patch)}: two convolutions a stage, {features}", PAPER


def size_for_residual(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Stages as nnU-Net plans them, of residual blocks in the encoder."""
    blocks = [BLOCKS[min(stage, len(BLOCKS) - 1)] for stage in range(len(strides))]
    size = planned_stages(strides) | {"blocks": blocks, "decoder_convolutions": [1] * (len(strides) - 1)}
    because = f"patch {tuple(patch)}: {', '.join(map(str, blocks))} blocks in the stages of the encoder"
    return size, because, RESIDUAL_ENCODER_UNET.paper


def planned_stages(strides: Strides) -> dict[str, SizeValue]:
    """Features, kernels and strides of the encoder, and how many coarser outputs learn too."""
    axes = len(strides[0])
    reduced = [
        [math.prod(by) for by in zip(*strides[1 : n + 2], strict=True)] or [1] * axes for n in range(len(strides))
    ]
    return {
        "features": [min(NARROWEST * 2**stage, WIDEST[axes]) for stage in range(len(strides))],
        # No convolution across an axis whose voxels are still long: it is not yet halved while another axis is.
        "kernels": [[1 if own == 1 and max(by) > 1 else 3 for own in by] for by in reduced],
        "strides": [list(stride) for stride in strides],
        "deep_supervision": max(0, len(strides) - 3),
    }


PLAIN_CONV_UNET = Family(build_plain, size_for_plain, PAPER, answers=frozenset({"dense"}), features="encoder")
RESIDUAL_ENCODER_UNET = Family(
    build_residual,
    size_for_residual,
    "arXiv:2404.09556",
    answers=frozenset({"dense"}),
    features="encoder",
    search_order=3,
)
