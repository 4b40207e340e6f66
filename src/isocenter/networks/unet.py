"""Residual U-Net in two or three dimensions.

Ronneberger et al., MICCAI 2015, arXiv:1505.04597, with residual blocks (He et al., CVPR 2016) in the encoder as in
the residual-encoder U-Net of Isensee et al., MICCAI 2024, arXiv:2404.09556. This file needs torch alone, so that a
copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMALISATION: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the first convolution takes the stride."""

    def __init__(self, ndim: int, inside: int, outside: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        convolution, normalisation = CONVOLUTION[ndim], NORMALISATION[ndim]
        pad = [k // 2 for k in kernel]
        self.first = convolution(inside, outside, tuple(kernel), tuple(stride), tuple(pad), bias=False)
        self.first_norm = normalisation(outside, affine=True)
        self.second = convolution(outside, outside, tuple(kernel), 1, tuple(pad), bias=False)
        self.second_norm = normalisation(outside, affine=True)
        self.shortcut: nn.Module = nn.Identity()
        if inside != outside or max(stride) > 1:
            self.shortcut = convolution(inside, outside, tuple(stride), tuple(stride), bias=False)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.activation(self.first_norm(self.first(images)))
        return self.activation(self.second_norm(self.second(inner)) + self.shortcut(images))


class UNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    dense, vectors: heads by name with their number of channels
    strides:        one entry a stage and axis; the first stage has stride 1. The input's size per axis must be a
                    multiple of the product of its strides
    width:          feature maps of the first stage; doubled by each stage up to `widest`
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
    ) -> None:
        super().__init__()
        if not strides or max(strides[0]) > 1 or any(len(stride) != spatial_dims for stride in strides):
            raise ValueError(f"strides need {spatial_dims} numbers a stage, and 1 in the first, not {strides}")
        widths = [min(width * 2**stage, widest) for stage in range(len(strides))]
        # Where a stage does not yet reduce an axis, its voxels are long there: no convolution across it either.
        kernels = [[1 if s == 1 and max(stride) > 1 else 3 for s in stride] for stride in strides]
        kernels[0] = [3 if any(stride[axis] > 1 for stride in strides[1:2]) else 1 for axis in range(spatial_dims)]
        kernels[0] = kernels[0] if max(kernels[0]) == 3 else [3] * spatial_dims
        inputs = [channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            ResidualBlock(spatial_dims, inside, outside, kernel, stride)
            for inside, outside, kernel, stride in zip(inputs, widths, kernels, strides, strict=True)
        )
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for stage in range(len(strides) - 1, 0, -1):
            stride = tuple(strides[stage])
            self.up.append(TRANSPOSED[spatial_dims](widths[stage], widths[stage - 1], stride, stride, bias=False))
            self.decoder.append(
                ResidualBlock(
                    spatial_dims, 2 * widths[stage - 1], widths[stage - 1], kernels[stage - 1], [1] * spatial_dims
                )
            )
        self.dense = nn.ModuleDict({name: CONVOLUTION[spatial_dims](widths[0], n, 1) for name, n in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(widths[-1], n) for name, n in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        features = []
        for block in self.encoder:
            images = block(images)
            features.append(images)
        outputs = {}
        for name, layer in self.vectors.items():
            outputs[name] = layer(images.flatten(2).mean(dim=2))
        for up, block, skip in zip(self.up, self.decoder, features[-2::-1], strict=True):
            images = block(torch.cat([up(images), skip], dim=1))
        for name, layer in self.dense.items():
            outputs[name] = layer(images)
        return outputs


def build(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], size: Mapping[str, Any]
) -> UNet:
    return UNet(channels, spatial_dims, dense, vectors, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A width that the device goes through quickly, reduced by `strides`; the reason and its source."""
    slow = device == "cpu"
    size = {"width": 16 if slow else 32, "widest": 128 if slow else 320, "strides": [list(one) for one in strides]}
    because = f"patch {tuple(patch)}: axes are halved while at least 4 voxels are left; width for the {device}"
    return size, because, "doi:10.1038/s41592-020-01008-z"
