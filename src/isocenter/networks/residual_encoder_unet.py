"""nnU-Net's U-Net with a residual encoder, with the names that its parameters have there, so that its weights fit.

Isensee et al., MICCAI 2024, arXiv:2404.09556; the blocks as in He et al., "Bag of Tricks", CVPR 2019,
arXiv:1812.01187. The layers, and their names, are those of ResidualEncoderUNet in the package
dynamic_network_architectures. This file needs torch and its plain sibling alone: copies of both travel with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from isocenter.networks.plain_conv_unet import (
    Decoder,
    Layer,
    Layers,
    PlannedUNet,
    Stage,
    check_stages,
    parts,
    stages_for,
)

PAPER = "arXiv:2404.09556"
POOL: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
# Blocks of the encoder's first stages; every further one has as many as the last of these.
BLOCKS = (1, 3, 4, 6)


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
        images, found = self.stem(images), []
        for stage in self.stages:
            images = stage(images)
            found.append(images)
        return found


class ResidualEncoderUNet(PlannedUNet):
    """Residual blocks in the encoder, plain convolutions in the decoder.

    features, kernels, strides, blocks: one entry a stage of the encoder, finest first
    decoder_convolutions:               one a stage of the decoder, coarsest first
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        layers: Layers,
        features: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        blocks: Sequence[int],
        decoder_convolutions: Sequence[int],
        **around: Any,
    ) -> None:
        super().__init__(**around)
        check_stages(layers.axes, features, kernels, strides, blocks, decoder_convolutions)
        self.encoder = ResidualEncoder(layers, channels, features, kernels, strides, blocks)
        self.decoder = Decoder(layers, outputs, features, kernels, strides, decoder_convolutions)


def build(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], size: Mapping[str, Any]
) -> ResidualEncoderUNet:
    layers, outputs, around, own = parts(spatial_dims, dense, vectors, size)
    return ResidualEncoderUNet(channels, outputs, layers, **own, **around)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """Stages as nnU-Net plans them; the reason and its source."""
    blocks = [BLOCKS[min(stage, len(BLOCKS) - 1)] for stage in range(len(strides))]
    size = stages_for(strides) | {"blocks": blocks, "decoder_convolutions": [1] * (len(strides) - 1)}
    return size, f"patch {tuple(patch)}: {', '.join(map(str, blocks))} blocks in the stages of the encoder", PAPER
